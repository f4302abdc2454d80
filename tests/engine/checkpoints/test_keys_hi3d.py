"""Hi3D's key maps: the released key lists onto the class, there and back, and the two ways to begin from SVD."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from engine.checkpoints.keys_hi3d import (
    orbit_video_from_release,
    orbit_video_to_release,
    stage1_from_svd,
    stage2_from_svd,
)
from engine.errors import CheckpointError
from engine.multiview.networks.orbit_video import OrbitVideoUNet

Keys = dict[str, dict[str, Tensor]]
PARAMETERS = {"stage1": 1_524_623_082, "stage2": 1_524_321_322}


def small(depths: list[int], layers: int = 2) -> OrbitVideoUNet:
    """Three levels, attention in the first two, heads of 16."""
    torch.manual_seed(0)
    return OrbitVideoUNet(
        down_block_types=["CrossAttnDownBlockSpatioTemporal"] * 2 + ["DownBlockSpatioTemporal"],
        up_block_types=["UpBlockSpatioTemporal"] + ["CrossAttnUpBlockSpatioTemporal"] * 2,
        block_out_channels=[32, 64, 64],
        layers_per_block=layers,
        cross_attention_dim=24,
        transformer_layers_per_block=depths,
        num_attention_heads=[2, 4, 4],
    )


@pytest.mark.parametrize("stage", PARAMETERS)
def test_the_released_keys_are_the_class(true_keys: Keys, stage: str):
    tensors = true_keys[f"hi3d_{stage}"]
    converted = orbit_video_from_release(tensors)
    config = converted.config
    assert len(converted.tensors) == len(tensors) == 1428
    assert sum(value.numel() for value in converted.tensors.values()) == PARAMETERS[stage]
    assert config["block_out_channels"] == [320, 640, 1280, 1280]
    assert config["layers_per_block"] == [2, 2, 2, 2]
    assert config["num_attention_heads"] == [5, 10, 20, 20]
    assert config["cross_attention_dim"] == 1024
    expected = {"stage1": (8, 768), "stage2": (17, 512)}[stage]
    assert (config["in_channels"], config["projection_class_embeddings_input_dim"]) == expected
    assert orbit_video_to_release(converted.tensors).keys() == tensors.keys()


def test_the_class_without_arguments_is_stage_1():
    with torch.device("meta"):
        network = OrbitVideoUNet()
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS["stage1"]


def test_stage_2_from_svd_has_the_released_shapes(true_keys: Keys):
    """SVD's U-Net has stage 1's shapes."""
    found = orbit_video_to_release(stage2_from_svd(true_keys["hi3d_stage1"]).tensors)
    expected = true_keys["hi3d_stage2"]
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in expected.items()}


@pytest.mark.parametrize("depths", [[1, 1, 1], [1, 2, 1]])
@pytest.mark.parametrize("layers", [1, 2])
def test_names_go_there_and_back(depths: list[int], layers: int):
    network = small(depths, layers)
    tensors = orbit_video_to_release(network.state_dict())
    assert all(key.split(".")[0].endswith(("blocks", "block", "embed", "emb", "out")) for key in tensors)
    converted = orbit_video_from_release(tensors, head_dim=16)
    assert converted.config["transformer_layers_per_block"] == depths
    assert converted.config["num_attention_heads"] == [2, 4, 4]
    OrbitVideoUNet(**converted.config).load_state_dict(dict(converted.tensors))
    expected = network.state_dict()
    assert converted.tensors.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in converted.tensors.items())


def test_the_published_names_come_back(oracles: Path):
    tensors = load_file(oracles / "hi3d_stage1_small.safetensors")
    again = orbit_video_to_release(orbit_video_from_release(tensors, head_dim=16).tensors)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(value, again[key]) for key, value in tensors.items())


def test_stage_1_begins_as_svd():
    """The release loads SVD's file as it is: elevation takes the motion bucket's columns."""
    svd = small([1, 1, 1]).state_dict()
    for tensors in (svd, orbit_video_to_release(svd)):
        converted = stage1_from_svd(tensors, head_dim=16)
        assert converted.tensors.keys() == svd.keys()
        assert all(torch.equal(value, svd[key]) for key, value in converted.tensors.items())


def test_stage_2_begins_as_svd_that_does_not_see_depth_and_elevation():
    svd = small([1, 1, 1]).state_dict()
    converted = stage2_from_svd(svd, head_dim=16)
    first, vector = converted.tensors["conv_in.weight"], converted.tensors["add_embedding.linear_1.weight"]
    assert (converted.config["in_channels"], converted.config["projection_class_embeddings_input_dim"]) == (17, 512)
    assert torch.equal(first[:, :4], svd["conv_in.weight"][:, :4])
    assert (first[:, 4:13] == 0).all()
    assert torch.equal(first[:, 13:], svd["conv_in.weight"][:, 4:])
    assert (vector[:, :256] == 0).all()
    assert torch.equal(vector[:, 256:], svd["add_embedding.linear_1.weight"][:, 512:])
    others = [key for key in svd if key not in ("conv_in.weight", "add_embedding.linear_1.weight")]
    assert all(torch.equal(converted.tensors[key], svd[key]) for key in others)
    OrbitVideoUNet(**converted.config).load_state_dict(dict(converted.tensors))


def test_stage_2_is_no_svd():
    widened = stage2_from_svd(small([1, 1, 1]).state_dict(), head_dim=16)
    with pytest.raises(CheckpointError, match=r"this one reads 17 and 512\. Pass SVD's own weights"):
        stage1_from_svd(widened.tensors, head_dim=16)


def test_what_does_not_fit_is_named():
    tensors = orbit_video_to_release(small([1, 1, 1]).state_dict())
    for extra in ("input_blocks.1.0.gate.weight", "lora.weight", "down_blocks.0.resnets.9.bias"):
        with pytest.raises(CheckpointError, match=f"has unknown keys {extra}; is it"):
            orbit_video_from_release({**tensors, extra: torch.zeros(1)}, head_dim=16)
    with pytest.raises(CheckpointError, match=r"input_blocks\.0\.0\.weight must have 4 dimensions, has shape \(3,\)"):
        orbit_video_from_release({**tensors, "input_blocks.0.0.weight": torch.zeros(3)}, head_dim=16)
    with pytest.raises(CheckpointError, match="head_dim 64 does not divide the width 32; pass the right one"):
        orbit_video_from_release(tensors)
    for other in ({}, {"weight": torch.zeros(3)}):
        for convert in (orbit_video_from_release, stage1_from_svd):
            with pytest.raises(CheckpointError, match=r"Hi3D's U-Net: a level has no residual block, found .*; is it"):
                convert(other)
