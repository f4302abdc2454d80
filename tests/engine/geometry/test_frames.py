"""Every other convention: there and back, the group laws, worked examples, and what the published code computed."""

from pathlib import Path

import numpy as np
import pytest

from engine.geometry import RING16, RING24, Camera, matrix_from_quaternion
from engine.geometry.camera import check_poses
from engine.geometry.frames import (
    FLIP_YZ,
    from_blender,
    from_gltf,
    from_lgm,
    from_lgm_input_poses,
    from_opengl,
    from_splat_ply,
    from_syncdreamer,
    from_videomv,
    invert_pose,
    lgm_input_poses,
    lgm_rasterizer_matrices,
    lgm_rays,
    points_from_gltf,
    points_to_gltf,
    syncdreamer_azimuth_rad,
    to_blender,
    to_gltf,
    to_lgm,
    to_opengl,
    to_splat_ply,
    to_syncdreamer,
    to_videomv,
)

EXACT = 1e-12  # float64 rounding of a few multiplications of numbers of size 1 to 10
FLOAT32 = 2e-6  # the published code computes in float32: some roundings (6e-8 each) of numbers up to 4

CONVERSIONS = {
    "opengl": (to_opengl, from_opengl),
    "blender": (to_blender, from_blender),
    "gltf": (to_gltf, from_gltf),
    "splat_ply": (to_splat_ply, from_splat_ply),
    "videomv": (to_videomv, from_videomv),
    "lgm": (to_lgm, from_lgm),
    "syncdreamer": (to_syncdreamer, from_syncdreamer),
}


@pytest.fixture
def poses(rng: np.random.Generator) -> np.ndarray:
    """A thousand rigid poses."""
    made = np.zeros((1000, 4, 4))
    made[:, :3, :3] = matrix_from_quaternion(rng.normal(size=(1000, 4)))
    made[:, :3, 3], made[:, 3, 3] = rng.normal(size=(1000, 3)) * 3, 1
    return made


def square(name: str, converted: np.ndarray) -> np.ndarray:
    """A conversion's answer as 4x4 camera to world, whatever layout that side keeps."""
    if name == "videomv":
        return converted.reshape(-1, 4, 4)
    if name == "syncdreamer":
        bottom = np.broadcast_to([[[0.0, 0, 0, 1]]], (len(converted), 1, 4))
        return np.linalg.inv(np.concatenate([converted, bottom], 1))
    return converted


@pytest.mark.parametrize("name", CONVERSIONS)
def test_there_and_back(name, poses):
    there, back = CONVERSIONS[name]
    np.testing.assert_allclose(back(there(poses)), poses, atol=EXACT)


@pytest.mark.parametrize("name", CONVERSIONS)
def test_back_and_there(name, poses):
    there, back = CONVERSIONS[name]
    theirs = there(poses[::-1])
    np.testing.assert_allclose(there(back(theirs)), theirs, atol=EXACT)


@pytest.mark.parametrize("name", CONVERSIONS)
def test_rigid_poses_stay_rigid(name, poses):
    check_poses(square(name, CONVERSIONS[name][0](poses)))


@pytest.mark.parametrize("name", CONVERSIONS)
def test_the_motion_between_two_cameras_is_the_same_motion_seen_from_the_camera(name, poses):
    """A change of world cancels in inv(A) B; a change of camera axes only conjugates it."""
    theirs = square(name, CONVERSIONS[name][0](poses))
    ours_between = invert_pose(poses[:-1]) @ poses[1:]
    theirs_between = invert_pose(theirs[:-1]) @ theirs[1:]
    axes = np.eye(4) if name in ("splat_ply", "syncdreamer") else FLIP_YZ
    np.testing.assert_allclose(theirs_between, axes @ ours_between @ axes, atol=1e-11)  # four products of size 10


@pytest.mark.parametrize("name", [name for name in CONVERSIONS if name != "syncdreamer"])
def test_one_pose_converts_like_a_batch(name, poses):
    there, back = CONVERSIONS[name]
    np.testing.assert_array_equal(there(poses[3]), there(poses)[3])
    np.testing.assert_allclose(back(there(poses[3])), poses[3], atol=EXACT)


def test_one_syncdreamer_pose_converts_like_a_batch(poses):
    np.testing.assert_array_equal(to_syncdreamer(poses[3]), to_syncdreamer(poses)[3])
    np.testing.assert_allclose(from_syncdreamer(to_syncdreamer(poses[3])), poses[3], atol=EXACT)


def test_invert_pose_is_the_inverse_and_an_involution(poses):
    np.testing.assert_allclose(invert_pose(poses) @ poses, np.broadcast_to(np.eye(4), poses.shape), atol=EXACT)
    np.testing.assert_allclose(invert_pose(invert_pose(poses)), poses, atol=EXACT)
    np.testing.assert_allclose(
        invert_pose(poses[:-1] @ poses[1:]), invert_pose(poses[1:]) @ invert_pose(poses[:-1]), atol=EXACT * 10
    )


def test_gltf_points_there_and_back_and_in_step_with_the_cameras(poses, rng):
    points = rng.normal(size=(1000, 3))
    np.testing.assert_array_equal(points_to_gltf(np.array([[1.0, 2, 3]])), [[1, 3, -2]])
    np.testing.assert_allclose(points_from_gltf(points_to_gltf(points)), points, atol=EXACT)
    homogeneous = np.concatenate([points, np.ones((1000, 1))], 1)[..., None]
    in_camera = (invert_pose(poses) @ homogeneous)[:, :3, 0]
    turned = np.concatenate([points_to_gltf(points), np.ones((1000, 1))], 1)[..., None]
    in_gltf_camera = (invert_pose(to_gltf(poses)) @ turned)[:, :3, 0]
    np.testing.assert_allclose(in_gltf_camera, in_camera * [1, -1, -1], atol=EXACT * 10)  # sums of products of size 10


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gltf_points_keep_their_precision(dtype):
    points = np.ones((5, 3), dtype)
    assert points_to_gltf(points).dtype == dtype
    assert points_from_gltf(points).dtype == dtype


def test_a_blender_camera_at_rest_looks_down():
    # An unrotated camera object in Blender looks along -Z with +Y up: ours must look there too.
    ours = from_blender(np.eye(4))
    np.testing.assert_array_equal(ours[:3, 2], [0, 0, -1])
    np.testing.assert_array_equal(ours[:3, 1], [0, -1, 0])


def test_splat_world_has_y_down_and_z_ahead():
    above_and_behind = np.eye(4)
    above_and_behind[:3, 3] = [1, -2, 3]
    np.testing.assert_array_equal(to_splat_ply(above_and_behind)[:3, 3], [1, -3, -2])


# ---------------------------------------------------------------- VideoMV
def test_videomv_vector_of_view_0():
    vectors = to_videomv(RING24.orbit(15.0, 256, 256).T_world_camera)
    expected = [0, -0.259, 0.966, 1.932, 1, 0, 0, 0, 0, 0.966, 0.259, 0.518, 0, 0, 0, 1]
    np.testing.assert_allclose(vectors[0], expected, atol=6e-4)  # printed with three decimals


def test_videomv_views_stand_at_its_formula():
    vectors = to_videomv(RING24.orbit(15.0, 256, 256).T_world_camera).reshape(-1, 4, 4)
    a, e = np.radians(np.arange(24) * 15), np.radians(15)
    expected = 2 * np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.full(24, np.sin(e))], -1)
    np.testing.assert_allclose(vectors[:, :3, 3], expected, atol=EXACT)
    # OpenGL: the camera looks along -Z, so +Z points away from the origin.
    np.testing.assert_allclose(vectors[:, :3, 2], expected / 2, atol=EXACT)


# ---------------------------------------------------------------- SyncDreamer (Hi3D)
def test_syncdreamer_sees_the_object_where_its_azimuth_says():
    orbit = RING16.orbit(30.0, 256, 256)
    world_to_camera = to_syncdreamer(orbit.T_world_camera)
    azimuth_rad, e = syncdreamer_azimuth_rad(orbit.azimuth_deg), np.radians(30.0)
    place = 1.5 * np.stack(
        [np.cos(e) * np.cos(azimuth_rad), np.cos(e) * np.sin(azimuth_rad), np.full(16, np.sin(e))], -1
    )
    np.testing.assert_allclose(
        (world_to_camera[:, :, :3] @ place[..., None])[..., 0], -world_to_camera[:, :, 3], atol=EXACT
    )
    np.testing.assert_allclose(world_to_camera[:, :, 3], np.broadcast_to([0, 0, 1.5], (16, 3)), atol=EXACT)


# ---------------------------------------------------------------- LGM: against its own code's numbers
PATHS = pytest.mark.parametrize(
    ("prefix", "released_flip"), [("trainpath_", False), ("", True)], ids=["training", "released"]
)


@pytest.fixture
def reconstructor_cameras(oracles: Path) -> dict[str, np.ndarray]:
    """What VideoMV hands to LGM at elevation 15, distance 2."""
    return dict(np.load(oracles / "videomv_gs_cameras.npz"))


@PATHS
def test_lgm_input_poses_equal_the_published(prefix, released_flip, reconstructor_cameras):
    poses = lgm_input_poses(RING24.orbit(15.0, 256, 256).T_world_camera, released_flip=released_flip)
    np.testing.assert_allclose(poses, reconstructor_cameras[f"{prefix}c2w_norm"], atol=FLOAT32)


@PATHS
def test_lgm_rasterizer_matrices_equal_the_published(prefix, released_flip, reconstructor_cameras):
    poses = lgm_input_poses(RING24.orbit(15.0, 256, 256).T_world_camera, released_flip=released_flip)
    view, view_projection, place = lgm_rasterizer_matrices(poses, 39.6)
    np.testing.assert_allclose(view, reconstructor_cameras[f"{prefix}cam_view"], atol=FLOAT32)
    np.testing.assert_allclose(place, reconstructor_cameras[f"{prefix}cam_pos"], atol=FLOAT32)
    # Multiplied by 1 / tan(19.8 deg) = 2.8, so three times the rounding.
    np.testing.assert_allclose(view_projection, reconstructor_cameras[f"{prefix}cam_view_proj"], atol=3 * FLOAT32)


@PATHS
def test_lgm_rays_equal_the_published(prefix, released_flip, reconstructor_cameras):
    orbit = RING24.orbit(15.0, 256, 256)
    poses = lgm_input_poses(orbit.T_world_camera, released_flip=released_flip)
    every_32nd = lgm_rays(poses, orbit.cameras)[:, :, ::32, ::32]
    np.testing.assert_allclose(every_32nd, reconstructor_cameras[f"{prefix}rays_sub"], atol=FLOAT32)


def test_the_release_flip_loses_the_object_and_the_default_does_not():
    ours = RING24.orbit(15.0, 256, 256).T_world_camera
    consistent, released = lgm_input_poses(ours), lgm_input_poses(ours, released_flip=True)
    # Without the flip, LGM's world origin lies d ahead of every camera; with it, only the first view sees it.
    ahead = invert_pose(consistent)[:, :3, 3]
    np.testing.assert_allclose(ahead, np.broadcast_to([0, 0, -2.0], (24, 3)), atol=EXACT)
    np.testing.assert_allclose(invert_pose(released @ FLIP_YZ)[6, :3, 3], [-3.86, 1, -1.73], atol=5e-3)  # 2 decimals


def test_lgm_input_poses_there_and_back(poses):
    for first in range(0, 1000, 50):
        several = poses[first : first + 4]
        back = from_lgm_input_poses(lgm_input_poses(several), several[0])
        np.testing.assert_allclose(back, several, atol=EXACT * 10)  # two more products of size 10


def test_lgm_orbit_camera_counts_elevation_downwards(oracles: Path):
    published = np.load(oracles / "lgm_small.npz")
    for (elevation_deg, azimuth_deg), expected in zip(
        published["orbit_el_az"].tolist(), published["orbit_c2w"], strict=True
    ):
        ring = RING16.orbit(-float(elevation_deg), 32, 32)
        (index,) = np.flatnonzero(np.isclose(ring.azimuth_deg, azimuth_deg))
        np.testing.assert_allclose(to_lgm(ring.T_world_camera[index]), expected, atol=FLOAT32)


def test_lgm_rays_of_its_four_inference_views_equal_the_published(oracles: Path):
    four = RING16.orbit(0.0, 32, 32).subset([0, 4, 8, 12])  # azimuth 0, 90, 180, 270 at 1.5 m
    cameras = [Camera.from_fov(pose, 49.1, 32, 32) for pose in four.T_world_camera]
    rays = lgm_rays(lgm_input_poses(four.T_world_camera), cameras)
    np.testing.assert_allclose(rays, np.load(oracles / "lgm_small.npz")["rays"], atol=FLOAT32)
