"""A head start for small networks: v as it follows from the condition alone, to which they add what they know better.

A view is taken for the condition m (the picture's latents) but for an error of variance s^2. Then, with
x = signal x0 + spread eps (signal^2 + spread^2 = 1) and D = signal^2 s^2 + spread^2,

    E[x0 | x] = m + signal s^2 / D (x - signal m)
    v = signal eps - spread x0 = (signal x - x0) / spread
      = signal spread (1 - s^2) / D  x  -  spread / D  m  +  s / sqrt(D)  F

where F, the network's own output, has unit variance if the assumption holds. It is EDM's preconditioning (Karras et al.
2022, appendix B.6) for data whose mean is known; with m = 0 and s = 1 it is v prediction itself.
"""

from collections.abc import Sequence

import torch
from diffusers.models.controlnets.controlnet import zero_module
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


class Expectation(nn.Module):
    """What the condition lets expect of each view, and how wrong that is, as learned from the view and the picture.

    Of a vase the back is the front; of a car seen from the side it is its mirror image, of one seen from the front neither.
    The small picture weights use little of this: theirs differ from view to view, but by a hundredth between pictures.
    """

    def __init__(self, view_width: int, picture_width: int, channels: int, start: Sequence[float]) -> None:
        """Begin with the same for all views and pictures.

        Args:
            view_width: numbers that tell a view and the noise level.
            picture_width: numbers that tell the picture.
            channels: of the latents.
            start: the share of the condition's latents that is expected at first, and the variance of what is wrong with
                that, clean latents having 1.
        """
        super().__init__()
        share, self.variance = start
        self.appraisal = nn.Sequential(nn.Linear(view_width + picture_width, view_width), nn.SiLU())
        self.linear = zero_module(nn.Linear(2 * view_width, 2 * channels + 1))
        nn.init.constant_(self.linear.bias[:channels], share)

    def forward(
        self, view: Float[Tensor, "b n e"], picture: Float[Tensor, "b d"], given: Float[Tensor, "b one_or_n c h w"]
    ) -> tuple[Float[Tensor, "b n c h w"], Float[Tensor, "b n"]]:
        """Return expected latents and the variance of their error.

        Args:
            view: what tells the views.
            picture: what tells the picture.
            given: latents of the condition: the picture's, or each view's own.
        """
        seen = torch.cat([view, picture[:, None].expand(-1, view.shape[1], -1)], dim=2)
        told = self.linear(torch.cat([view, self.appraisal(seen)], dim=2))
        own, mirrored, wrong = told[..., None, None].split([given.shape[2]] * 2 + [1], dim=2)
        return given * own + given.flip(-1) * mirrored, self.variance * wrong[:, :, 0, 0, 0].float().exp()


def _spread_out(numbers: Tensor) -> Float[Tensor, "b n 1 1 1"]:
    """One number, one for each object or one for each view, ready to multiply latents."""
    while numbers.ndim < 2:
        numbers = numbers[..., None]
    return numbers[..., None, None, None]
