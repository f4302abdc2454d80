"""LGM's released weights, alone or inside VideoMV's files: tensors by their published names in, ours out.

`unet.*` and `conv.*`, in VideoMV's files behind `lgm_big.`. Our class keeps the published names, so that only the
prefix goes and the sizes are read from the shapes.
"""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from engine.checkpoints.converted import Converted
from engine.checkpoints.prefixes import RECONSTRUCTOR
from engine.checkpoints.renaming import Renaming, count_children, own_part, without
from engine.splats.reconstructor import GaussianUNet, QuaternionNorm

NAMES = Renaming("LGM")
TRAINING_ONLY = "lpips_loss."
"""The perceptual loss's own network: not part of LGM, in files that were saved whole."""
LGM_RADIUS_M = 1.5
PIXELS_PER_SPLAT = 4
"""All published sizes are rendered at four pixels a Gaussian along a side."""


def lgm_from_release(
    tensors: Mapping[str, Tensor],
    *,
    prefix: str = RECONSTRUCTOR,
    input_size: int = 256,
    output_size: int | None = None,
    views: int = 4,
    attention_heads: int = 16,
    radius_m: float | Literal["as released"] | None = "as released",
    quaternion_norm: QuaternionNorm | None = None,
) -> Converted:
    """Return GaussianUNet's config and tensors; what shapes do not tell are arguments.

    Args:
        tensors: LGM's own file, or one of VideoMV's; of any type, also on meta.
        prefix: of LGM's names in VideoMV's files; tensors behind it were trained as VideoMV's.
        input_size: pixels a side of the input pictures.
        output_size: pixels a side of the rendered pictures; None: four for each Gaussian, as all published sizes.
        views: how many it was trained with.
        attention_heads: 16 in every release, at every width.
        radius_m: see GaussianUNet; "as released": 1.5 for LGM's own files, None (keep the distance) for VideoMV's.
        quaternion_norm: None: "over_gaussians" for VideoMV's, "per_gaussian" for LGM's own. LGM's file `model_fp16`
            from before 2024-04-03 (not `model_fp16_fixrot`) needs "over_gaussians".

    Raises:
        CheckpointError: missing, unknown or misshapen tensors, named.
    """
    from_videomv = any(key.startswith(prefix) for key in tensors) if prefix else False
    own = without(own_part(tensors, prefix), TRAINING_ONLY)
    config = _sizes(own) | {"views": views, "input_size": input_size, "attention_heads": attention_heads}
    config["radius_m"] = (None if from_videomv else LGM_RADIUS_M) if radius_m == "as released" else radius_m
    config["quaternion_norm"] = quaternion_norm or ("over_gaussians" if from_videomv else "per_gaussian")
    shapes = NAMES.shapes_of(lambda: GaussianUNet(**config))
    halvings, doublings = len(config["down_channels"]) - 1, len(config["up_channels"]) - 1
    config["output_size"] = output_size or PIXELS_PER_SPLAT * (input_size >> halvings << doublings)
    return Converted(config, NAMES.from_release(own, shapes))


def lgm_to_release(tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Return our state dict under the published names; prefix `lgm_big.` for VideoMV's files."""
    return NAMES.to_release(tensors, prefix)


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Widths, attention and channels from names and shapes."""
    down, down_attention = _levels(tensors, "unet.down_blocks")
    up, up_attention = _levels(tensors, "unet.up_blocks")
    return {
        "in_channels": NAMES.shape(tensors, "unet.conv_in.weight", 4)[1],
        "out_channels": NAMES.shape(tensors, "unet.conv_out.weight", 4)[0],
        "down_channels": down,
        "down_attention": down_attention,
        "mid_attention": count_children(tensors, "unet.mid_block.attns") > 0,
        "up_channels": up,
        "up_attention": up_attention,
        "layers_per_block": count_children(tensors, "unet.down_blocks.0.nets"),
    }


def _levels(tensors: Mapping[str, Tensor], blocks: str) -> tuple[list[int], list[bool]]:
    """Width of each level, and whether it attends."""
    levels = range(max(count_children(tensors, blocks), 1))  # where there is none, the first is said to be missing
    widths = [NAMES.shape(tensors, f"{blocks}.{level}.nets.0.conv1.weight", 4)[0] for level in levels]
    return widths, [count_children(tensors, f"{blocks}.{level}.attns") > 0 for level in levels]
