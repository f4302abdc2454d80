"""Released names of VideoMV's U-Nets (UNetSD_T2VBase, UNetSD_I2VGen) and of the base networks they come from.

Sizes are read from the shapes; the width of an attention head cannot be, so it is an argument. The base checkpoints
(ModelScopeT2V, I2VGen-XL) have the same names without cameras, and are taken under diffusers' names too, which are ours;
a camera embedding as training begins with is added to them. What the names share with Hi3D's is in keys_unet.
"""

from collections.abc import Collection, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from engine.checkpoints.converted import Converted
from engine.checkpoints.keys_unet import AROUND, RESIDUAL, Levels, block_names, is_released, levels_of
from engine.checkpoints.prefixes import RECONSTRUCTOR
from engine.checkpoints.renaming import ANOTHER, Renaming, heads, without
from engine.errors import CheckpointError
from engine.multiview.networks.cameras import PREFIX, CameraEmbedding
from engine.multiview.networks.image_orbit import ImageOrbitUNet
from engine.multiview.networks.text_orbit import ATTENTION_DOWN, ATTENTION_UP, PLAIN_DOWN, PLAIN_UP, TextOrbitUNet

RELEASED_HEAD_DIM = 64
CAMERA_DIM = 16
DOWNSAMPLING = "op"
CAMERAS = {
    "camera_embedding.linear_1": "camera_embedding.0",
    "camera_embedding.linear_2": "camera_embedding.2",
}
PICTURE = {
    "image_latents_proj_in": "local_image_concat",
    "image_latents_context_embedding": "local_image_embedding",
    "image_latents_temporal_encoder.norm1": "local_temporal_encoder.layers.0.0.norm",
    "image_latents_temporal_encoder.attn1.to_out": "local_temporal_encoder.layers.0.0.fn.to_out",
    "image_latents_temporal_encoder.ff.net.0.proj": "local_temporal_encoder.layers.0.1.net.0.0",
    "image_latents_temporal_encoder.ff.net.2": "local_temporal_encoder.layers.0.1.net.2",
}
PICTURE_JOINED = {
    "local_temporal_encoder.layers.0.0.fn.to_qkv.weight": tuple(
        f"image_latents_temporal_encoder.attn1.to_{part}.weight" for part in "qkv"
    )
}
Kind = Literal["text", "image"]


def text_orbit_from_release(tensors: Mapping[str, Tensor], *, head_dim: int = RELEASED_HEAD_DIM) -> Converted:
    """Convert a VideoMV text U-Net (t2v_*.pth, non_ema_*.pth) or its base, ModelScopeT2V, to TextOrbitUNet's names.

    Args:
        tensors: the file's `state_dict`; its reconstructor (`lgm_big.`) is left aside. Of any type, also on meta.
        head_dim: channels of an attention head, which no shape tells; 64 in the releases.

    Raises:
        CheckpointError: another network; the message names the keys.
    """
    return _convert("text", tensors, head_dim)


def image_orbit_from_release(tensors: Mapping[str, Tensor], *, head_dim: int = RELEASED_HEAD_DIM) -> Converted:
    """Convert a VideoMV image U-Net (i2v_*.pth) or its base, I2VGen-XL, to ImageOrbitUNet's names.

    Arguments and errors as in text_orbit_from_release.
    """
    return _convert("image", tensors, head_dim)


def videomv_to_release(tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors of either of our networks as they are in the released file's `state_dict`."""
    what = "VideoMV U-Net"
    return _renaming(what, levels_of(what, tensors, DOWNSAMPLING)).to_release(tensors, prefix)


def _convert(kind: Kind, tensors: Mapping[str, Tensor], head_dim: int) -> Converted:
    """Rename; a base network without any camera key gets a fresh embedding."""
    what, network = f"VideoMV {kind} U-Net", {"text": TextOrbitUNet, "image": ImageOrbitUNet}[kind]
    own = without(tensors, RECONSTRUCTOR)
    levels = levels_of(what, own, DOWNSAMPLING)
    renaming = _renaming(what, levels) if is_released(own) else Renaming(what)
    config = _config(renaming, levels, own, head_dim)
    # The image network reads the noisy latents and the picture's maps, as many channels each.
    config["in_channels"] = renaming.shape(own, "conv_in.weight", 4)[1] // (2 if kind == "image" else 1)
    shapes = renaming.shapes_of(lambda: network(**config))
    if any(key.startswith(PREFIX) for key in own):
        return Converted(config, renaming.from_release(own, shapes))
    cameras = _fresh_cameras(config, own[renaming.released("conv_out.weight")])
    renamed = renaming.from_release(own, {key: shape for key, shape in shapes.items() if key not in cameras})
    return Converted(config, renamed | cameras)


def _fresh_cameras(config: Mapping[str, Any], like: Tensor) -> dict[str, Tensor]:
    """A camera embedding as training starts with; always the same numbers, so that a conversion can be repeated."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(0)
        embedding = CameraEmbedding(config["camera_dim"], 4 * config["block_out_channels"][0])
    return {PREFIX + key: tensor.to(like) for key, tensor in embedding.state_dict().items()}


def _config(renaming: Renaming, levels: Levels, tensors: Mapping[str, Tensor], head_dim: int) -> dict[str, Any]:
    """Read what both networks' constructors take from the shapes, all but in_channels."""

    def shape(key: str, dimensions: int) -> tuple[int, ...]:
        return renaming.shape(tensors, key, dimensions)

    counts = [count for count, _ in levels]
    if len(set(counts)) > 1:
        raise CheckpointError(f"{renaming.what}: expected as many blocks at every level, found {counts}; {ANOTHER}")
    widths = [shape(f"down_blocks.{level}.resnets.0.conv1.weight", 4)[0] for level in range(len(levels))]
    for width in widths:
        heads(renaming.what, width, head_dim)
    cameras = renaming.released(f"{PREFIX}linear_1.weight") in tensors
    return {
        "out_channels": shape("conv_out.weight", 4)[0],
        "down_block_types": [ATTENTION_DOWN if attends else PLAIN_DOWN for _, attends in levels],
        "up_block_types": [ATTENTION_UP if attends else PLAIN_UP for _, attends in reversed(levels)],
        "block_out_channels": widths,
        "layers_per_block": counts[0],
        "cross_attention_dim": shape("mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", 2)[1],
        "attention_head_dim": head_dim,
        "temporal_in_heads": heads(renaming.what, shape("transformer_in.proj_in.weight", 2)[0], head_dim),
        "camera_dim": shape(f"{PREFIX}linear_1.weight", 2)[1] if cameras else CAMERA_DIM,
    }


def _renaming(what: str, levels: Levels) -> Renaming:
    """Return the names of a network with these levels, pictures' and cameras' included."""
    around = AROUND | CAMERAS | PICTURE | {"transformer_in": "input_blocks.0.1"}
    prefixes = around | block_names(
        levels, downsampling=DOWNSAMPLING, residual=_residual, attention=_attention, attention_layers=2
    )
    return Renaming(what, prefixes, PICTURE_JOINED, trailing_ones=_convolutions(prefixes))


def _convolutions(prefixes: Collection[str]) -> dict[str, int]:
    temporal = [key for key in prefixes if key == "transformer_in" or ".temp_attentions." in key]
    return {f"{key}.proj_{side}.weight": 1 for key in temporal for side in ("in", "out")}


def _residual(block: str, layer: int, released: str) -> dict[str, str]:
    """A released residual block is our residual block and our temporal convolutions (the misspelling is theirs)."""
    names = {f"{block}.resnets.{layer}.{ours}": f"{released}.{theirs}" for ours, theirs in RESIDUAL.items()}
    return names | {f"{block}.temp_convs.{layer}": f"{released}.temopral_conv"}


def _attention(block: str, layer: int, released: str) -> dict[str, str]:
    return {f"{block}.attentions.{layer}": f"{released}.1", f"{block}.temp_attentions.{layer}": f"{released}.2"}
