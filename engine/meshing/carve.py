"""All views together: a signed distance on a grid, exact where surfaces were seen, the carved hull elsewhere."""

from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float, UInt8
from numba import njit, prange
from numpy.typing import NDArray

from engine.meshing.settings import MeshSettings
from engine.meshing.views import NO_PLANE, MeshingError, ViewFields, bilinear, pixel_of

Array = NDArray[Any]
STRAY_PERCENT = 0.02  # seen points at either end that may not stretch the grid
MARGIN_VOXELS = 5  # free space around what was seen
SILHOUETTE_WEIGHT = 0.3  # of a silhouette's distance against a surface's squared cosine: alpha is softer than depth
STEEP_TRUNCATIONS = 3.0  # along the ray; farther off, a steep plane's distance says nothing beyond its own pixel
SHEET_COSINE = 0.2  # views more oblique than 78 degrees do not tell which side of a sheet they see
SHEET_VOXELS = 2.0  # farther from either face a point has nothing to do with the sheet
SHEET_NOISE_VOXELS = 1.0  # so far apart noise may put the two faces of one sheet; wider gaps stay open
EDGE_ON_VIEWS = 2  # a sheet is thinner than a pixel from the side: so many views may see past it and be wrong
SURE_VIEWS = 4  # so many views of one side are believed against those that see past the edge
OPPOSITE = 0.3  # cosine between normals that count as the same side, and its negative as opposite sides


@dataclass(frozen=True)
class Volume:
    """A signed distance on a regular grid of points."""

    origin: Float[np.ndarray, "3"]
    """World place of grid point [0, 0, 0], metres."""
    voxel_m: float
    """Distance between neighbouring grid points, metres."""
    distance_m: Float[np.ndarray, "x y z"]
    """Metres, positive outside, clamped to the truncation; float32."""
    seen_by: UInt8[np.ndarray, "x y z"]
    """How many views saw a surface within truncation of here."""
    seen_low_m: float
    """Height of the lowest surface that was seen, metres."""
    seen_high_m: float
    """Height of the highest surface that was seen, metres."""


def seen_points(fields: ViewFields) -> Float[np.ndarray, "m 3"]:
    """Return the world points of all pixels that have a surface inside the silhouette, metres."""
    points = []
    for view in range(len(fields.depth_m)):
        v, u = np.nonzero((fields.cosine[view] > 0) & (fields.silhouette_px[view] < 0))
        z = fields.depth_m[view, v, u].astype(np.float64)
        x = (u + 0.5 - fields.principal_px[0]) / fields.focal_px * z
        y = (v + 0.5 - fields.principal_px[1]) / fields.focal_px * z
        T = np.linalg.inv(fields.T_camera_world[view])
        points.append(np.stack([x, y, z], -1) @ T[:3, :3].T + T[:3, 3])
    return np.concatenate(points)


@njit(cache=True, fastmath=True)
@no_type_check  # jaxtyping would wrap what numba compiles
def _reading(
    point: Array, T: Array, focal: float, cu: float, cv: float, silhouette: Array, depth: Array, plane: Array,
    cosine: Array, trunc: float,
) -> Any:  # fmt: skip
    """What one view says about a point: distance (-trunc = cannot tell), weight, whether a surface is near, pixel."""
    h, w = depth.shape
    x, y, z = point
    framed, u, v, cz = pixel_of(x, y, z, T, focal, cu, cv, h, w)
    if not framed:
        return -trunc, 0.0, False, 0, 0
    value = bilinear(silhouette, u, v) * cz / focal
    weight, seen = SILHOUETTE_WEIGHT, False
    px, py = int(u), int(v)
    c = cosine[py, px]
    if value >= trunc:
        return value, weight, False, px, py
    if c == 0:  # no depth here: inside the silhouette this view cannot tell
        return value if value >= 0 else -trunc, weight, False, px, py
    steep = STEEP_TRUNCATIONS * trunc
    if c < NO_PLANE:  # something is here, but this pixel knows its place only to the size of a step
        along = depth[py, px] - cz
        d, seen = (along - 2 * trunc if along > steep else -trunc), abs(along) <= steep
    else:
        d = plane[py, px, 0] * x + plane[py, px, 1] * y + plane[py, px, 2] * z + plane[py, px, 3]
        along = d / c  # along the ray; the depth of the pixel's centre would be off by its slope
        seen = abs(d) < trunc  # even if grazing: a roof seen at 5 degrees is a roof, not a hidden place
        if along > steep:
            d = max(d, along - 2 * trunc)
        elif along < -steep:
            d = -trunc
    seen = seen and value <= 0  # beyond the silhouette a border pixel's plane is only its continuation
    if d > value:
        value, weight = d, c * c
    return value, weight, seen, px, py


@njit(cache=True, fastmath=True)
@no_type_check  # jaxtyping would wrap what numba compiles
def _sheet(
    point: Array, count: int, near: Array, planes: Array, cosine: Array, voxel: float, thinnest: float, freed: bool
) -> float:
    """Distance to a sheet that views see here, made at least `thinnest` voxels thick; inf without.

    Seen through from both sides, a sheet without thickness leaves nothing. Where two views with opposite normals put
    their surfaces within a voxel or so of each other, what lies between is matter. Where good views see one side only
    and the rest is known from silhouettes and grazing rays (`freed`: some even see past it), so is what lies a little
    behind that side, unless another surface says otherwise. In thick bodies none of this changes anything: it is
    inside already.
    """
    ref, best = -1, 0.0
    for j in range(count):
        c = cosine[near[j, 0], near[j, 2], near[j, 1]]
        if c > best:
            ref, best = j, c
    if best < SHEET_COSINE:
        return np.inf
    axis = planes[near[ref, 0], near[ref, 2], near[ref, 1]]
    front = back = front_weight = back_weight = 0.0
    witnesses, doubted = 0, False
    for j in range(count):
        p = planes[near[j, 0], near[j, 2], near[j, 1]]
        c = cosine[near[j, 0], near[j, 2], near[j, 1]]
        along = p[0] * axis[0] + p[1] * axis[1] + p[2] * axis[2]
        d = p[0] * point[0] + p[1] * point[1] + p[2] * point[2] + p[3]
        if c < SHEET_COSINE or abs(d) > SHEET_VOXELS * voxel:
            continue
        doubted = doubted or (along <= OPPOSITE and d > 0)
        if along > OPPOSITE:
            front, front_weight, witnesses = front + c * c * d, front_weight + c * c, witnesses + 1
        elif along < -OPPOSITE:
            back, back_weight = back + c * c * d, back_weight + c * c
    if (
        back_weight == 0
        and front_weight > 0
        and witnesses >= 2
        and not doubted
        and (witnesses >= SURE_VIEWS or not freed)
    ):
        # only one side is seen, and nothing but grazing rays and silhouettes says that there is nothing behind it
        front = front / front_weight
        return max(front, -front - thinnest * voxel)
    if front_weight == 0 or back_weight == 0:
        return np.inf
    front, back = front / front_weight, back / back_weight
    thickness = -(front + back)
    if thickness < -SHEET_NOISE_VOXELS * voxel or thickness > thinnest * voxel:
        return np.inf  # a gap between two bodies; or thick enough
    return max(front, back) - 0.5 * (thinnest * voxel - thickness)


@njit(cache=True, parallel=True, fastmath=True)
@no_type_check  # jaxtyping would wrap what numba compiles
def _carve(
    origin: Array, voxel: float, shape: Any, T: Array, focal: float, cu: float, cv: float, silhouette: Array,
    depth: Array, planes: Array, cosine: Array, trunc: float, agreement: float, free_views: int, given: int,
    thinnest: float,
) -> Any:  # fmt: skip
    n = len(depth)
    distance = np.full(shape, trunc, np.float32)
    seen_by = np.zeros(shape, np.uint8)
    for ix in prange(shape[0]):
        f, weight, near, point = np.empty(n), np.empty(n), np.empty((n, 3), np.int64), np.empty(3)
        for iy in range(shape[1]):
            for iz in range(shape[2]):
                point[0], point[1] = origin[0] + ix * voxel, origin[1] + iy * voxel
                point[2] = origin[2] + iz * voxel
                count = free = surfaces = 0
                largest = -trunc
                for i in range(n):
                    value, wt, seen, px, py = _reading(
                        point, T[i], focal, cu, cv, silhouette[i], depth[i], planes[i], cosine[i], trunc
                    )
                    if value >= trunc:
                        free += free_views + EDGE_ON_VIEWS if i == given else 1
                        if free >= free_views + EDGE_ON_VIEWS:
                            break
                        continue
                    if seen:
                        near[surfaces, 0], near[surfaces, 1], near[surfaces, 2] = i, px, py
                        surfaces += 1
                    if value > -trunc:
                        f[count], weight[count] = value, wt
                        count += 1
                        largest = max(largest, value)
                if free >= free_views + EDGE_ON_VIEWS or (free >= free_views and surfaces < 2):
                    continue
                total = mean = 0.0
                for j in range(count):
                    if f[j] >= largest - agreement:
                        total += weight[j]
                        mean += weight[j] * f[j]
                result = mean / total if total > 0 else -trunc
                if free >= free_views:
                    result = trunc
                if surfaces > 1 and result > -SHEET_VOXELS * voxel:
                    result = min(
                        result, _sheet(point, surfaces, near, planes, cosine, voxel, thinnest, free >= free_views)
                    )
                distance[ix, iy, iz] = result
                seen_by[ix, iy, iz] = min(surfaces, 255)
    return distance, seen_by


def carve(fields: ViewFields, settings: MeshSettings, given_view: int | None = None) -> Volume:
    """Fuse all views on a grid around what they saw.

    A voxel is empty where a view sees through it. Elsewhere its distance is the largest that any view reports (the
    intersection of what the views leave), averaged over the views that agree with that one within a voxel, so that
    neither noise erodes the surface nor the far side of a thin part cancels the near one. Of a given view among generated
    ones it is enough that this one sees through.
    """
    points = seen_points(fields)
    if len(points) < 16:
        raise MeshingError(f"only {len(points)} pixels have both depth and alpha: do the masks fit the depth maps?")
    # a few stray pixels (fringes of the mask, splats in the air) must not stretch the grid
    low, high = np.percentile(points, [STRAY_PERCENT, 100 - STRAY_PERCENT], axis=0)
    seen_low, seen_high = float(low[2]), float(high[2])
    if settings.centred:  # room for what complete.ground_and_ceiling_m may fill
        low[2], high[2] = min(low[2], -high[2]), max(high[2], -low[2])
    voxel = float((high - low).max()) / settings.resolution
    low, high = low - MARGIN_VOXELS * voxel, high + MARGIN_VOXELS * voxel
    shape = tuple(int(k) for k in np.ceil((high - low) / voxel).astype(int) + 1)
    distance, seen_by = _carve(
        low, voxel, shape, fields.T_camera_world, fields.focal_px, *fields.principal_px, fields.silhouette_px,
        fields.depth_m, fields.planes, fields.cosine, settings.truncation_voxels * voxel,
        settings.agreement_voxels * voxel, settings.free_views, -1 if given_view is None else given_view,
        settings.thinnest_voxels,
    )  # fmt: skip
    return Volume(low, voxel, distance, seen_by, seen_low, seen_high)
