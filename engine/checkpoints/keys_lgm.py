"""LGM's released weights, alone or inside VideoMV's files: tensors by their published names in, ours out.

`unet.*` and `conv.*`, in VideoMV's files behind `lgm_big.`. Our class keeps the published names, so that only the
prefix goes and the sizes are read from the shapes.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from engine.checkpoints.converted import Converted, check_keys
from engine.errors import CheckpointError
from engine.splats.reconstructor import GaussianUNet, QuaternionNorm

PREFIX = "lgm_big."
"""In front of every name where VideoMV's file carries its own reconstructor."""
TRAINING_ONLY = "lpips_loss."
"""The perceptual loss's own network: not part of LGM, in files that were saved whole."""
PIXELS_PER_SPLAT = 4
"""All published sizes are rendered at four pixels a Gaussian along a side."""


def split_lgm(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Part a VideoMV file: its reconstructor's tensors (still with their prefix; none in base files), and the rest."""
    ours = {key: tensor for key, tensor in tensors.items() if key.startswith(PREFIX)}
    return ours, {key: tensor for key, tensor in tensors.items() if key not in ours}


def lgm_from_release(
    tensors: Mapping[str, Tensor],
    *,
    input_size: int = 256,
    output_size: int | None = None,
    views: int = 4,
    attention_heads: int = 16,
    radius_m: float | Literal["as released"] | None = "as released",
    quaternion_norm: QuaternionNorm | None = None,
) -> Converted:
    """Return GaussianUNet's config and tensors; what shapes do not tell are arguments.

    Args:
        tensors: LGM's own file, or the `lgm_big.` part of a VideoMV file (`split_lgm`); of any type, also on meta.
        input_size: pixels a side of the input pictures.
        output_size: pixels a side of the rendered pictures; None: four for each Gaussian, as all published sizes.
        views: how many it was trained with.
        attention_heads: 16 in every release.
        radius_m: see GaussianUNet; "as released": 1.5 for LGM's own files, None (keep the distance) for VideoMV's.
        quaternion_norm: None: "over_gaussians" behind `lgm_big.`, else "per_gaussian". LGM's file `model_fp16` from
            before 2024-04-03 (not `model_fp16_fixrot`) needs "over_gaussians".

    Raises:
        CheckpointError: missing, unknown or misshapen tensors, named.
    """
    from_videomv = any(key.startswith(PREFIX) for key in tensors)
    named = {key.removeprefix(PREFIX): tensor for key, tensor in tensors.items()}
    if len(named) != len(tensors):
        raise CheckpointError(
            f"LGM: holds the same tensors with and without {PREFIX}; split the file by split_lgm first"
        )
    kept = {key: tensor for key, tensor in named.items() if not key.startswith(TRAINING_ONLY)}
    config = _sizes(kept) | {"views": views, "input_size": input_size, "attention_heads": attention_heads}
    config["radius_m"] = (None if from_videomv else 1.5) if radius_m == "as released" else radius_m
    config["quaternion_norm"] = quaternion_norm or ("over_gaussians" if from_videomv else "per_gaussian")
    with torch.device("meta"):
        network = GaussianUNet(**config)
    config["output_size"] = output_size or PIXELS_PER_SPLAT * network.splat_size
    _check(kept, network.state_dict())
    return Converted(config, kept)


def lgm_to_release(tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Return our state dict under the published names; prefix `lgm_big.` for VideoMV's files."""
    return {prefix + key: tensor for key, tensor in tensors.items()}


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Widths, attention and channels from names and shapes."""
    needed = ("unet.conv_in.weight", "unet.conv_out.weight")
    missing = [key for key in needed if key not in tensors]
    if missing:
        raise CheckpointError(f"LGM: lacks {missing[0]}; is it a checkpoint of another network?")
    down, down_attention = _levels(tensors, "down_blocks")
    up, up_attention = _levels(tensors, "up_blocks")
    layers = sum(f"unet.down_blocks.0.nets.{index}.conv1.weight" in tensors for index in range(16))
    return {
        "in_channels": tensors[needed[0]].shape[1],
        "out_channels": tensors[needed[1]].shape[0],
        "down_channels": down,
        "down_attention": down_attention,
        "mid_attention": "unet.mid_block.attns.0.norm.weight" in tensors,
        "up_channels": up,
        "up_attention": up_attention,
        "layers_per_block": layers,
    }


def _levels(tensors: Mapping[str, Tensor], blocks: str) -> tuple[list[int], list[bool]]:
    widths: list[int] = []
    while (key := f"unet.{blocks}.{len(widths)}.nets.0.conv1.weight") in tensors:
        widths.append(tensors[key].shape[0])
    if not widths:
        raise CheckpointError(f"LGM: lacks unet.{blocks}.0.nets.0.conv1.weight; is it a checkpoint of another network?")
    return widths, [f"unet.{blocks}.{level}.attns.0.norm.weight" in tensors for level in range(len(widths))]


def _check(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    check_keys("LGM", found, expected)
    for key, tensor in expected.items():
        if found[key].shape != tensor.shape:
            raise CheckpointError(
                f"LGM: {key} must have shape {tuple(tensor.shape)} beside the other tensors, found "
                f"{tuple(found[key].shape)}; the file is damaged or mixed from two"
            )
