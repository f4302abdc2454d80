"""Views as a generator sees them after one denoising step: what the reconstructor meets at inference, and learns on.

pixels --LatentCache--> x0 --noise at t--> frozen generator, told the clip --> predicted x0 --VAE--> some of its views
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
    """A frozen VideoMV that is asked once. Dropout is off, unlike in the release, whose frozen network kept it on."""

    def __init__(self, components: Mapping[str, Any], settings: VideoMVSettings, latents: LatentCache) -> None:
        """Take VideoMV's components, what they were trained for, and latents made with their autoencoder."""
        self.networks: Mapping[str, nn.Module] = {
            name: part.eval().requires_grad_(False) for name, part in components.items()
        }
        self.schedule, self.latents = SCHEDULES[settings.schedule](), latents
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
        noisy = self.schedule.add_noise(x0, draws.normal(*x0.shape[1:]), times)
        dtype = next(self.networks["unet"].parameters()).dtype  # it may be kept in half precision
        told = {
            name: value.to(dtype) if value.is_floating_point() else value
            for name, value in self.told.whole(batch, moments, draws).items()
        }
        prediction = self._unet(noisy.to(dtype), times.float(), **told).float()
        predicted = self.schedule.x0(noisy, prediction, times)
        few = torch.stack([clip[list(some)] for clip, some in zip(predicted, views, strict=True)])
        return ((self._codec.decode(few).float() + 1) / 2).clamp(0, 1)
