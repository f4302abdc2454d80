"""Students that remember what they were asked, or know the answer."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from engine.multiview.schedules import NoiseSchedule


class Recorder(nn.Module):
    """Predicts zeros; keeps noisy latents, times and conditions."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, Tensor, dict[str, Tensor]]] = []

    def forward(self, latents: Tensor, timestep: Tensor, **conditions: Tensor) -> Tensor:
        """Remember."""
        self.calls.append((latents, timestep, conditions))
        return torch.zeros_like(latents)


@dataclass
class Knowing:
    """Knows the clean latents; keeps the times."""

    schedule: NoiseSchedule
    x0: Tensor
    times: list[Tensor] = field(default_factory=list)

    def __call__(self, latents: Tensor, timestep: Tensor, **conditions: Tensor) -> Tensor:
        """Predict what stands for the clean latents."""
        self.times.append(timestep)
        return self.schedule.prediction_of(latents, self.x0, timestep.long())
