"""The atlas: finds the place on the surface behind each texel, has it painted, and bleeds colour past the islands."""

import logging
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy.ndimage import distance_transform_edt
from scipy.spatial import cKDTree

from render_farm.worker.example.assemble import Unwrapped
from render_farm.worker.example.paint import Noise, Texels
from render_farm.worker.example.palette import PAINTS
from render_farm.worker.example.solids import Solid

log = logging.getLogger(__name__)

EDGE_TEXELS = 0.75
"""A texel belongs to a triangle when its centre is inside or this near: bilinear look-ups at the rim stay on paint."""
OVERLAP_TEXELS = 0.5
"""A texel this deep inside two triangles has two meanings; neighbours share no more than their rims."""


def paint_atlas(
    mesh: Unwrapped, solids: Sequence[Solid], size_px: int, rng: np.random.Generator
) -> UInt8[np.ndarray, "h w 3"]:
    """Return the painted texture, sRGB, first row at the top."""
    triangle, weights = rasterise(mesh.uv, size_px)
    rows, columns = np.nonzero(triangle >= 0)
    hit, at = triangle[rows, columns], weights[rows, columns]  # [n], [n, 3]
    log.info("atlas: %.0f %% of %d x %d texels painted", 100 * len(hit) / size_px**2, size_px, size_px)
    world = np.einsum("nk,nkd->nd", at, mesh.positions[hit])
    normal = np.einsum("nk,nkd->nd", at, mesh.normals[hit])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    shore_m = cKDTree(_shore_points(mesh, solids)).query(world)[0]
    colours, noise = np.empty((len(hit), 3)), Noise(rng)
    for index in np.unique(mesh.solid):
        mine = mesh.solid[hit] == index
        if mine.any():
            T = np.linalg.inv(solids[index].T_world_local)
            local, local_normal = world[mine] @ T[:3, :3].T + T[:3, 3], normal[mine] @ T[:3, :3].T
            texels = Texels(local, local_normal, world[mine], normal[mine], shore_m[mine])
            colours[mine] = PAINTS[solids[index].paint](texels, noise)
    image = np.zeros((size_px, size_px, 3))
    image[rows, columns] = np.clip(colours, 0, 1)
    nearest = distance_transform_edt(triangle < 0, return_distances=False, return_indices=True)
    bled = image[nearest[0], nearest[1]]
    return np.round(bled[::-1] * 255).astype(np.uint8)


def rasterise(
    uv: Float[np.ndarray, "t 3 2"], size_px: int
) -> tuple[Int[np.ndarray, "h w"], Float[np.ndarray, "h w 3"]]:
    """Return the triangle behind each texel (-1: none) and its corner weights; row 0 is v = 0.

    Where the widened rims of two triangles meet, the one that the texel lies deeper inside wins.
    """
    triangle = np.full((size_px, size_px), -1, np.int64)
    weights = np.zeros((size_px, size_px, 3))
    deepest = np.full((size_px, size_px), -np.inf)
    doubled = 0
    for index, corners in enumerate(uv * size_px - 0.5):
        low = np.maximum(np.floor(corners.min(axis=0) - 1).astype(int), 0)
        high = np.minimum(np.ceil(corners.max(axis=0) + 1).astype(int), size_px - 1)
        if (high < low).any():
            continue
        x, y = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1))
        found = _corner_weights(corners, x, y)
        if found is None:
            continue
        share, depth = found
        block = np.s_[low[1] : high[1] + 1, low[0] : high[0] + 1]
        doubled += int(((depth > OVERLAP_TEXELS) & (deepest[block] > OVERLAP_TEXELS)).sum())
        better = (depth > -EDGE_TEXELS) & (depth > deepest[block])
        triangle[block][better] = index
        deepest[block][better] = depth[better]
        weights[block][better] = share[better]
    if doubled:
        raise ValueError(
            f"no two triangles may share a place in the image, but {doubled} texels lie in two: cut charts"
        )
    return triangle, weights


def _corner_weights(
    corners: Float[np.ndarray, "3 2"], x: Int[np.ndarray, "h w"], y: Int[np.ndarray, "h w"]
) -> tuple[Float[np.ndarray, "h w 3"], Float[np.ndarray, "h w"]] | None:
    """Return barycentric weights, clipped to the triangle, and the depth inside it in texels; None for a sliver."""
    (ax, ay), (bx, by), (cx, cy) = corners
    twice_area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
    if abs(twice_area) < 1e-9:
        return None
    wa = ((bx - x) * (cy - y) - (cx - x) * (by - y)) / twice_area
    wb = ((cx - x) * (ay - y) - (ax - x) * (cy - y)) / twice_area
    share = np.stack([wa, wb, 1 - wa - wb], axis=-1)
    sides = np.linalg.norm(corners[[1, 2, 0]] - corners[[2, 0, 1]], axis=1)
    depth = (share * abs(twice_area) / np.maximum(sides, 1e-9)).min(axis=-1)
    share = np.maximum(share, 0)
    return share / share.sum(axis=-1, keepdims=True), depth


def _shore_points(mesh: Unwrapped, solids: Sequence[Solid]) -> Float[np.ndarray, "n 3"]:
    """Return points along the edges where the sea's surface meets anything else."""
    wet = np.array([s.paint == "sea" for s in solids])[mesh.solid]
    edges = np.stack([mesh.positions, np.roll(mesh.positions, -1, axis=1)], axis=2).reshape(-1, 2, 3)
    middles = np.round(edges.mean(axis=1), 4)
    _, name = np.unique(middles, axis=0, return_inverse=True)
    name = name.reshape(-1)
    of_sea = np.repeat(wet, 3)
    touches_sea, touches_land = (np.bincount(name, weights=side) > 0 for side in (of_sea, ~of_sea))
    shore: Bool[np.ndarray, " e"] = (touches_sea & touches_land)[name]
    ends = edges[shore]
    return np.concatenate([ends[:, 0] * (1 - s) + ends[:, 1] * s for s in (0.0, 0.25, 0.5, 0.75)])
