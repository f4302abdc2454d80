"""Depth and normals of single views: possible values, in the places where the colour pictures show the object."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from engine.geometry import Orbit

RADIUS_M = 3**0.5 / 2
"""No point of an object whose longest side is 1 and whose box is centred is farther from the origin."""
RANGE_SLACK_M = 0.01
"""Hair and displacement may stand a little beyond the box that was measured."""
SOLID_ALPHA = 254
"""Of 255, with all eight neighbours: certainly inside. Cycles' depth skips surfaces less opaque than 0.1
(worker/cycles.py), so only a stack of many of those could be as opaque as this without a depth; a pixel that is
half covered, on the other hand, has a depth or has none, as its first sample fell."""
UNIT_SLACK = 0.02
"""Stored in 8 bits or 16-bit floats, unit normals come back within 0.01."""
AWAY_COSINE = 0.1
"""Smooth shading and normal maps tilt normals a little past the silhouette; more than 6 degrees past it is away."""
SAMPLED_PX = 64
"""Normals are measured on every k-th pixel of larger pictures."""


@dataclass(frozen=True)
class DepthFacts:
    """Depth of one orbit. Shares are of the pixels with depth, or of the object's pixels where said."""

    finite: bool
    """No value is NaN, infinite or negative."""
    nearest_m: float
    """Of all depths; 0 where there is none."""
    farthest_m: float
    """Of all depths."""
    outside_share: float
    """Nearer or farther than the unit box can be from its camera."""
    missing_share: float
    """Of the certainly solid pixels: those without depth."""
    surplus_share: float
    """Those with no trace of the object in their 3 x 3 pixels."""


@dataclass(frozen=True)
class NormalFacts:
    """Normals of one orbit, where there are any."""

    finite: bool
    """No value is NaN or infinite."""
    missing_share: float
    """Of the certainly solid pixels: those without a normal."""
    not_unit_share: float
    """Length off by more than UNIT_SLACK."""
    away_share: float
    """Pointing away from the camera that sees them."""


def measure_depth(orbit: Orbit, alpha: UInt8[np.ndarray, "n h w"], depth_m: Float[np.ndarray, "n h w"]) -> DepthFacts:
    """Hold depth against cameras and alpha."""
    lowest, highest = float(depth_m.min()), float(depth_m.max())
    if not (np.isfinite(lowest) and np.isfinite(highest) and lowest >= 0):
        return DepthFacts(False, 0.0, 0.0, 0.0, 0.0, 0.0)
    there = depth_m > 0
    count = int(there.sum())
    distance = np.linalg.norm(orbit.T_world_camera[:, :3, 3], axis=1).astype(np.float32)[:, None, None]
    reach = np.float32(RADIUS_M + RANGE_SLACK_M)
    outside = there & (np.abs(depth_m - distance) > reach)
    solid = _all_around(alpha >= SOLID_ALPHA)
    trace = ~_all_around(alpha == 0)
    nearest = float(np.min(depth_m, initial=np.inf, where=there)) if count else 0.0
    return DepthFacts(
        True, nearest, highest, _share(outside, count), _share(solid & ~there, int(solid.sum())),
        _share(there & ~trace, count),
    )  # fmt: skip


def measure_normals(
    orbit: Orbit, alpha: UInt8[np.ndarray, "n h w"], normal: Float[np.ndarray, "n h w 3"]
) -> NormalFacts:
    """Hold normals against cameras and alpha."""
    step = max(1, min(normal.shape[1:3]) // SAMPLED_PX)
    small = normal[:, ::step, ::step]
    there = (small[..., 0] != 0) | (small[..., 1] != 0) | (small[..., 2] != 0)
    vectors = small[there].astype(np.float32)  # [p, 3]; NaN counts as there
    if not np.isfinite(vectors).all():
        return NormalFacts(False, 0.0, 0.0, 0.0)
    solid = _all_around(alpha >= SOLID_ALPHA)[:, ::step, ::step]
    view, row, column = np.nonzero(there)
    rays = np.ones_like(vectors)
    rays[:, 0] = (column * step + 0.5 - orbit.principal_px[0]) / orbit.focal_px
    rays[:, 1] = (row * step + 0.5 - orbit.principal_px[1]) / orbit.focal_px
    local = np.einsum("pi,pij->pj", vectors, orbit.T_world_camera[view, :3, :3].astype(np.float32))  # R^T n
    along = np.einsum("pi,pi->p", local, rays) / np.sqrt(np.einsum("pi,pi->p", rays, rays))
    length = np.sqrt(np.einsum("pi,pi->p", vectors, vectors))
    return NormalFacts(
        True, _share(solid & ~there, int(solid.sum())), _share(np.abs(length - 1) > UNIT_SLACK, len(vectors)),
        _share(along > AWAY_COSINE, len(vectors)),
    )  # fmt: skip


def _share(mask: Bool[np.ndarray, "*n"], count: int) -> float:
    return float(mask.sum() / count) if count else 0.0


def _all_around(mask: Bool[np.ndarray, "n h w"]) -> Bool[np.ndarray, "n h w"]:
    """True where a pixel and its eight neighbours are; the border's outer neighbours do not count."""
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    rows = padded[:, :-2] & padded[:, 1:-1] & padded[:, 2:]
    return rows[:, :, :-2] & rows[:, :, 1:-1] & rows[:, :, 2:]
