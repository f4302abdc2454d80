"""Cuts the surface into charts for the texture and lays each flat.

A chart is a connected patch of one solid that faces one of 18 directions of the solid's own frame, seen straight on.
So a box gives its sides and a tower eight staves, nothing is stretched beyond 1.25 times, and since a chart never
crosses from one solid to another, a window cannot be projected onto its own frame.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from render_farm.worker.example.solids import Solid

DIRECTIONS = np.array([d for d in itertools.product((-1, 0, 1), repeat=3) if 1 <= np.abs(d).sum() <= 2], np.float64)
DIRECTIONS /= np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)
BOTTOM_SCALE = 0.15
"""The flat bottom faces the table: it needs no more than a few texels."""


def lay_flat(
    positions: Float[np.ndarray, "t 3 3"],
    corners: Int[np.ndarray, "t 3"],
    solid: Int[np.ndarray, " t"],
    solids: Sequence[Solid],
) -> Float[np.ndarray, "t 3 2"]:
    """Return texture coordinates in metres, each chart in a cell of its own, far from the next.

    Args:
        positions: corners of the triangles, metres.
        corners: their vertices: equal numbers meet.
        solid: index of the solid that each triangle came from.
        solids: what that index refers to.
    """
    rotations = np.stack([s.T_world_local[:3, :3] for s in solids])[solid]  # [t, 3, 3]
    normals = np.cross(positions[:, 1] - positions[:, 0], positions[:, 2] - positions[:, 0])
    facing = np.argmax(np.einsum("tij,ti->tj", rotations, normals) @ DIRECTIONS.T, axis=1)
    chart = _connected(corners, solid * len(DIRECTIONS) + facing)
    across, up = _axes(DIRECTIONS)
    local = np.einsum("tij,tki->tkj", rotations, positions)
    flat = np.stack([np.einsum("tkj,tj->tk", local, axis[facing]) for axis in (across, up)], axis=-1)
    bottom = (positions[..., 2] < positions[..., 2].min() + 1e-4).all(axis=1)
    flat[bottom] *= BOTTOM_SCALE
    cell = 2.5 * float(np.abs(flat).max())
    columns = int(np.ceil(np.sqrt(chart.max() + 1)))
    return flat + cell * np.stack([chart % columns, chart // columns], axis=-1)[:, None]


def _connected(corners: Int[np.ndarray, "t 3"], label: Int[np.ndarray, " t"]) -> Int[np.ndarray, " t"]:
    """Number the patches of triangles that share edges and a label."""
    edges = np.sort(np.stack([corners, np.roll(corners, -1, axis=1)], axis=2).reshape(-1, 2), axis=1)
    order = np.lexsort(edges.T)
    owner, edges = np.repeat(np.arange(len(corners)), 3)[order], edges[order]
    a, b = owner[:-1], owner[1:]
    joined = (edges[:-1] == edges[1:]).all(axis=1) & (label[a] == label[b])
    links = coo_array((np.ones(joined.sum()), (a[joined], b[joined])), shape=(len(corners), len(corners)))
    return connected_components(links, directed=False)[1].astype(np.int64)


def _axes(direction: Float[np.ndarray, "d 3"]) -> tuple[Float[np.ndarray, "d 3"], Float[np.ndarray, "d 3"]]:
    """Return, for each direction, the axes to the right and upwards as seen by who looks against it."""
    helper = np.where(np.abs(direction[:, 2:]) > 0.9, [[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]])
    across = np.cross(helper, direction)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    return across, np.cross(direction, across)
