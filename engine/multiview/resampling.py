"""Resizing pictures with alpha: a rectangle of a straight-alpha image in, an image of another size out.

Two decisions. Colours are weighted by alpha while they are mixed (premultiplied), so that nothing of the colour under
transparent pixels leaks into edges: no dark or bright fringes. And sRGB values are mixed as they are, not linear
light: both papers' loaders do so, their networks have seen such edges only, every later step composes in sRGB too, and
the kernel's negative lobes are then even to the eye. What that costs: fine black-and-white texture comes out slightly
darker than a lens would show it.
"""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

KERNEL = Image.Resampling.BICUBIC
"""Widened when shrinking (antialiased). Lanczos is sharper, but its second lobe leaves a ghost outside the outline."""
KERNEL_PX = 2.0
"""Half the kernel's width."""


def resample(
    rgba: UInt8[np.ndarray, "h w 4"], box: tuple[float, float, float, float], *, width: int, height: int
) -> UInt8[np.ndarray, "height width 4"]:
    """Return a rectangle of an image at another size.

    Args:
        rgba: sRGB, straight alpha; everything outside it is transparent.
        box: left, top, right, bottom in pixels of the image, pixel centres at +0.5; may reach outside it.
        width: of the result, pixels.
        height: of the result, pixels.
    """
    padded, inner = _padded(rgba, box, width, height)
    alpha = padded[..., 3] / np.float32(255)
    channels = [padded[..., c].astype(np.float32) * alpha for c in range(3)] + [alpha]
    mixed = [np.asarray(Image.fromarray(channel).resize((width, height), KERNEL, box=inner)) for channel in channels]
    alpha = np.clip(mixed[3], 0, 1)
    colour = np.stack(mixed[:3], -1) / np.maximum(mixed[3], 1 / 510)[..., None]  # below half a level alpha rounds to 0
    result = np.rint(np.concatenate([np.clip(colour, 0, 255), 255 * alpha[..., None]], -1)).astype(np.uint8)
    result[result[..., 3] == 0] = 0
    return result


def _padded(
    rgba: UInt8[np.ndarray, "h w 4"], box: tuple[float, float, float, float], width: int, height: int
) -> tuple[UInt8[np.ndarray, "_h _w 4"], tuple[float, float, float, float]]:
    """Cut the image down to what the box and its kernel need, with transparency around, and the box in it."""
    left, top, right, bottom = box
    reach_u = KERNEL_PX * max((right - left) / width, 1) + 1
    reach_v = KERNEL_PX * max((bottom - top) / height, 1) + 1
    rows, columns = rgba.shape[:2]
    u0, u1 = _span(left, right, reach_u, columns)
    v0, v1 = _span(top, bottom, reach_v, rows)
    canvas = np.zeros((v1 - v0, u1 - u0, 4), np.uint8)
    from_v, to_v = np.clip((v0, v1), 0, rows)
    from_u, to_u = np.clip((u0, u1), 0, columns)
    canvas[from_v - v0 : to_v - v0, from_u - u0 : to_u - u0] = rgba[from_v:to_v, from_u:to_u]
    return canvas, (left - u0, top - v0, right - u0, bottom - v0)


def _span(first: float, last: float, reach: float, size: int) -> tuple[int, int]:
    """Pixels that are needed; where the box does not reach outside, the picture's edge is not the object's."""
    start, stop = int(np.floor(first - reach)), int(np.ceil(last + reach))
    return max(start, 0) if first >= 0 else start, min(stop, size) if last <= size else stop


def bilinear(image: Float[np.ndarray, "h w c"], *, width: int, height: int) -> Float[np.ndarray, "height width c"]:
    """Resize as OpenCV's default does: two pixels by two, pixel centres aligned, edges repeated, NOT antialiased."""
    return _bilinear_rows(_bilinear_rows(image, height).swapaxes(0, 1), width).swapaxes(0, 1)


def _bilinear_rows(image: Float[np.ndarray, "h w c"], height: int) -> Float[np.ndarray, "height w c"]:
    place = (np.arange(height) + 0.5) * len(image) / height - 0.5
    below = np.floor(place).astype(int)
    share = (place - below).astype(image.dtype)[:, None, None]
    last = len(image) - 1
    return image[below.clip(0, last)] * (1 - share) + image[(below + 1).clip(0, last)] * share
