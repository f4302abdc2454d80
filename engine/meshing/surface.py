"""A signed distance on a grid becomes a closed triangle mesh, without the crumbs that no two views saw."""

import numpy as np
import trimesh
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from skimage.measure import marching_cubes

from engine.meshing.carve import Volume
from engine.meshing.views import MeshingError

ZERO_BAND = 1e-3  # in voxels: grid points this near the surface are moved off it, so that no triangle degenerates
SMALL_PART = 0.01  # share of the largest part's area under which a part must have been seen by two views
CRUMB_VOXELS = 12.0  # parts with less surface than this many voxel faces are noise whatever saw them


def component_of_faces(faces: Int[np.ndarray, "f 3"], vertices: int) -> Int[np.ndarray, " f"]:
    """Return the number of the connected part that each face belongs to."""
    rows, columns = faces[:, [0, 1]].ravel(), faces[:, [1, 2]].ravel()
    graph = coo_matrix((np.ones(len(rows), bool), (rows, columns)), shape=(vertices, vertices))
    return connected_components(graph, directed=False)[1][faces[:, 0]]


def keep_faces(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], volume: Volume
) -> Bool[np.ndarray, " f"]:
    """Choose the faces of real parts: outward facing, large or seen by at least two views, and no crumbs."""
    part = component_of_faces(faces, len(vertices))
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = np.bincount(part, 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1))
    signed_volume = np.bincount(part, (a * np.cross(b, c)).sum(1))
    grid = ((a - volume.origin) / volume.voxel_m).T
    seen_by = ndimage.map_coordinates(volume.seen_by, grid, order=0, mode="nearest")
    seen_twice = np.bincount(part, seen_by >= 2) / np.bincount(part)
    real = (area >= SMALL_PART * area.max()) | (seen_twice >= 0.25)
    # a negative volume is the wall of a cavity that nobody can look into
    return ((signed_volume > 0) & real & (area >= CRUMB_VOXELS * volume.voxel_m**2))[part]


def extract_surface(
    volume: Volume, distance_m: Float[np.ndarray, "x y z"]
) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]:
    """Return vertices (metres) and faces (counter-clockwise from outside) of the surface at distance 0, closed.

    Raises MeshingError if nothing is inside.
    """
    limit = float(distance_m.max())
    band = ZERO_BAND * volume.voxel_m
    padded = np.pad(distance_m, 1, constant_values=max(limit, volume.voxel_m))
    padded = np.where(np.abs(padded) < band, np.where(padded < 0, -band, band), padded)
    if not (padded < 0).any():
        raise MeshingError("the views leave nothing: every voxel is seen through; do the poses fit the depth maps?")
    vertices, faces, _, _ = marching_cubes(padded, 0.0)
    vertices = (vertices.astype(np.float64) - 1) * volume.voxel_m + volume.origin
    keep = keep_faces(vertices, faces, volume)
    if not keep.any():
        raise MeshingError("no part of the surface was seen by two views: are the depth maps noise?")
    used, faces = np.unique(faces[keep], return_inverse=True)
    return vertices[used], faces.reshape(-1, 3).astype(np.int64)


def is_closed(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> bool:
    """Tell whether a mesh is watertight and consistently wound, as files hold it: float32, equal places merged."""
    mesh = trimesh.Trimesh(vertices.astype(np.float32), faces, process=False)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    return bool(mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0)
