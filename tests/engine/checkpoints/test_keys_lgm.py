"""LGM's key map: the published lists map completely, sizes come from shapes, damage is named."""

import pytest
import torch

from engine.checkpoints.keys_lgm import lgm_from_release, lgm_to_release
from engine.errors import CheckpointError
from engine.splats.reconstructor import CONFIGS, GaussianUNet


def random_weights(name: str = "test", **changes) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return GaussianUNet(**CONFIGS[name] | changes).state_dict()


@pytest.mark.parametrize("prefix", ["", "lgm_big."])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_the_published_list_maps_completely(true_keys, prefix, dtype):
    big = true_keys["lgm_big"]
    assert len(big) == 376
    released = {prefix + key: tensor.to(dtype) for key, tensor in big.items()}
    converted = lgm_from_release(released)
    with torch.device("meta"):
        network = GaussianUNet(**converted.config)
    assert network.num_parameters() == 415_042_848
    network.load_state_dict(dict(converted.tensors), assign=True)  # strict: every key once, shapes as they are
    assert network.config.output_size == 512
    expected = ("over_gaussians", None) if prefix else ("per_gaussian", 1.5)
    assert (network.config.quaternion_norm, network.config.radius_m) == expected
    assert lgm_to_release(converted.tensors, prefix).keys() == released.keys()


@pytest.mark.parametrize("name", ["small", "tiny", "test"])
def test_sizes_are_read_from_the_shapes(name):
    with torch.device("meta"):
        made = GaussianUNet(**CONFIGS[name])
    converted = lgm_from_release(made.state_dict(), input_size=made.config.input_size, attention_heads=4)
    for argument in ("down_channels", "down_attention", "mid_attention", "up_channels", "up_attention", "output_size"):
        assert converted.config[argument] == _listed(made.config[argument]), argument


def _listed(value):
    return list(value) if isinstance(value, tuple | list) else value


def test_other_depths_and_no_attention_are_read_too():
    weights = random_weights(layers_per_block=1, mid_attention=False, down_attention=(False, False, False))
    config = lgm_from_release(weights, input_size=32).config
    assert (config["layers_per_block"], config["mid_attention"]) == (1, False)
    assert config["down_attention"] == [False, False, False]


def test_arguments_tell_what_shapes_do_not():
    config = lgm_from_release(
        random_weights(), input_size=64, output_size=100, views=6, attention_heads=8, radius_m=None,
        quaternion_norm="over_gaussians",
    ).config  # fmt: skip
    network = GaussianUNet(**config)
    assert network.splat_size == 32
    assert (network.config.output_size, network.config.views, network.config.attention_heads) == (100, 6, 8)
    assert (network.config.radius_m, network.config.quaternion_norm) == (None, "over_gaussians")


def test_of_a_videomv_file_its_part_is_taken_without_the_training_loss():
    weights = random_weights()
    whole = lgm_to_release(weights, "lgm_big.") | {"time_embed.0.weight": torch.zeros(1)}
    whole["lgm_big.lpips_loss.net.0.weight"] = torch.zeros(1)
    converted = lgm_from_release(whole, input_size=32)
    assert converted.tensors.keys() == weights.keys()
    for key, tensor in weights.items():
        assert converted.tensors[key] is tensor


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("unet.conv_in.weight"), r"LGM: lacks unet\.conv_in\.weight, found conv\.bias"),
        (
            lambda w: w.update({"unet.conv_out.bias": torch.zeros(3)}),
            r"LGM: unet\.conv_out\.bias must have shape \(14,\), has \(3,\)",
        ),
        (lambda w: w.clear(), r"LGM: lacks unet\.down_blocks\.0\.nets\.0\.conv1\.weight, found nothing"),
    ],
)
def test_damage_is_named(change, message):
    weights = random_weights()
    change(weights)
    with pytest.raises(CheckpointError, match=message):
        lgm_from_release(weights, input_size=32)
