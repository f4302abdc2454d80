"""Released names of Stable Diffusion's autoencoder (VQGAN_autoencoder.pth, Hi3D's and others' `first_stage_model.`).

Sizes are read from the shapes. The middle attention's layers are convolutions of size 1 in the releases, linear here.
"""

from collections.abc import Mapping
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from engine.checkpoints.converted import Converted
from engine.checkpoints.renaming import Renaming, shape_at, shapes_of
from engine.errors import CheckpointError

FIRST_STAGE = "first_stage_model."
SCALING = 0.18215
RESIDUAL = {name: name for name in ("norm1", "conv1", "norm2", "conv2")} | {"conv_shortcut": "nin_shortcut"}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def vae_from_release(tensors: Mapping[str, Tensor], prefix: str = FIRST_STAGE) -> Converted:
    """Convert an autoencoder to diffusers' AutoencoderKL's names.

    Args:
        tensors: a `state_dict`. If keys start with the prefix, these alone are the autoencoder, as in the releases'
            own loaders; else all are.
        prefix: of the autoencoder's keys in a larger file.

    Raises:
        CheckpointError: another network; the message names the keys.
    """
    what = "autoencoder"
    inside = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    plain = inside or tensors
    config = _infer_config(what, plain)
    return Converted(config, _renaming(config).from_release(what, plain, shapes_of(AutoencoderKL, config)))


def vae_to_release(network: Converted, prefix: str = FIRST_STAGE) -> dict[str, Tensor]:
    """Return an AutoencoderKL's configuration and tensors under the released names."""
    released = _renaming(network.config).to_release(network.tensors)
    return {prefix + key: tensor for key, tensor in released.items()}


def _infer_config(what: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    counts: list[int] = []
    widths: list[int] = []
    while f"encoder.down.{len(counts)}.block.0.conv1.weight" in tensors:
        level = f"encoder.down.{len(counts)}.block"
        widths.append(shape_at(what, tensors, f"{level}.0.conv1.weight", 4)[0])
        counts.append(sum(f"{level}.{layer}.conv1.weight" in tensors for layer in range(len(tensors))))
    if not counts or len(set(counts)) > 1:
        shape_at(what, tensors, "encoder.down.0.block.0.conv1.weight", 4)  # says if it is not there
        raise CheckpointError(f"{what}: expected as many blocks at every level, found {counts}; is it another network?")
    return {
        "in_channels": shape_at(what, tensors, "encoder.conv_in.weight", 4)[1],
        "out_channels": shape_at(what, tensors, "decoder.conv_out.weight", 4)[0],
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "block_out_channels": widths,
        "layers_per_block": counts[0],
        "latent_channels": shape_at(what, tensors, "decoder.conv_in.weight", 4)[1],
        "scaling_factor": SCALING,
        "use_quant_conv": "quant_conv.weight" in tensors,
        "use_post_quant_conv": "post_quant_conv.weight" in tensors,
    }


def _renaming(config: Mapping[str, Any]) -> Renaming:
    prefixes = {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"}
    ones: dict[str, int] = {}
    count = len(config["block_out_channels"])
    for side in ("encoder", "decoder"):
        prefixes |= {f"{side}.conv_norm_out": f"{side}.norm_out"}
        prefixes |= {f"{side}.{name}": f"{side}.{name}" for name in ("conv_in", "conv_out")}
        for layer in (0, 1):
            prefixes |= _residual(f"{side}.mid_block.resnets.{layer}", f"{side}.mid.block_{layer + 1}")
        for ours, theirs in ATTENTION.items():
            prefixes[f"{side}.mid_block.attentions.0.{ours}"] = f"{side}.mid.attn_1.{theirs}"
            if ours != "group_norm":
                ones[f"{side}.mid_block.attentions.0.{ours}.weight"] = 2
    for level in range(count):
        prefixes |= _level(level, count, config["layers_per_block"])
    return Renaming(prefixes, trailing_ones=ones)


def _level(level: int, count: int, layers: int) -> dict[str, str]:
    """Names of a level of both sides; the release counts the decoder's from the picture, we in the order of work."""
    down, up = f"encoder.down_blocks.{level}", f"decoder.up_blocks.{count - 1 - level}"
    names = {
        f"{down}.downsamplers.0.conv": f"encoder.down.{level}.downsample.conv",
        f"{up}.upsamplers.0.conv": f"decoder.up.{level}.upsample.conv",
    }
    for layer in range(layers):
        names |= _residual(f"{down}.resnets.{layer}", f"encoder.down.{level}.block.{layer}")
    for layer in range(layers + 1):
        names |= _residual(f"{up}.resnets.{layer}", f"decoder.up.{level}.block.{layer}")
    return names


def _residual(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.{mine}": f"{theirs}.{other}" for mine, other in RESIDUAL.items()}
