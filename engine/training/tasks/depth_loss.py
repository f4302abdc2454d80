"""MiDaS' error between relative inverse depths (Ranftl et al. 2020): no matter at which scale and shift they are told.

prediction, truth --each: minus its median, over its mean distance from it--> residual (equations 3 to 5)
    |residual|, the largest ones forgiven where labels have outliers (equation 7)    -> per view
  + |differences of neighbouring residuals| at several sizes (equation 11)
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SMALLEST = 1e-6
"""Of a spread: views that are flat everywhere stay 0 instead of no numbers."""


def aligned(depth: Float[Tensor, "m h w"], valid: Bool[Tensor, "m h w"]) -> Float[Tensor, "m h w"]:
    """Return inverse depth without its scale and shift, by its valid pixels; 0 where nothing is valid."""
    flat, mask = depth.flatten(1), valid.flatten(1)
    middle = torch.where(mask, flat, torch.nan).nanmedian(dim=1, keepdim=True).values.nan_to_num()
    moved = torch.where(mask, flat - middle, 0)
    spread = moved.abs().sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
    return (moved / spread.clamp(min=SMALLEST)).unflatten(1, depth.shape[1:])


def invariant_errors(
    residual: Float[Tensor, "m h w"], valid: Bool[Tensor, "m h w"], trimmed: float = 0.0
) -> Float[Tensor, " m"]:
    """Return half the mean absolute residual of each view's valid pixels, the share with the largest ones left out."""
    flat, mask = residual.abs().flatten(1), valid.flatten(1)
    count = mask.sum(1)
    if trimmed > 0:
        order = torch.where(mask, flat, torch.inf).argsort(1).argsort(1)  # rank of each pixel, invalid ones last
        mask = mask & (order < ((1 - trimmed) * count).ceil()[:, None])
    return (flat * mask).sum(1) / (2 * count.clamp(min=1))


def gradient_errors(
    residual: Float[Tensor, "m h w"], valid: Bool[Tensor, "m h w"], scales: int = 4
) -> Float[Tensor, " m"]:
    """Return the mean absolute difference of neighbouring residuals, summed over sizes, each half the one before."""
    total = residual.new_zeros(len(residual))
    for scale in range(scales):
        step = 2**scale
        some, mask = residual[:, ::step, ::step], valid[:, ::step, ::step]
        for axis in (1, 2):
            length = some.shape[axis] - 1
            both = mask.narrow(axis, 1, length) & mask.narrow(axis, 0, length)
            change = (some.narrow(axis, 1, length) - some.narrow(axis, 0, length)).abs() * both
            total = total + change.sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)
    return total


def relative_depth_errors(
    prediction: Float[Tensor, "m h w"],
    truth: Float[Tensor, "m h w"],
    valid: Bool[Tensor, "m h w"],
    *,
    gradient_weight: float = 0.5,
    scales: int = 4,
    trimmed: float = 0.0,
) -> Float[Tensor, " m"]:
    """Return each view's error (equation 12): the same for any positive scale and any shift, 0 for the truth.

    Args:
        prediction: inverse depth up to scale and shift.
        truth: inverse depth, 1 / m.
        valid: pixels that count; a view without any has error 0.
        gradient_weight: alpha, 0.5 in MiDaS.
        scales: K, 4 in MiDaS.
        trimmed: share of the pixels that is forgiven; 0.2 in MiDaS, whose labels are measured or estimated.
    """
    residual = aligned(prediction, valid) - aligned(truth, valid)
    return invariant_errors(residual, valid, trimmed) + gradient_weight * gradient_errors(residual, valid, scales)
