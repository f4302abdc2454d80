"""Do the views of an orbit fit together? Depth and cameras in, pixels out.

    gaps of all points of a view -> the motion (and zoom) of the view that closes them -> pixels each point has to move

A gap alone tells too little: a view that is turned a little slides its surfaces along themselves. What would close all
gaps of a view tells how far its picture and its pose are apart: each point's error is the length, in pixels, of that
motion and of the gap that it leaves. Wrong depths, poses, focal lengths, swapped or mirrored pictures all show. A
motion that maps the object onto itself (a vase turned about its axis) has no gaps and cannot show.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from engine.geometry import Orbit
from render_farm.checks.gaps import CAP_PX, Gaps, find_gaps

MIN_SAMPLES = 24
"""Fewer points prove nothing: thin objects are all edge."""
ROUNDS = 6
LEAST_SCALE_PX = 0.01
"""Gaps count less and less beyond twice their median (Cauchy's weights), or beyond this: a few points are always hidden
from the other view, or at an edge, and say nothing about the others."""
DAMPING = 0.02
"""Motions that close less than a fiftieth of what they move are not seen in the gaps and stay 0."""
CLOSED_PX = 0.02
"""A view of whose gaps a quarter are less has no need to move; what would close its last few gaps is no error of the view."""


@dataclass(frozen=True)
class Agreement:
    """How well the views of an orbit agree, in pixels."""

    samples: int
    """Points compared, over all views."""
    median_px: float | None
    """Of all points; None where fewer than MIN_SAMPLES could be compared."""
    p90_px: float | None
    """Nine tenths of the points are better."""
    worst_view: int | None
    """The view that fits the others least, of those with MIN_SAMPLES points; None where there is none."""
    worst_view_px: float | None
    """Three quarters of its points, and of the others' points in its picture, are farther off than this. Not the median:
    slats an inch apart hide each other from one view and not from the next; a wrong pose moves everything, both ways."""


def measure_agreement(orbit: Orbit, depth_m: Float[np.ndarray, "n h w"]) -> Agreement:
    """Compare every view of an orbit with up to three others.

    Args:
        orbit: the cameras.
        depth_m: planar z in metres, 0 where nothing is; finite.
    """
    gaps = find_gaps(orbit, depth_m)
    found = [_errors_px(orbit.T_world_camera[view], gaps, view) for view in range(len(orbit))]
    errors = np.concatenate(found)
    if len(errors) < MIN_SAMPLES:
        return Agreement(len(errors), None, None, None, None)
    median, p90 = np.percentile(errors, (50, 90)).tolist()
    quartiles = [_view_px(own, np.abs(gaps.gap_px[gaps.other == view])) for view, own in enumerate(found)]
    worst = int(np.argmax(quartiles))
    if quartiles[worst] < 0:
        return Agreement(len(errors), median, p90, None, None)
    return Agreement(len(errors), median, p90, worst, quartiles[worst])


def _view_px(own: Float[np.ndarray, " p"], others: Float[np.ndarray, " q"]) -> float:
    """How far a view is off: by its own points, unless those of the others lie on the surfaces that it saw."""
    by_others = _quartile(others)
    return _quartile(own) if by_others >= CLOSED_PX else min(_quartile(own), by_others)


def _quartile(errors: Float[np.ndarray, " p"]) -> float:
    """A quarter of the errors are smaller; -1 where they are too few to say."""
    return float(np.quantile(errors, 0.25)) if len(errors) >= MIN_SAMPLES else -1.0


def _errors_px(pose: Float[np.ndarray, "4 4"], gaps: Gaps, view: int) -> Float[np.ndarray, " p"]:
    """How far each point of a view has to move, in pixels, at most CAP_PX."""
    own = gaps.view == view
    raw = np.abs(gaps.gap_px[own])
    if len(raw) < MIN_SAMPLES or np.quantile(raw, 0.25) < CLOSED_PX:
        return raw
    point, normal, span = gaps.point[own], gaps.normal[own], gaps.span_m[own]
    moves = _moves(pose, point) / span[:, None, None]  # [p, 7, 3] pixels
    closes = np.einsum("pkc,pc->pk", moves, normal)
    motion = _solve(closes, moves, gaps.gap_px[own])
    moved = np.einsum("pkc,k->pc", moves, motion)
    left = gaps.gap_px[own] + closes @ motion
    seen = normal.any(1)
    errors = np.where(seen, np.sqrt((moved**2).sum(1) + left**2), raw)
    return np.minimum(errors, CAP_PX)


def _moves(pose: Float[np.ndarray, "4 4"], point: Float[np.ndarray, "p 3"]) -> Float[np.ndarray, "p 7 3"]:
    """What each unknown does to points, metres: turns about the world's axes, shifts along them, the view's zoom."""
    turns = np.cross(np.eye(3)[None], point[:, None])
    shifts = np.broadcast_to(np.eye(3), turns.shape)
    from_camera, axis = point - pose[:3, 3], pose[:3, 2]
    zoom = from_camera - (from_camera @ axis)[:, None] * axis
    return np.concatenate([turns, shifts, zoom[:, None]], 1)


def _solve(
    closes: Float[np.ndarray, "p 7"], moves: Float[np.ndarray, "p 7 3"], gap_px: Float[np.ndarray, " p"]
) -> Float[np.ndarray, "7"]:
    """Least squares of gap + closes @ motion, robust, damped by how far each unknown moves the points."""
    damping = DAMPING * np.einsum("pkc,plc->kl", moves, moves) / len(moves)
    damping += 1e-6 * np.trace(damping) * np.eye(len(damping))  # points on one line can turn about it unseen
    motion = np.zeros(closes.shape[1])
    for _ in range(ROUNDS):
        left = np.abs(gap_px + closes @ motion)
        weight = 1 / (1 + (left / max(2 * float(np.median(left)), LEAST_SCALE_PX)) ** 2)
        weight /= weight.sum()
        weighted = closes * weight[:, None]
        motion = np.linalg.solve(weighted.T @ closes + damping, -weighted.T @ gap_px)
    return motion
