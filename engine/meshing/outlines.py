"""A surface from the views' outlines alone, for views whose depths do not agree, such as those of a small generator.

    alpha --> signed distance to each outline --> a voxel is as far outside as the views say that see most past it

That is the visual hull (Laurentini 1994), forgiving: a few views may see past what the others show. What no outline shows,
such as the inside of a bowl, is filled.
"""

from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float
from numba import njit, prange
from numpy.typing import NDArray

from engine.geometry import Orbit
from engine.meshing.carve import MARGIN_VOXELS, Volume
from engine.meshing.settings import MeshSettings
from engine.meshing.views import MeshingError, bilinear, outlines_px, pixel_of

Array = NDArray[Any]
HALF_M = 0.55
"""The hull is looked for within a cube so large around the origin: the unit frame and a little."""
COARSE = 64
"""Grid points along its side where the hull is looked for at first."""


@njit(cache=True, parallel=True, fastmath=True)
@no_type_check  # jaxtyping would wrap what numba compiles
def _hull(
    origin: Array, voxel: float, shape: Any, T: Array, focal: float, cu: float, cv: float, outlines: Array, limit: float,
    views: int, given: int,
) -> Array:  # fmt: skip
    """Return at each point the `views`-largest distance to an outline, the given view's at least; see `hull`."""
    n, h, w = outlines.shape
    distance = np.empty(shape, np.float32)
    for ix in prange(shape[0]):
        largest = np.empty(views)
        for iy in range(shape[1]):
            for iz in range(shape[2]):
                x, y, z = origin[0] + ix * voxel, origin[1] + iy * voxel, origin[2] + iz * voxel
                largest[:] = -limit
                least = -limit
                for i in range(n):
                    framed, u, v, cz = pixel_of(x, y, z, T[i], focal, cu, cv, h, w)
                    if not framed:
                        continue  # beyond its frame a view says nothing
                    value = min(bilinear(outlines[i], u, v) * cz / focal, limit)
                    if i == given:
                        least = value
                    for k in range(views):
                        if value > largest[k]:
                            value, largest[k] = largest[k], value
                distance[ix, iy, iz] = max(largest[views - 1], least)
    return distance


def hull(
    orbit: Orbit, alpha: Float[np.ndarray, "n h w"], settings: MeshSettings, given_view: int | None = None
) -> Volume:
    """Return the signed distance to the hull of the outlines, on a grid around it.

    Args:
        orbit: the cameras, around the unit frame.
        alpha: 0 to 1.
        settings: resolution, truncation_voxels, alpha_level, free_views and threads are read.
        given_view: the view that is a given picture, the others being generated: what it alone sees past is empty.

    Raises:
        MeshingError: the outlines have no point in common.
    """
    outlines = outlines_px(alpha, settings.alpha_level, settings.threads)
    T = np.stack([camera.T_camera_world for camera in orbit.cameras])
    views = min(settings.free_views, len(orbit))

    def distances(low: Float[np.ndarray, "3"], voxel: float, shape: tuple[int, ...], limit: float) -> Array:
        return np.asarray(_hull(
            low, voxel, shape, T, orbit.focal_px, *orbit.principal_px, outlines, limit, views,
            -1 if given_view is None else given_view,
        ))  # fmt: skip

    wide = 2 * HALF_M / (COARSE - 1)
    # A point farther off than half a cell's diagonal, 0.87 cells, has nothing of the hull in its cell.
    near = distances(np.full(3, -HALF_M), wide, (COARSE,) * 3, 2 * wide) < wide
    if not near.any():
        raise MeshingError("the outlines have no point in common: do the poses fit the masks?")
    places = np.argwhere(near)
    low, high = (places.min(0) - 1) * wide - HALF_M, (places.max(0) + 1) * wide - HALF_M
    voxel = float((high - low).max()) / settings.resolution
    low, high = low - MARGIN_VOXELS * voxel, high + MARGIN_VOXELS * voxel
    shape = tuple(int(k) for k in np.ceil((high - low) / voxel).astype(int) + 1)
    found = distances(low, voxel, shape, settings.truncation_voxels * voxel)
    inside = np.nonzero((found < 0).any((0, 1)))[0]
    if not len(inside):
        raise MeshingError("the outlines have no point in common: do the poses fit the masks?")
    seen_low, seen_high = (float(low[2] + inside[k] * voxel) for k in (0, -1))
    return Volume(low, voxel, found, np.zeros(shape, np.uint8), seen_low, seen_high)
