"""Orbits of analytic bodies: intersected with the rays of engine.geometry."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from engine.geometry import RING24, Orbit, rays_world

Body = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Distance along rays (origins, unit directions, [..., 3]) to the body; inf for a miss."""
SIZE_PX = 96
FINE = 2  # alpha is the share of 2 x 2 sub-pixel rays that hit


@dataclass(frozen=True)
class Scene:
    orbit: Orbit
    depth_m: np.ndarray
    alpha: np.ndarray
    points: np.ndarray


def trace(body: Body, orbit: Orbit) -> tuple[np.ndarray, np.ndarray]:
    """Planar depth (0 = nothing) and hit points of every pixel."""
    depth, points = [], []
    for camera in orbit.cameras:
        centre, rays = rays_world(camera)
        distance = body(np.broadcast_to(centre, rays.shape), rays)
        hit = np.isfinite(distance)
        distance = np.where(hit, distance, 0)
        depth.append(distance * (rays @ camera.T_world_camera[:3, 2]))
        points.append(centre + distance[..., None] * rays)
    return np.stack(depth).astype(np.float32), np.stack(points)


def make_scene(body: Body, elevation_deg: float = 20.0, views: int = 16, size: int = SIZE_PX) -> Scene:
    orbit = RING24.orbit(elevation_deg, size, size).subset([k * 24 // views for k in range(views)])
    depth, points = trace(body, orbit)
    fine, _ = trace(body, orbit.resized(FINE * size, FINE * size))
    alpha = (fine > 0).reshape(len(orbit), size, FINE, size, FINE).mean((2, 4)).astype(np.float32)
    return Scene(orbit, depth, alpha, points)


def sphere(radius: float, centre: tuple[float, float, float] = (0, 0, 0)) -> Body:
    def intersect(o: np.ndarray, d: np.ndarray) -> np.ndarray:
        half = ((o - centre) * d).sum(-1)
        root = half**2 - ((o - centre) ** 2).sum(-1) + radius**2
        return np.where(root >= 0, -half - np.sqrt(np.maximum(root, 0)), np.inf)

    return intersect


def box(half: tuple[float, float, float]) -> Body:
    def intersect(o: np.ndarray, d: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            a, b = (-np.asarray(half) - o) / d, (np.asarray(half) - o) / d
        near, far = np.minimum(a, b).max(-1), np.maximum(a, b).min(-1)
        return np.where(near <= far, near, np.inf)

    return intersect


def torus(ring: float, tube: float) -> Body:
    """It stands upright, its hole along Y. Sphere tracing: rays that graze creep along, so many steps."""

    def intersect(o: np.ndarray, d: np.ndarray) -> np.ndarray:
        distance = np.full(d.shape[:-1], 1.0)
        alive = np.ones(distance.shape, bool)
        for _ in range(500):
            p = o[alive] + distance[alive][:, None] * d[alive]
            step = np.hypot(np.hypot(p[:, 0], p[:, 2]) - ring, p[:, 1]) - tube
            distance[alive] += step
            alive[alive] = (step > 1e-5) & (distance[alive] < 3)
        return np.where(distance < 3, distance, np.inf)

    return intersect


@pytest.fixture(scope="session")
def scenes() -> dict[str, Scene]:
    return {
        "sphere": make_scene(sphere(0.5)),
        "box": make_scene(box((0.5, 0.3, 0.25))),
        "tower": make_scene(box((0.35, 0.3, 0.5)), 17.8),  # its roof is seen at 3 to 5 degrees
        "torus": make_scene(torus(0.36, 0.14)),
        "sheet": make_scene(box((0.4, 0.001, 0.4))),
        "lifted sphere": make_scene(sphere(0.3, (0, 0, -0.15))),
    }
