"""Latents that training learns: encoded once, then from memory or the disk, sampled anew for every clip.

    Batch.pixels --turned back by Batch.starts--> VAE --> mean, log variance, float16 --> memory, a file an entry
                                                              |
    latents [b n c h w], scaled <-- mean + deviation * Draws <-- turned by Batch.starts

An entry is found by Batch.pixels_keys and a hash of the autoencoder's weights, so other weights find nothing of these.
Moments are rounded to float16 whether they were found or made: a run goes the same way with and without its cache.
"""

import hashlib
import logging
from collections import OrderedDict
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from engine.files import write_bytes
from engine.multiview.networks.latents import LatentCodec, visibility
from engine.training.types import Batch, Draws

MOMENTS = "b *views c h w"
MEMORY_BYTES = 2**30
"""Of entries kept in memory; the least recently used go first."""
HALF_LARGEST = torch.finfo(torch.float16).max

log = logging.getLogger(__name__)


class LatentCache:
    """Moments of the autoencoder's posterior for batches, and latents drawn from them."""

    def __init__(self, codec: LatentCodec, folder: Path | None = None, memory_bytes: int = MEMORY_BYTES) -> None:
        """Cache what `codec` makes.

        Args:
            codec: with an autoencoder whose weights stay as they are from the first use on.
            folder: where entries are kept for this run and others; None keeps them in memory alone.
            memory_bytes: of entries in memory.
        """
        self.codec, self.folder, self.memory_bytes = codec, folder, memory_bytes
        self.made = 0
        """Clips that went through the autoencoder."""
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._kept_bytes = 0
        self._weights: str | None = None

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
            self.made += len(batch)
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
        found = self._kept.get(key)
        if found is None:
            found = self._read(key, len(pixels))
        if found is None:
            # Turned back only here: a copy of the views for every clip would leave holes in memory between the entries.
            found = self._encoded(pixels.roll(start, 0))
            self._write(key, found)
        if key:
            self._keep(key, found)
        return found

    def _encoded(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "2 n c p q"]:
        self.made += 1
        moments = torch.stack(self.codec.posterior(pixels))
        return moments.float().clamp(-HALF_LARGEST, HALF_LARGEST).half().cpu()

    def _keep(self, key: str, entry: Tensor) -> None:
        if key not in self._kept:
            self._kept_bytes += entry.nbytes
        self._kept[key] = entry
        self._kept.move_to_end(key)
        while self._kept_bytes > self.memory_bytes and len(self._kept) > 1:
            self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes

    def path(self, key: str) -> Path | None:
        """Return the file of an entry; None without a folder, or for clips that never come again."""
        if self.folder is None or not key:
            return None
        if self._weights is None:
            self._weights = weights_hash(self.codec.vae)
        name = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / f"{self._weights}{self._rounding()}" / name[:2] / f"{name}.safetensors"

    def _rounding(self) -> str:
        """What autocast does to the autoencoder: entries made in half precision are not those of float32."""
        kind = next(self.codec.vae.parameters()).device.type
        return f"-{torch.get_autocast_dtype(kind)}".replace("torch.", "") if torch.is_autocast_enabled(kind) else ""

    def _read(self, key: str, views: int) -> Float[Tensor, "2 n c p q"] | None:
        path = self.path(key)
        if path is None or not path.is_file():
            return None
        try:
            moments = load_file(path)["moments"]
        except (OSError, KeyError, SafetensorError) as error:
            log.warning("%s: cached latents do not read (%s): encoding them again", path, error)
            return None
        return moments if moments.ndim == 5 and moments.shape[1] == views else None

    def _write(self, key: str, entry: Float[Tensor, "2 n c p q"]) -> None:
        path = self.path(key)
        if path is not None:  # a power cut loses entries, which are made again: the folder need not be synced
            write_bytes(path, save({"moments": entry.contiguous()}, {"key": key}), sync=False)


def weights_hash(module: nn.Module) -> str:
    """Return 16 digits that tell a module's weights, and their type, from others."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
