"""Pictures to latents and back, in pieces that fit into memory, with Stable Diffusion's autoencoder."""

from collections.abc import Callable

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jaxtyping import Float
from torch import Tensor

from engine.multiview.settings import SD_SCALING


class LatentCodec:
    """Encodes and decodes any number of pictures with any leading dimensions; gradients flow through both."""

    def __init__(
        self,
        vae: AutoencoderKL,
        scaling: float = SD_SCALING,
        chunk: int = 8,
        device: torch.device | str | None = None,
    ) -> None:
        """Hold the autoencoder.

        Args:
            vae: computes in its own dtype.
            scaling: factor on scaled latents.
            chunk: pictures at once; fewer need less memory, the result is the same.
            device: where it computes and results are; None takes the device of what is given. An autoencoder that is
                offloaded reports the processor between its runs, so it cannot be asked.
        """
        if chunk < 1 or not scaling > 0:
            raise ValueError(f"chunk must be at least 1 and scaling above 0, got {chunk} and {scaling:g}")
        self.vae = vae
        self.scaling = scaling
        self.chunk = chunk
        self.device = device

    @property
    def factor(self) -> int:
        """Pixels along a side of a latent."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def encode(
        self,
        images: Float[Tensor, "*b 3 H W"],
        generator: torch.Generator | None = None,
        *,
        scaled: bool = True,
    ) -> Float[Tensor, "*b c h w"]:
        """Encode pictures.

        Args:
            images: in [-1, 1].
            generator: draws from the posterior, as the releases do where latents are denoised; None takes its mode.
            scaled: multiply by the scaling (Hi3D's conditions are not scaled).

        Raises:
            ValueError: sides that the autoencoder does not divide.
        """
        if images.shape[-1] % self.factor or images.shape[-2] % self.factor:
            raise ValueError(
                f"pictures must have sides that are multiples of {self.factor}, got {images.shape[-1]} x "
                f"{images.shape[-2]} (width x height); resize or crop them"
            )
        mean, log_variance = self.posterior(images)
        latents = mean
        if generator is not None:
            # One draw for all chunks, where the generator lives: the same latents for every chunk size and device.
            noise = torch.randn(mean.shape, generator=generator, device=generator.device, dtype=torch.float32)
            latents = mean + torch.exp(0.5 * log_variance) * noise.to(mean)
        return latents * self.scaling if scaled else latents

    def posterior(
        self, images: Float[Tensor, "*b 3 H W"]
    ) -> tuple[Float[Tensor, "*b c h w"], Float[Tensor, "*b c h w"]]:
        """Return mean and log variance of the unscaled latents of pictures in [-1, 1]."""

        def moments(some: Tensor) -> Tensor:
            found = self.vae.encode(some).latent_dist
            return torch.cat([found.mean, found.logvar], dim=1)

        mean, log_variance = self._in_chunks(moments, images).chunk(2, dim=-3)
        return mean, log_variance

    def decode(self, latents: Float[Tensor, "*b c h w"], *, scaled: bool = True) -> Float[Tensor, "*b 3 H W"]:
        """Decode latents to pictures in about [-1, 1] (not clamped).

        Raises:
            ValueError: latents with another number of channels.
        """
        channels = self.vae.config.latent_channels
        if latents.shape[-3] != channels:
            raise ValueError(f"latents must have shape (..., {channels}, height, width), got {tuple(latents.shape)}")
        return self._in_chunks(lambda some: self.vae.decode(some).sample, latents / self.scaling if scaled else latents)

    def _in_chunks(self, function: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
        """Apply a function of [n, c, h, w] to any leading dimensions, some pictures at a time."""
        flat = pictures.reshape(-1, *pictures.shape[-3:]).to(device=self.device, dtype=self.vae.dtype)
        results = torch.cat([function(some) for some in flat.split(self.chunk)])
        return results.to(pictures.dtype).reshape(*pictures.shape[:-3], *results.shape[1:])


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, mean: Float[Tensor, " c"], deviation: Float[Tensor, " c"]) -> None:
    """Give every channel of the latents zero mean and unit variance, by the 1x1 convolutions around them.

    The pictures stay what they are, and so does the posterior's width beside its mean. One scaling for all channels
    leaves those of small variance (colour, in ours) below the noise for most of a denoiser's times.

    Args:
        vae: changed in place; needs quant_conv and post_quant_conv.
        mean: of each channel of unscaled latents.
        deviation: standard deviation of each.
    """
    into, out = vae.quant_conv, vae.post_quant_conv
    channels = len(mean)
    into.weight[:channels] /= deviation.view(-1, 1, 1, 1)
    into.bias[:channels] = (into.bias[:channels] - mean) / deviation
    into.bias[channels:] -= 2 * deviation.log()
    out.bias += out.weight[:, :, 0, 0] @ mean
    out.weight *= deviation.view(1, -1, 1, 1)


@torch.no_grad()
def visibility(codec: LatentCodec, side: int = 16) -> Float[Tensor, " c"]:
    """Return how much an error in each channel of the latents shows in the pictures, squared, as shares of their mean.

    Small autoencoders hold what the eye sees first, a blurred picture, in a few channels: a loss that takes all for equal
    learns details that hardly show. Measured on noise in one channel at a time around latents of zero; the same for the
    same weights.
    """
    channels = codec.vae.config.latent_channels
    device = next(codec.vae.parameters()).device
    noise = torch.randn((channels, side, side), generator=torch.Generator().manual_seed(0)).to(device)
    alone = torch.diag_embed(noise.permute(1, 2, 0)).permute(2, 3, 0, 1)  # [c, c, side, side], one channel each
    shown = codec.decode(alone) - codec.decode(torch.zeros_like(alone[:1]))
    found = shown.float().square().mean((1, 2, 3))
    return found / found.mean()
