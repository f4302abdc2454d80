"""Which errors of latents count how much, where a small network cannot learn all of them."""

import torch
from jaxtyping import Float
from torch import Tensor

from engine.training.latents import LatentCache

FLOOR = 0.05
"""Mean square that the best small network misses even where all views look the same, clean latents having 1."""
LATENTS = "b n c h w"


def weighed(
    error: Float[Tensor, LATENTS], x0: Float[Tensor, LATENTS], latents: LatentCache, *, visible: bool, alike: bool
) -> Float[Tensor, " b"]:
    """Return each clip's mean of squared errors, weighed.

    Args:
        error: squared, of clean latents, noise or v.
        x0: clean latents.
        latents: that they come from.
        visible: weigh channels by how much they show, see `networks.latents.visibility`.
        alike: weigh each clip by how little its views differ from the first, as they show: errors of a vase then count as
            much as those of a bicycle, which is what a mean of decibels asks for. Clips of one view stay as they are.
    """
    weights = latents.visibility[:, None, None] if visible else torch.ones((), device=error.device)
    if alike and x0.shape[1] > 1:
        ahead = ((x0[:, 1:] - x0[:, :1]).square() * weights).mean((1, 2, 3, 4))
        weights = weights / (FLOOR + ahead)[:, None, None, None, None]
    return (error * weights).mean((1, 2, 3, 4))
