"""A codec whose latents are small pictures, and networks that know the answer."""

import torch
from torch import Tensor
from torch.nn import functional

from engine.multiview.schedules import NoiseSchedule

FACTOR = 2


class PixelCodec:
    """Latents are the pictures at half the size, times a weight: nothing is lost on what is smooth."""

    def __init__(self, spread: float = 0.0) -> None:
        """Keep how wide the posterior is."""
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.spread = spread
        self.seen: list[Tensor] = []

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Average blocks."""
        self.seen.append(images.detach())
        flat = functional.avg_pool2d(images.flatten(0, -4), FACTOR)
        latents = self.weight * flat.unflatten(0, images.shape[:-3])
        if generator is not None:
            latents = latents + self.spread * torch.randn(latents.shape, generator=generator)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Repeat pixels."""
        return (latents / self.weight).repeat_interleave(FACTOR, -1).repeat_interleave(FACTOR, -2)


class KnowingNetwork(torch.nn.Module):
    """Predicts what a perfect network would whose data are one set of latents; without conditions, what `empty` are."""

    def __init__(self, schedule: NoiseSchedule, target: Tensor, empty: Tensor) -> None:
        """Keep the answers."""
        super().__init__()
        self.schedule, self.calls = schedule, 0
        self.target, self.empty = torch.nn.Parameter(target), torch.nn.Parameter(empty)

    def forward(self, latents: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        """`text` is 1 with, 0 without conditions."""
        self.calls += 1
        known = text.view(-1, 1, 1, 1, 1) * self.target + (1 - text.view(-1, 1, 1, 1, 1)) * self.empty
        return self.schedule.prediction_of(latents, known.expand_as(latents), timestep.long())
