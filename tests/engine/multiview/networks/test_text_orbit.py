"""The text U-Net against the published code's output, diffusers' own network and its own limits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
from safetensors.torch import load_file
from torch import Tensor

from engine.checkpoints.keys_videomv import text_orbit_from_release
from engine.multiview.networks.text_orbit import TextOrbitUNet
from tests.engine.multiview.networks.small import SIZES, small_text_orbit, text_inputs

PUBLISHED = 1e-4
"""What is asked of float32 against the published code; 2e-6 is seen."""
FLOAT32 = 1e-5
"""Two ways to compute the same in float32."""


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference as a share of the largest value."""
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(("name", "with_cameras"), [("out", True), ("out_nocam", False)])
def test_it_predicts_what_the_published_code_predicts(oracles: Path, name: str, with_cameras: bool):
    published = {key: torch.from_numpy(value) for key, value in np.load(oracles / "videomv_t2v_small.npz").items()}
    weights = {key: value.float() for key, value in load_file(oracles / "videomv_t2v_small.safetensors").items()}
    converted = text_orbit_from_release(weights, head_dim=16)
    network = TextOrbitUNet(**converted.config)
    network.load_state_dict(converted.tensors)
    cameras = published["camera_data"] if with_cameras else None
    with torch.no_grad():
        found = network.eval()(published["x"].transpose(1, 2), published["t"], published["y"], cameras)
    assert relative(found.transpose(1, 2), published[name]) < PUBLISHED


@pytest.mark.parametrize("side", [8, 7])  # 7 does not halve evenly
@pytest.mark.parametrize("views", [1, 3])
def test_without_cameras_it_is_diffusers_network(views: int, side: int):
    """For one view too: diffusers' temporal layers do not skip a single frame, nor do the release's."""
    network = small_text_orbit()
    theirs = UNet3DConditionModel(**SIZES).eval()
    theirs.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("camera_")})
    given = text_inputs(views, side=side)
    with torch.no_grad():
        found = network(given["latents"], given["timestep"], given["text"])
        expected = theirs(given["latents"].transpose(1, 2), given["timestep"], given["text"]).sample.transpose(1, 2)
    assert relative(found, expected) < FLOAT32


def test_temporal_layers_run_for_one_view():
    network, given = small_text_orbit(), text_inputs(views=1)
    with torch.no_grad():
        before = network(**given)
        network.mid_block.temp_convs[0].conv4[-1].weight[:, :, 1] += 0.1  # the tap that sees the view itself
        after_convolution = network(**given)
        network.transformer_in.proj_out.bias += 0.1
        after_attention = network(**given)
    assert relative(after_convolution, before) > FLOAT32
    assert relative(after_attention, after_convolution) > FLOAT32


def test_each_view_has_its_camera_and_each_object_its_own():
    """Swapping an object's cameras changes it alone."""
    network, given = small_text_orbit(), text_inputs()
    swapped = given["cameras"].clone()
    swapped[1] = swapped[1].flip(0)
    with torch.no_grad():
        before, after = network(**given), network(**{**given, "cameras": swapped})
    assert relative(after[0], before[0]) < FLOAT32
    assert relative(after[1], before[1]) > 1e-3  # far above float32's noise


def test_views_may_come_in_any_order():
    """No position along the views is encoded: views and cameras reversed give the reversed prediction."""
    network, given = small_text_orbit(), text_inputs(views=4)
    turned = {**given, "latents": given["latents"].flip(1), "cameras": given["cameras"].flip(1)}
    with torch.no_grad():
        # Temporal convolutions do see the order, so their kernels are turned as well.
        straight = network(**given)
        for name, parameter in network.named_parameters():
            if "temp_convs" in name and parameter.ndim == 5:
                parameter.copy_(parameter.flip(2))
        reversed_views = network(**turned)
    assert relative(reversed_views.flip(1), straight) < FLOAT32


def test_dropout_works_in_training_alone():
    network, given = small_text_orbit(dropout=0.5), text_inputs()
    with torch.no_grad():
        assert torch.equal(network(**given), network(**given))
        network.train()
        assert not torch.equal(network(**given), network(**given))


def test_no_dropout_is_none_at_all():
    """diffusers fixes 0.1 for the convolutions over views."""
    network, given = small_text_orbit(dropout=0.0), text_inputs()
    with torch.no_grad():
        assert torch.equal(network.train()(**given), network.eval()(**given))


def test_it_is_saved_and_loaded(tmp_path: Path):
    network, given = small_text_orbit(temporal_in_heads=4, dropout=0.2), text_inputs()
    network.save_pretrained(tmp_path)
    loaded = TextOrbitUNet.from_pretrained(tmp_path)
    assert {k: v for k, v in loaded.config.items() if k[0] != "_"} == {
        k: v for k, v in network.config.items() if k[0] != "_"
    }
    with torch.no_grad():
        assert torch.equal(loaded(**given), network(**given))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latents": torch.zeros(2, 3, 5, 8, 8)}, r"latents must have shape \(objects, views, 4, height, width\)"),
        ({"text": torch.zeros(2, 7, 10)}, "text must be 24 numbers a token, got 10"),
        ({"cameras": torch.zeros(2, 3, 12)}, r"cameras must have shape \(2, 3, 16\).*got \(2, 3, 12\)"),
    ],
)
def test_inputs_of_another_network_are_refused(change: dict[str, Tensor], message: str):
    with pytest.raises(ValueError, match=message):
        small_text_orbit()(**{**text_inputs(), **change})
