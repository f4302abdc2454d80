"""Networks of a few lines for the samplers' tests: one that records its calls, two that know the truth."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.multiview.schedules import NoiseSchedule


@dataclass
class Wavy:
    """A smooth function of latents, time and one condition, different for every view, that remembers its calls."""

    calls: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)

    def __call__(self, latents: Tensor, timestep: Tensor, *, told: Tensor) -> Tensor:
        """Return values of order 1."""
        self.calls.append((latents, timestep, told))
        time = timestep.view(-1, 1, 1, 1, 1).to(latents)
        return torch.tanh(latents.roll(1, dims=1) + 0.3 * latents.flip(-1) + told) * torch.cos(time / 300)


@dataclass(frozen=True)
class Knowing:
    """Knows the clean latents on a discrete schedule."""

    schedule: NoiseSchedule
    x0: Tensor

    def __call__(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """Return the prediction that stands for x0."""
        return self.schedule.prediction_of(latents, self.x0.expand_as(latents), timestep.long())


@dataclass(frozen=True)
class OptimalOnSchedule:
    """The best possible denoiser of data drawn from N(mean, deviation^2)."""

    schedule: NoiseSchedule
    mean: float
    deviation: float

    def __call__(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """Return the prediction that stands for E[x0 | x_t]."""
        t = timestep.long()
        signal, spread = self.schedule.signal(t, latents), self.schedule.spread(t, latents)
        gain = signal * self.deviation**2 / ((signal * self.deviation) ** 2 + spread**2)
        x0 = self.mean + gain * (latents - signal * self.mean)
        return self.schedule.prediction_of(latents, x0, t)


@dataclass(frozen=True)
class OptimalOnLevels:
    """The same on noise levels: takes c_in x and c_noise, returns F. Deviation 0 knows x0 = mean."""

    mean: Tensor | float
    deviation: float

    def __call__(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """Return F with D = E[x0 | x]."""
        sigma = torch.exp(4 * timestep.double()).view(-1, 1, 1, 1, 1)
        x = latents.double() * (sigma**2 + 1).sqrt()
        gain = self.deviation**2 / (self.deviation**2 + sigma**2)
        clean = self.mean + gain * (x - self.mean)
        return ((clean - x / (sigma**2 + 1)) / (-sigma / (sigma**2 + 1).sqrt())).to(latents)
