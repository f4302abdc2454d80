"""LGM's augmentations (Tang et al. 2024, section 3.4): input views that do not agree, as generated ones do not.

Grid distortion bends pictures, camera jitter turns cameras around the object. The first view, which sets the frame,
stays as it is.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from engine.geometry import Camera
from engine.training.types import Draws

GRID_LINES = (8, 17)
"""Lines a side of the grid: at least, and below (LGM core/utils.py)."""
GRID_STRENGTH = 0.5
"""Largest move of a line, twice over, as a share of the distance between lines (likewise)."""
JITTER = 0.1
"""Largest turn about the camera's upward axis in half turns; half as much about the one to its right (likewise)."""


def grid_distorted(images: Float[Tensor, "b v 3 h w"], share: float, draws: Draws) -> Float[Tensor, "b v 3 h w"]:
    """Bend all views but the first, in about a share of the clips."""
    chosen, lines = draws.uniform() < share, draws.uniform()
    moves = draws.uniform(images.shape[1] - 1, 2, GRID_LINES[1])
    rows = []
    for views, bend, count, offsets in zip(images, chosen, lines, moves, strict=True):
        if not bend:
            rows.append(views)
            continue
        knots = int(GRID_LINES[0] + count * (GRID_LINES[1] - GRID_LINES[0]))
        bent = [_bent(view, move[:, :knots]) for view, move in zip(views[1:], offsets, strict=True)]
        rows.append(torch.stack([views[0], *bent]))
    return torch.stack(rows)


def _bent(image: Float[Tensor, "3 h w"], moves: Float[Tensor, "2 k"]) -> Float[Tensor, "3 h w"]:
    """Stretch and squeeze the strips between lines: what stood on an even grid comes to stand on a moved one."""
    height, width = image.shape[1:]
    across, down = (_sources(size, move) for size, move in ((width, moves[0]), (height, moves[1])))
    grid = torch.stack([across.expand(height, width), down[:, None].expand(height, width)], -1)
    return functional.grid_sample(image[None], grid[None].to(image), align_corners=False)[0]


def _sources(size: int, moves: Float[Tensor, " k"]) -> Float[Tensor, " {size}"]:
    """Where each pixel along an axis comes from, in [-1, 1]."""
    count = len(moves)
    lines = torch.linspace(0, 1, count, device=moves.device) + GRID_STRENGTH * (moves - 0.5) / (count - 1)
    lines[0], lines[-1] = 0, 1
    places = (torch.arange(size, device=moves.device) + 0.5) / size
    strip = (torch.searchsorted(lines, places) - 1).clamp(0, count - 2)
    within = (places - lines[strip]) / (lines[strip + 1] - lines[strip])
    return 2 * (strip + within) / (count - 1) - 1


def jittered(cameras: Sequence[Sequence[Camera]], share: float, draws: Draws) -> list[list[Camera]]:
    """Turn all cameras but the first around the world's origin, in about a share of the clips."""
    chosen = (draws.uniform() < share).tolist()
    turns = (2 * draws.uniform(len(cameras[0]) - 1, 2) - 1).double().cpu().numpy()
    return [
        [views[0], *(_turned(view, turn) for view, turn in zip(views[1:], some, strict=True))]
        if turn_them
        else [*views]
        for views, turn_them, some in zip(cameras, chosen, turns, strict=True)
    ]


def _turned(camera: Camera, turn: Float[np.ndarray, "2"]) -> Camera:
    pose = camera.T_world_camera
    about_up = _rotation(-pose[:3, 1], JITTER * np.pi * turn[0])
    about_right = _rotation(pose[:3, 0], JITTER * np.pi / 2 * turn[1])
    moved = pose.copy()
    moved[:3] = about_up @ about_right @ pose[:3]
    return replace(camera, T_world_camera=moved)


def _rotation(axis: Float[np.ndarray, "3"], angle: float) -> Float[np.ndarray, "3 3"]:
    """Rodrigues' formula for a unit axis, angle in radians."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
