"""3D-aware refinement: an ideal reconstructor gives the true views back, the release's details hold."""

from collections.abc import Sequence

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch.nn import functional

from engine.geometry import RING24, Camera
from engine.multiview.aware import GaussianRefinement, evenly_spaced_views
from engine.multiview.denoiser import RefinementPlan
from engine.multiview.networks.latents import LatentCodec
from engine.splats import render
from engine.splats.gaussians import Gaussians
from engine.splats.reconstructor import CONFIGS, GaussianUNet, Reconstructor, released_cameras
from tests.engine.multiview.stand_ins import PixelCodec
from tests.engine.splats.reconstructor.stand_ins import blobs

SIZE = 32


class KnowingReconstructor:
    """Returns Gaussians that it knows, and remembers what it was given."""

    views, output_size = 4, 2 * SIZE

    def __init__(self, *known: Gaussians) -> None:
        self.known, self.given = list(known), []

    def __call__(self, images: torch.Tensor, cameras: Sequence[Camera]) -> Gaussians:
        self.given.append((images, list(cameras)))
        return self.known[(len(self.given) - 1) % len(self.known)]


def cameras(views: int = 24) -> list[Camera]:
    return RING24.orbit(15.0, SIZE, SIZE).cameras[:: 24 // views]


def true_latents(gaussians: Gaussians, views: Sequence[Camera], grey: float) -> torch.Tensor:
    """Rendered at twice the size, every second pixel, encoded."""
    seen = render(gaussians, [camera.resized(2 * SIZE, 2 * SIZE) for camera in views], torch.full((3,), grey))
    return PixelCodec().encode(2 * seen.colour.clamp(0, 1).permute(0, 3, 1, 2)[:, :, ::2, ::2] - 1)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("count", "wanted", "expected"), [
    (24, 4, [0, 6, 12, 18]), (16, 4, [0, 4, 8, 12]), (12, 5, [0, 2, 4, 7, 9]), (3, 4, [0, 1, 2]),
])  # fmt: skip
def test_chosen_views_are_spread_evenly(count, wanted, expected):
    assert evenly_spaced_views(count, wanted) == expected


@pytest.mark.parametrize(("views", "grey"), [(6, 0.5), (8, 0.7)])
def test_an_ideal_reconstructor_gives_latents_of_the_true_views(views, grey):
    first, second = blobs(200), blobs(150, seed=3)
    refine = GaussianRefinement(PixelCodec(), KnowingReconstructor(first, second), cameras(views), background=grey)
    refined = refine(noise(2, views, 3, SIZE // 2, SIZE // 2))
    for ours, known in zip(refined, (first, second), strict=True):
        # The same renders, blended without z and normals: float32 rounding.
        torch.testing.assert_close(ours, true_latents(known, cameras(views), grey), atol=1e-5, rtol=0)


def test_true_latents_go_around_unchanged():
    """Rendered, encoded, decoded and 'reconstructed' by one who knows: a fixed point."""
    known = blobs(200)
    latents = true_latents(known, cameras(), 0.5)[None]
    refine = GaussianRefinement(PixelCodec(), KnowingReconstructor(known), cameras(), background=0.5)
    torch.testing.assert_close(refine(latents), latents, atol=1e-5, rtol=0)


def test_the_reconstructor_gets_the_evenly_spaced_pictures_in_0_to_1_with_their_cameras():
    ideal, views = KnowingReconstructor(blobs(20)), cameras()
    latents = 3 * noise(1, 24, 3, SIZE // 2, SIZE // 2)
    GaussianRefinement(PixelCodec(), ideal, views)(latents)
    ((images, given),) = ideal.given
    expected = (0.5 + 0.5 * PixelCodec().decode(latents[0, [0, 6, 12, 18]])).clamp(0, 1)
    torch.testing.assert_close(images, expected.detach(), atol=0, rtol=0)
    assert [camera.T_world_camera.tolist() for camera in given] == [
        views[index].T_world_camera.tolist() for index in (0, 6, 12, 18)
    ]


def test_the_posterior_is_sampled_from_the_generator():
    def refined(seed: int | None) -> torch.Tensor:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        refine = GaussianRefinement(
            PixelCodec(spread=0.1), KnowingReconstructor(blobs(50)), cameras(8), generator=generator
        )
        return refine(noise(1, 8, 3, SIZE // 2, SIZE // 2))

    torch.testing.assert_close(refined(1), refined(1), atol=0, rtol=0)
    assert (refined(1) - refined(None)).std() == pytest.approx(0.1, rel=0.05)  # 6144 draws
    assert (refined(1) - refined(2)).std() > 0.1


def test_renders_are_resized_by_the_nearest_pixel():
    """The release does not smooth: every second pixel of the doubled size is kept as it is."""
    codec, known = PixelCodec(), blobs(200)
    GaussianRefinement(codec, KnowingReconstructor(known), cameras(8))(noise(1, 8, 3, SIZE // 2, SIZE // 2))
    seen = render(known, [camera.resized(2 * SIZE, 2 * SIZE) for camera in cameras(8)], torch.full((3,), 0.5))
    pictures = seen.colour.clamp(0, 1).permute(0, 3, 1, 2)
    expected = functional.interpolate(pictures, (SIZE, SIZE), mode="nearest")
    torch.testing.assert_close(0.5 + 0.5 * codec.seen[-1], expected, atol=1e-5, rtol=0)


def test_released_cameras_reconstruct_and_render_turned():
    ideal = KnowingReconstructor(blobs(200))
    refine = GaussianRefinement(PixelCodec(), ideal, cameras(), camera_rule="released")
    refined = refine(noise(1, 24, 3, SIZE // 2, SIZE // 2))
    turned = released_cameras(cameras())
    assert [camera.T_world_camera.tolist() for camera in ideal.given[0][1]] == [
        turned[index].T_world_camera.tolist() for index in (0, 6, 12, 18)
    ]
    # Turned outwards, no camera sees what stands at the origin.
    torch.testing.assert_close(refined, torch.zeros_like(refined), atol=1e-6, rtol=0)


def test_real_networks_go_around_in_float16_too():
    """The smallest LGM and autoencoder there are: shapes, types and finiteness through the whole loop."""
    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(32, 32), norm_num_groups=8, down_block_types=("DownEncoderBlock2D",) * 2,
                        up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=1).eval()  # fmt: skip
    reconstructor = Reconstructor(GaussianUNet(**CONFIGS["test"]).eval())
    refine = GaussianRefinement(LatentCodec(vae), reconstructor, cameras(8), generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.float16):
        refined = refine(noise(2, 8, 4, SIZE // 2, SIZE // 2).to(dtype))
        assert refined.shape == (2, 8, 4, SIZE // 2, SIZE // 2)
        assert refined.dtype == dtype
        assert refined.isfinite().all()
        assert not refined.requires_grad
    assert len(refine.gaussians(noise(8, 4, SIZE // 2, SIZE // 2))) == 4 * 16 * 16
    assert RefinementPlan(refine, (20, 30, 40)).branches == "both"


def test_wrong_numbers_of_views_and_settings_are_refused():
    refine = GaussianRefinement(PixelCodec(), KnowingReconstructor(blobs(5)), cameras(8))
    with pytest.raises(ValueError, match="latents hold 6 views, the refinement has 8 cameras"):
        refine(noise(1, 6, 3, 16, 16))
    with pytest.raises(ValueError, match="background from 0 to 1, got 8 cameras and 128"):
        GaussianRefinement(PixelCodec(), KnowingReconstructor(blobs(5)), cameras(8), background=128.0)


def test_a_share_of_what_is_rendered_and_the_rest_as_it_was():
    given = noise(1, 8, 3, SIZE // 2, SIZE // 2)
    whole, share = (
        GaussianRefinement(PixelCodec(), KnowingReconstructor(blobs(50)), cameras(8), share=share)(given)
        for share in (1.0, 0.25)
    )
    torch.testing.assert_close(share, 0.25 * whole + 0.75 * given)
    with pytest.raises(ValueError, match="share must be above 0, at most 1, got 0"):
        GaussianRefinement(PixelCodec(), KnowingReconstructor(blobs(50)), cameras(8), share=0.0)
