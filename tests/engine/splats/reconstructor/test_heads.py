"""The two ways in which the releases treat quaternions, and ellipsoids from matrices that are no rotations."""

import pytest
import torch

from engine.splats.gaussians import Gaussians
from engine.splats.projection import rotations, unnormalised_rotations
from engine.splats.reconstructor import gaussians_from_raw, published_numbers, without_transparent
from engine.splats.reconstructor.axes import principal_axes, quaternions_of


def random_raw(views: int = 4, size: int = 16, spread: float = 1.0, seed: int = 0) -> torch.Tensor:
    return spread * torch.randn(2, views, 14, size, size, generator=torch.Generator().manual_seed(seed))


def covariances(gaussians: Gaussians) -> torch.Tensor:
    axes = rotations(gaussians.quaternions.double()) * gaussians.log_scales.double().exp()[:, None, :]
    return axes @ axes.mT


def published_covariances(numbers: torch.Tensor) -> torch.Tensor:
    """As the published rasterizer computes them: R(q) of q as it comes, S, then (S R^T)^T (S R^T)."""
    scales, (r, x, y, z) = numbers[:, 4:7].double(), numbers[:, 7:11].double().unbind(-1)
    rotation = torch.stack(
        [
            torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - r * z), 2 * (x * z + r * y)], -1),
            torch.stack([2 * (x * y + r * z), 1 - 2 * (x * x + z * z), 2 * (y * z - r * x)], -1),
            torch.stack([2 * (x * z - r * y), 2 * (y * z + r * x), 1 - 2 * (x * x + y * y)], -1),
        ],
        -2,
    )
    stretch = torch.diag_embed(scales) @ rotation.mT
    return stretch.mT @ stretch


@pytest.mark.parametrize("quaternion_norm", ["per_gaussian", "over_gaussians"])
@pytest.mark.parametrize(("views", "size"), [(1, 2), (2, 4), (4, 16)])  # 4, 32 and 1024 Gaussians: |q| 1 to 0.06
def test_covariances_are_those_of_the_published_rasterizer(quaternion_norm, views, size):
    raw = random_raw(views, size, spread=2.0)
    numbers = published_numbers(raw, quaternion_norm)
    for ours, theirs in zip(gaussians_from_raw(raw, quaternion_norm), numbers, strict=True):
        expected = published_covariances(theirs)
        largest = expected.flatten(1).abs().amax(1)[:, None, None]
        # Float32 rounding of a logarithm and its exponential, and SMALLEST_M, which is 1e-5 of a millimetre.
        torch.testing.assert_close(covariances(ours) / largest, expected / largest, atol=2e-5, rtol=0)


def test_over_gaussians_divides_each_number_by_its_length_over_the_object():
    quaternions = published_numbers(random_raw(), "over_gaussians")[..., 7:11]
    torch.testing.assert_close(quaternions.norm(dim=1), torch.ones(2, 4))
    assert quaternions.norm(dim=-1).mean() == pytest.approx(2 / 1024**0.5, rel=0.1)  # four numbers of 1 / sqrt(n)


def test_other_numbers_do_not_depend_on_the_variant():
    raw = random_raw()
    new, old = published_numbers(raw, "per_gaussian"), published_numbers(raw, "over_gaussians")
    kept = [*range(7), 11, 12, 13]
    torch.testing.assert_close(new[..., kept], old[..., kept], atol=0, rtol=0)


def test_extreme_outputs_stay_finite():
    for quaternion_norm in ("per_gaussian", "over_gaussians"):
        raw = random_raw(spread=200.0).half()
        for gaussians in gaussians_from_raw(raw, quaternion_norm):
            assert all(tensor.isfinite().all() for tensor in gaussians.tensors)
            assert gaussians.means.dtype == torch.float32
            assert gaussians.means.abs().max() <= 1


@pytest.mark.parametrize("length", [1.5, 1.0, 0.3, 0.008])
def test_principal_axes_rebuild_the_covariance_and_are_rotations(length):
    generator = torch.Generator().manual_seed(0)
    quaternions = length * torch.nn.functional.normalize(torch.randn(4096, 4, generator=generator), dim=-1)
    scales = torch.exp(10 * torch.rand(4096, 3, generator=generator) - 12)  # five orders of magnitude
    matrices = unnormalised_rotations(quaternions) * scales[:, None, :]
    axes, lengths = principal_axes(matrices)
    rebuilt = axes @ torch.diag_embed(lengths**2) @ axes.mT
    largest = (lengths**2).amax(-1)[:, None, None]
    torch.testing.assert_close(rebuilt / largest, matrices @ matrices.mT / largest, atol=5e-6, rtol=0)  # rounding
    torch.testing.assert_close(axes @ axes.mT, torch.eye(3).expand_as(axes), atol=2e-6, rtol=0)
    assert (torch.linalg.det(axes) > 0).all()
    exact = torch.linalg.svdvals(matrices.double())
    # Even the thinnest axis to five digits: nothing was squared. (Length 1.5 makes matrices of condition 100.)
    torch.testing.assert_close(lengths.sort(-1, descending=True).values.double(), exact, atol=0, rtol=1e-5)


def test_gradients_of_principal_axes_are_those_of_the_covariance():
    generator = torch.Generator().manual_seed(3)
    matrices = torch.randn(50, 3, 3, generator=generator, dtype=torch.float64)
    matrices[0] = torch.eye(3)  # round: every direction is an axis
    matrices[1] = torch.diag(torch.tensor([1.0, 1.0, 2.0], dtype=torch.float64))
    weights = torch.randn(50, 3, 3, generator=generator, dtype=torch.float64)

    def through_axes(m):
        axes, lengths = principal_axes(m)
        turned = rotations(quaternions_of(axes))
        return (weights * torch.sin(turned @ torch.diag_embed(lengths**2) @ turned.mT)).sum()

    def direct(m):
        return (weights * torch.sin(m @ m.mT)).sum()

    leaf = matrices.clone().requires_grad_()
    (ours,) = torch.autograd.grad(through_axes(leaf), leaf)
    (expected,) = torch.autograd.grad(direct(leaf), leaf)
    # Faded where two axes differ by less than NEARLY_ROUND: those two matrices keep the lengths' part only.
    torch.testing.assert_close(ours[2:], expected[2:], atol=1e-5, rtol=1e-5)
    assert ours[:2].isfinite().all()


def test_transparent_ones_are_dropped_at_the_published_threshold():
    gaussians = gaussians_from_raw(random_raw(spread=6.0), "per_gaussian")[0]
    kept = without_transparent(gaussians)
    opacity = gaussians.opacity_logits.sigmoid()
    assert len(kept) == int((opacity >= 0.005).sum()) < len(gaussians)
    assert kept.opacity_logits.sigmoid().min() >= 0.005
