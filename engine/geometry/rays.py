"""Between pixels and the world: projection, unprojection, rays."""

import numpy as np
from jaxtyping import Float

from engine.geometry.camera import Camera


def project(
    camera: Camera, points: Float[np.ndarray, "n 3"]
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, " n"]]:
    """Project world points: pixels (u, v) [n, 2] and planar depth in metres [n].

    Points at or behind the camera plane have depth <= 0 and pixels that are not finite.
    """
    T = camera.T_camera_world
    local = points @ T[:3, :3].T + T[:3, 3]
    depth = local[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = camera.focal_px * local[:, :2] / np.where(depth > 0, depth, np.nan)[:, None]
    return pixels + np.asarray(camera.principal_px), depth


def pixel_centres(width: int, height: int) -> Float[np.ndarray, "h w 2"]:
    """Return (u, v) of every pixel's centre: the first is (0.5, 0.5)."""
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([u, v], -1)


def directions_camera(camera: Camera) -> Float[np.ndarray, "h w 3"]:
    """Return camera-space directions through the pixel centres, with z = 1 (so depth times direction is the point)."""
    centred = pixel_centres(camera.width, camera.height) - np.asarray(camera.principal_px)
    return np.concatenate([centred / camera.focal_px, np.ones((camera.height, camera.width, 1))], -1)


def rays_world(camera: Camera) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "h w 3"]]:
    """Return the camera centre and unit world directions through the pixel centres."""
    directions = directions_camera(camera) @ camera.T_world_camera[:3, :3].T
    return camera.T_world_camera[:3, 3], directions / np.linalg.norm(directions, axis=-1, keepdims=True)


def unproject_depth(camera: Camera, depth_m: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w 3"]:
    """Return the world point of every pixel from planar depth in metres; NaN where depth is 0 (nothing there)."""
    if depth_m.shape != (camera.height, camera.width):
        raise ValueError(f"depth_m must be {camera.height} x {camera.width} like its camera, got {depth_m.shape}")
    depth = np.where(depth_m > 0, depth_m, np.nan).astype(np.float64)
    local = directions_camera(camera) * depth[..., None]
    return local @ camera.T_world_camera[:3, :3].T + camera.T_world_camera[:3, 3]


def pluecker_rays(camera: Camera) -> Float[np.ndarray, "h w 6"]:
    """Return Pluecker coordinates (moment o x d, unit direction d) of the pixel rays, in that order (LGM section 3.2)."""
    origin, directions = rays_world(camera)
    return np.concatenate([np.cross(np.broadcast_to(origin, directions.shape), directions), directions], -1)
