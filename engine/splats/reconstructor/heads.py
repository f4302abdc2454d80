"""What LGM's 14 numbers mean: raw network outputs in, Gaussians in the network's own frame out.

Order a pixel: position 3, opacity, scale 3, quaternion 4 (w x y z), colour 3. Order of the Gaussians: view, row, column.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from engine.geometry.harmonics import SH_C0
from engine.splats.gaussians import Gaussians
from engine.splats.projection import unnormalised_rotations
from engine.splats.reconstructor.axes import principal_axes, quaternions_of

NUMBERS = 14
QuaternionNorm = Literal["per_gaussian", "over_gaussians"]
SCALE_M = 0.1
"""Unit of the scales in metres (LGM core/models.py: 0.1 * softplus)."""
SMALLEST_M = 1e-8
"""Added to every scale before its logarithm (LGM core/gs.py, save_ply)."""
ONE_PER_PIXEL = "b v 14 h w"


def published_numbers(raw: Float[Tensor, ONE_PER_PIXEL], quaternion_norm: QuaternionNorm) -> Float[Tensor, "b n 14"]:
    """Return what the release calls gaussians: activated position, opacity, scale, quaternion, colour, for comparison.

    Args:
        raw: the network's output.
        quaternion_norm: "per_gaussian" makes unit quaternions. "over_gaussians" is the release before 2024-04-03 and
            VideoMV's copy: each of the four numbers is divided by its length over all n Gaussians of the object, so
            that quaternions are about 1 / sqrt(n) long.
    """
    position, opacity, scale, quaternion, colour = _split(raw)
    normalised = functional.normalize(quaternion, dim=-1 if quaternion_norm == "per_gaussian" else 1)
    activated = [
        position.clamp(-1, 1),
        opacity.sigmoid(),
        SCALE_M * functional.softplus(scale),
        normalised,
        0.5 + 0.5 * colour.tanh(),
    ]
    return torch.cat(activated, -1)


def gaussians_from_raw(raw: Float[Tensor, ONE_PER_PIXEL], quaternion_norm: QuaternionNorm) -> list[Gaussians]:
    """Return each object's Gaussians in the network's frame, in float32; differentiable.

    The published rasterizer builds R(q) without normalising q. With "over_gaussians", where q is short, R(q) is close
    to the identity but no rotation. Covariances R S S^T R^T are kept as they are there: their principal axes become
    quaternion and scales, which therefore differ from `published_numbers`.
    """
    position, opacity, scale, quaternion, colour = _split(raw)
    means = position.clamp(-1, 1)
    scales = SCALE_M * functional.softplus(scale) + SMALLEST_M
    sh = (0.5 / SH_C0 * colour.tanh())[..., None, :]  # [b, n, 1, 3]
    if quaternion_norm == "over_gaussians":
        stretch = unnormalised_rotations(functional.normalize(quaternion, dim=1)) * scales[..., None, :]
        axes, scales = principal_axes(stretch)
        quaternion = quaternions_of(axes)
    fields = (means, scales.log(), quaternion, opacity[..., 0], sh)
    return [Gaussians(*(field[index] for field in fields)) for index in range(len(raw))]


def _split(raw: Tensor) -> tuple[Tensor, ...]:
    """Position, opacity, scale, quaternion and colour, each [b, n, c], n = v * h * w."""
    flat = raw.float().permute(0, 1, 3, 4, 2).flatten(1, 3)  # [b, n, 14]
    return flat.split([3, 1, 3, 4, 3], -1)


def without_transparent(gaussians: Gaussians, opacity: float = 0.005) -> Gaussians:
    """Return the Gaussians that show, as the release writes them to files (core/gs.py): one in each pixel is too many.

    Args:
        gaussians: any.
        opacity: those fainter than this go, 0 to 1.
    """
    keep = gaussians.opacity_logits.sigmoid() >= opacity
    return Gaussians(*(tensor[keep] for tensor in gaussians.tensors))
