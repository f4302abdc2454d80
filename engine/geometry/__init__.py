"""Cameras, orbits, rays and frame conversions, in numpy alone. CONVENTIONS.md states what everything means."""

from engine.geometry.camera import Camera, focal_px_from_fov_deg, fov_deg_from_focal_px, look_at
from engine.geometry.orbit import RING16, RING24, RINGS, Orbit, Ring
from engine.geometry.rays import (
    pixel_centres,
    pluecker_rays,
    project,
    rays_world,
    unproject_depth,
)
from engine.geometry.rotations import matrix_from_quaternion, quaternion_from_matrix, rotation_about

__all__ = [
    "RING16",
    "RING24",
    "RINGS",
    "Camera",
    "Orbit",
    "Ring",
    "focal_px_from_fov_deg",
    "fov_deg_from_focal_px",
    "look_at",
    "matrix_from_quaternion",
    "pixel_centres",
    "pluecker_rays",
    "project",
    "quaternion_from_matrix",
    "rays_world",
    "rotation_about",
    "unproject_depth",
]
