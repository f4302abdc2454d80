"""Released names of VideoMV's U-Nets: true sizes, small ones, base networks, and files of something else."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from engine.checkpoints.keys_videomv import (
    image_orbit_from_release,
    text_orbit_from_release,
    videomv_to_release,
)
from engine.errors import CheckpointError
from engine.multiview.networks.image_orbit import ImageOrbitUNet
from engine.multiview.networks.text_orbit import TextOrbitUNet
from tests.engine.multiview.networks.small import small_image_orbit, small_text_orbit

TEXT = ("videomv_t2v", text_orbit_from_release, TextOrbitUNet)
IMAGE = ("videomv_i2v", image_orbit_from_release, ImageOrbitUNet)
Keys = dict[str, dict[str, Tensor]]


def shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


@pytest.mark.parametrize(("name", "from_release", "network", "millions"), [(*TEXT, 1412.9), (*IMAGE, 1422.1)])
def test_every_released_tensor_has_its_place(true_keys: Keys, name, from_release, network, millions):
    released = true_keys[name]
    converted = from_release(released)
    with torch.device("meta"):
        built = network(**converted.config)
        default = network()
    built.load_state_dict(converted.tensors, assign=True)
    assert round(sum(p.numel() for p in built.parameters()) / 1e6, 1) == millions
    assert shapes(default.state_dict()) == shapes(built.state_dict())  # the class's defaults are the released size
    assert default.config.temporal_in_heads == built.config.temporal_in_heads
    assert shapes(videomv_to_release(converted.tensors)) == shapes(released)


@pytest.mark.parametrize(("name", "from_release", "millions"), [(*TEXT[:2], 1411.2), (*IMAGE[:2], 1420.5)])
def test_base_networks_get_a_camera_embedding(true_keys: Keys, name, from_release, millions):
    base = {k: v for k, v in true_keys[name].items() if not k.startswith("camera_embedding.")}
    assert round(sum(v.numel() for v in base.values()) / 1e6, 1) == millions
    assert from_release(base).tensors.keys() == from_release(true_keys[name]).tensors.keys()


SIZES = [
    {},
    {"layers_per_block": 2, "temporal_in_heads": 3},
    {"block_out_channels": [32, 64, 96], "down_block_types": ["DownBlock3D", "CrossAttnDownBlock3D", "DownBlock3D"],
     "up_block_types": ["UpBlock3D", "CrossAttnUpBlock3D", "UpBlock3D"], "camera_dim": 12},
]  # fmt: skip


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(
    ("make", "from_release"),
    [(small_text_orbit, text_orbit_from_release), (small_image_orbit, image_orbit_from_release)],
)
def test_sizes_are_read_from_shapes_and_names_come_back(make, from_release, sizes):
    network = make(**sizes)
    released = videomv_to_release(network.state_dict())
    converted = from_release(released, head_dim=8)
    assert {key: converted.config[key] for key in converted.config} == {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in network.config.items()
        if key in converted.config
    }
    assert converted.tensors.keys() == network.state_dict().keys()
    assert all(torch.equal(converted.tensors[key], value) for key, value in network.state_dict().items())
    again = videomv_to_release(converted.tensors)
    assert shapes(again) == shapes(released)
    assert all(torch.equal(again[key], value) for key, value in released.items())


def test_the_published_files_names_come_back(oracles: Path):
    released = load_file(oracles / "videomv_t2v_small.safetensors")
    again = videomv_to_release(text_orbit_from_release(released, head_dim=16).tensors)
    assert shapes(again) == shapes(released)
    assert all(torch.equal(again[key], value) for key, value in released.items())


def small_release() -> dict[str, Tensor]:
    return videomv_to_release(small_text_orbit().state_dict())


def test_a_base_network_converts_to_the_same_numbers_each_time_and_ignores_cameras():
    base = {key: value for key, value in small_release().items() if not key.startswith("camera_embedding.")}
    first, second = (text_orbit_from_release(base, head_dim=8).tensors for _ in range(2))
    assert not first["camera_embedding.linear_2.weight"].any()
    assert first["camera_embedding.linear_1.weight"].std() > 0.05  # uniform to 1/4: 0.14
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_reconstructor_beside_it_is_left_aside():
    own = small_release()
    whole = own | {"lgm_big.unet.conv_in.bias": torch.ones(2), "lgm_big.lpips_loss.net.lin0.bias": torch.ones(3)}
    assert (
        text_orbit_from_release(whole, head_dim=8).tensors.keys()
        == text_orbit_from_release(own, head_dim=8).tensors.keys()
    )


def test_diffusers_names_are_taken_too():
    """ModelScopeT2V and I2VGen-XL as the hub has them: our names, no cameras."""
    for make, from_release in (
        (small_text_orbit, text_orbit_from_release),
        (small_image_orbit, image_orbit_from_release),
    ):
        base = {key: value for key, value in make().state_dict().items() if not key.startswith("camera_embedding.")}
        found, expected = from_release(base, head_dim=8), from_release(videomv_to_release(base), head_dim=8)
        assert found.config == expected.config
        assert found.tensors.keys() == expected.tensors.keys()
        assert all(torch.equal(found.tensors[key], value) for key, value in expected.tensors.items())


def changed(**changes: Tensor | None) -> dict[str, Tensor]:
    """A released file with tensors replaced, or dropped for None; `__` stands for a dot."""
    tensors = small_release()
    for name, value in changes.items():
        key = name.replace("__", ".")
        if value is None:
            del tensors[key]
        else:
            tensors[key] = value
    return tensors


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "VideoMV text U-Net: a level has no residual block, found nothing; is it"),
        ({"unet.conv_in.weight": torch.zeros(1)}, "a level has no residual block, found unet.conv_in.weight; is it"),
        (changed(camera_embedding__0__bias=None), "lacks camera_embedding.0.bias; is it"),
        (changed(fps_embedding__0__bias=torch.zeros(2)), "has unknown keys fps_embedding.0.bias; is it"),
        (
            changed(input_blocks__0__1__proj_out__weight=torch.zeros(32, 32, 1)),
            r"input_blocks.0.1.proj_out.weight must have shape \(32, 64, 1\), has \(32, 32, 1\)",
        ),
        (changed(input_blocks__0__0__weight=torch.zeros(32)), "input_blocks.0.0.weight must have 4 dimensions"),
        (changed(input_blocks__2__op__weight=None), r"lacks input_blocks\.2\.op\.weight; is it"),
        (
            changed(input_blocks__0__0__weight=torch.zeros(64, 4, 3, 3)),
            r"input_blocks.0.0.weight must have shape \(32, 4, 3, 3\), has \(64, 4, 3, 3\)",
        ),
    ],
)
def test_other_files_are_refused_with_the_keys_names(tensors: dict[str, Tensor], message: str):
    with pytest.raises(CheckpointError, match=message):
        text_orbit_from_release(tensors, head_dim=8)


def test_a_wrong_head_width_is_refused_where_it_shows():
    with pytest.raises(CheckpointError, match="head_dim 64 does not divide the width 32; pass the right one"):
        text_orbit_from_release(small_release())
    with pytest.raises(CheckpointError, match="head_dim 0 does not divide"):
        text_orbit_from_release(small_release(), head_dim=0)


def test_text_and_image_files_are_not_mistaken_for_each_other():
    image = videomv_to_release(small_image_orbit().state_dict())
    with pytest.raises(CheckpointError, match="VideoMV text U-Net: has unknown keys context_embedding"):
        text_orbit_from_release(image, head_dim=8)
    with pytest.raises(CheckpointError, match="VideoMV image U-Net: lacks context_embedding"):
        image_orbit_from_release(small_release(), head_dim=8)
