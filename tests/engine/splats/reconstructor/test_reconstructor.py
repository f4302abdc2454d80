"""Pictures and cameras to Gaussians in our world: shapes, batches, gradients, and that it can learn an object."""

import pytest
import torch

from engine.files import OrbitImages
from engine.geometry import RING24
from engine.splats import render
from engine.splats.reconstructor import CONFIGS, GaussianUNet, Reconstructor

CHOSEN = (0, 3, 6, 9)


def reconstructor(**changes) -> Reconstructor:
    torch.manual_seed(0)
    return Reconstructor(GaussianUNet(**CONFIGS["test"] | changes))


def views_of(ball: OrbitImages) -> tuple[torch.Tensor, list]:
    """The ball over white."""
    rgba = torch.from_numpy(ball.rgba).float().permute(0, 3, 1, 2) / 255
    return rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:], ball.orbit.cameras


@pytest.mark.parametrize("count", [1, 3, 4])
def test_any_number_of_views_of_any_size_gives_one_gaussian_a_pixel(ball, count):
    images, cameras = views_of(ball)  # 48 px; the network wants 32
    gaussians = reconstructor()(images[:count], cameras[:count])
    assert len(gaussians) == count * 16 * 16
    assert gaussians.sh_degree == 0


def test_a_batch_is_its_objects_one_by_one(ball):
    images, cameras = views_of(ball)
    made = reconstructor()
    other = RING24.orbit(-5.0, 48, 48).cameras[::6]
    chosen = [cameras[index] for index in CHOSEN]
    together = made.batch(torch.stack([images[list(CHOSEN)], images[:4]]), [chosen, other])
    apart = [made(images[list(CHOSEN)], chosen), made(images[:4], other)]
    for one, two in zip(together, apart, strict=True):
        for ours, theirs in zip(one.tensors, two.tensors, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)  # batched sums in another order


@pytest.mark.parametrize("quaternion_norm", [pytest.param("per_gaussian", marks=pytest.mark.slow), "over_gaussians"])
def test_it_learns_the_ball_through_renderer_and_covariances(ball, quaternion_norm):
    """The whole training path: pictures, network, heads, our world, renderer, and back."""
    images, cameras = views_of(ball)
    made = reconstructor(quaternion_norm=quaternion_norm)
    optimiser = torch.optim.Adam(made.network.parameters(), 1e-3)
    chosen = [cameras[index] for index in CHOSEN]
    losses = []
    for _ in range(13):
        (gaussians,) = made.batch(images[None, list(CHOSEN)], [chosen])
        seen = render(gaussians, [cameras[1]], backend="numba")  # a view that it is not given
        loss = (seen.colour[0].permute(2, 0, 1) - images[1]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in made.network.parameters())
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("quaternion_norm", ["per_gaussian", "over_gaussians"])
def test_autocast_is_for_the_network_alone(ball, quaternion_norm, monkeypatch):
    """Activations, covariances and the way into our world are float32, whatever the network was run in."""
    images, cameras = views_of(ball)
    made = reconstructor(quaternion_norm=quaternion_norm)
    raw = torch.randn(1, 4, 14, 8, 8, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    monkeypatch.setattr(made.network, "forward", lambda inputs: raw)
    expected = made(images[:4], cameras[:4])
    with torch.autocast("cpu", torch.bfloat16):
        found = made(images[:4], cameras[:4])
    gradients = []
    for gaussians in (found, expected):
        gradients += torch.autograd.grad(gaussians.quaternions.sin().sum() + gaussians.log_scales.sum(), raw)
    for ours, theirs in zip(found.tensors, expected.tensors, strict=True):
        torch.testing.assert_close(ours, theirs, atol=0, rtol=0)
    assert gradients[0].any()
    assert torch.equal(*gradients)


def test_a_network_in_half_precision_takes_pictures_in_any(ball):
    images, cameras = views_of(ball)
    made = reconstructor()
    expected = made(images[:4], cameras[:4])
    made.network.bfloat16()
    found = made(images[:4].half(), cameras[:4])
    assert {tensor.dtype for tensor in found.tensors} == {torch.float32}
    assert (found.means - expected.means).abs().mean() < 0.02  # metres; three digits through some twenty layers


def test_counts_that_differ_and_pictures_that_are_not_square_are_refused(ball):
    images, cameras = views_of(ball)
    with pytest.raises(ValueError, match="pictures must be square, got 40 x 48: pad or crop"):
        reconstructor()(images[:4, :, :, :40], cameras[:4])
    with pytest.raises(ValueError, match=r"images hold 1 objects of 4 views, cameras have \[3\]"):
        reconstructor()(images[:4], cameras[:3])
