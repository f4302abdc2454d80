"""A fresh autoencoder that begins as what it should do roughly: pictures smaller, and larger again.

From random numbers a small one learns brightness first and colour only after thousands of steps: its group norms take
away what colours a picture has beside each other. Here a colour and its negative run along the residual stream,
untouched by its blocks; their two SiLUs make the colour again at its end, since silu(x) - silu(-x) = x.

conv_in: [c, -c, rest]  --averaged, repeated by the resampling convolutions-->  conv_out: silu(c) - silu(-c)
"""

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import nn

from engine.errors import TrainingError

QUIET = 0.3
"""Factor on the last convolution of every block, so that what runs along the stream is heard."""
MADE = 0.3
"""Of the decoder's output against its last norm's, whose variance is 1 over all channels."""
LOG_VARIANCE = -6.0
"""Of fresh latents: hardly any noise."""


@torch.no_grad()
def start_as_identity(vae: AutoencoderKL) -> AutoencoderKL:
    """Set what lets colours through, in place; the other numbers stay random. Returns the autoencoder.

    Raises:
        TrainingError: a level is too narrow to hold colours and their negatives.
    """
    colours, narrowest = vae.config.in_channels, min(vae.config.block_out_channels)
    if narrowest < 2 * colours or vae.config.latent_channels < colours:
        raise TrainingError(
            f"an autoencoder of {colours} colours needs levels of at least {2 * colours} channels and {colours} latent "
            f"ones, got {narrowest} and {vae.config.latent_channels}"
        )
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            module.conv2.weight.mul_(QUIET)
            _clear(module.conv2, 2 * colours)
            if module.conv_shortcut is not None:
                _pass_on(module.conv_shortcut, 2 * colours)
        elif isinstance(module, Downsample2D):
            _pass_on(module.conv, 2 * colours, window=2)  # it pads below and to the right: taps 0 and 1 are the pixel's
        elif isinstance(module, Upsample2D):
            _pass_on(module.conv, 2 * colours)
    for half, size in ((vae.encoder, 1.0), (vae.decoder, MADE)):
        _pass_on(half.conv_in, colours)
        _pass_on(half.conv_in, colours, first=colours, factor=-1.0)
        _pass_on(half.conv_out, colours, factor=size)
        for channel in range(colours):
            _middle(half.conv_out)[channel, colours + channel] = -size
    latents = vae.config.latent_channels
    vae.encoder.conv_out.weight[latents:].mul_(0.1)
    vae.encoder.conv_out.bias[latents:] = LOG_VARIANCE
    for convolution in (vae.quant_conv, vae.post_quant_conv):
        nn.init.dirac_(convolution.weight)
        convolution.bias.zero_()
    return vae


def _clear(convolution: nn.Conv2d, count: int, first: int = 0) -> None:
    convolution.weight[first : first + count] = 0
    if convolution.bias is not None:
        convolution.bias[first : first + count] = 0


def _pass_on(convolution: nn.Conv2d, count: int, *, first: int = 0, factor: float = 1.0, window: int = 1) -> None:
    """Let output channels from `first` on be `count` first input channels times a factor, or their mean over a window."""
    _clear(convolution, count, first)
    for channel in range(count):
        if window == 1:
            _middle(convolution)[first + channel, channel] = factor
        else:
            convolution.weight[first + channel, channel, :window, :window] = factor / window**2


def _middle(convolution: nn.Conv2d) -> torch.Tensor:
    row, column = (side // 2 for side in convolution.kernel_size)
    return convolution.weight[:, :, row, column]
