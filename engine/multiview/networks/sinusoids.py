"""Numbers as sinusoids (Vaswani et al. 2017, section 3.5): how times, frame rates, angles and scores enter a network."""

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

PERIOD = 10000.0
"""Longest wavelength over 2 pi."""


def sinusoid(values: Num[Tensor, " b"], width: int) -> Float[Tensor, "b {width}"]:
    """Embed numbers in cosines, then sines, of frequencies 10000^(-i / half), and a zero where the width is odd.

    In float32 whatever is given, as both releases: half precision would turn an angle of 981 by a radian. Cast the
    result, not the values.

    Args:
        values: times, degrees, scores: any size.
        width: numbers in an embedding; half of them, rounded down, are cosines.
    """
    half = width // 2
    frequencies = torch.pow(PERIOD, -torch.arange(half, device=values.device, dtype=torch.float32) / half)
    angles = values.float()[:, None] * frequencies
    return nn.functional.pad(torch.cat([angles.cos(), angles.sin()], dim=1), (0, width - 2 * half))
