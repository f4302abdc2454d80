"""The network's frame against the published numbers, and the way back from it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.geometry import RING16, RING24, Camera, project, rotation_about
from engine.geometry.frames import FLIP_YZ, lgm_rasterizer_matrices, to_opengl
from engine.splats import render
from engine.splats.gaussians import Gaussians
from engine.splats.reconstructor import GaussianUNet, InputFrame, Reconstructor, input_frame, released_cameras
from engine.splats.reconstructor.reconstructor import IMAGENET_MEAN, IMAGENET_STD
from tests.engine.splats.reconstructor.stand_ins import blobs

FLOAT32 = 2e-6  # the published numbers are float32 of size 4
PATHS = pytest.mark.parametrize(
    ("prefix", "released"), [("trainpath_", False), ("", True)], ids=["training", "released"]
)


def ring_cameras(
    released: bool = False, elevation_deg: float = 15.0, distance_m: float = 2.0, side_px: int = 16
) -> list[Camera]:
    cameras = replace(RING24, distance_m=distance_m).orbit(elevation_deg, side_px, side_px).cameras
    return released_cameras(cameras) if released else cameras


@PATHS
def test_poses_and_rays_equal_the_published(prefix, released, oracles):
    published = np.load(oracles / "videomv_gs_cameras.npz")
    frame = input_frame(ring_cameras(released, side_px=256))
    np.testing.assert_allclose(frame.poses, published[f"{prefix}c2w_norm"], atol=FLOAT32)
    np.testing.assert_allclose(frame.rays[:, :, ::32, ::32], published[f"{prefix}rays_sub"], atol=FLOAT32)


@PATHS
def test_matrices_equal_the_published(prefix, released, oracles):
    published = np.load(oracles / "videomv_gs_cameras.npz")
    view, view_projection, place = lgm_rasterizer_matrices(input_frame(ring_cameras(released)).poses, 39.6)
    np.testing.assert_allclose(view, published[f"{prefix}cam_view"], atol=FLOAT32)
    np.testing.assert_allclose(view_projection, published[f"{prefix}cam_view_proj"], atol=3 * FLOAT32)  # times 2.8
    np.testing.assert_allclose(place, published[f"{prefix}cam_pos"], atol=FLOAT32)
    proj = np.linalg.inv(view[0]) @ view_projection[0]
    np.testing.assert_allclose(proj, published[f"{prefix}proj"], atol=3 * FLOAT32)


@PATHS
def test_points_moved_to_our_world_fall_on_the_published_pixels(prefix, released, oracles):
    published = np.load(oracles / "videomv_gs_cameras.npz")
    cameras = ring_cameras(released)
    gaussians = blobs(50)
    moved = input_frame(cameras).to_world(gaussians).means.double().numpy()
    homogeneous = np.c_[gaussians.means.numpy(), np.ones(50)]
    for camera, matrix in zip(cameras, published[f"{prefix}cam_view_proj"], strict=True):
        clip = homogeneous @ matrix
        ahead = clip[:, 3] > 0.2  # the others are behind, where pixels mean nothing
        theirs = ((clip[:, :2] / clip[:, 3:] + 1) * 256 - 1) / 2 + 0.5  # their first pixel's centre is 0
        ours, depth = project(camera.resized(256, 256), moved)
        np.testing.assert_allclose(depth, clip[:, 3], atol=1e-5)  # float32 points and matrices
        np.testing.assert_allclose(ours[ahead], theirs[ahead], atol=2e-3, rtol=1e-4)  # pixels; 1e-6 m at 300 px / m


def test_rays_of_the_four_inference_views_and_the_whole_input_equal_the_published(oracles):
    published = np.load(oracles / "lgm_small.npz")
    four = RING16.orbit(0.0, 32, 32).subset([0, 4, 8, 12])
    cameras = [Camera.from_fov(pose, 49.1, 32, 32) for pose in four.T_world_camera]
    np.testing.assert_allclose(input_frame(cameras, 1.5).rays, published["rays"], atol=FLOAT32)
    network = GaussianUNet(
        down_channels=(32,), down_attention=(False,), up_channels=(32,), up_attention=(False,), input_size=32
    )
    reconstructor = Reconstructor(network)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    images = torch.from_numpy(published["input"][:, :, :3]) * std + mean
    inputs = reconstructor.inputs(images, reconstructor.frames(images, [cameras, cameras]))
    np.testing.assert_allclose(inputs, published["input"], atol=FLOAT32)


@pytest.mark.parametrize("released", [False, True], ids=["consistent", "released"])
@pytest.mark.parametrize(
    ("elevation_deg", "distance_m", "radius_m"), [(15.0, 2.0, None), (-8.0, 1.7, 1.5), (28.0, 2.3, 1.5)]
)
def test_pictures_are_the_same_in_both_frames(released, elevation_deg, distance_m, radius_m):
    cameras = ring_cameras(released, elevation_deg, distance_m)
    frame = input_frame(cameras, radius_m)
    inside = blobs(300, radius=0.4)
    views = (
        [0, 1, 23] if released else [0, 5, 10, 15, 20]
    )  # turned outwards, only the first ones see the network's origin
    seen_inside = [Camera.from_fov(frame.poses[view] @ FLIP_YZ, 39.6, 64, 64) for view in views]
    seen_outside = [cameras[view].resized(64, 64) for view in views]
    there = render(inside, seen_inside, backend="numba")
    here = render(frame.to_world(inside), seen_outside, backend="numba")
    assert there.alpha.mean() > 0.02
    # Float32 positions; a splat's edge at 1/255 may fall on the other side: a single step of one splat.
    torch.testing.assert_close(here.colour, there.colour, atol=6e-3, rtol=0)
    assert (here.colour - there.colour).abs().mean() < 1e-5


@pytest.mark.parametrize("radius_m", [None, 1.5])
def test_the_object_stands_where_it_stood(radius_m):
    """A point at the world's origin is at the network's origin, and distances keep their proportion."""
    cameras = ring_cameras(elevation_deg=20.0)[3:]
    frame = input_frame(cameras, radius_m)
    assert frame.scale == pytest.approx(2.0 / (radius_m or 2.0))
    np.testing.assert_allclose(np.linalg.norm(frame.poses[:, :3, 3], axis=1), radius_m or 2.0, atol=1e-9)
    gaussians = blobs(20)
    moved = frame.to_world(gaussians)
    expected = frame.rotation @ gaussians.means.double().numpy().T * frame.scale
    np.testing.assert_allclose(moved.means.numpy(), expected.T, atol=1e-6)  # float32
    np.testing.assert_allclose(frame.translation, 0, atol=1e-9)


def test_view_dependent_colours_turn_with_the_world():
    gaussians = blobs(100)
    sh = torch.randn(100, 9, 3, generator=torch.Generator().manual_seed(4)) * 0.2
    coloured = Gaussians(*gaussians.tensors[:4], sh)
    cameras = ring_cameras()
    frame = input_frame(cameras)
    there = render(coloured, [Camera.from_fov(frame.poses[5] @ FLIP_YZ, 39.6, 48, 48)], backend="numba")
    here = render(frame.to_world(coloured), [cameras[5].resized(48, 48)], backend="numba")
    torch.testing.assert_close(here.colour, there.colour, atol=6e-3, rtol=0)  # one splat's step, as above


def test_released_cameras_look_away_from_the_object():
    for ours, turned in zip(ring_cameras(), ring_cameras(released=True), strict=True):
        np.testing.assert_allclose(turned.T_world_camera, to_opengl(ours.T_world_camera), atol=0)
        assert turned.T_camera_world[2, 3] == pytest.approx(-2.0)


def test_a_frame_needs_cameras_away_from_the_origin():
    with pytest.raises(ValueError, match="at least one camera"):
        input_frame([])
    inside = replace(ring_cameras()[0], T_world_camera=np.eye(4))
    with pytest.raises(ValueError, match="away from the origin"):
        input_frame([inside])


def test_principal_points_off_centre_are_honoured():
    """A crop of a picture has the crop of its rays."""
    camera = ring_cameras(side_px=256)[0]
    crop = replace(camera, width=64, height=64, principal_px=(128.0 - 40, 128.0 - 100))
    whole, part = input_frame([camera]), input_frame([crop])
    assert isinstance(whole, InputFrame)
    np.testing.assert_allclose(part.rays, whole.rays[:, :, 100:164, 40:104], atol=1e-12)


def test_turning_the_whole_scene_turns_the_result():
    """The network sees relative cameras only: a scene turned about the vertical gives turned Gaussians."""
    turn = np.eye(4)
    turn[:3, :3] = rotation_about("z", 77.0)
    cameras = ring_cameras()[::6]
    turned = [replace(camera, T_world_camera=turn @ camera.T_world_camera) for camera in cameras]
    plain, rotated = input_frame(cameras), input_frame(turned)
    np.testing.assert_allclose(rotated.rays, plain.rays, atol=1e-9)
    expected = plain.to_world(blobs(10)).means.numpy() @ turn[:3, :3].T
    np.testing.assert_allclose(rotated.to_world(blobs(10)).means.numpy(), expected, atol=1e-6)  # float32
