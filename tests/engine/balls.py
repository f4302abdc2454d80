"""Orbits of objects that arithmetic knows exactly, for the whole engine's tests."""

from dataclasses import replace

import numpy as np
import trimesh

from engine.files import MeshArrays, OrbitImages
from engine.geometry import RING24, rays_world

SUPERSAMPLING = 4
RADIUS_M = 0.5
"""The longest side is 1, as in every normalised orbit."""


def ball_orbit(size: int = 48, views: int = 12, elevation_deg: float = 20.0, radius_m: float = RADIUS_M) -> OrbitImages:
    """A ball with smooth coloured bands, ray traced: colour by place, antialiased alpha, exact depth and normals."""
    orbit = replace(RING24, views=views, name=f"ring{views}").orbit(elevation_deg, size, size)
    fine = orbit.resized(size * SUPERSAMPLING, size * SUPERSAMPLING)
    pictures = [_trace(camera, radius_m) for camera in fine.cameras]
    rgba = [_shrink(colour, hit) for colour, hit, _, _ in pictures]
    centres = [_trace(camera, radius_m) for camera in orbit.cameras]
    return OrbitImages(
        uid="ball",
        orbit=orbit,
        rgba=np.stack(rgba),
        depth_m=np.stack([depth for _, _, depth, _ in centres]).astype(np.float32),
        normal=np.stack([normal for _, _, _, normal in centres]).astype(np.float32),
        license="CC0-1.0",
    )


def ball_colours(points: np.ndarray) -> np.ndarray:
    """Colour by place: no two sides of the ball look alike."""
    x, y, z = np.moveaxis(points, -1, 0)
    return np.stack([0.5 + x, 0.5 + 0.45 * np.sin(9 * y), 0.5 + 0.8 * z], -1).clip(0, 1)


def _trace(camera, radius_m):
    origin, directions = rays_world(camera)
    along = -(directions @ origin)
    inside = radius_m**2 - (origin @ origin - along**2)
    hit = inside > 0
    distance = along - np.sqrt(np.where(hit, inside, 0))
    points = origin + distance[..., None] * directions
    depth = np.where(hit, (points - origin) @ camera.T_world_camera[:3, 2], 0)
    normals = np.where(hit[..., None], points / radius_m, 0)
    return ball_colours(points), hit, depth, normals


def _shrink(colour, hit):
    size = len(hit) // SUPERSAMPLING
    blocks = (size, SUPERSAMPLING, size, SUPERSAMPLING)
    alpha = hit.reshape(blocks).mean((1, 3))
    summed = (colour * hit[..., None]).reshape(*blocks, 3).mean((1, 3))
    straight = summed / np.maximum(alpha, 1e-9)[..., None]
    return np.rint(255 * np.concatenate([straight, alpha[..., None]], -1)).astype(np.uint8)


def ball_mesh(radius_m: float = RADIUS_M) -> MeshArrays:
    """The ball itself as triangles, fine enough that its facets lie within 0.1 mm of it."""
    sphere = trimesh.creation.icosphere(subdivisions=5, radius=radius_m)
    return MeshArrays(sphere.vertices.astype(np.float32), sphere.faces.astype(np.int64))
