"""A head start for small networks: v as it follows from the condition alone, to which they add what they know better.

A view is taken for the condition m (the picture's latents) but for an error of variance s^2. Then, with
x = signal x0 + spread eps (signal^2 + spread^2 = 1) and D = signal^2 s^2 + spread^2,

    E[x0 | x] = m + signal s^2 / D (x - signal m)
    v = signal eps - spread x0 = (signal x - x0) / spread
      = signal spread (1 - s^2) / D  x  -  spread / D  m  +  s / sqrt(D)  F

where F, the network's own output, has unit variance if the assumption holds. It is EDM's preconditioning (Karras et al.
2022, appendix B.6) for data whose mean is known; with m = 0 and s = 1 it is v prediction itself.
"""

import functools
from collections.abc import Sequence

import torch
from diffusers.models.controlnets.controlnet import zero_module
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn import functional

from engine.multiview.networks.cameras import harmonics
from engine.multiview.schedules import NoiseSchedule, cosine_zero_snr


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


def signal_at(timestep: Num[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Return the signal of the schedule of zero terminal signal, on which VideoMV's networks with a prior are trained."""
    return _schedule().signal(timestep.long(), timestep.float())


@functools.cache
def _schedule() -> NoiseSchedule:
    return cosine_zero_snr()


class Expectation(nn.Module):
    """What the first view's latents, or a sentence, let expect of every view, and how wrong that is.

    A share of the condition's latents, a share of their mirror image, and shares of some pictures that were learned, as
    eigenfaces are summed (Sirovich and Kirby 1987). All shares hang on what the first view shows and on where the other
    one stands: of a vase the back is the front, of a car seen from the side it is its mirror image. A sentence has no
    latents, its views are sums of the learned pictures alone. An orbit costs 0.04 GFLOP, of the small network that works
    on from there 16: on a CPU it learned from some thirty times more orbits a second.
    """

    def __init__(
        self, channels: int, start: Sequence[float], *, pictures: int = 0, said: int = 0, width: int = 512,
        side: int = 16, harmonics: int = 12, dropout: float = 0.2,
    ) -> None:  # fmt: skip
        """Begin with the same for all views and pictures.

        Args:
            channels: of the latents.
            start: the share of the condition's latents that is expected at first, and the variance of what is wrong with
                that, clean latents having 1.
            pictures: that are learned.
            said: numbers in a sentence's tokens, where that is the condition; 0: the first view is.
            width: of the layers.
            side: of those pictures, and of the first view as it is looked at; latents of other sizes are resized.
            harmonics: of a view's azimuth, see `cameras.harmonics`.
            dropout: of what was seen, while training.
        """
        super().__init__()
        share, self.variance = start
        self.harmonics, self.side = harmonics, side
        self.sizes = [channels, channels, 1, pictures]
        self.look = nn.Sequential(
            nn.Linear(said or channels * side**2, width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, width)
        )
        self.turn = zero_module(nn.Linear(2 * harmonics, 2 * width))
        self.judge = nn.Sequential(nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, width), nn.SiLU())
        self.shares = zero_module(nn.Linear(width, sum(self.sizes)))
        nn.init.constant_(self.shares.bias[:channels], share)
        self.pictures = nn.Parameter(0.02 * torch.randn(pictures, channels, side, side)) if pictures else None

    def train(self, mode: bool = True) -> "Expectation":
        """Drop nothing where it does not learn itself: who works on from there is told the same every time."""
        return super().train(mode and self.shares.weight.requires_grad)

    def forward(
        self,
        azimuth: Float[Tensor, "b n"],
        given: Float[Tensor, "b one_or_n c h w"],
        text: Float[Tensor, "b t d"] | None = None,
    ) -> tuple[Float[Tensor, "b n c h w"], Float[Tensor, "b n"]]:
        """Return expected latents and the variance of their error.

        Args:
            azimuth: of the views, radians; where a first view is given, its is 0.
            given: latents of the condition: the first view's, or every view's own; zeros where a sentence is.
            text: its tokens.
        """
        pooled = functional.adaptive_avg_pool2d(given[:, 0], self.side)
        seen = self.look(pooled.flatten(1) if text is None else text.mean(1))[:, None]
        gain, shift = self.turn(harmonics(azimuth, self.harmonics).to(given)).chunk(2, dim=2)
        told = self.shares(self.judge(seen * (1 + gain) + shift))
        own, mirrored, wrong, learned = told.split(self.sizes, dim=2)
        expected = given * own[..., None, None] + given.flip(-1) * mirrored[..., None, None]
        if self.pictures is not None:
            drawn = functional.interpolate(self.pictures, given.shape[-2:], mode="bilinear")
            expected = expected + torch.einsum("bnk,kchw->bnchw", learned, drawn)
        return expected, self.variance * wrong[..., 0].float().exp()


def _spread_out(numbers: Tensor) -> Float[Tensor, "b n 1 1 1"]:
    """One number, one for each object or one for each view, ready to multiply latents."""
    while numbers.ndim < 2:
        numbers = numbers[..., None]
    return numbers[..., None, None, None]
