"""Projection and unprojection are inverse; rays meet their pixels; Pluecker coordinates obey their laws."""

import numpy as np
import pytest

from engine.geometry import (
    RING24,
    Camera,
    look_at,
    matrix_from_quaternion,
    pixel_centres,
    pluecker_rays,
    project,
    rays_world,
    unproject_depth,
)

EXACT = 1e-12  # float64 rounding of a few multiplications of numbers of size 1
PIXEL = 1e-9  # EXACT times a focal length of some hundred pixels, with room


@pytest.fixture
def cameras(rng: np.random.Generator) -> list[Camera]:
    """Cameras anywhere, principal points off the middle, width unlike height."""
    made = []
    for _ in range(20):
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = matrix_from_quaternion(rng.normal(size=4)), rng.normal(size=3)
        made.append(Camera(pose, 20, 14, rng.uniform(10, 40), tuple(rng.uniform(4, 12, 2).tolist())))
    return made


def test_projecting_the_unprojected_returns_pixels_and_depth(cameras, rng):
    for camera in cameras:
        depth_m = rng.uniform(0.1, 5, (14, 20))
        pixels, depth_again_m = project(camera, unproject_depth(camera, depth_m).reshape(-1, 3))
        np.testing.assert_allclose(pixels.reshape(14, 20, 2), pixel_centres(20, 14), atol=PIXEL)
        np.testing.assert_allclose(depth_again_m.reshape(14, 20), depth_m, atol=EXACT)


def test_projection_equals_the_pinhole_matrix(cameras, rng):
    for camera in cameras:
        local = rng.uniform([-1, -1, 0.2], [1, 1, 4], (50, 3))
        world = local @ camera.T_world_camera[:3, :3].T + camera.T_world_camera[:3, 3]
        homogeneous = local @ camera.K.T
        pixels, depth_m = project(camera, world)
        # Rounding grows with u = f x / z: up to 200 px off the axis here.
        np.testing.assert_allclose(pixels, homogeneous[:, :2] / homogeneous[:, 2:], atol=PIXEL)
        np.testing.assert_allclose(depth_m, local[:, 2], atol=EXACT)


def test_points_behind_have_no_pixel():
    pixels, depth_m = project(Camera.from_fov(np.eye(4), 40.0, 8, 8), np.array([[0, 0, -1.0], [0, 0, 0], [0, 0, 1]]))
    assert not np.isfinite(pixels[:2]).any()
    np.testing.assert_array_equal(depth_m, [-1, 0, 1])
    np.testing.assert_allclose(pixels[2], [4, 4], atol=EXACT)


def test_pixel_centres_start_at_a_half_and_go_right_then_down():
    centres = pixel_centres(3, 2)
    assert centres.shape == (2, 3, 2)
    np.testing.assert_array_equal(centres[0, 0], [0.5, 0.5])
    np.testing.assert_array_equal(centres[1, 2], [2.5, 1.5])


def test_depth_is_planar_and_zero_means_nothing():
    camera = RING24.orbit(0.0, 9, 9).camera(0)
    depth_m = np.full((9, 9), 2.0)  # the plane y = 0, seen from (0, -2, 0)
    depth_m[3, 4] = 0
    points = unproject_depth(camera, depth_m)
    assert np.isnan(points[3, 4]).all()
    np.testing.assert_allclose(np.delete(points[..., 1].ravel(), 3 * 9 + 4), 0, atol=EXACT)


def test_depth_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"^depth_m must be 9 x 9 like its camera, got \(9, 8\)$"):
        unproject_depth(RING24.orbit(0.0, 9, 9).camera(0), np.ones((9, 8)))


def test_rays_pass_through_their_pixels(cameras):
    for camera in cameras:
        origin, directions = rays_world(camera)
        np.testing.assert_allclose(np.linalg.norm(directions, axis=-1), 1, atol=EXACT)
        pixels, _ = project(camera, (origin + 3.0 * directions).reshape(-1, 3))
        np.testing.assert_allclose(pixels.reshape(14, 20, 2), pixel_centres(20, 14), atol=PIXEL)


def test_pluecker_moment_is_normal_to_the_ray_and_its_length_is_the_distance_from_the_origin(cameras):
    for camera in cameras:
        moment, direction = np.split(pluecker_rays(camera), 2, axis=-1)
        origin, directions = rays_world(camera)
        np.testing.assert_allclose(direction, directions, atol=EXACT)
        np.testing.assert_allclose((moment * direction).sum(-1), 0, atol=EXACT)
        nearest = origin - (origin @ direction[..., None]) * direction
        np.testing.assert_allclose(np.linalg.norm(moment, axis=-1), np.linalg.norm(nearest, axis=-1), atol=EXACT)


def test_pluecker_coordinates_name_the_line_and_not_the_camera_on_it():
    near, far = (Camera(look_at(np.array([0, -d, 0.0]), np.zeros(3)), 1, 1, 1.0, (0.5, 0.5)) for d in (1.0, 5.0))
    np.testing.assert_allclose(pluecker_rays(near), pluecker_rays(far), atol=EXACT)
