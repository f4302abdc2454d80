"""Hi3D's U-Nets: the release's tensors (and Stable Video Diffusion's) in, `OrbitVideoUNet`'s config and tensors out.

The release names the U-Net `model.diffusion_model.*`; the functions here take the names without that prefix:

    input_blocks.0              convolution
    input_blocks.1 ...          residual block [, transformer] | downsampling
    middle_block.0 .. .2        residual block, transformer, residual block
    output_blocks.0 ...         as the input blocks, upsampling last in the list

Residual blocks and transformers hold their half over views as `time_stack`.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from engine.checkpoints.converted import Converted
from engine.checkpoints.renaming import Renaming, shape_at, shapes_of
from engine.errors import CheckpointError
from engine.multiview.networks.orbit_video import OrbitVideoUNet

RELEASED_HEAD_DIM = 64
"""Channels of one attention head in the released networks; shapes do not tell it."""
DEPTH_CHANNELS = 9
"""Of stage 2's depth condition."""

WHAT = "Hi3D's U-Net"
AROUND = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
Structure = list[tuple[int, bool]]
"""Of each level, the finest first: the number of residual blocks on the way down, and whether it attends."""


def orbit_video_from_release(tensors: Mapping[str, Tensor], head_dim: int = RELEASED_HEAD_DIM) -> Converted:
    """Return a released stage's U-Net.

    Args:
        tensors: by the release's names, without prefix; on any device, meta included.
        head_dim: channels of one attention head, which no shape tells.

    Raises:
        CheckpointError: another network; the message names the keys.
    """
    structure = _released_structure(tensors)
    renaming = _renaming(structure)
    config = _infer_config(tensors, structure, renaming.released, head_dim)
    return Converted(config, renaming.from_release(WHAT, tensors, shapes_of(OrbitVideoUNet, config)))


def orbit_video_to_release(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `OrbitVideoUNet`'s tensors by the release's names, without prefix."""
    return _renaming(_structure(tensors)).to_release(tensors)


def stage1_from_svd(tensors: Mapping[str, Tensor], head_dim: int = RELEASED_HEAD_DIM) -> Converted:
    """Return the weights that Hi3D's stage 1 is trained from: Stable Video Diffusion's as they are.

    So the elevation inherits the columns of the motion bucket and the aesthetic block those of the frame rate.

    Args:
        tensors: SVD's U-Net by diffusers' or the release's names.
        head_dim: channels of one attention head.

    Raises:
        CheckpointError: not SVD's U-Net.
    """
    released = any(key.startswith("input_blocks.") for key in tensors)
    converted = orbit_video_from_release(tensors, head_dim) if released else _from_diffusers(tensors, head_dim)
    config = converted.config
    if config["in_channels"] != 2 * config["out_channels"] or config["projection_class_embeddings_input_dim"] % 3:
        raise CheckpointError(
            f"Stable Video Diffusion's U-Net reads twice its {config['out_channels']} channels and a vector of three"
            f" parts; this one reads {config['in_channels']} and {config['projection_class_embeddings_input_dim']}."
            " Pass SVD's own weights"
        )
    return converted


def stage2_from_svd(tensors: Mapping[str, Tensor], head_dim: int = RELEASED_HEAD_DIM) -> Converted:
    """Return the weights that Hi3D's stage 2 is trained from: SVD's, with zero columns for depth and elevation.

    The vector loses its first part, the second starts at zero, the third (noise augmentation) is kept. Arguments and
    errors are `stage1_from_svd`'s.
    """
    svd = stage1_from_svd(tensors, head_dim)
    widened = dict(svd.tensors)
    first, vector = widened["conv_in.weight"], widened["add_embedding.linear_1.weight"]
    noisy, part = svd.config["out_channels"], vector.shape[1] // 3
    depth = first.new_zeros(len(first), DEPTH_CHANNELS, *first.shape[2:])
    widened["conv_in.weight"] = torch.cat([first[:, :noisy], depth, first[:, noisy:]], dim=1)
    widened["add_embedding.linear_1.weight"] = torch.cat(
        [torch.zeros_like(vector[:, :part]), vector[:, 2 * part :]], dim=1
    )
    return _from_diffusers(widened, head_dim)


def _from_diffusers(tensors: Mapping[str, Tensor], head_dim: int) -> Converted:
    """Return tensors that have our names already, with the configuration that their shapes tell."""
    config = _infer_config(tensors, _structure(tensors), str, head_dim)
    shapes = shapes_of(OrbitVideoUNet, config)
    parts = {key.split(".")[0] for key in shapes}
    same = Renaming({part: part for part in parts})
    return Converted(config, same.from_release(WHAT, tensors, shapes))


def _infer_config(
    tensors: Mapping[str, Tensor], structure: Structure, name: Callable[[str], str], head_dim: int
) -> dict[str, Any]:
    """Read the constructor's arguments from the shapes; `name` gives the tensors' name for one of ours."""

    def shape(key: str, dimensions: int) -> tuple[int, ...]:
        return shape_at(WHAT, tensors, name(key), dimensions)

    def depth(block: str) -> int:
        return _count(tensors, name(f"{block}.attentions.0.transformer_blocks"))

    if not structure or not all(count for count, _ in structure):
        raise CheckpointError(f"{WHAT}: a level has no residual block; is it a checkpoint of another network?")
    attentive = [attends for _, attends in structure]
    widths = [
        shape(f"down_blocks.{level}.resnets.0.spatial_res_block.conv1.weight", 4)[0] for level in range(len(structure))
    ]
    depths = [depth(f"down_blocks.{level}") if attends else 1 for level, attends in enumerate(attentive)]
    depths[-1] = depth("mid_block")  # the middle takes its depth from the last level
    return {
        "in_channels": shape("conv_in.weight", 4)[1],
        "out_channels": shape("conv_out.weight", 4)[0],
        "down_block_types": [_kind("Down", attends) for attends in attentive],
        "up_block_types": [_kind("Up", attends) for attends in reversed(attentive)],
        "block_out_channels": widths,
        "projection_class_embeddings_input_dim": shape("add_embedding.linear_1.weight", 2)[1],
        "layers_per_block": [count for count, _ in structure],
        "cross_attention_dim": shape("mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", 2)[1],
        "transformer_layers_per_block": depths,
        "num_attention_heads": _heads(widths, [*attentive[:-1], True], head_dim),
    }


def _heads(widths: list[int], attentive: list[bool], head_dim: int) -> list[int]:
    """Return the number of heads of each level; levels without attention get one."""
    wrong = [width for width, attends in zip(widths, attentive, strict=True) if attends and width % head_dim]
    if wrong:
        raise CheckpointError(f"{WHAT}: head_dim {head_dim} does not divide the width {wrong[0]}; pass the right one")
    return [width // head_dim if attends else 1 for width, attends in zip(widths, attentive, strict=True)]


def _kind(direction: str, attends: bool) -> str:
    return f"{'CrossAttn' if attends else ''}{direction}BlockSpatioTemporal"


def _count(names: Collection[str], parent: str) -> int:
    """Return how many numbered children a name has."""
    return len({key[len(parent) + 1 :].split(".")[0] for key in names if key.startswith(f"{parent}.")})


def _structure(ours: Collection[str]) -> Structure:
    """Read the structure from our names."""
    levels = [f"down_blocks.{level}" for level in range(_count(ours, "down_blocks"))]
    return [(_count(ours, f"{level}.resnets"), _count(ours, f"{level}.attentions") > 0) for level in levels]


def _released_structure(released: Collection[str]) -> Structure:
    """Read the structure from the release's names."""
    structure: Structure = [(0, False)]
    for number in range(1, _count(released, "input_blocks")):
        if f"input_blocks.{number}.0.op.weight" in released:  # the downsampling ends a level
            structure.append((0, False))
        else:
            structure[-1] = (structure[-1][0] + 1, f"input_blocks.{number}.1.proj_in.weight" in released)
    return structure


def _renaming(structure: Structure) -> Renaming:
    """Return the names of a network of this structure."""
    prefixes = AROUND | _layer("mid_block", 0, "middle_block", (0, 1)) | _layer("mid_block", 1, "middle_block", (2,))
    number = 1
    for level, (count, attends) in enumerate(structure):
        for layer in range(count):
            prefixes |= _layer(f"down_blocks.{level}", layer, f"input_blocks.{number}", (0, 1) if attends else (0,))
            number += 1
        if level < len(structure) - 1:
            prefixes[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
            number += 1
    number = 0
    for level, (count, attends) in enumerate(reversed(structure)):
        parts = (0, 1) if attends else (0,)
        for layer in range(count + 1):
            prefixes |= _layer(f"up_blocks.{level}", layer, f"output_blocks.{number}", parts)
            number += 1
        if level < len(structure) - 1:
            prefixes[f"up_blocks.{level}.upsamplers.0"] = f"output_blocks.{number - 1}.{len(parts)}"
    return Renaming(prefixes)


def _layer(ours: str, layer: int, released: str, parts: tuple[int, ...]) -> dict[str, str]:
    """Return the names of a residual block and, where there are two parts, of the transformer after it."""
    block, theirs = f"{ours}.resnets.{layer}", f"{released}.{parts[0]}"
    names = {f"{block}.time_mixer": f"{theirs}.time_mixer"}
    names |= {f"{block}.spatial_res_block.{new}": f"{theirs}.{old}" for new, old in RESIDUAL.items()}
    names |= {f"{block}.temporal_res_block.{new}": f"{theirs}.time_stack.{old}" for new, old in RESIDUAL.items()}
    if len(parts) == 2:
        block, theirs = f"{ours}.attentions.{layer}", f"{released}.{parts[1]}"
        names[block] = theirs
        names[f"{block}.temporal_transformer_blocks"] = f"{theirs}.time_stack"
        names[f"{block}.time_pos_embed.linear_1"] = f"{theirs}.time_pos_embed.0"
        names[f"{block}.time_pos_embed.linear_2"] = f"{theirs}.time_pos_embed.2"
    return names
