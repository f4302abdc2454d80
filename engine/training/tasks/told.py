"""What a batch's clips tell VideoMV's network, by the very functions that tell it at inference."""

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Bool, Num
from torch import Tensor

from engine.multiview.conditions import cameras_told, picture_told, text_told, unconditional
from engine.multiview.denoiser import Conditions
from engine.multiview.networks.encoders import ImageEncoder, TextEncoder
from engine.multiview.settings import VideoMVSettings
from engine.training.latents import LatentCache
from engine.training.types import Batch, Draws

Moments = tuple[Tensor, Tensor]
"""Mean and log variance of the clips' latents."""


class Told:
    """Makes conditions of batches."""

    def __init__(
        self,
        settings: VideoMVSettings,
        latents: LatentCache,
        text_encoder: TextEncoder,
        image_encoder: ImageEncoder | None = None,
        trained: Collection[str] = (),
    ) -> None:
        """Keep what makes them; encoders named in `trained` are left to the student, which is handed their inputs."""
        self.settings, self.latents = settings, latents
        self.text_encoder, self.image_encoder, self.trained = text_encoder, image_encoder, trained
        self._said: dict[str, Tensor] = {}

    def whole(self, batch: Batch, moments: Moments, draws: Draws) -> Conditions:
        """Return what the network is told of the clips; the first view is the picture that it starts from."""
        device = batch.pixels.device
        cameras = None if batch.orbits is None else cameras_told(batch.orbits, self.settings.kind, device)
        if self.settings.kind == "text":
            return text_told(self._texts(batch.captions).to(device), cameras)
        assert self.image_encoder is not None
        text = self._always(self.settings.prompt_suffix, batch)
        picture = batch.pixels[:, 0]
        if "image_encoder" not in self.trained:
            with torch.no_grad():
                picture = self.image_encoder.encode(picture).to(batch.pixels)
        # Drawn anew, as a pipeline draws them: equal to the first view's clean latents they would give these away.
        mean, log_variance = moments
        return picture_told(text, picture, self.latents.drawn(mean[:, 0], log_variance[:, 0], draws), cameras)

    def nothing(self, conditions: Conditions, batch: Batch) -> Conditions:
        """Return what the unconditional branch is told in their place."""
        return unconditional(conditions, self._always(self.settings.negative_prompt, batch))

    def dropped(self, conditions: Conditions, batch: Batch, share: float, draws: Draws) -> Conditions:
        """Return the conditions, replaced by `nothing` in about a share of the clips (classifier-free guidance)."""
        lost: Bool[Tensor, " b"] = draws.uniform() < share
        if not share:
            return conditions
        nothing = self.nothing(conditions, batch)
        return {
            name: torch.where(lost.view(-1, *[1] * (value.ndim - 1)), nothing[name], value)
            for name, value in conditions.items()
        }

    def _always(self, text: str, batch: Batch) -> Num[Tensor, "b t *d"]:
        """A text that every clip is told; encoded once."""
        if text not in self._said:
            self._said[text] = self._texts([text])[0]
        said = self._said[text].to(batch.pixels.device)
        return said.expand(len(batch), *said.shape)

    def _texts(self, texts: Sequence[str]) -> Num[Tensor, "b t *d"]:
        if "text_encoder" in self.trained:
            return self.text_encoder.tokens(texts)
        with torch.no_grad():
            return self.text_encoder.encode(texts).float()
