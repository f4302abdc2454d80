"""Where the Gaussians start: on the surface that depth maps show, or on the hull that silhouettes carve."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter

from engine.errors import OrbitError
from engine.files.types import OrbitImages, SplatArrays
from engine.geometry import Camera, project, quaternion_from_matrix, rays_world, unproject_depth
from engine.geometry.harmonics import SH_C0
from engine.splats.gaussians import Gaussians

OPAQUE = 0.5
"""Pixels with more alpha than this (of 1) belong to the object."""


@dataclass(frozen=True)
class SurfacePoints:
    """Points on the object's surface."""

    points: Float[np.ndarray, "n 3"]
    """World, metres."""
    normals: Float[np.ndarray, "n 3"]
    """Unit, outwards."""
    colours: Float[np.ndarray, "n 3"]
    """sRGB, 0 to 1."""
    spacing_m: Float[np.ndarray, " n"]
    """Distance to the neighbours, metres."""

    def thinned(self, at_most: int, seed: int) -> "SurfacePoints":
        """Return a random choice of at most so many points, their spacing widened to match."""
        n = len(self.points)
        if n <= at_most:
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(n, at_most, replace=False))
        wider = self.spacing_m[chosen] * np.sqrt(n / at_most)
        return SurfacePoints(self.points[chosen], self.normals[chosen], self.colours[chosen], wider)


def gaussians_on(surface: SurfacePoints, sh_degree: int, opacity: float = 0.8, flatness: float = 0.3) -> Gaussians:
    """Return one flat Gaussian a point, its shortest axis along the normal.

    Args:
        surface: the points.
        sh_degree: 0 to 3; degrees above 0 start at zero.
        opacity: start opacity, 0 to 1.
        flatness: thickness as a share of the width.
    """
    n = len(surface.points)
    helper = np.where(np.abs(surface.normals[:, 2:]) < 0.9, [[0.0, 0, 1]], [[1.0, 0, 0]])
    first = np.cross(helper, surface.normals)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    axes = np.stack([first, np.cross(surface.normals, first), surface.normals], -1)
    width = 0.6 * surface.spacing_m  # neighbours meet at 0.8 standard deviations: no holes, little blur
    sh = np.zeros((n, (sh_degree + 1) ** 2, 3))
    sh[:, 0] = (surface.colours - 0.5) / SH_C0
    arrays = SplatArrays(
        surface.points.astype(np.float32),
        np.log(np.stack([width, width, flatness * width], -1)).astype(np.float32),
        quaternion_from_matrix(axes).astype(np.float32),
        np.full(n, np.log(opacity / (1 - opacity)), np.float32),
        sh.astype(np.float32),
    )
    return Gaussians.from_arrays(arrays)


def surface_from_depth(images: OrbitImages, spacing_m: float) -> SurfacePoints:
    """Return the surface that the depth maps show, thinned to one point a cell of spacing_m.

    Raises OrbitError if no pixel of the object has depth.
    """
    if images.depth_m is None:
        raise OrbitError(f"{images.uid}: depth is needed here and the orbit has none")
    parts = [_view_surface(images, i) for i in range(len(images.orbit))]
    points, normals, colours = (np.concatenate([part[k] for part in parts]) for k in range(3))
    if len(points) == 0:
        raise OrbitError(f"{images.uid}: no pixel has both alpha and depth: is the object in the picture?")
    cells, inverse, counts = np.unique(
        np.floor(points / spacing_m).astype(np.int64), axis=0, return_inverse=True, return_counts=True
    )
    inverse = inverse.reshape(-1)

    def mean(values: Float[np.ndarray, "m 3"]) -> Float[np.ndarray, "n 3"]:
        sums = [np.bincount(inverse, weights=values[:, k], minlength=len(cells)) for k in range(3)]
        return np.stack(sums, -1) / counts[:, None]

    return SurfacePoints(mean(points), _directions(mean(normals)), mean(colours), np.full(len(cells), spacing_m))


def _directions(normals: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Return normals of length 1; up for those that have none, of points alone in their grid or seen from both sides."""
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(length > 1e-6, normals / np.maximum(length, 1e-6), [[0.0, 0, 1]])


def _view_surface(images: OrbitImages, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, normals and colours of one view's pixels; normals from the depth map's own slope."""
    assert images.depth_m is not None
    camera = images.orbit.camera(index)
    points = unproject_depth(camera, images.depth_m[index].astype(np.float64))
    along_u, along_v = np.gradient(points, axis=1), np.gradient(points, axis=0)
    normals = np.cross(along_v, along_u)  # v runs down: this order points to the camera
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    _, rays = rays_world(camera)
    normals = np.where(length > 1e-12, normals / np.maximum(length, 1e-12), -rays)
    normals = np.where(np.isfinite(normals), normals, -rays)
    inside = (images.rgba[index, ..., 3] > 255 * OPAQUE) & np.isfinite(points).all(-1)
    return points[inside], normals[inside], images.rgba[index, ..., :3][inside] / 255.0


def surface_from_silhouettes(images: OrbitImages, cells: int = 128, given_weight: int = 1) -> SurfacePoints:
    """Return the boundary of the visual hull (Laurentini 1994) on a grid over the unit frame.

    Args:
        images: alpha of every view is used.
        cells: grid cells along each side of the cube [-0.55, 0.55].
        given_weight: how much more than the others the given view colours, where there is one.

    Raises OrbitError if the silhouettes have nothing in common.
    """
    side = np.linspace(-0.55, 0.55, cells)
    grid = np.stack(np.meshgrid(side, side, side, indexing="ij"), -1).reshape(-1, 3)
    full = np.ones(len(grid), bool)
    for index, camera in enumerate(images.orbit.cameras):
        full[full] &= _inside_silhouette(camera, images.rgba[index, ..., 3], grid[full])
    if not full.any():
        raise OrbitError(f"{images.uid}: the views' silhouettes have no point in common: wrong cameras, or empty alpha")
    # Beyond the grid is nothing: views that are full to their border leave a block, which has a surface too.
    occupancy = gaussian_filter(full.reshape(cells, cells, cells).astype(np.float32), 1.0, mode="constant")
    slope = np.stack(np.gradient(occupancy), -1).reshape(-1, 3)
    boundary = full & (occupancy.reshape(-1) < 0.95)
    normals = _directions(-slope[boundary])
    points = grid[boundary]
    colours = _colours_from_views(images, points, normals, given_weight)
    return SurfacePoints(points, normals, colours, np.full(len(points), side[1] - side[0]))


def _inside_silhouette(camera: Camera, alpha: np.ndarray, points: Float[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
    pixels, depth = project(camera, points)
    column, row = np.floor(np.nan_to_num(pixels, nan=-1)).astype(np.int64).T
    seen = (depth > 0) & (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    # Outside the picture nothing is known: the point stays.
    inside = ~seen
    inside[seen] = alpha[row[seen], column[seen]] > 0
    return inside


def _colours_from_views(
    images: OrbitImages, points: Float[np.ndarray, "n 3"], normals: Float[np.ndarray, "n 3"], given_weight: int
) -> Float[np.ndarray, "n 3"]:
    """Mean colour over the views that look at the points' outside, weighted by the angle."""
    total, weights = np.zeros((len(points), 3)), np.full((len(points), 1), 1e-6)
    for index, camera in enumerate(images.orbit.cameras):
        towards = camera.T_world_camera[:3, 3] - points
        cosine = (normals * towards).sum(1) / np.linalg.norm(towards, axis=1)
        pixels, _ = project(camera, points)
        column = np.clip(np.nan_to_num(pixels[:, 0]), 0, camera.width - 1).astype(np.int64)
        row = np.clip(np.nan_to_num(pixels[:, 1]), 0, camera.height - 1).astype(np.int64)
        rgba = images.rgba[index, row, column] / 255.0
        own = given_weight if index == images.given_view else 1
        weight = (own * np.maximum(cosine, 0) ** 4 * rgba[:, 3])[:, None]
        total, weights = total + weight * rgba[:, :3], weights + weight
    return total / weights
