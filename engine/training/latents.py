"""Latents that training learns: encoded once, then from memory or the disk, sampled anew for every clip.

    Batch.pixels --turned back by Batch.starts--> VAE --> mean, log variance, float16 --> KeptTensors
                                                              |
    latents [b n c h w], scaled <-- mean + deviation * Draws <-- turned by Batch.starts

An entry is found by Batch.pixels_keys and a hash of the autoencoder's weights, so other weights find nothing of these.
Moments are rounded to float16 whether they were found or made: a run goes the same way with and without its cache.
"""

from functools import cached_property, partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from engine.multiview.networks.latents import LatentCodec, visibility
from engine.training.kept import MEMORY_BYTES, KeptTensors, weights_hash
from engine.training.types import Batch, Draws

MOMENTS = "b *views c h w"


class LatentCache:
    """Moments of the autoencoder's posterior for batches, and latents drawn from them."""

    def __init__(self, codec: LatentCodec, folder: Path | None = None, memory_bytes: int = MEMORY_BYTES) -> None:
        """Cache what `codec` makes.

        Args:
            codec: with an autoencoder whose weights stay as they are from the first use on.
            folder: where entries are kept for this run and others; None keeps them in memory alone.
            memory_bytes: of entries in memory.
        """
        self.codec = codec
        self.kept = KeptTensors(folder, self._name, "moments", memory_bytes)
        """Of the clips that come again."""

    @cached_property
    def visibility(self) -> Float[Tensor, " c"]:
        """How much each channel shows, see `networks.latents.visibility`."""
        return visibility(self.codec)

    def sampled(self, batch: Batch, draws: Draws) -> Float[Tensor, "b n c h w"]:
        """Draw scaled latents of all views from their posteriors, as the releases do where latents are denoised."""
        return self.drawn(*self.moments(batch), draws)

    def drawn(
        self, mean: Float[Tensor, MOMENTS], log_variance: Float[Tensor, MOMENTS], draws: Draws
    ) -> Float[Tensor, MOMENTS]:
        """Draw scaled latents from given posteriors (all views' or one's)."""
        noise = draws.normal(*mean.shape[1:]).to(mean)
        return (mean + torch.exp(0.5 * log_variance) * noise) * self.codec.scaling

    @torch.no_grad()
    def moments(self, batch: Batch) -> tuple[Float[Tensor, "b n c h w"], Float[Tensor, "b n c h w"]]:
        """Return mean and log variance of the unscaled latents, float32, where the pictures are."""
        keys = batch.pixels_keys or ("",) * len(batch)
        starts = batch.starts or (0,) * len(batch)
        if not any(keys):
            mean, log_variance = self.codec.posterior(batch.pixels)
            return mean.float(), log_variance.float()
        entries = [
            self._entry(key, pixels, start).to(pixels.device).float().roll(-start, 1)
            for key, start, pixels in zip(keys, starts, batch.pixels, strict=True)
        ]
        mean, log_variance = torch.stack(entries, 1)
        return mean, log_variance

    def _entry(self, key: str, pixels: Float[Tensor, "n 3 h w"], start: int) -> Float[Tensor, "2 n c p q"]:
        """Moments in the stored order, encoded by themselves: neighbours in a batch change no bit of them."""
        # Turned back only when made: a copy of the views for every clip would leave holes in memory between the entries.
        make = partial(self._encoded, pixels, start)
        if not key:  # never comes again
            return make()
        return self.kept.get(key, lambda found: found.ndim == 5 and found.shape[1] == len(pixels), make)

    def _encoded(self, pixels: Float[Tensor, "n 3 h w"], start: int) -> Float[Tensor, "2 n c p q"]:
        return torch.stack(self.codec.posterior(pixels.roll(start, 0)))

    @cached_property
    def _weights(self) -> str:
        return weights_hash(self.codec.vae)

    def _name(self) -> str:
        """Of the autoencoder, and what autocast does to it: entries made in half precision are not those of float32."""
        kind = next(self.codec.vae.parameters()).device.type
        rounded = f"-{torch.get_autocast_dtype(kind)}".replace("torch.", "") if torch.is_autocast_enabled(kind) else ""
        return self._weights + rounded
