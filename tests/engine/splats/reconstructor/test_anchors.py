"""Where anchored Gaussians start: on their pixel's ray, of their pixel's colour."""

import numpy as np
import torch

from engine.geometry import RING24
from engine.geometry.rays import project
from engine.splats.reconstructor import GaussianUNet, Reconstructor
from engine.splats.reconstructor.anchors import ASIDE_M, REACH_M, anchored_numbers
from engine.splats.reconstructor.network import CONFIGS

SIZE = 32


def test_nothing_raw_is_the_pixel_itself() -> None:
    """Zeros stand for the ray's point nearest to the object's middle, and for the colour that the pixel has."""
    reconstructor = Reconstructor(GaussianUNet(**{**CONFIGS["test"], "radius_m": None}, anchored=True))
    cameras = RING24.orbit(20.0, SIZE, SIZE).subset([0, 5, 13]).cameras
    images = torch.rand(1, 3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05
    frames = reconstructor.frames(images, [cameras])
    inputs = reconstructor.inputs(images, frames)[0]
    raw = anchored_numbers(torch.zeros(3, 14, SIZE, SIZE), inputs)
    gaussians = reconstructor.gaussians(raw[None], frames)[0]
    means = gaussians.means.double().numpy().reshape(3, SIZE, SIZE, 3)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    for view, camera in enumerate(cameras):
        pixels, _ = project(camera, means[view].reshape(-1, 3))
        expected = np.stack([columns, rows], axis=-1).reshape(-1, 2)
        np.testing.assert_allclose(pixels, expected, atol=2e-3)  # float32 at 2 m
        to_origin = means[view].reshape(-1, 3)
        directions = to_origin - camera.T_world_camera[:3, 3]
        assert np.abs((to_origin * directions).sum(-1)).max() < 1e-5  # square to the ray: its nearest point
    colours = 0.5 + 0.28209479177387814 * gaussians.sh[:, 0]
    torch.testing.assert_close(colours, images[0].permute(0, 2, 3, 1).reshape(-1, 3), atol=1e-4, rtol=0)


def test_raw_numbers_move_along_and_across_the_ray() -> None:
    """The first number goes along the ray, at most half the unit cube's diagonal; the others across, 3 cm each."""
    reconstructor = Reconstructor(GaussianUNet(**{**CONFIGS["test"], "radius_m": None}, anchored=True))
    camera = RING24.orbit(0.0, SIZE, SIZE).camera(0)
    images = torch.rand(1, 1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    frames = reconstructor.frames(images, [[camera]])
    inputs = reconstructor.inputs(images, frames)[0]

    def moved(*position: float) -> np.ndarray:
        raw = torch.zeros(1, 14, SIZE, SIZE)
        raw[:, :3] = torch.tensor(position).view(3, 1, 1)
        made = reconstructor.gaussians(anchored_numbers(raw, inputs)[None], frames)[0]
        return made.means.numpy().reshape(SIZE, SIZE, 3)[SIZE // 2, SIZE // 2]

    start = moved(0, 0, 0)
    ahead = camera.T_world_camera[:3, 2]
    far = moved(100, 0, 0) - start
    assert np.linalg.norm(far) <= REACH_M + 1e-6
    assert far @ ahead > 0.99 * REACH_M
    np.testing.assert_allclose(moved(0, 1, 0) - start, ASIDE_M * camera.T_world_camera[:3, 0], atol=1e-3)  # off axis
    np.testing.assert_allclose(moved(0, 0, 1) - start, -ASIDE_M * camera.T_world_camera[:3, 1], atol=1e-3)
