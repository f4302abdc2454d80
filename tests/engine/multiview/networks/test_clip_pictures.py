"""The two systems' ways of making pictures small, against Pillow and against diffusers' copy of kornia's rule."""

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing
from PIL import Image

from engine.multiview.networks.clip_pictures import hi3d_pixels, kornia_bicubic, pillow_bilinear, videomv_pixels


@pytest.mark.parametrize(("side", "size"), [(256, 224), (224, 224), (64, 56), (40, 56), (1000, 100), (257, 224)])
def test_bilinear_is_pillows(side: int, size: int) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(levels).resize((size, size), Image.Resampling.BILINEAR))
    picture = torch.from_numpy(levels).permute(2, 0, 1)[None].float() / 255
    found = (pillow_bilinear(picture, size)[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("side", [(512, 512), (300, 450), (226, 224), (1024, 600)])
def test_bicubic_is_kornias(side: tuple[int, int]) -> None:
    pictures = torch.rand(2, 3, *side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    expected = _resize_with_antialiasing(pictures, (224, 224))
    torch.testing.assert_close(kornia_bicubic(pictures, 224), expected, rtol=0, atol=1e-5)  # float32's order


def test_bicubic_does_not_smooth_what_grows() -> None:
    """kornia smooths only where a side shrinks; corners stay corners under align_corners."""
    pictures = torch.rand(1, 3, 100, 224, generator=torch.Generator().manual_seed(2))
    found = kornia_bicubic(pictures, 224)
    torch.testing.assert_close(found[..., [0, -1], :], pictures[..., [0, -1], :], rtol=0, atol=1e-6)


def test_both_normalise() -> None:
    white, black = torch.ones(1, 3, 64, 64), -torch.ones(1, 3, 64, 64)
    for pixels in (videomv_pixels, hi3d_pixels):
        # (1 - mean) / std and -mean / std of CLIP's red channel.
        assert float(pixels(white, 56)[0, 0].mean()) == pytest.approx((1 - 0.48145466) / 0.26862954, abs=1e-5)
        assert float(pixels(black, 56)[0, 0].mean()) == pytest.approx(-0.48145466 / 0.26862954, abs=1e-5)
