"""A head start for small networks: v as it follows from the condition alone, to which they add what they know better.

A view is taken for the condition m (the picture's latents) but for an error of variance s^2. Then, with
x = signal x0 + spread eps (signal^2 + spread^2 = 1) and D = signal^2 s^2 + spread^2,

    E[x0 | x] = m + signal s^2 / D (x - signal m)
    v = signal eps - spread x0 = (signal x - x0) / spread
      = signal spread (1 - s^2) / D  x  -  spread / D  m  +  s / sqrt(D)  F

where F, the network's own output, has unit variance if the assumption holds. It is EDM's preconditioning (Karras et al.
2022, appendix B.6) for data whose mean is known; with m = 0 and s = 1 it is v prediction itself.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def v_from_prior(
    noisy: Float[Tensor, "b n c h w"],
    expected: Float[Tensor, "b n c h w"],
    added: Float[Tensor, "b n c h w"],
    signal: Float[Tensor, " b"] | Float[Tensor, "b n"],
    variance: float | Float[Tensor, "b n"],
) -> Float[Tensor, "b n c h w"]:
    """Return v.

    Args:
        noisy: x, of unit variance.
        expected: m, the clean latents that the condition lets expect.
        added: F.
        signal: of each object, or of each view; 0 (noise alone) to 1.
        variance: s^2, of what is wrong with the expectation; one for all, or each view's.
    """
    share = _spread_out(signal.float())
    wrong = _spread_out(torch.as_tensor(variance, dtype=torch.float32, device=noisy.device))
    spread = (1 - share**2).clamp_min(0).sqrt()
    total = share**2 * wrong + spread**2
    of_noisy, of_expected = share * spread * (1 - wrong) / total, -spread / total
    of_added = (wrong / total).sqrt()
    return of_noisy.to(noisy) * noisy + of_expected.to(noisy) * expected + of_added.to(noisy) * added


def _spread_out(numbers: Tensor) -> Float[Tensor, "b n 1 1 1"]:
    """One number, one for each object or one for each view, ready to multiply latents."""
    while numbers.ndim < 2:
        numbers = numbers[..., None]
    return numbers[..., None, None, None]


def silence(layer: nn.Conv2d | nn.Linear) -> None:
    """Let a layer say nothing at first."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
