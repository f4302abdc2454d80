"""Hi3D's U-Nets: the release's tensors (and Stable Video Diffusion's) in, `OrbitVideoUNet`'s config and tensors out.

In whole files they stand behind `model.diffusion_model.`; SVD's are taken under diffusers' names too, which are ours.
Residual blocks and transformers hold their half over views as `time_stack`. What the names share with VideoMV's is in
keys_unet.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from engine.checkpoints.converted import Converted
from engine.checkpoints.keys_unet import AROUND, RESIDUAL, Levels, block_names, is_released, levels_of
from engine.checkpoints.prefixes import HI3D_UNET
from engine.checkpoints.renaming import Renaming, count_children, heads, own_part
from engine.errors import CheckpointError
from engine.multiview.networks.orbit_video import OrbitVideoUNet

RELEASED_HEAD_DIM = 64
DEPTH_CHANNELS = 9
"""Of stage 2's depth condition."""
WHAT = "Hi3D's U-Net"
DOWNSAMPLING = "0.op"
VECTOR = {"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}


def orbit_video_from_release(
    tensors: Mapping[str, Tensor], *, prefix: str = HI3D_UNET, head_dim: int = RELEASED_HEAD_DIM
) -> Converted:
    """Return a released stage's U-Net.

    Args:
        tensors: of the file, or the network's alone; of any type, also on meta.
        prefix: of the network's names in the file.
        head_dim: channels of an attention head, which no shape tells; 64 in the releases.

    Raises:
        CheckpointError: another network; the message names the keys.
    """
    own = own_part(tensors, prefix)
    levels = levels_of(WHAT, own, DOWNSAMPLING)
    renaming = _renaming(levels) if is_released(own) else Renaming(WHAT)
    config = _config(renaming, levels, own, head_dim)
    return Converted(config, renaming.from_release(own, renaming.shapes_of(lambda: OrbitVideoUNet(**config))))


def orbit_video_to_release(tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Return `OrbitVideoUNet`'s tensors by the release's names."""
    return _renaming(levels_of(WHAT, tensors, DOWNSAMPLING)).to_release(tensors, prefix)


def stage1_from_svd(
    tensors: Mapping[str, Tensor], *, prefix: str = HI3D_UNET, head_dim: int = RELEASED_HEAD_DIM
) -> Converted:
    """Return the weights that Hi3D's stage 1 is trained from: Stable Video Diffusion's as they are.

    So the elevation inherits the columns of the motion bucket and the aesthetic block those of the frame rate.
    Arguments as in orbit_video_from_release. Raises CheckpointError if it is not SVD's U-Net.
    """
    converted = orbit_video_from_release(tensors, prefix=prefix, head_dim=head_dim)
    config = converted.config
    if config["in_channels"] != 2 * config["out_channels"] or config["projection_class_embeddings_input_dim"] % 3:
        raise CheckpointError(
            f"Stable Video Diffusion's U-Net reads twice its {config['out_channels']} channels and a vector of three"
            f" parts; this one reads {config['in_channels']} and {config['projection_class_embeddings_input_dim']}."
            " Pass SVD's own weights"
        )
    return converted


def stage2_from_svd(
    tensors: Mapping[str, Tensor], *, prefix: str = HI3D_UNET, head_dim: int = RELEASED_HEAD_DIM
) -> Converted:
    """Return the weights that Hi3D's stage 2 is trained from: SVD's, with zero columns for depth and elevation.

    The vector loses its first part, the second starts at zero, the third (noise augmentation) is kept. Arguments and
    errors are `stage1_from_svd`'s.
    """
    svd = stage1_from_svd(tensors, prefix=prefix, head_dim=head_dim)
    widened = dict(svd.tensors)
    first, vector = widened["conv_in.weight"], widened["add_embedding.linear_1.weight"]
    noisy, part = svd.config["out_channels"], vector.shape[1] // 3
    depth = first.new_zeros(len(first), DEPTH_CHANNELS, *first.shape[2:])
    widened["conv_in.weight"] = torch.cat([first[:, :noisy], depth, first[:, noisy:]], dim=1)
    widened["add_embedding.linear_1.weight"] = torch.cat(
        [torch.zeros_like(vector[:, :part]), vector[:, 2 * part :]], dim=1
    )
    return orbit_video_from_release(widened, head_dim=head_dim)


def _config(renaming: Renaming, levels: Levels, tensors: Mapping[str, Tensor], head_dim: int) -> dict[str, Any]:
    """Read the constructor's arguments from the shapes."""

    def shape(key: str, dimensions: int) -> tuple[int, ...]:
        return renaming.shape(tensors, key, dimensions)

    def depth(block: str) -> int:
        return count_children(tensors, renaming.released(f"{block}.attentions.0.transformer_blocks"))

    widths = [
        shape(f"down_blocks.{level}.resnets.0.spatial_res_block.conv1.weight", 4)[0] for level in range(len(levels))
    ]
    attentive = [attends for _, attends in levels]
    depths = [depth(f"down_blocks.{level}") if attends else 1 for level, attends in enumerate(attentive)]
    depths[-1] = depth("mid_block")  # the middle takes its depth, and its heads, from the last level
    attend = [*attentive[:-1], True]
    return {
        "in_channels": shape("conv_in.weight", 4)[1],
        "out_channels": shape("conv_out.weight", 4)[0],
        "down_block_types": [_kind("Down", attends) for attends in attentive],
        "up_block_types": [_kind("Up", attends) for attends in reversed(attentive)],
        "block_out_channels": widths,
        "projection_class_embeddings_input_dim": shape("add_embedding.linear_1.weight", 2)[1],
        "layers_per_block": [count for count, _ in levels],
        "cross_attention_dim": shape("mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight", 2)[1],
        "transformer_layers_per_block": depths,
        "num_attention_heads": [
            heads(WHAT, width, head_dim) if attends else 1 for width, attends in zip(widths, attend, strict=True)
        ],
    }


def _kind(direction: str, attends: bool) -> str:
    return f"{'CrossAttn' if attends else ''}{direction}BlockSpatioTemporal"


def _renaming(levels: Levels) -> Renaming:
    """Return the names of a network with these levels."""
    blocks = block_names(
        levels, downsampling=DOWNSAMPLING, residual=_residual, attention=_attention, attention_layers=1
    )
    return Renaming(WHAT, AROUND | VECTOR | blocks)


def _residual(block: str, layer: int, released: str) -> dict[str, str]:
    ours = f"{block}.resnets.{layer}"
    names = {f"{ours}.time_mixer": f"{released}.time_mixer"}
    names |= {f"{ours}.spatial_res_block.{new}": f"{released}.{old}" for new, old in RESIDUAL.items()}
    return names | {f"{ours}.temporal_res_block.{new}": f"{released}.time_stack.{old}" for new, old in RESIDUAL.items()}


def _attention(block: str, layer: int, released: str) -> dict[str, str]:
    ours, theirs = f"{block}.attentions.{layer}", f"{released}.1"
    return {
        ours: theirs,
        f"{ours}.temporal_transformer_blocks": f"{theirs}.time_stack",
        f"{ours}.time_pos_embed.linear_1": f"{theirs}.time_pos_embed.0",
        f"{ours}.time_pos_embed.linear_2": f"{theirs}.time_pos_embed.2",
    }
