"""Convolutions over views as 2D ones: the same numbers, in every network that has them."""

import torch
from torch import nn

from engine.multiview.networks.image_orbit import ImageOrbitUNet
from engine.multiview.networks.orbit_video import OrbitVideoUNet
from engine.multiview.networks.view_convolutions import ViewConvolution, use_view_convolutions
from engine.multiview.sizes import TINY_UNET, TINY_VIDEO_UNET


def test_the_same_as_three_dimensional_ones() -> None:
    torch.manual_seed(0)
    plain = nn.Conv3d(6, 5, (3, 1, 1), padding=(1, 0, 0))
    quick = nn.Sequential(nn.Conv3d(6, 5, (3, 1, 1), padding=(1, 0, 0)))
    quick[0].load_state_dict(plain.state_dict())
    use_view_convolutions(quick)
    assert type(quick[0]) is ViewConvolution
    images = torch.randn(2, 6, 7, 4, 3, requires_grad=True)
    again = images.detach().clone().requires_grad_()
    expected, found = plain(images), quick(again)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)  # other order of the same sums
    expected.square().sum().backward()
    found.square().sum().backward()
    torch.testing.assert_close(again.grad, images.grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(quick[0].weight.grad, plain.weight.grad, atol=1e-3, rtol=1e-5)


def test_others_stay() -> None:
    for other in (nn.Conv3d(4, 4, 3, padding=1), nn.Conv3d(4, 4, (3, 1, 1), padding=(1, 0, 0), stride=(2, 1, 1))):
        use_view_convolutions(other)
        assert type(other) is nn.Conv3d


def test_networks_have_no_slow_ones_left() -> None:
    for network in (ImageOrbitUNet(**TINY_UNET), OrbitVideoUNet(**TINY_VIDEO_UNET)):
        kinds = {type(module) for module in network.modules() if isinstance(module, nn.Conv3d)}
        assert kinds == {ViewConvolution}
