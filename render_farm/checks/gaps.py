"""Gaps between the surfaces that two views saw: an orbit's depth and cameras in, points with their gaps out.

pixels of A on a regular grid -> points (depth, camera A) -> pixels of B (camera B) -> gap to B's own surface there
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from engine.geometry import Orbit

GRID = 32
"""Points a side of each view's grid: 1,024 a view, of which an object covers a quarter or so."""
PARTNER_ANGLES_DEG = (0.0, 45.0, 80.0)
"""Each view is held against the views nearest to these angles from it: beside it no surface is hidden, and far from it
errors along its rays show."""
MIN_ANGLE_DEG, MAX_ANGLE_DEG = 1.0, 110.0
"""Views less apart prove nothing; views more apart share no surface."""
MAX_SLOPE = 2.0
"""Metres of depth a pixel's span of metres, 63 degrees off the axis. Cycles takes depth at a random place within 0.75
px of the centre, which moves a point on steeper ground by more than is looked for; edges go with it."""
HIDDEN_M = 0.05
"""A point this far behind B's surface is hidden from B: no error. In front of it there is no such excuse."""
CAP_PX = 16.0
"""Larger errors are this, so that one stray pixel does not move a mean."""
GRAZING = 0.1
"""Cosine: a sheet that the other view sees within 6 degrees of its edge may leave no pixel there. That it is missed
proves nothing."""
MISS_REACH_PX = 2
"""A point that lands where B saw nothing within 2 px, though the whole object is in its picture, is 2 px off or more."""

Points = Float[np.ndarray, "n m 3"]


@dataclass(frozen=True)
class Gaps:
    """Points that one view saw, held against the surface that another view saw."""

    view: Int[np.ndarray, " p"]
    """The view whose point it is."""
    other: Int[np.ndarray, " p"]
    """The view whose surface it is held against."""
    point: Float[np.ndarray, "p 3"]
    """World, metres."""
    normal: Float[np.ndarray, "p 3"]
    """Unit normal of the other view's surface, world; 0 where the point missed it."""
    span_m: Float[np.ndarray, " p"]
    """What one pixel spans at that depth."""
    gap_px: Float[np.ndarray, " p"]
    """Distance of the point from that surface's plane along the normal, in pixels of `span_m`."""


def find_gaps(orbit: Orbit, depth_m: Float[np.ndarray, "n h w"]) -> Gaps:
    """Hold every view against its partners. Points that cannot be compared (hidden, uneven, outside) are left out."""
    points, own_normals, steady = _points(orbit, depth_m)
    partners = choose_partners(orbit)
    view, index = np.nonzero(steady)
    point, own_normal = points[view, index], own_normals[view, index]
    each = [_hold(orbit, depth_m, view, point, own_normal, partner[view]) for partner in partners.T]
    fields = ("view", "other", "point", "normal", "span_m", "gap_px")
    return Gaps(*(np.concatenate([getattr(gaps, name) for gaps in each]) for name in fields))


def choose_partners(orbit: Orbit) -> Int[np.ndarray, "n k"]:
    """Return for each view the views to hold it against, -1 for none; the nearest one is the next one in a ring."""
    angles = view_angles_deg(orbit)
    far = (angles < MIN_ANGLE_DEG) | (angles > MAX_ANGLE_DEG)
    ahead = (np.arange(len(orbit)) - np.arange(len(orbit))[:, None]) % len(orbit)
    cost = np.abs(angles[None] - np.array(PARTNER_ANGLES_DEG)[:, None, None]) + 1e-3 * ahead / len(orbit)
    cost[:, far] = np.inf
    chosen = np.where(np.isfinite(cost.min(-1)), cost.argmin(-1), -1).T  # [n, k]
    for column in range(1, chosen.shape[1]):  # few views: the same partner only once
        again = (chosen[:, :column] == chosen[:, column : column + 1]).any(1)
        chosen[again, column] = -1
    return chosen


def view_angles_deg(orbit: Orbit) -> Float[np.ndarray, "n n"]:
    """Return the angles between cameras as seen from the origin."""
    towards = orbit.T_world_camera[:, :3, 3]
    towards = towards / np.linalg.norm(towards, axis=1, keepdims=True)
    return np.degrees(np.arccos(np.clip(towards @ towards.T, -1, 1)))


def _points(orbit: Orbit, depth_m: Float[np.ndarray, "n h w"]) -> tuple[Points, Points, Bool[np.ndarray, "n m"]]:
    """World points of a regular grid of pixels, normals (of any length) of their surface towards the camera, and whether
    each lies on ground that is even around it."""
    rows, columns = _grid(orbit.height), _grid(orbit.width)
    v, u = np.meshgrid(rows, columns, indexing="ij")
    v, u = v.ravel(), u.ravel()
    z = depth_m[:, v, u].astype(np.float64)  # [n, m]
    limit = MAX_SLOPE * z / orbit.focal_px
    steady = z > 0
    for dv, du in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
        steady &= np.abs(depth_m[:, v + dv, u + du] - z) <= limit
    local = _local(orbit, depth_m, v, u)
    right, left = _local(orbit, depth_m, v, u + 1), _local(orbit, depth_m, v, u - 1)
    below, above = _local(orbit, depth_m, v + 1, u), _local(orbit, depth_m, v - 1, u)
    normals = np.cross(below - above, right - left)  # +v down, +u right: towards the camera
    turns = orbit.T_world_camera[:, :3, :3].transpose(0, 2, 1)
    return local @ turns + orbit.T_world_camera[:, None, :3, 3], normals @ turns, steady


def _local(
    orbit: Orbit, depth_m: Float[np.ndarray, "n h w"], v: Int[np.ndarray, " m"], u: Int[np.ndarray, " m"]
) -> Points:
    """Points of some pixels in their cameras' axes."""
    z = depth_m[:, v, u].astype(np.float64)
    x = (u + 0.5 - orbit.principal_px[0]) / orbit.focal_px
    y = (v + 0.5 - orbit.principal_px[1]) / orbit.focal_px
    return np.stack([x * z, y * z, z], -1)


def _grid(size: int) -> Int[np.ndarray, " k"]:
    """Indices of evenly spread pixels that have neighbours on both sides."""
    return np.unique(np.linspace(1, size - 2, min(GRID, max(size - 2, 1))).round().astype(int).clip(0, size - 1))


def _hold(
    orbit: Orbit,
    depth_m: Float[np.ndarray, "n h w"],
    view: Int[np.ndarray, " p"],
    point: Float[np.ndarray, "p 3"],
    own_normal: Float[np.ndarray, "p 3"],
    other: Int[np.ndarray, " p"],
) -> Gaps:
    """Hold points of some views against one other view each (-1: none)."""
    view, point, own_normal, other = view[other >= 0], point[other >= 0], own_normal[other >= 0], other[other >= 0]
    poses = orbit.T_world_camera[other]
    towards = poses[:, :3, 3] - point
    facing = np.einsum("pc,pc->p", own_normal, towards)
    faces = facing > 0
    grazing = np.abs(facing) < GRAZING * np.linalg.norm(own_normal, axis=1) * np.linalg.norm(towards, axis=1)
    local = np.einsum("pji,pj->pi", poses[:, :3, :3], point - poses[:, :3, 3])  # R^T (p - c)
    rays = local / local[:, 2:]
    u = orbit.focal_px * rays[:, 0] + orbit.principal_px[0] - 0.5  # the first pixel's centre is 0 here
    v = orbit.focal_px * rays[:, 1] + orbit.principal_px[1] - 0.5
    room = MISS_REACH_PX
    inside = (
        (local[:, 2] > 0) & (u >= room) & (v >= room) & (u < orbit.width - 1 - room) & (v < orbit.height - 1 - room)
    )
    view, point, other, rays = view[inside], point[inside], other[inside], rays[inside]
    surface = _surface(depth_m, other, u[inside], v[inside])
    surface = replace(surface, missed=surface.missed & ~grazing[inside])
    return _gaps(orbit, view, point, other, local[inside, 2], rays, surface, faces[inside])


@dataclass(frozen=True)
class _Surface:
    """Depth maps at fractional pixels."""

    depth_m: Float[np.ndarray, " p"]
    """Bilinear."""
    slope_u: Float[np.ndarray, " p"]
    """Metres a pixel."""
    slope_v: Float[np.ndarray, " p"]
    """Metres a pixel."""
    step_m: Float[np.ndarray, " p"]
    """Between the nearest and the farthest of the four pixels; infinite where one is empty."""
    missed: Bool[np.ndarray, " p"]
    """Nothing there and around."""


def _surface(
    depth_m: Float[np.ndarray, "n h w"],
    view: Int[np.ndarray, " p"],
    u: Float[np.ndarray, " p"],
    v: Float[np.ndarray, " p"],
) -> _Surface:
    column, row = np.floor(u).astype(int), np.floor(v).astype(int)
    along, down = u - column, v - row
    z00, z01, z10, z11 = (depth_m[view, row + j, column + i].astype(np.float64) for j in (0, 1) for i in (0, 1))
    lowest, highest = np.minimum.reduce((z00, z01, z10, z11)), np.maximum.reduce((z00, z01, z10, z11))
    missed = highest <= 0
    for j in (-MISS_REACH_PX, 0, MISS_REACH_PX):
        for i in (-MISS_REACH_PX, 0, MISS_REACH_PX):
            missed &= depth_m[view, row + j, column + i] <= 0
    return _Surface(
        (1 - down) * ((1 - along) * z00 + along * z01) + down * ((1 - along) * z10 + along * z11),
        (1 - down) * (z01 - z00) + down * (z11 - z10),
        (1 - along) * (z10 - z00) + along * (z11 - z01),
        np.where(lowest > 0, highest - lowest, np.inf),
        missed,
    )


def _gaps(
    orbit: Orbit,
    view: Int[np.ndarray, " p"],
    point: Float[np.ndarray, "p 3"],
    other: Int[np.ndarray, " p"],
    z: Float[np.ndarray, " p"],
    rays: Float[np.ndarray, "p 3"],
    surface: _Surface,
    faces: Bool[np.ndarray, " p"],
) -> Gaps:
    """On rays (x, y, 1) the surface z(u, v) has the normal (z_u, z_v, -(z / f + x z_u + y z_v)), towards the camera.

    (The cross product of its derivatives by u and v, over z / f.) Its product with the ray is -z / f, so that a gap dz
    along the ray is dz * (z / f) / |normal| metres off the plane.
    """
    span = z / orbit.focal_px
    along = z - surface.depth_m  # behind the surface: positive
    # the side of a box that faces away from the other view is hidden, however near its edge
    even = (surface.step_m <= MAX_SLOPE * span) & (along <= HIDDEN_M) & faces
    facing = -(span + rays[:, 0] * surface.slope_u + rays[:, 1] * surface.slope_v)
    normal = np.stack([surface.slope_u, surface.slope_v, facing], -1)
    length = np.linalg.norm(normal, axis=1)
    gap_px = np.clip(-along / length, -CAP_PX, CAP_PX)
    gap_px[surface.missed], normal[surface.missed] = MISS_REACH_PX, 0
    keep = (even | surface.missed) & np.isfinite(gap_px)
    world = np.einsum("pij,pj->pi", orbit.T_world_camera[other[keep], :3, :3], (normal / length[:, None])[keep])
    return Gaps(view[keep], other[keep], point[keep], world, span[keep], gap_px[keep])
