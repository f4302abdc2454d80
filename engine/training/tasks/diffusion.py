"""Learning to denoise orbits (VideoMV section 3.2, equation 1), from texts or from pictures.

pixels --LatentCache--> x0 --schedule, noise, time--> x_t --student, told the clip--> prediction <--MSE--> eps or v
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from engine.checkpoints.layout import WeightsIndex, plain
from engine.multiview.ddim import sample_ddim
from engine.multiview.guidance import Guided
from engine.multiview.videomv import SCHEDULES
from engine.training.latents import LatentCache
from engine.training.tasks.components import index_of, keep_expectation
from engine.training.tasks.previews import at_rest, turntables
from engine.training.tasks.settings import VideoMVTask
from engine.training.tasks.student import OrbitStudent
from engine.training.tasks.told import Told
from engine.training.tasks.weighing import weighed
from engine.training.types import Batch, Draws, Losses

MEASURED_SHARES = (0.125, 0.375, 0.625, 0.875, 1.0)
"""Held-out losses are taken at these shares of the schedule, the middles of its quarters and the end, so that they
compare."""
LATE = 0.7
"""Share of the schedule after which a time is late."""
CROWDED = 3
"""Late times are drawn as a power of a uniform number: half of them lie in the last eighth of what is late. From noise
alone the shape must be guessed; a little earlier, 24 views of it already show through."""


class OrbitDiffusion:
    """The task of videomv-text, videomv-image and videomv-2d-joint."""

    unused_parameters = False

    def __init__(self, components: Mapping[str, Any], plan: VideoMVTask, latents: LatentCache) -> None:
        """Divide the components into what learns and what does not.

        Args:
            components: VideoMV's, by name.
            plan: what learns and how.
            latents: gives the clean latents; made with the components' autoencoder.
        """
        self.plan, self.settings, self.latents = plan, plan.settings, latents
        self.schedule = SCHEDULES[self.settings.schedule]()
        learning = {name: components[name].requires_grad_(True) for name in plan.trained}
        keep_expectation(components["unet"])
        self.student: nn.Module = OrbitStudent(**learning)
        self.pretrained_parameters = self.student.from_stable_diffusion()
        self.frozen: Mapping[str, nn.Module] = {
            name: part.eval().requires_grad_(False) for name, part in components.items() if name not in learning
        }
        self._order = tuple(components)
        self.told = Told(
            self.settings, latents, components["text_encoder"], components.get("image_encoder"), plan.trained
        )

    def loss(self, student: nn.Module, batch: Batch, *, share: float) -> Losses:
        """Return the squared error of the predicted noise, or v, at a random time for each clip."""
        draws = Draws(batch.seeds, batch.pixels.device)
        t = self._times(draws)
        total = self._error(student, batch, t, draws, self.plan.drop)
        return Losses(total, {"loss": total.detach()})

    def measure(self, student: nn.Module, batch: Batch) -> Mapping[str, float]:
        """Return the error at fixed times with all conditions, and its mean, "loss"."""
        measured = {}
        with at_rest(student):
            for share in MEASURED_SHARES:
                time = min(int(share * self.schedule.count), self.schedule.count - 1)
                t = torch.full((len(batch),), time, device=batch.pixels.device)
                draws = Draws(batch.seeds, batch.pixels.device)
                measured[f"loss_at_{time}"] = float(self._error(student, batch, t, draws, 0.0))
        return {"loss": sum(measured.values()) / len(measured), **measured}

    def preview(self, student: nn.Module, batch: Batch) -> Mapping[str, UInt8[np.ndarray, "n h w 3"]]:
        """Generate the clips with a few DDIM steps; one film."""
        draws = Draws(batch.seeds, batch.pixels.device)
        with at_rest(student):
            moments = self.latents.moments(batch)
            conditions = self.told.whole(batch, moments, draws)
            guided = Guided(student, conditions, self.told.nothing(conditions, batch))
            noise = draws.normal(*moments[0].shape[1:])
            latents = sample_ddim(
                guided, noise, self.schedule, steps=self.plan.preview_steps, spacing=self.settings.spacing,
                guidance_scale=self.settings.guidance_scale,
            )  # fmt: skip
            made = self.latents.codec.decode(latents)
        return {"turntable": turntables(batch.pixels, made)}

    def components(self) -> Mapping[str, Any]:
        """Return what learned, by its name in the weights."""
        return self.student.parts()  # type: ignore[operator]  # an OrbitStudent

    def index(self) -> WeightsIndex:
        """Return what is written beside the weights of all networks, those that did not learn among them."""
        everything = {**self.frozen, **self.components()}
        return index_of("videomv", {name: everything[name] for name in self._order}, plain(self.settings))

    def _error(
        self, student: nn.Module, batch: Batch, t: Int[Tensor, " b"], draws: Draws, drop: float
    ) -> Float[Tensor, ""]:
        moments = self.latents.moments(batch)
        x0 = self.latents.drawn(*moments, draws)
        noise = self._noise(x0, draws)
        conditions = self.told.dropped(self.told.whole(batch, moments, draws), batch, drop, draws)
        prediction = student(self.schedule.add_noise(x0, noise, t), t.float(), **conditions)
        error = (prediction.float() - self.schedule.target(x0, noise, t)).square()
        return weighed(error, x0, self.latents, visible=self.plan.visible, alike=self.plan.alike).mean()

    def _times(self, draws: Draws) -> Int[Tensor, " b"]:
        """A time for each clip, uniform but for the share that is drawn late."""
        share = draws.uniform()
        if self.plan.late:
            late = 1 - (1 - LATE) * share**CROWDED
            share = torch.where(draws.uniform() < self.plan.late, late, share)
        return (share * self.schedule.count).long().clamp_max(self.schedule.count - 1)

    def _noise(self, x0: Float[Tensor, "b n c h w"], draws: Draws) -> Float[Tensor, "b n c h w"]:
        noise = draws.normal(*x0.shape[1:])
        if not self.plan.offset_noise:
            return noise
        # One number a view and channel (VideoMV's configuration, for pictures): else mean brightness is never learned.
        return noise + self.plan.offset_noise * draws.normal(*x0.shape[1:3], 1, 1)
