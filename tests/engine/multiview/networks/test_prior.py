"""v from what the condition lets expect: against the posterior worked out by hand, and in the networks that use it."""

import pytest
import torch

from engine.multiview.networks.image_orbit import ImageOrbitUNet
from engine.multiview.networks.orbit_video import OrbitVideoUNet
from engine.multiview.networks.prior import v_from_prior
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
    """Of a vase the back is the front, of a car it is not: the embedding of the picture may say so."""
    torch.manual_seed(0)
    unet = ImageOrbitUNet(**TINY_UNET, prior=(0.75, 0.5)).eval()
    torch.nn.init.normal_(unet.expectation.linear.weight)
    torch.nn.init.normal_(unet.camera_embedding.linear_2.weight)  # zero at first
    noise, picture, text = torch.randn(1, 3, 4, 8, 8), torch.randn(1, 4, 8, 8), torch.randn(1, 5, 32)
    time, cameras = torch.tensor([999.0]), torch.randn(1, 3, 16)
    with torch.no_grad():
        one, other = (unet(noise, time, text, torch.randn(1, 1, 32), picture, cameras) for _ in range(2))
    gains = [-(v * picture[:, None]).mean((3, 4)) / picture.square().mean((2, 3)) for v in (one, other)]  # v is -x0
    assert not torch.allclose(gains[0], gains[1], atol=0.1)
    assert not torch.allclose(gains[0][:, 0], gains[0][:, 1], atol=0.1)


def test_it_is_stored_with_the_network(tmp_path) -> None:
    unet = ImageOrbitUNet(**TINY_UNET, prior=(0.6, 0.4))
    unet.save_pretrained(tmp_path)
    again = ImageOrbitUNet.from_pretrained(tmp_path)
    assert tuple(again.config.prior) == (0.6, 0.4)
    assert torch.equal(again.expectation.linear.bias, unet.expectation.linear.bias)


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
    picture, vector, sigma = (
        torch.randn(1, 1, 4, 8, 8).expand(-1, 3, -1, -1, -1),
        torch.randn(1, 512),
        torch.tensor([1e4]),
    )
    noise = torch.randn(1, 3, 4, 8, 8)

    def predicted() -> torch.Tensor:
        with torch.no_grad():
            return unet(noise, 0.25 * sigma.log(), torch.randn(1, 1, 32), picture, vector)

    fresh = predicted()
    torch.testing.assert_close(fresh[:, 0], fresh[:, 1], rtol=1e-3, atol=1e-3)  # places are told from zero on
    torch.nn.init.normal_(unet.expectation.linear.weight)
    torch.nn.init.normal_(unet.view_embedding.weight)
    one, other = predicted(), predicted()
    assert not torch.allclose(one, other, atol=0.1)
    assert not torch.allclose(one[:, 0], one[:, 1], atol=0.1)
