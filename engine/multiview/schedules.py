"""Noise schedules: how much signal and noise a time holds, and x0, eps and v of one another.

Two families. VideoMV's networks live on 1000 discrete times (DDPM, Ho et al. 2020): `NoiseSchedule`. Hi3D's live on
continuous noise levels sigma (EDM, Karras et al. 2022): `edm_sigmas`. Tables are float64 on the CPU; a coefficient is
cast to the dtype and device of the latents that it multiplies, as in the release.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

Prediction = Literal["eps", "v"]
"""What a network predicts: the noise, or v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0."""


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps for whole times t (DDPM equation 4)."""

    alpha_bars: Float64[Tensor, " t"]
    """Share of the signal's variance at each time, falling, 0 to 1."""
    prediction: Prediction
    """What the network that belongs to this schedule predicts."""

    def __post_init__(self) -> None:
        """Refuse a schedule on which the prediction says nothing of x0."""
        if self.prediction == "eps" and self.alpha_bars[-1] <= 0:
            raise ValueError("the last alpha_bar is 0, where eps says nothing of x0; pass prediction='v'")

    @property
    def count(self) -> int:
        """Number of times."""
        return len(self.alpha_bars)

    def signal(self, t: Int[Tensor, " b"], like: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """Return sqrt(alpha_bar) of each object's time, ready to multiply `like`."""
        return _looked_up(self.alpha_bars.sqrt(), t, like)

    def spread(self, t: Int[Tensor, " b"], like: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """Return sqrt(1 - alpha_bar), likewise."""
        return _looked_up((1 - self.alpha_bars).sqrt(), t, like)

    def add_noise(
        self, x0: Float[Tensor, "b ..."], eps: Float[Tensor, "b ..."], t: Int[Tensor, " b"]
    ) -> Float[Tensor, "b ..."]:
        """Return x_t (DDPM equation 4)."""
        return self.signal(t, x0) * x0 + self.spread(t, x0) * eps

    def target(
        self, x0: Float[Tensor, "b ..."], eps: Float[Tensor, "b ..."], t: Int[Tensor, " b"]
    ) -> Float[Tensor, "b ..."]:
        """Return what the network should predict: eps, or v (Salimans and Ho 2022, appendix D)."""
        if self.prediction == "eps":
            return eps
        return self.signal(t, x0) * eps - self.spread(t, x0) * x0

    def x0(
        self, latents: Float[Tensor, "b ..."], prediction: Float[Tensor, "b ..."], t: Int[Tensor, " b"]
    ) -> Float[Tensor, "b ..."]:
        """Return the clean latents that a prediction stands for."""
        signal, spread = self.signal(t, latents), self.spread(t, latents)
        if self.prediction == "eps":
            return (latents - spread * prediction) / signal  # DDIM equation 9
        return signal * latents - spread * prediction  # Salimans and Ho 2022, appendix D

    def eps(
        self, latents: Float[Tensor, "b ..."], x0: Float[Tensor, "b ..."], t: Int[Tensor, " b"]
    ) -> Float[Tensor, "b ..."]:
        """Return the noise in x_t if its clean latents are x0."""
        return (latents - self.signal(t, latents) * x0) / self.spread(t, latents)

    def prediction_of(
        self, latents: Float[Tensor, "b ..."], x0: Float[Tensor, "b ..."], t: Int[Tensor, " b"]
    ) -> Float[Tensor, "b ..."]:
        """Return what a network that believes in x0 predicts: the inverse of `x0`."""
        return self.target(x0, self.eps(latents, x0, t), t)


def linear_sd(count: int = 1000, first: float = 0.00085, last: float = 0.012) -> NoiseSchedule:
    """Return Stable Diffusion's schedule, betas linear in their square roots, eps: VideoMV from text."""
    betas = torch.linspace(first**0.5, last**0.5, count, dtype=torch.float64) ** 2
    return NoiseSchedule(torch.cumprod(1 - betas, dim=0), "eps")


def cosine_zero_snr(count: int = 1000, s: float = 0.008) -> NoiseSchedule:
    """Return the cosine schedule shifted to end in pure noise, v: VideoMV from an image.

    Nichol and Dhariwal 2021, equation 17 (betas clipped at 0.999), then Lin et al. 2024, algorithm 1.
    """

    def f(share: float) -> float:
        return math.cos((share + s) / (1 + s) * math.pi / 2) ** 2

    betas = [min(1 - f((step + 1) / count) / f(step / count), 0.999) for step in range(count)]
    signal = torch.cumprod(1 - torch.tensor(betas, dtype=torch.float64), dim=0).sqrt()
    rescaled = (signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])  # keeps the first, zeroes the last
    return NoiseSchedule(rescaled**2, "v")


def edm_sigmas(
    steps: int = 25, smallest: float = 0.002, largest: float = 700.0, rho: float = 7.0
) -> Float[Tensor, " sigmas"]:
    """Return falling noise levels and a final 0, `steps + 1` in all (Karras et al. 2022, equation 5); Hi3D's by default.

    In float32 as the release computes them, so that both walk the very same levels.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    low, high = smallest ** (1 / rho), largest ** (1 / rho)
    sigmas = (high + torch.linspace(0, 1, steps) * (low - high)) ** rho
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def draw_noise(
    shape: Sequence[int], seed: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Float[Tensor, "..."]:
    """Return unit normal noise: the same for a seed on any device, since it is drawn in float32 on the CPU."""
    return normal_like(torch.empty(tuple(shape), device=device, dtype=dtype), torch.Generator().manual_seed(seed))


def normal_like(like: Float[Tensor, "*shape"], generator: torch.Generator) -> Float[Tensor, "*shape"]:
    """Return unit normal noise of the shape, dtype and device of `like`, drawn in float32 where the generator is."""
    drawn = torch.randn(like.shape, generator=generator, device=generator.device, dtype=torch.float32)
    return drawn.to(like)


def _looked_up(
    table: Float64[Tensor, " t"], t: Int[Tensor, " b"], like: Float[Tensor, "b ..."]
) -> Float[Tensor, "b ..."]:
    """Return the table's values at t, cast to `like` first: no wait for a GPU, no float64 on devices without."""
    return table.to(like)[t.to(like.device)].view(-1, *[1] * (like.ndim - 1))
