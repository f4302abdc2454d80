"""Released names of VideoMV's U-Nets: true sizes, small ones, base networks, and files of something else."""

import ast
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from engine.checkpoints.converted import Converted
from engine.checkpoints.keys_videomv import (
    image_orbit_from_release,
    image_orbit_to_release,
    split_reconstructor,
    text_orbit_from_release,
    text_orbit_to_release,
)
from engine.errors import CheckpointError
from engine.multiview.networks.image_orbit import ImageOrbitUNet
from engine.multiview.networks.text_orbit import TextOrbitUNet
from tests.engine.multiview.networks.small import small_image_orbit, small_text_orbit

TEXT = ("keys_videomv_t2v_true.txt", text_orbit_from_release, text_orbit_to_release, TextOrbitUNet)
IMAGE = ("keys_videomv_i2v_true.txt", image_orbit_from_release, image_orbit_to_release, ImageOrbitUNet)


def true_size(path: Path) -> dict[str, Tensor]:
    """The released tensors without values."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    shapes = {key: ast.literal_eval(shape) for key, shape in (line.split("\t") for line in lines)}
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("names", "from_release", "to_release", "network", "millions"), [(*TEXT, 1412.9), (*IMAGE, 1422.1)]
)
def test_every_released_tensor_has_its_place(oracles: Path, names, from_release, to_release, network, millions):
    released = true_size(oracles / names)
    converted = from_release(released)
    with torch.device("meta"):
        built = network(**converted.config)
        default = network()
    built.load_state_dict(converted.tensors, assign=True)
    assert round(sum(p.numel() for p in built.parameters()) / 1e6, 1) == millions
    assert shapes(default.state_dict()) == shapes(built.state_dict())  # the class's defaults are the released size
    assert default.config.temporal_in_heads == built.config.temporal_in_heads
    assert shapes(to_release(converted)) == shapes(released)


@pytest.mark.parametrize(("names", "from_release", "millions"), [(*TEXT[:2], 1411.2), (*IMAGE[:2], 1420.5)])
def test_base_networks_get_a_camera_embedding(oracles: Path, names, from_release, millions):
    base = {k: v for k, v in true_size(oracles / names).items() if not k.startswith("camera_embedding.")}
    assert round(sum(v.numel() for v in base.values()) / 1e6, 1) == millions
    assert from_release(base).tensors.keys() == from_release(true_size(oracles / names)).tensors.keys()


SIZES = [
    {},
    {"layers_per_block": 2, "temporal_in_heads": 3},
    {"block_out_channels": [32, 64, 96], "down_block_types": ["DownBlock3D", "CrossAttnDownBlock3D", "DownBlock3D"],
     "up_block_types": ["UpBlock3D", "CrossAttnUpBlock3D", "UpBlock3D"], "camera_dim": 12},
]  # fmt: skip


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize(
    ("make", "from_release", "to_release"),
    [
        (small_text_orbit, text_orbit_from_release, text_orbit_to_release),
        (small_image_orbit, image_orbit_from_release, image_orbit_to_release),
    ],
)
def test_sizes_are_read_from_shapes_and_names_come_back(make, from_release, to_release, sizes):
    network = make(**sizes)
    released = to_release(Converted(dict(network.config), network.state_dict()))
    converted = from_release(released, head_dim=8)
    assert {key: converted.config[key] for key in converted.config} == {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in network.config.items()
        if key in converted.config
    }
    assert converted.tensors.keys() == network.state_dict().keys()
    assert all(torch.equal(converted.tensors[key], value) for key, value in network.state_dict().items())
    again = to_release(converted)
    assert shapes(again) == shapes(released)
    assert all(torch.equal(again[key], value) for key, value in released.items())


def test_the_published_files_names_come_back(oracles: Path):
    released = load_file(oracles / "videomv_t2v_small.safetensors")
    again = text_orbit_to_release(text_orbit_from_release(released, head_dim=16))
    assert shapes(again) == shapes(released)
    assert all(torch.equal(again[key], value) for key, value in released.items())


def small_release() -> dict[str, Tensor]:
    network = small_text_orbit()
    return text_orbit_to_release(Converted(dict(network.config), network.state_dict()))


def test_a_base_network_converts_to_the_same_numbers_each_time_and_ignores_cameras():
    base = {key: value for key, value in small_release().items() if not key.startswith("camera_embedding.")}
    first, second = (text_orbit_from_release(base, head_dim=8).tensors for _ in range(2))
    assert not first["camera_embedding.linear_2.weight"].any()
    assert first["camera_embedding.linear_1.weight"].std() > 0.05  # uniform to 1/4: 0.14
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_reconstructor_is_split_off():
    unet, reconstructor = split_reconstructor(
        {
            "out.2.bias": torch.zeros(1),
            "lgm_big.unet.conv_in.bias": torch.ones(2),
            "lgm_big.lpips_loss.net.lin0.bias": torch.ones(3),
        }
    )
    assert list(unet) == ["out.2.bias"]
    assert list(reconstructor) == ["unet.conv_in.bias"]


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
        ({}, "VideoMV text U-Net: lacks input_blocks.1.0.out_layers.3.weight, found nothing"),
        (
            {"unet.conv_in.weight": torch.zeros(1)},
            "lacks input_blocks.1.0.out_layers.3.weight, found unet.conv_in.weight",
        ),
        (changed(out__0__bias=None), "lacks out.0.bias; is it a checkpoint of another network?"),
        (changed(camera_embedding__0__bias=None), "lacks camera_embedding.0.bias; is it"),
        (changed(fps_embedding__0__bias=torch.zeros(2)), "has unknown keys fps_embedding.0.bias; is it"),
        (
            changed(input_blocks__0__1__proj_out__weight=torch.zeros(32, 32, 1)),
            r"input_blocks.0.1.proj_out.weight must have shape \(32, 64, 1\), has \(32, 32, 1\)",
        ),
        (changed(input_blocks__0__0__weight=torch.zeros(32)), "input_blocks.0.0.weight must have 4 dimensions"),
        (changed(input_blocks__2__op__weight=None), r"has unknown keys input_blocks\.2\.op\.bias"),
        (
            changed(input_blocks__0__0__weight=torch.zeros(64, 4, 3, 3)),
            r"a first level as wide as the first convolution .* found 64 and \[\[\(32, True\)\], \[\(64, False\)\]\]",
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
    network = small_image_orbit()
    image = image_orbit_to_release(Converted(dict(network.config), network.state_dict()))
    with pytest.raises(CheckpointError, match="VideoMV text U-Net: has unknown keys context_embedding"):
        text_orbit_from_release(image, head_dim=8)
    with pytest.raises(CheckpointError, match="VideoMV image U-Net: lacks context_embedding"):
        image_orbit_from_release(small_release(), head_dim=8)
