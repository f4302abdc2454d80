"""Pictures as CLIP wants them: the two systems' ways of making them small, and CLIP's normalisation.

Both take pictures in [-1, 1] and return them normalised; without torchvision, kornia or Pillow.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Of the pictures that CLIP was trained with, per channel, in [0, 1]."""
STD = (0.26862954, 0.26130258, 0.27577711)
"""Their standard deviation."""
FIXED_POINT_BITS = 22
"""Pillow's precision for 8-bit pictures."""


def normalised(pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Take pictures in [0, 1] to CLIP's zero mean and unit variance."""
    mean, std = (pictures.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (pictures - mean) / std


def videomv_pixels(pictures: Float[Tensor, "b 3 s s"], size: int) -> Float[Tensor, "b 3 {size} {size}"]:
    """Prepare square pictures as VideoMV does: 8 bits, Pillow's bilinear resize, normalised.

    The release first crops the middle square; pictures come here cropped already, as the VAE gets them too.
    """
    return normalised(pillow_bilinear((pictures + 1) / 2, size))


def hi3d_pixels(pictures: Float[Tensor, "b 3 h w"], size: int) -> Float[Tensor, "b 3 {size} {size}"]:
    """Prepare pictures as Hi3D (and Stable Video Diffusion) does: kornia's resize, bicubic and smoothed, normalised."""
    return normalised((kornia_bicubic(pictures, size) + 1) / 2)


def pillow_bilinear(pictures: Float[Tensor, "b c s s"], size: int) -> Float[Tensor, "b c {size} {size}"]:
    """Resize pictures in [0, 1] as Pillow resizes 8-bit ones, to the bit: along rows, then columns, rounded each time.

    Square ones: for others, versions of Pillow differ in which axis comes first.
    """
    levels = (pictures.double() * 255).round().clamp(0, 255)
    for axis in (3, 2):
        shares = _pillow_shares(pictures.shape[axis], size).to(levels.device)
        moved = levels.movedim(axis, -1) @ shares.T  # exact: integers below 2**53
        levels = (
            ((moved + 2.0 ** (FIXED_POINT_BITS - 1)) / 2.0**FIXED_POINT_BITS).floor().clamp(0, 255).movedim(-1, axis)
        )
    return (levels / 255).to(pictures.dtype)


def _pillow_shares(given: int, wanted: int) -> Float[Tensor, "{wanted} {given}"]:
    """Return what each pixel along one axis is mixed of, in Pillow's fixed point (Resample.c, precompute_coeffs).

    A triangle over two pixels, as wide as the reduction where a picture shrinks, cut off at the borders.
    """
    factor = given / wanted
    reach = max(factor, 1.0)
    centres = (torch.arange(wanted, dtype=torch.float64) + 0.5) * factor
    pixels = torch.arange(given, dtype=torch.float64)
    shares = (1 - ((pixels + 0.5 - centres[:, None]) / reach).abs()).clamp(min=0)
    first, last = ((centres + side * reach + 0.5).trunc()[:, None] for side in (-1, 1))
    shares = shares * ((pixels >= first) & (pixels < last))
    return (shares / shares.sum(1, keepdim=True) * 2.0**FIXED_POINT_BITS + 0.5).floor()


def kornia_bicubic(pictures: Float[Tensor, "b c h w"], size: int) -> Float[Tensor, "b c {size} {size}"]:
    """Resize as `kornia.geometry.resize(..., interpolation="bicubic", align_corners=True, antialias=True)`.

    Where a picture shrinks it is smoothed first: sigma (factor - 1) / 2, over 4 sigma rounded up to odd, at least 3.
    """
    factors = [length / size for length in pictures.shape[2:]]
    if max(factors) > 1:
        for axis, factor in zip((2, 3), factors, strict=True):
            pictures = _smoothed(pictures, axis, max((factor - 1) / 2, 0.001))
    return functional.interpolate(pictures, size=(size, size), mode="bicubic", align_corners=True)


def _smoothed(pictures: Float[Tensor, "b c h w"], axis: int, sigma: float) -> Float[Tensor, "b c h w"]:
    """Convolve one axis with a Gaussian, the picture mirrored at its borders."""
    taps = int(max(4 * sigma, 3))
    taps += 1 - taps % 2
    offsets = torch.arange(taps, dtype=pictures.dtype, device=pictures.device) - taps // 2
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    weights /= weights.sum()
    reach = taps // 2
    across = axis == 3
    padding = (reach, reach, 0, 0) if across else (0, 0, reach, reach)
    channels = pictures.shape[1]
    kernel = weights.view(1, 1, *((1, taps) if across else (taps, 1))).expand(channels, -1, -1, -1)
    return functional.conv2d(functional.pad(pictures, padding, mode="reflect"), kernel, groups=channels)
