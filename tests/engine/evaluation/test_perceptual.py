"""LPIPS against the same sum written down plainly, with random weights in files as torchvision and LPIPS keep them."""

import importlib.util

import pytest
import torch
from torch.nn import functional

from engine.errors import CheckpointError, MissingDependencyError
from engine.evaluation import perceptual
from engine.evaluation.perceptual import Perceptual

VGG = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512)
VGG_LOOKS = (2, 5, 9, 13, 17)
"""Entries of VGG behind which LPIPS looks."""


def files(tmp_path, kind):
    """A backbone with torchvision's keys, classifier included, and heads with LPIPS's."""
    torch.manual_seed(0)
    network = Perceptual(kind)
    weights = {f"features.{name}": 0.5 * value for name, value in network.features.state_dict().items()}
    heads = {f"lin{i}.model.1.weight": torch.rand_like(head.weight) for i, head in enumerate(network.heads)}
    torch.save({**weights, "classifier.0.weight": torch.zeros(3)}, tmp_path / "backbone.pth")
    torch.save(heads, tmp_path / "heads.pth")
    return weights, list(heads.values())


def pair(size=64):
    generator = torch.Generator().manual_seed(1)
    return tuple(2 * torch.rand(2, 3, size, size, generator=generator) - 1 for _ in range(2))


def vgg_looks(x, weights):
    looks, layer = [], 0
    for index, width in enumerate(VGG):
        if width == "M":
            x, layer = functional.max_pool2d(x, 2), layer + 1
        else:
            x = functional.conv2d(x, weights[f"features.{layer}.weight"], weights[f"features.{layer}.bias"], padding=1)
            x, layer = x.clamp_min(0), layer + 2
        if index + 1 in VGG_LOOKS:
            looks.append(x)
    return looks


def alex_looks(x, weights):
    looks = []
    for layer, stride, padding in ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)):
        if layer in (3, 6):
            x = functional.max_pool2d(x, 3, 2)
        weight, bias = weights[f"features.{layer}.weight"], weights[f"features.{layer}.bias"]
        x = functional.conv2d(x, weight, bias, stride=stride, padding=padding).clamp_min(0)
        looks.append(x)
    return looks


def squeeze_looks(x, weights):
    def convolved(x, name, padding=0, stride=1):
        weight, bias = weights[f"features.{name}.weight"], weights[f"features.{name}.bias"]
        return functional.conv2d(x, weight, bias, padding=padding, stride=stride).clamp_min(0)

    def fire(x, layer):
        x = convolved(x, f"{layer}.squeeze")
        return torch.cat([convolved(x, f"{layer}.expand1x1"), convolved(x, f"{layer}.expand3x3", 1)], 1)

    x = convolved(x, "0", stride=2)
    looks = [x]
    for block in ((3, 4), (6, 7), (9,), (10,), (11,), (12,)):
        if block[0] in (3, 6, 9):
            x = functional.max_pool2d(x, 3, 2, ceil_mode=True)
        for layer in block:
            x = fire(x, layer)
        looks.append(x)
    return looks


def plain(made, truth, looks, weights, heads):
    """The definition: per look, unit features, squared difference weighed over channels, mean over places; summed."""
    mean, deviation = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    total = torch.zeros(len(made))
    ours, theirs = (looks((x - mean[:, None, None]) / deviation[:, None, None], weights) for x in (made, truth))
    for a, b, head in zip(ours, theirs, heads, strict=True):
        unit_a, unit_b = (x / (1e-8 + (x**2).sum(1, keepdim=True)).sqrt() for x in (a, b))
        total += ((unit_a - unit_b) ** 2 * head.view(1, -1, 1, 1)).sum(1).mean((1, 2))
    return total


@pytest.mark.parametrize(("kind", "looks"), [("vgg", vgg_looks), ("alex", alex_looks), ("squeeze", squeeze_looks)])
def test_as_written_down_plainly(tmp_path, kind, looks):
    weights, heads = files(tmp_path, kind)
    network = Perceptual.from_files(tmp_path / "backbone.pth", tmp_path / "heads.pth")
    assert network.backbone == kind
    made, truth = pair()
    expected = plain(made, truth, looks, weights, heads)
    assert (expected > 1e-3).all()
    torch.testing.assert_close(network(made, truth), expected, rtol=1e-4, atol=1e-6)  # float32 sums in another order


def test_equal_pictures_are_at_zero_and_gradients_are_finite():
    network = Perceptual("squeeze")
    made, truth = pair()
    assert torch.equal(network(made, made), torch.zeros(2))
    torch.testing.assert_close(network(made, truth), network(truth, made))
    black = torch.full_like(made, -1).requires_grad_(True)
    network(black, truth).sum().backward()
    assert black.grad.isfinite().all()
    assert all(not parameter.requires_grad for parameter in network.parameters())


@pytest.mark.skipif(
    importlib.util.find_spec("torchmetrics") is None, reason="torchmetrics, which brings them, is absent"
)
@pytest.mark.parametrize("kind", ["vgg", "alex", "squeeze"])
def test_the_published_heads_are_found_in_the_wheel(tmp_path, kind):
    files(tmp_path, kind)
    network = Perceptual.from_files(tmp_path / "backbone.pth")
    assert all((head.weight >= 0).all() for head in network.heads)  # as LPIPS trains them
    assert network(*pair()).gt(0).all()


def test_errors_name_the_file(tmp_path, monkeypatch):
    path = tmp_path / "other.pth"
    torch.save({"conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"other.pth: expected torchvision's vgg16, alexnet or squeezenet1_1"):
        Perceptual.from_files(path)
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"other.pth: does not read as tensors"):
        Perceptual.from_files(path)
    with pytest.raises(CheckpointError, match=r"absent.pth: does not read as tensors"):
        Perceptual.from_files(tmp_path / "absent.pth")
    files(tmp_path, "alex")
    with pytest.raises(CheckpointError, match=r"backbone.pth: .*is it another network's"):
        Perceptual.from_files(tmp_path / "backbone.pth", tmp_path / "backbone.pth")
    monkeypatch.setattr(perceptual, "HEADS_IN_WHEELS", ())
    with pytest.raises(MissingDependencyError, match=r"LPIPS needs its heads \(alex.pth\)"):
        Perceptual.from_files(tmp_path / "backbone.pth")
