"""v from what the condition lets expect: against the posterior worked out by hand, and in the networks that use it."""

import pytest
import torch

from engine.multiview.networks.image_orbit import ImageOrbitUNet
from engine.multiview.networks.orbit_video import OrbitVideoUNet
from engine.multiview.networks.prior import Expectation, v_from_prior
from engine.multiview.schedules import cosine_zero_snr
from engine.multiview.sizes import TINY_UNET, TINY_VIDEO_UNET

SHAPE = (2, 3, 4, 8, 8)


def test_knowing_nothing_is_v_prediction() -> None:
    noisy, added = torch.randn(SHAPE), torch.randn(SHAPE)
    for signal in (0.0, 0.3, 1.0):
        found = v_from_prior(noisy, torch.zeros(SHAPE), added, torch.full((2,), signal), 1.0)
        torch.testing.assert_close(found, added, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("signal", [0.0, 0.2, 0.7, 0.99])
def test_what_is_left_to_predict_has_unit_variance(signal: float) -> None:
    """Of clean latents that are the expectation and an error of the variance that is told."""
    torch.manual_seed(0)
    shape, variance, spread = (1, 4, 4, 128, 128), 0.3, (1 - signal**2) ** 0.5
    expected, eps = 0.8 * torch.randn(shape), torch.randn(shape)
    x0 = expected + variance**0.5 * torch.randn(shape)
    noisy, v = signal * x0 + spread * eps, signal * eps - spread * x0
    told = torch.tensor([signal])
    base = v_from_prior(noisy, expected, torch.zeros(shape), told, variance)
    factor = v_from_prior(noisy, expected, torch.ones(shape), told, variance) - base
    left = (v - base) / factor
    assert float(left.var()) == pytest.approx(1, abs=0.02)  # 262,144 numbers
    for known in (noisy, expected):  # nothing that is known tells more of it
        assert abs(float((left * known).mean())) < 0.02


def test_each_view_may_have_its_own_level_and_error() -> None:
    noisy, expected, added = (torch.randn(SHAPE) for _ in range(3))
    signal, variance = torch.rand(2, 3), torch.rand(2, 3)
    found = v_from_prior(noisy, expected, added, signal, variance)
    for view in range(3):
        part = slice(view, view + 1)
        alone = v_from_prior(noisy[:, part], expected[:, part], added[:, part], signal[:, view], variance[:, part])
        torch.testing.assert_close(found[:, part], alone)


def test_a_fresh_picture_network_expects_the_picture() -> None:
    """At noise alone every view is predicted to be three quarters of the picture's latents; stored and read as well."""
    torch.manual_seed(0)
    unet = ImageOrbitUNet(
        **{**TINY_UNET, "in_channels": 8, "out_channels": 8}, picture_copies=2, prior=(0.75, 0.5)
    ).eval()
    picture, noise = torch.randn(2, 8, 8, 8), torch.randn(2, 3, 8, 8, 8)
    time = torch.tensor([999, 999])
    with torch.no_grad():
        v = unet(noise, time.float(), torch.randn(2, 5, 32), torch.randn(2, 1, 32), picture, torch.randn(2, 3, 16))
    x0 = cosine_zero_snr().x0(noise, v, time)
    torch.testing.assert_close(x0, 0.75 * picture[:, None].expand_as(x0))


def test_what_is_expected_hangs_on_view_and_picture() -> None:
    """Of a vase the back is the front, of a car it is not: what the picture shows may say so."""
    torch.manual_seed(0)
    expectation = Expectation(4, (0.75, 0.5), pictures=3, side=8).eval()
    azimuth = torch.tensor([[0.0, 1.0, 3.14]])
    one, other = torch.randn(1, 1, 4, 8, 8), torch.randn(1, 1, 4, 8, 8)
    with torch.no_grad():
        fresh, variance = expectation(azimuth, one)
        torch.testing.assert_close(fresh, 0.75 * one.expand(-1, 3, -1, -1, -1))
        assert torch.equal(variance, torch.full((1, 3), 0.5))
        for layer in (expectation.turn, expectation.shares):
            torch.nn.init.normal_(layer.weight)
        gains = [expectation(azimuth, given)[0].flatten(2).norm(dim=2) for given in (one, other, one)]
    assert torch.equal(gains[0], gains[2])
    assert not torch.allclose(gains[0], gains[1], rtol=0.01)
    assert not torch.allclose(gains[0][:, 1], gains[0][:, 2], rtol=0.01)


def test_pictures_are_added_at_the_size_of_the_latents() -> None:
    expectation = Expectation(4, (0.0, 0.5), pictures=1, side=8).eval()
    torch.nn.init.constant_(expectation.shares.bias[-1:], 2.0)
    for side in (8, 16):
        given = torch.randn(2, 1, 4, side, side)
        with torch.no_grad():
            expected, _ = expectation(torch.zeros(2, 3), given)
        assert expected.shape == (2, 3, 4, side, side)
        kept = torch.nn.functional.adaptive_avg_pool2d(expected[1, 2], 4)
        torch.testing.assert_close(
            kept, 2 * torch.nn.functional.adaptive_avg_pool2d(expectation.pictures[0], 4), rtol=0.2, atol=0.01
        )


def test_each_view_may_expect_of_its_own_latents() -> None:
    expectation = Expectation(4, (0.9, 0.5), side=8).eval()
    given = torch.randn(1, 3, 4, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(expectation(torch.zeros(1, 3), given)[0], 0.9 * given)


def test_it_is_stored_with_the_network(tmp_path) -> None:
    unet = ImageOrbitUNet(**TINY_UNET, prior=(0.6, 0.4))
    unet.save_pretrained(tmp_path)
    again = ImageOrbitUNet.from_pretrained(tmp_path)
    assert tuple(again.config.prior) == (0.6, 0.4)
    assert torch.equal(again.expectation.shares.bias, unet.expectation.shares.bias)


def test_a_fresh_video_network_expects_the_condition() -> None:
    """The last channels of the condition, which are latents in either stage."""
    torch.manual_seed(0)
    unet = OrbitVideoUNet(
        **TINY_VIDEO_UNET, in_channels=17, projection_class_embeddings_input_dim=512, prior=(0.9, 0.2)
    )
    noise, condition = torch.randn(1, 3, 4, 8, 8), torch.randn(1, 3, 13, 8, 8)
    sigma = torch.tensor([1e4])
    with torch.no_grad():
        v = unet.eval()(noise, 0.25 * sigma.log(), torch.randn(1, 1, 32), condition, torch.randn(1, 512))
    torch.testing.assert_close(-v, 0.9 * condition[:, :, 9:], rtol=1e-3, atol=1e-3)  # v is -x0 where all is noise


def test_a_video_networks_expectation_hangs_on_view_and_picture() -> None:
    torch.manual_seed(0)
    unet = OrbitVideoUNet(
        **TINY_VIDEO_UNET, projection_class_embeddings_input_dim=512, view_harmonics=2, prior=(0.9, 0.2)
    ).eval()
    pictures = torch.randn(2, 1, 1, 4, 8, 8).expand(-1, -1, 3, -1, -1, -1)
    noise, vector, sigma = torch.randn(1, 3, 4, 8, 8), torch.randn(1, 512), torch.tensor([1e4])

    def predicted(picture: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return unet(noise, 0.25 * sigma.log(), torch.randn(1, 1, 32), picture, vector)

    fresh = predicted(pictures[0])
    torch.testing.assert_close(fresh[:, 0], fresh[:, 1], rtol=1e-3, atol=1e-3)  # places are told from zero on
    for layer in (unet.expectation.turn, unet.expectation.shares, unet.view_embedding):
        torch.nn.init.normal_(layer.weight)
    one, other = (predicted(picture) for picture in pictures)
    assert not torch.allclose(one, other, atol=0.1)
    assert not torch.allclose(one[:, 0], one[:, 1], atol=0.1)
