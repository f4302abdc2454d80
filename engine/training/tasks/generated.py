"""Views as a generator sees them after one denoising step: what the reconstructor meets at inference, and learns on.

pixels --LatentCache--> x0 ------------------------------\
                                                          --noise at t--> frozen generator, told the clip --> predicted
noise --frozen generator, told the clip--> guess of x0 --/                     x0 --VAE--> some of its views
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from engine.multiview.denoiser import Denoiser
from engine.multiview.networks.latents import LatentCodec
from engine.multiview.settings import VideoMVSettings
from engine.multiview.videomv import SCHEDULES
from engine.training.latents import LatentCache
from engine.training.tasks.told import Told
from engine.training.types import Batch, Draws


class OneStep:
    """A frozen VideoMV that is asked once, or twice where it works on from its own guess. Dropout is off, unlike in the
    release, whose frozen network kept it on."""

    def __init__(
        self, components: Mapping[str, Any], settings: VideoMVSettings, latents: LatentCache, guessed: float = 0.0
    ) -> None:
        """Take a generator.

        Args:
            components: of VideoMV.
            settings: what they were trained for.
            latents: made with their autoencoder.
            guessed: share of the clips that it is asked about after its own guess out of pure noise, not after the true
                views: a sampler of few steps sees what the first of them guessed, never the truth behind noise.
        """
        self.networks: Mapping[str, nn.Module] = {
            name: part.eval().requires_grad_(False) for name, part in components.items()
        }
        self.schedule, self.latents, self.guessed = SCHEDULES[settings.schedule](), latents, guessed
        self.told = Told(settings, latents, components["text_encoder"], components.get("image_encoder"))
        self._unet: Denoiser = components["unet"]
        self._codec: LatentCodec = latents.codec

    @torch.no_grad()
    def __call__(
        self, batch: Batch, views: Sequence[Sequence[int]], times: Int[Tensor, " b"], draws: Draws
    ) -> Float[Tensor, "b v 3 h w"]:
        """Return some views of each clip after a step at its time: sRGB in 0 to 1."""
        moments = self.latents.moments(batch)
        x0 = self.latents.drawn(*moments, draws)
        noise, told = draws.normal(*x0.shape[1:]), self._told(batch, moments, draws)
        if self.guessed:
            first = torch.full_like(times, self.schedule.count - 1)
            guess = self._predicted(self.schedule.add_noise(x0, noise, first), first, told)
            x0 = torch.where((draws.uniform() < self.guessed)[:, None, None, None, None], guess, x0)
        predicted = self._predicted(self.schedule.add_noise(x0, noise, times), times, told)
        few = torch.stack([clip[list(some)] for clip, some in zip(predicted, views, strict=True)])
        return ((self._codec.decode(few).float() + 1) / 2).clamp(0, 1)

    def _told(self, batch: Batch, moments: tuple[Tensor, Tensor], draws: Draws) -> Mapping[str, Tensor]:
        return {
            name: value.to(self._dtype) if value.is_floating_point() else value
            for name, value in self.told.whole(batch, moments, draws).items()
        }

    def _predicted(self, noisy: Tensor, times: Tensor, told: Mapping[str, Tensor]) -> Tensor:
        return self.schedule.x0(noisy, self._unet(noisy.to(self._dtype), times.float(), **told).float(), times)

    @property
    def _dtype(self) -> torch.dtype:
        """Of the U-Net, which may be kept in half precision."""
        return next(self.networks["unet"].parameters()).dtype
