"""LGM's network against the published one, and what any number of views must not change."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from engine.checkpoints.keys_lgm import lgm_from_release
from engine.files import read_splats, write_splats
from engine.geometry.harmonics import SH_C0
from engine.splats.gaussians import Gaussians
from engine.splats.reconstructor import CONFIGS, GaussianUNet, gaussians_from_raw, published_numbers

PARITY = 1e-4  # issue's bound on outputs in float32; weights are float16 made float32 on both sides


def small_network(seed: int = 0, **changes) -> GaussianUNet:
    torch.manual_seed(seed)
    return GaussianUNet(**CONFIGS["test"] | changes).eval()


def pictures(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def published(oracles: Path) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in np.load(oracles / "lgm_small.npz").items()}


@pytest.fixture(scope="module")
def raw(oracles: Path, published) -> torch.Tensor:
    converted = lgm_from_release(load_file(oracles / "lgm_small.safetensors"), input_size=32)
    network = GaussianUNet(**converted.config)
    network.load_state_dict(dict(converted.tensors))
    with torch.no_grad():
        return network.eval()(published["input"])


def test_raw_numbers_equal_the_published(raw, published):
    torch.testing.assert_close(raw.flatten(0, 1), published["raw14"], rtol=PARITY, atol=PARITY)


def test_gaussians_equal_the_published(raw, published):
    torch.testing.assert_close(published_numbers(raw, "per_gaussian"), published["gaussians"], rtol=PARITY, atol=PARITY)


def test_raw_parameters_activate_to_the_published_gaussians(raw, published):
    for ours, theirs in zip(gaussians_from_raw(raw, "per_gaussian"), published["gaussians"], strict=True):
        torch.testing.assert_close(activated(ours), theirs, rtol=PARITY, atol=PARITY)


def test_raw_parameters_are_those_of_the_published_file(raw, oracles, tmp_path):
    """LGM's file keeps its own +Y-up axes; so do the network's Gaussians before they are moved into our world."""
    ours, theirs = (
        gaussians_from_raw(raw, "per_gaussian")[0].to_arrays(),
        read_splats(oracles / "lgm_small.ply", axes="z_up"),
    )
    for name in ("means", "quaternions", "sh"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=PARITY, atol=PARITY)
    # Logits and logarithms of small numbers amplify float32's rounding in the published file's activations.
    np.testing.assert_allclose(ours.opacity_logits, theirs.opacity_logits, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(ours.log_scales, theirs.log_scales, rtol=1e-3, atol=1e-3)
    write_splats(tmp_path / "splats.ply", ours)
    back = read_splats(tmp_path / "splats.ply")
    np.testing.assert_allclose(back.means, ours.means, atol=1e-6)  # float32, turned there and back
    np.testing.assert_allclose(back.log_scales, ours.log_scales, atol=0)


def activated(gaussians: Gaussians) -> torch.Tensor:
    quaternions = torch.nn.functional.normalize(gaussians.quaternions, dim=-1)
    colours = 0.5 + SH_C0 * gaussians.sh[:, 0]
    opacity = gaussians.opacity_logits.sigmoid()[:, None]
    return torch.cat([gaussians.means, opacity, gaussians.log_scales.exp(), quaternions, colours], -1)


@pytest.mark.parametrize("views", [1, 2, 4, 7])
def test_views_may_be_any_number_in_any_order(views):
    network, inputs = small_network(), pictures(1, views, 9, 32, 32)
    order = torch.randperm(views, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        straight, shuffled = network(inputs), network(inputs[:, order])
    assert straight.shape == (1, views, 14, 16, 16)
    # Sums over views in another order: float32 rounding only.
    torch.testing.assert_close(straight[:, order], shuffled, atol=1e-4, rtol=1e-4)


def test_every_view_sees_the_others_and_no_other_object():
    network, inputs = small_network(), pictures(2, 3, 9, 32, 32)
    other = inputs.clone()
    other[0, 2] += 1
    with torch.no_grad():
        before, after = network(inputs), network(other)
    assert (before[0, 0] - after[0, 0]).abs().max() > 1e-4  # attention carries the change to the first view
    torch.testing.assert_close(before[1], after[1], atol=0, rtol=0)


def test_gradient_checkpointing_keeps_gradients_and_saves_memory():
    plain, saving = small_network().train(), small_network().train()
    saving.enable_gradient_checkpointing()
    inputs = pictures(1, 4, 9, 32, 32)
    kept = []
    for network in (plain, saving):
        stored = []

        def store(tensor, stored=stored):
            stored.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(store, lambda tensor: tensor):
            loss = network(inputs).square().mean()
        kept.append(sum(stored))
        loss.backward()
    for ours, reference in zip(saving.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, reference.grad, atol=1e-7, rtol=1e-5)  # the same sums, run again
    assert kept[1] < 0.2 * kept[0]


@pytest.mark.parametrize(("name", "splat_size"), [("big", 128), ("small", 64), ("tiny", 64)])
def test_presets_have_the_published_sizes(name, splat_size):
    with torch.device("meta"):
        network = GaussianUNet(**CONFIGS[name])
        raw = network(torch.empty(1, 4, 9, 256, 256))
    assert network.splat_size == splat_size
    assert network.config.output_size == 4 * splat_size
    assert raw.shape == (1, 4, 14, splat_size, splat_size)


def test_the_way_up_may_be_narrower_than_the_way_down():
    """Skips are as wide as where they come from; in LGM's sizes both ways happen to be equally wide."""
    network = small_network(up_channels=(96, 64), down_channels=(32, 64, 96))
    narrow = small_network(up_channels=(64, 32), down_channels=(32, 64, 96))
    for some in (network, narrow):
        assert some(pictures(1, 2, 9, 32, 32)).shape == (1, 2, 14, 16, 16)


def test_saved_weights_and_config_come_back(tmp_path):
    network = small_network(radius_m=None, quaternion_norm="over_gaussians")
    network.save_pretrained(tmp_path)
    loaded = GaussianUNet.from_pretrained(tmp_path)
    assert loaded.config.quaternion_norm == "over_gaussians"
    assert loaded.config.radius_m is None
    inputs = pictures(1, 2, 9, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(inputs), network(inputs), atol=0, rtol=0)


def test_pictures_of_a_wrong_size_are_refused():
    with pytest.raises(ValueError, match="multiples of 4 pixels a side, got 30 x 32: resize them"):
        small_network()(pictures(1, 2, 9, 32, 30))
