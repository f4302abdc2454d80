"""Low-quality views for Hi3D's refiner (section 4.3): Real-ESRGAN's second-order degradation, and random masks.

    views -> masks -> [blur, resize, noise, JPEG] -> [blur, resize, noise] -> resize to 1/4, sinc, JPEG (either order)
          -> resized back -> background where nothing is; the first view stays clean

As in the release, one draw of settings holds for a clip and each view has kernels of its own. Numbers are those of
Real-ESRGAN's training options for its x4 network (Wang et al. 2021, arXiv 2107.10833, and its published configuration).
Left out: the sharpening of the target, which would change what the refiner learns to make.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from scipy import fft, special

Kind = Literal["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
KINDS: tuple[Kind, ...] = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
KIND_SHARES = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
"""How often each kind of blur is drawn."""
KERNEL_SIZES = tuple(range(7, 22, 2))
"""Pixels, odd."""
LARGEST = KERNEL_SIZES[-1]
MODES = ("area", "bilinear", "bicubic")
"""Of resizing, not antialiased, as in the release."""
GREY = np.array([0.2989, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Round:
    """One order of the degradation."""

    blur_share: float = 1.0
    """Share of clips that are blurred."""
    sigma_px: tuple[float, float] = (0.2, 3.0)
    """Standard deviations of blurs along their axes."""
    generalized_beta: tuple[float, float] = (0.5, 4.0)
    """Shape of generalised Gaussians: 1 is Gaussian, less is peaked."""
    plateau_beta: tuple[float, float] = (1.0, 2.0)
    """Shape of plateaus: more is flatter."""
    sinc_share: float = 0.1
    """Share of kernels that ring in place of blurring."""
    resize_shares: tuple[float, float, float] = (0.2, 0.7, 0.1)
    """Enlarged, reduced, left."""
    resize: tuple[float, float] = (0.15, 1.5)
    """Least and largest factor."""
    gaussian_share: float = 0.5
    """Share of clips with Gaussian noise; the others have Poisson noise."""
    gaussian_sigma: tuple[float, float] = (1.0, 30.0)
    """Standard deviation, levels of 255."""
    poisson_scale: tuple[float, float] = (0.05, 3.0)
    """Factor on the noise of counted photons."""
    grey_share: float = 0.4
    """Share of clips whose noise is the same in all channels."""
    jpeg_quality: tuple[float, float] = (30.0, 95.0)
    """Of Pillow's JPEG."""


@dataclass(frozen=True)
class Degradations:
    """What low-quality views have suffered."""

    scale: int = 4
    """They are made so many times smaller, and resized back."""
    first: Round = field(default_factory=Round)
    """First order."""
    second: Round = field(
        default_factory=lambda: Round(
            blur_share=0.8,
            sigma_px=(0.2, 1.5),
            resize_shares=(0.3, 0.4, 0.3),
            resize=(0.3, 1.2),
            gaussian_sigma=(1.0, 25.0),
            poisson_scale=(0.05, 2.5),
        )
    )
    """Second order."""
    final_sinc_share: float = 0.8
    """Share of views that ring at the end."""
    mask_share: float = 0.3
    """Share of clips with random masks, for shapes that the first stage deforms: in the paper (no numbers are given),
    not in the release."""
    masks: tuple[int, int] = (1, 3)
    """Fewest and most masks a view."""
    mask_side: tuple[float, float] = (0.05, 0.2)
    """Sides of a mask's rectangle over the view's."""


SMALL = Degradations(
    scale=2,
    first=Round(sigma_px=(0.2, 1.5), resize=(0.5, 1.5), gaussian_sigma=(1.0, 12.0), poisson_scale=(0.05, 1.2)),
    second=Round(
        blur_share=0.8,
        sigma_px=(0.2, 0.8),
        resize_shares=(0.3, 0.4, 0.3),
        resize=(0.6, 1.2),
        gaussian_sigma=(1.0, 8.0),
        poisson_scale=(0.05, 0.8),
    ),
    mask_side=(0.04, 0.12),
)
"""For views of at most 256 px, chosen here: the published numbers are for 1024 px, where a pixel is a quarter as large,
and leave nothing but a stain of so small a view."""
SMALL_PX = 256


def suited(size_px: int) -> Degradations:
    """Return the published degradations, or milder ones for small views."""
    return SMALL if size_px <= SMALL_PX else Degradations()


def degraded(
    rgb: UInt8[np.ndarray, "n h w 3"],
    alpha: UInt8[np.ndarray, "n h w"],
    background: tuple[float, float, float],
    generator: np.random.Generator,
    settings: Degradations,
) -> UInt8[np.ndarray, "n h w 3"]:
    """Return low-quality views of the same size.

    Args:
        rgb: views over the background.
        alpha: what of them is the object; where it is 0 the background stays as it was.
        background: sRGB, 0 to 1.
        generator: all that is random.
        settings: what may happen.
    """
    behind = np.rint(np.asarray(background) * 255).astype(np.uint8)
    height, width = rgb.shape[1:3]
    views = _masked(rgb, alpha, behind, generator, settings).astype(np.float32) / 255
    drawn = [_Drawn.from_round(one, generator) for one in (settings.first, settings.second)]
    views = _blurred(views, drawn[0], generator)
    views = _resized(views, round(height * drawn[0].factor), round(width * drawn[0].factor), drawn[0].mode)
    views = _jpeg(_noisy(views, drawn[0], generator), drawn[0].quality)
    views = _blurred(views, drawn[1], generator)
    small = height // settings.scale, width // settings.scale
    views = _resized(views, int(small[0] * drawn[1].factor), int(small[1] * drawn[1].factor), drawn[1].mode)
    views = _finished(_noisy(views, drawn[1], generator), small, drawn[1].quality, generator, settings)
    views = _resized(np.rint(views.clip(0, 1) * 255) / np.float32(255), height, width, "bicubic")
    result = np.rint(views.clip(0, 1) * 255).astype(np.uint8)
    result[alpha == 0] = behind
    result[0] = rgb[0]
    return result


@dataclass(frozen=True)
class _Drawn:
    """A round's settings for one clip."""

    blur: bool
    factor: float
    mode: str
    gaussian: bool
    level: float
    grey: bool
    quality: int
    round: Round

    @staticmethod
    def from_round(settings: Round, generator: np.random.Generator) -> "_Drawn":
        """Draw them; always as many numbers, so that one setting does not shift what others draw."""
        chances, levels = generator.random(3), generator.random(5)
        up, down, _ = settings.resize_shares
        least, most = settings.resize
        factor = 1.0
        if levels[0] < up:
            factor = 1 + levels[1] * (most - 1)
        elif levels[0] < up + down:
            factor = least + levels[1] * (1 - least)
        gaussian = bool(chances[1] < settings.gaussian_share)
        low, high = settings.gaussian_sigma if gaussian else settings.poisson_scale
        worst, best = settings.jpeg_quality
        return _Drawn(
            bool(chances[0] < settings.blur_share), float(factor), MODES[int(levels[4] * 3)], gaussian,
            float(low + levels[2] * (high - low)), bool(chances[2] < settings.grey_share),
            round(worst + levels[3] * (best - worst)), settings,
        )  # fmt: skip


def _finished(
    views: Float32[np.ndarray, "n _h _w 3"],
    size: tuple[int, int],
    quality: int,
    generator: np.random.Generator,
    settings: Degradations,
) -> Float32[np.ndarray, "n h w 3"]:
    """To their small size with ringing, and JPEG: either first, since any other order twists lines."""
    mode, jpeg_last = MODES[int(generator.integers(3))], generator.random() < 0.5
    kernels = [_final_kernel(generator, settings) for _ in views]
    if not jpeg_last:
        views = _jpeg(views, quality)
    views = _filtered(_resized(views, *size, mode), kernels)
    return _jpeg(views, quality) if jpeg_last else views


def _masked(
    rgb: UInt8[np.ndarray, "n h w 3"],
    alpha: UInt8[np.ndarray, "n h w"],
    behind: UInt8[np.ndarray, "3"],
    generator: np.random.Generator,
    settings: Degradations,
) -> UInt8[np.ndarray, "n h w 3"]:
    """Cut rectangles out of the object, others in each view."""
    if not generator.random() < settings.mask_share:
        return rgb
    result = rgb.copy()
    height, width = rgb.shape[1:3]
    for view, there in zip(result, alpha, strict=True):
        rows, columns = np.nonzero(there)
        for _ in range(int(generator.integers(settings.masks[0], settings.masks[1] + 1))):
            place, sides = generator.random(), generator.uniform(*settings.mask_side, 2)
            if not len(rows):
                continue
            centre = int(place * len(rows))
            half = np.maximum(sides * [height, width] / 2, 0.5)
            middle = np.array([rows[centre], columns[centre]])
            top, left = np.maximum(middle - half, 0).astype(int)
            bottom, right = np.ceil(middle + half).astype(int)
            view[top:bottom, left:right] = behind
    return result


# ---------------------------------------------------------------- kernels
def blur_kernel(
    kind: Kind, size: int, sigma_px: tuple[float, float], angle: float, beta: float
) -> Float[np.ndarray, "size size"]:
    """Return a blur that sums to 1 (Real-ESRGAN, section 3.2): exp(-d^beta / 2) or, plateaus, 1 / (1 + d^beta), with
    d the squared distance in standard deviations.

    Args:
        kind: iso takes the first standard deviation for both axes.
        size: pixels, odd.
        sigma_px: along the two axes.
        angle: of the first axis, radians.
        beta: shape; 1 where the kind has none.
    """
    along = np.arange(size) - size // 2
    x, y = np.meshgrid(along, along)
    first, second = sigma_px if kind.endswith("aniso") else (sigma_px[0], sigma_px[0])
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    distance = (u / first) ** 2 + (v / second) ** 2
    weight = 1 / (1 + distance**beta) if kind.startswith("plateau") else np.exp(-0.5 * distance**beta)
    return weight / weight.sum()


def sinc_kernel(cutoff: float, size: int) -> Float[np.ndarray, "size size"]:
    """Return the ideal circular low pass (section 3.4, equation 5): it rings as strong compression and sharpening do.

    Args:
        cutoff: radians a pixel, up to pi.
        size: pixels, odd.
    """
    along = np.arange(size) - size // 2
    radius = np.hypot(*np.meshgrid(along, along))
    centre = radius == 0
    safe = np.where(centre, 1, radius)
    kernel = np.where(centre, cutoff**2 / (4 * math.pi), cutoff * special.j1(cutoff * safe) / (2 * math.pi * safe))
    return kernel / kernel.sum()


def _kernel(settings: Round, generator: np.random.Generator) -> Float[np.ndarray, "s s"]:
    size = KERNEL_SIZES[int(generator.integers(len(KERNEL_SIZES)))]
    if generator.random() < settings.sinc_share:
        return sinc_kernel(generator.uniform(math.pi / 3 if size < 13 else math.pi / 5, math.pi), size)
    kind = KINDS[int(generator.choice(len(KINDS), p=KIND_SHARES))]
    sigma, angle = generator.uniform(*settings.sigma_px, 2), generator.uniform(-math.pi, math.pi)
    beta = 1.0
    if "_" in kind:
        least, most = settings.generalized_beta if kind.startswith("generalized") else settings.plateau_beta
        # half of them on each side of the Gaussian
        beta = generator.uniform(least, 1) if generator.random() < 0.5 else generator.uniform(1, most)
    return blur_kernel(kind, size, (float(sigma[0]), float(sigma[1])), angle, beta)


def _final_kernel(generator: np.random.Generator, settings: Degradations) -> Float[np.ndarray, "s s"] | None:
    rings, size = (
        generator.random() < settings.final_sinc_share,
        KERNEL_SIZES[int(generator.integers(len(KERNEL_SIZES)))],
    )
    cutoff = generator.uniform(math.pi / 3, math.pi)
    return sinc_kernel(cutoff, size) if rings else None


# ---------------------------------------------------------------- what is done to views
def _blurred(
    views: Float32[np.ndarray, "n h w 3"], drawn: _Drawn, generator: np.random.Generator
) -> Float32[np.ndarray, "n h w 3"]:
    return _filtered(views, [_kernel(drawn.round, generator) for _ in views]) if drawn.blur else views


def _filtered(
    views: Float32[np.ndarray, "n h w 3"], kernels: Sequence[np.ndarray | None]
) -> Float32[np.ndarray, "n h w 3"]:
    """Filter each view with its kernel, borders reflected; None leaves it."""
    return np.stack([_convolved(v, k) if k is not None else v for v, k in zip(views, kernels, strict=True)])


def _convolved(view: Float32[np.ndarray, "h w 3"], kernel: Float[np.ndarray, "s s"]) -> Float32[np.ndarray, "h w 3"]:
    reach = len(kernel) // 2
    padded = np.pad(view, ((reach, reach), (reach, reach), (0, 0)), "reflect").transpose(2, 0, 1)
    shape = [fft.next_fast_len(length, real=True) for length in padded.shape[1:]]
    spectrum = fft.rfft2(padded, shape, workers=1) * fft.rfft2(kernel.astype(np.float32), shape, workers=1)
    full = fft.irfft2(spectrum, shape, workers=1)
    height, width = view.shape[:2]
    return full[:, 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width].transpose(1, 2, 0)


def _resized(
    views: Float32[np.ndarray, "n _h _w 3"], height: int, width: int, mode: str
) -> Float32[np.ndarray, "n height width 3"]:
    tensor = torch.from_numpy(np.ascontiguousarray(views)).permute(0, 3, 1, 2)
    size = (max(height, 1), max(width, 1))
    return torch.nn.functional.interpolate(tensor, size, mode=mode).permute(0, 2, 3, 1).contiguous().numpy()


def _noisy(
    views: Float32[np.ndarray, "n h w 3"], drawn: _Drawn, generator: np.random.Generator
) -> Float32[np.ndarray, "n h w 3"]:
    views = views.clip(0, 1)
    if drawn.gaussian:
        shape = (*views.shape[:3], 1 if drawn.grey else 3)
        return views + generator.standard_normal(shape, np.float32) * np.float32(drawn.level / 255)
    clean = np.rint((views @ GREY if drawn.grey else views) * 255) / np.float32(255)
    counts = [_photons(view, generator) for view in clean]
    noise = (np.stack(counts) - clean) * np.float32(drawn.level)
    return views + (noise[..., None] if drawn.grey else noise)


def _photons(view: Float32[np.ndarray, "h w *c"], generator: np.random.Generator) -> Float32[np.ndarray, "h w *c"]:
    """Count photons: as many levels as the view has, rounded up to a power of two, are full light."""
    levels = 2.0 ** math.ceil(math.log2(max(len(np.unique(view)), 2)))
    return (generator.poisson(view * levels) / levels).astype(np.float32)


def _jpeg(views: Float32[np.ndarray, "n h w 3"], quality: int) -> Float32[np.ndarray, "n h w 3"]:
    stored = np.rint(views.clip(0, 1) * 255).astype(np.uint8)
    return np.stack([_jpeg_view(view, quality) for view in stored]).astype(np.float32) / 255


def _jpeg_view(view: UInt8[np.ndarray, "h w 3"], quality: int) -> UInt8[np.ndarray, "h w 3"]:
    buffer = io.BytesIO()
    Image.fromarray(view).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))
