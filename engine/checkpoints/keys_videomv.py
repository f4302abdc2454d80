"""Released names of VideoMV's U-Nets (UNetSD_T2VBase, UNetSD_I2VGen) and of the base networks they come from.

Sizes are read from the shapes; the width of an attention head cannot be, so it is an argument. The base checkpoints
(ModelScopeT2V, I2VGen-XL) have the same names without cameras; a zero-initialised embedding is added to them.

    input_blocks.0            convolution, first temporal transformer
    input_blocks.1 ...        residual block with temporal convolutions [, attention, temporal attention] | downsampling
    middle_block.0 .. .3      residual block, attention, temporal attention, residual block
    output_blocks.0 ...       as the input blocks, upsampling last in the list
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from engine.checkpoints.converted import Converted
from engine.checkpoints.renaming import Renaming, shape_at, shapes_of
from engine.errors import CheckpointError
from engine.multiview.networks.cameras import PREFIX, CameraEmbedding
from engine.multiview.networks.image_orbit import ImageOrbitUNet
from engine.multiview.networks.text_orbit import ATTENTION_DOWN, ATTENTION_UP, PLAIN_DOWN, PLAIN_UP, TextOrbitUNet

RELEASED_HEAD_DIM = 64
CAMERA_DIM = 16
RECONSTRUCTOR = "lgm_big."
"""Prefix of the reconstructor's tensors in a file that holds one."""
RECONSTRUCTOR_LOSS = "lpips_loss."
"""Of its tensors that belong to a training loss, not to the network."""
RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
AROUND = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "camera_embedding.linear_1": "camera_embedding.0",
    "camera_embedding.linear_2": "camera_embedding.2",
    "conv_in": "input_blocks.0.0",
    "transformer_in": "input_blocks.0.1",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.temp_attentions.0": "middle_block.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
PICTURE = {
    "context_embedding": "context_embedding",
    "fps_embedding": "fps_embedding",
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


def text_orbit_from_release(tensors: Mapping[str, Tensor], head_dim: int = RELEASED_HEAD_DIM) -> Converted:
    """Convert a VideoMV text U-Net (t2v_*.pth, non_ema_*.pth) or its base, ModelScopeT2V, to TextOrbitUNet's names.

    Args:
        tensors: the file's `state_dict` without `lgm_big.` (see split_reconstructor).
        head_dim: width of an attention head, 64 in the releases.

    Raises:
        CheckpointError: another network; the message names the keys.
    """
    what = "VideoMV text U-Net"
    config = _infer_config(what, tensors, head_dim)
    config["in_channels"] = shape_at(what, tensors, "input_blocks.0.0.weight", 4)[1]
    renaming = _renaming(config, {}, {})
    return _convert(what, tensors, config, renaming, shapes_of(TextOrbitUNet, config))


def image_orbit_from_release(tensors: Mapping[str, Tensor], head_dim: int = RELEASED_HEAD_DIM) -> Converted:
    """Convert a VideoMV image U-Net (i2v_*.pth) or its base, I2VGen-XL, to ImageOrbitUNet's names.

    Arguments and errors as in text_orbit_from_release.
    """
    what = "VideoMV image U-Net"
    config = _infer_config(what, tensors, head_dim)
    # The noisy latents and the picture's maps, as many channels each.
    config["in_channels"] = shape_at(what, tensors, "input_blocks.0.0.weight", 4)[1] // 2
    renaming = _renaming(config, PICTURE, PICTURE_JOINED)
    return _convert(what, tensors, config, renaming, shapes_of(ImageOrbitUNet, config))


def text_orbit_to_release(network: Converted) -> dict[str, Tensor]:
    """Return a TextOrbitUNet's configuration and tensors as the released file's `state_dict`."""
    return _renaming(network.config, {}, {}).to_release(network.tensors)


def image_orbit_to_release(network: Converted) -> dict[str, Tensor]:
    """Return an ImageOrbitUNet's configuration and tensors as the released file's `state_dict`."""
    return _renaming(network.config, PICTURE, PICTURE_JOINED).to_release(network.tensors)


def split_reconstructor(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split a file's `state_dict` into the U-Net and the reconstructor (LGM's names; empty if the file has none)."""
    unet = {key: tensor for key, tensor in tensors.items() if not key.startswith(RECONSTRUCTOR)}
    inside = {key.removeprefix(RECONSTRUCTOR): tensor for key, tensor in tensors.items() if key not in unet}
    return unet, {key: tensor for key, tensor in inside.items() if not key.startswith(RECONSTRUCTOR_LOSS)}


def _convert(
    what: str,
    tensors: Mapping[str, Tensor],
    config: dict[str, Any],
    renaming: Renaming,
    shapes: dict[str, tuple[int, ...]],
) -> Converted:
    """Rename; a base network without any camera key gets a fresh embedding."""
    cameras: dict[str, Tensor] = {}
    if not any(key.startswith(PREFIX) for key in tensors):
        cameras = _fresh_cameras(config, tensors["out.2.weight"])
        shapes = {key: shape for key, shape in shapes.items() if key not in cameras}
    return Converted(config, renaming.from_release(what, tensors, shapes) | cameras)


def _fresh_cameras(config: Mapping[str, Any], like: Tensor) -> dict[str, Tensor]:
    """A camera embedding as training starts with; always the same numbers, so that a conversion can be repeated."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(0)
        embedding = CameraEmbedding(config["camera_dim"], 4 * config["block_out_channels"][0])
    return {PREFIX + key: tensor.to(like) for key, tensor in embedding.state_dict().items()}


def _infer_config(what: str, tensors: Mapping[str, Tensor], head_dim: int) -> dict[str, Any]:
    """Read what both networks' constructors take from the shapes, all but in_channels."""
    levels = _levels(what, tensors)
    widths = [level[0][0] for level in levels]
    attention = [level[0][1] for level in levels]
    first = shape_at(what, tensors, "input_blocks.0.0.weight", 4)[0]
    inner = shape_at(what, tensors, "input_blocks.0.1.proj_in.weight", 3)[0]
    if first != widths[0] or any(level != [level[0]] * len(levels[0]) for level in levels):
        raise CheckpointError(
            f"{what}: expected a first level as wide as the first convolution and levels of equal blocks, found "
            f"{first} and {levels}; is it a checkpoint of another network?"
        )
    wrong = [width for width in (inner, *widths) if head_dim < 1 or width % head_dim]
    if wrong:
        raise CheckpointError(f"{what}: head_dim {head_dim} does not divide the width {wrong[0]}; pass the right one")
    cameras = tensors.get("camera_embedding.0.weight")
    return {
        "out_channels": shape_at(what, tensors, "out.2.weight", 4)[0],
        "down_block_types": [ATTENTION_DOWN if has else PLAIN_DOWN for has in attention],
        "up_block_types": [ATTENTION_UP if has else PLAIN_UP for has in reversed(attention)],
        "block_out_channels": widths,
        "layers_per_block": len(levels[0]),
        "cross_attention_dim": _context_width(what, tensors),
        "attention_head_dim": head_dim,
        "temporal_in_heads": inner // head_dim,
        "camera_dim": CAMERA_DIM if cameras is None else cameras.shape[-1],
    }


def _context_width(what: str, tensors: Mapping[str, Tensor]) -> int:
    return shape_at(what, tensors, "middle_block.1.transformer_blocks.0.attn2.to_k.weight", 2)[1]


def _levels(what: str, tensors: Mapping[str, Tensor]) -> list[list[tuple[int, bool]]]:
    """Return (width, has attention) of every residual block of every level."""
    levels: list[list[tuple[int, bool]]] = [[]]
    index = 1
    while True:
        block = f"input_blocks.{index}"
        if f"{block}.0.out_layers.3.weight" in tensors:
            width = tensors[f"{block}.0.out_layers.3.weight"].shape[0]
            levels[-1].append((width, f"{block}.1.proj_in.weight" in tensors))
        elif f"{block}.op.weight" in tensors:
            levels.append([])
        else:
            break
        index += 1
    if not all(levels):
        shape_at(what, tensors, f"input_blocks.{index}.0.out_layers.3.weight", 4)  # says that it is not there
    return levels


def _renaming(config: Mapping[str, Any], more: Mapping[str, str], joined: Mapping[str, tuple[str, ...]]) -> Renaming:
    """Return the names of a network of this configuration."""
    prefixes = {
        **AROUND,
        **more,
        **_residual("mid_block", 0, "middle_block.0"),
        **_residual("mid_block", 1, "middle_block.3"),
    }
    prefixes |= _down(config) | _up(config)
    temporal = [key for key in prefixes if key == "transformer_in" or ".temp_attentions." in key]
    ones = {f"{key}.proj_{side}.weight": 1 for key in temporal for side in ("in", "out")}
    return Renaming(prefixes, joined, ones)


def _residual(block: str, layer: int, released: str) -> dict[str, str]:
    """A released residual block is our residual block and our temporal convolutions (the misspelling is theirs)."""
    names = {f"{block}.resnets.{layer}.{ours}": f"{released}.{theirs}" for ours, theirs in RESIDUAL.items()}
    return names | {f"{block}.temp_convs.{layer}": f"{released}.temopral_conv"}


def _attention(block: str, layer: int, released: str) -> dict[str, str]:
    return {f"{block}.attentions.{layer}": f"{released}.1", f"{block}.temp_attentions.{layer}": f"{released}.2"}


def _down(config: Mapping[str, Any]) -> dict[str, str]:
    names: dict[str, str] = {}
    index = 1
    for level, kind in enumerate(config["down_block_types"]):
        block = f"down_blocks.{level}"
        for layer in range(config["layers_per_block"]):
            names |= _residual(block, layer, f"input_blocks.{index}.0")
            if kind == ATTENTION_DOWN:
                names |= _attention(block, layer, f"input_blocks.{index}")
            index += 1
        if level + 1 < len(config["down_block_types"]):
            names[f"{block}.downsamplers.0.conv"] = f"input_blocks.{index}.op"
            index += 1
    return names


def _up(config: Mapping[str, Any]) -> dict[str, str]:
    names: dict[str, str] = {}
    layers = config["layers_per_block"] + 1
    for level, kind in enumerate(config["up_block_types"]):
        block = f"up_blocks.{level}"
        for layer in range(layers):
            released = f"output_blocks.{level * layers + layer}"
            names |= _residual(block, layer, f"{released}.0")
            if kind == ATTENTION_UP:
                names |= _attention(block, layer, released)
        if level + 1 < len(config["up_block_types"]):
            place = 3 if kind == ATTENTION_UP else 1
            names[f"{block}.upsamplers.0.conv"] = f"output_blocks.{(level + 1) * layers - 1}.{place}.conv"
    return names
