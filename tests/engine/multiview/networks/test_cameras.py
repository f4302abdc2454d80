"""Cameras that start at zero, base networks without them, and checkpoints of other networks."""

from pathlib import Path

import pytest
import torch
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
from diffusers.models.unets.unet_i2vgen_xl import I2VGenXLUNet
from safetensors.torch import load_file, save_file
from torch import nn

from engine.errors import CheckpointError
from engine.geometry import RING24
from engine.geometry.frames import to_videomv
from engine.multiview.networks.cameras import CameraEmbedding, harmonics
from engine.multiview.networks.image_orbit import ImageOrbitUNet
from engine.multiview.networks.text_orbit import TextOrbitUNet
from tests.engine.multiview.networks.small import SIZES, inputs, randomised, small_text_orbit, text_inputs

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("base_class", "ours", "given"),
    [(UNet3DConditionModel, TextOrbitUNet, text_inputs()), (I2VGenXLUNet, ImageOrbitUNet, inputs())],
)
def test_a_base_network_gets_cameras_that_change_nothing_yet(tmp_path: Path, base_class, ours, given):
    """Bit for bit. The first layer is drawn, else no gradient would ever reach either."""
    randomised(base_class(**SIZES)).save_pretrained(tmp_path / "unet")
    network = ours.from_pretrained(tmp_path, subfolder="unet")
    assert not network.camera_embedding.linear_2.weight.any()
    assert network.camera_embedding.linear_1.weight.std() > 0.05  # uniform to 1/4: 0.14
    with torch.no_grad():
        assert torch.equal(network(**given), network(**{**given, "cameras": None}))
    network(**given).square().mean().backward()
    assert network.camera_embedding.linear_2.weight.grad.any()
    network.save_pretrained(tmp_path / "tuned")
    assert torch.equal(
        ours.from_pretrained(tmp_path / "tuned").camera_embedding.linear_1.weight,
        network.camera_embedding.linear_1.weight,
    )


def test_harmonics_tell_the_views_of_a_ring_apart():
    """24 views at one height: with 12 harmonics any number for each view is a sum of theirs, as it is seen from."""
    embedding = CameraEmbedding(16, 8, harmonics=12)
    heard = []
    embedding.linear_1.register_forward_pre_hook(lambda _, given: heard.append(given[0]))
    orbit = RING24.orbit(20.0, 128, 128)
    embedding(torch.from_numpy(to_videomv(orbit.T_world_camera)).float())
    told = heard[0][:, 16:]
    azimuth = torch.deg2rad(torch.as_tensor(orbit.azimuth_deg, dtype=torch.float32))
    torch.testing.assert_close(told, harmonics(azimuth, 12), rtol=0, atol=1e-4)
    torch.testing.assert_close(told[:, 3], torch.cos(4 * azimuth), rtol=0, atol=1e-4)
    torch.testing.assert_close(told[:, 12], torch.sin(azimuth), rtol=0, atol=1e-4)
    alone = torch.eye(24) - 1 / 24  # one view against the mean of all
    found = torch.linalg.pinv(told, rtol=1e-3) @ alone  # sin(12 x) is 0 on all of them
    torch.testing.assert_close(told @ found, alone, rtol=0, atol=1e-3)


def test_harmonics_come_and_go_with_the_network(tmp_path: Path):
    network = randomised(TextOrbitUNet(**SIZES, azimuth_harmonics=3))
    network.save_pretrained(tmp_path)
    again = TextOrbitUNet.from_pretrained(tmp_path)
    given = text_inputs()
    with torch.no_grad():
        assert torch.equal(network.eval()(**given), again.eval()(**given))
    UNet3DConditionModel(**SIZES).save_pretrained(tmp_path / "base")
    based = TextOrbitUNet.from_pretrained(tmp_path / "base", azimuth_harmonics=3)
    assert based.camera_embedding.linear_1.in_features == 16 + 6
    assert not based.camera_embedding.linear_2.weight.any()


def test_base_weights_in_half_precision_get_cameras_in_half_precision(tmp_path: Path):
    UNet3DConditionModel(**SIZES).save_pretrained(tmp_path)
    network = TextOrbitUNet.from_pretrained(tmp_path, torch_dtype=torch.float16)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float16}
    assert {parameter.device.type for parameter in network.parameters()} == {"cpu"}


def test_base_maps_of_the_picture_count_twice_as_in_their_own_code(tmp_path: Path):
    I2VGenXLUNet(**SIZES).save_pretrained(tmp_path)
    assert ImageOrbitUNet.from_pretrained(tmp_path).config.image_latents_gain == 2.0


def test_another_networks_weights_are_refused(tmp_path: Path):
    I2VGenXLUNet(**SIZES).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"does not load as TextOrbitUNet: .*conv_in\.weight"):
        TextOrbitUNet.from_pretrained(tmp_path)


def broken(folder: Path, drop: str = "", add: str = "") -> None:
    """Save a text U-Net, then drop the keys that start so, or add one."""
    small_text_orbit().save_pretrained(folder)
    tensors = {key: value for key, value in load_file(folder / WEIGHTS).items() if not drop or not key.startswith(drop)}
    save_file(tensors | ({add: torch.zeros(1)} if add else {}), folder / WEIGHTS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drop": "conv_out.bias"}, "lacks conv_out.bias; is it"),
        (
            {"drop": "camera_embedding.linear_2"},
            "lacks camera_embedding.linear_2.bias, camera_embedding.linear_2.weight; is it",
        ),
        ({"add": "fps_embedding.0.bias"}, "has unknown keys fps_embedding.0.bias; is it"),
    ],
)
def test_missing_and_left_over_weights_are_named(tmp_path: Path, change: dict[str, str], message: str):
    broken(tmp_path, **change)
    with pytest.raises(CheckpointError, match=message):
        TextOrbitUNet.from_pretrained(tmp_path)


def test_loading_info_is_given_where_asked_for(tmp_path: Path):
    small_text_orbit().save_pretrained(tmp_path)
    network, info = TextOrbitUNet.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(network, nn.Module)
    assert info["missing_keys"] == []
