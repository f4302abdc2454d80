"""Released names of Stable Diffusion's autoencoder (VQGAN_autoencoder.pth, Hi3D's and others' `first_stage_model.`).

Sizes are read from the shapes. The middle attention's layers are convolutions of size 1 in the releases, linear here.
Files under diffusers' names are taken too, old ones (attention: query, key, value, proj_attn) included.
"""

from collections.abc import Collection, Mapping
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from engine.checkpoints.converted import Converted
from engine.checkpoints.prefixes import AUTOENCODER
from engine.checkpoints.renaming import ANOTHER, Renaming, count_children, own_part
from engine.errors import CheckpointError
from engine.multiview.settings import SD_SCALING

WHAT = "autoencoder"
SIDES = ("encoder", "decoder")
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
"""As early versions of diffusers named it."""


def vae_from_release(
    tensors: Mapping[str, Tensor], *, prefix: str = AUTOENCODER, scaling: float = SD_SCALING
) -> Converted:
    """Convert an autoencoder to diffusers' AutoencoderKL's names.

    Args:
        tensors: of the file, or the network's alone; of any type, also on meta.
        prefix: of the network's names in the file.
        scaling: factor on the latents, which no shape tells.

    Raises:
        CheckpointError: another network; the message names the keys.
    """
    own = own_part(tensors, prefix)
    if any(key.startswith("encoder.down.") for key in own):
        layers = _layers(own, "encoder.down", "block")
        renaming = _renaming(layers)
    else:
        layers = _layers(own, "encoder.down_blocks", "resnets")
        old = any(key.endswith(".query.weight") for key in own)
        renaming = Renaming(WHAT, _attention("mid_block.attentions.0", OLD_ATTENTION) if old else {})
    config = _config(renaming, layers, own) | {"scaling_factor": scaling}
    return Converted(config, renaming.from_release(own, renaming.shapes_of(lambda: AutoencoderKL(**config))))


def vae_to_release(tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Return an AutoencoderKL's tensors under the released names."""
    return _renaming(_layers(tensors, "encoder.down_blocks", "resnets")).to_release(tensors, prefix)


def _layers(names: Collection[str], levels: str, blocks: str) -> list[int]:
    """Return the number of residual blocks of each of the encoder's levels."""
    return [count_children(names, f"{levels}.{level}.{blocks}") for level in range(count_children(names, levels))]


def _config(renaming: Renaming, layers: list[int], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    def shape(key: str) -> tuple[int, ...]:
        return renaming.shape(tensors, key, 4)

    channels = {"in_channels": shape("encoder.conv_in.weight")[1], "out_channels": shape("decoder.conv_out.weight")[0]}
    if len(set(layers)) != 1:
        raise CheckpointError(f"{WHAT}: expected as many blocks at every level, found {layers}; {ANOTHER}")
    return channels | {
        "down_block_types": ["DownEncoderBlock2D"] * len(layers),
        "up_block_types": ["UpDecoderBlock2D"] * len(layers),
        "block_out_channels": [
            shape(f"encoder.down_blocks.{level}.resnets.0.conv1.weight")[0] for level in range(len(layers))
        ],
        "layers_per_block": layers[0],
        "latent_channels": shape("decoder.conv_in.weight")[1],
        "use_quant_conv": "quant_conv.weight" in tensors,
        "use_post_quant_conv": "post_quant_conv.weight" in tensors,
    }


def _renaming(layers: list[int]) -> Renaming:
    """Names of both sides; the release counts the decoder's levels from the picture, we in the order of work."""
    prefixes = _attention("mid.attn_1", ATTENTION)
    for side in SIDES:
        prefixes[f"{side}.conv_norm_out"] = f"{side}.norm_out"
        for layer in (0, 1):
            prefixes[f"{side}.mid_block.resnets.{layer}"] = f"{side}.mid.block_{layer + 1}"
    for level, count in enumerate(layers):
        down, up = f"encoder.down_blocks.{level}", f"decoder.up_blocks.{len(layers) - 1 - level}"
        prefixes[f"{down}.downsamplers.0"] = f"encoder.down.{level}.downsample"
        prefixes[f"{up}.upsamplers.0"] = f"decoder.up.{level}.upsample"
        for ours, theirs in ((down, f"encoder.down.{level}"), (up, f"decoder.up.{level}")):
            for layer in range(count + 1):  # the decoder has one more
                prefixes[f"{ours}.resnets.{layer}"] = f"{theirs}.block.{layer}"
                prefixes[f"{ours}.resnets.{layer}.conv_shortcut"] = f"{theirs}.block.{layer}.nin_shortcut"
    linear = [f"{key}.weight" for key in _attention("mid.attn_1", ATTENTION) if not key.endswith("group_norm")]
    return Renaming(WHAT, prefixes, trailing_ones=dict.fromkeys(linear, 2))


def _attention(place: str, names: Mapping[str, str]) -> dict[str, str]:
    return {
        f"{side}.mid_block.attentions.0.{ours}": f"{side}.{place}.{theirs}"
        for side in SIDES
        for ours, theirs in names.items()
    }
