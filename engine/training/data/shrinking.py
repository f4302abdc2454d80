"""Views made smaller by averaging over areas, and laid over their background. Sizes need not be multiples."""

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32, UInt8


def shrunk(rgba: UInt8[np.ndarray, "n h h 4"], size_px: int) -> UInt8[np.ndarray, "n size_px size_px 4"]:
    """Average straight-alpha sRGB views down, colours weighted by alpha: nothing of what transparent pixels hold leaks.

    sRGB values are averaged as they are, as both papers' loaders do. Views of that size come back as they are.

    Raises:
        ValueError: the views are smaller; they are never enlarged.
    """
    if not _smaller(rgba.shape[1], size_px):
        return rgba
    result = np.empty((len(rgba), size_px, size_px, 4), np.uint8)
    for view, small in zip(rgba, result, strict=True):
        alpha = view[..., 3].astype(np.float32)
        mean = _averaged(alpha, size_px)
        share = np.maximum(mean, 1e-6)
        small[..., 3] = np.rint(mean)
        for channel in range(3):
            small[..., channel] = np.rint(_averaged(view[..., channel] * alpha, size_px) / share).clip(0, 255)
    result[result[..., 3] == 0] = 0
    return result


def shrunk_depth(depth_m: Float[np.ndarray, "n h h"], size_px: int) -> Float32[np.ndarray, "n size_px size_px"]:
    """Average depth over the part of an area where something is; 0 where that is less than half of it.

    Raises:
        ValueError: see `shrunk`.
    """
    depth = np.ascontiguousarray(depth_m, np.float32)
    if not _smaller(depth.shape[1], size_px):
        return depth
    shares = [_averaged((view > 0).astype(np.float32), size_px) for view in depth]
    pairs = [(_averaged(view, size_px), share) for view, share in zip(depth, shares, strict=True)]
    return np.stack([np.where(share >= 0.5, mean / np.maximum(share, 1e-6), 0) for mean, share in pairs])


def _smaller(side: int, size_px: int) -> bool:
    if size_px > side:
        raise ValueError(f"views of {side} px are never enlarged, {size_px} px were asked for")
    return size_px < side


def _averaged(plane: Float32[np.ndarray, "h h"], size_px: int) -> Float32[np.ndarray, "size_px size_px"]:
    """One channel of one view: planes this small stay in the cache, which counts more than the arithmetic."""
    factor, rest = divmod(len(plane), size_px)
    if rest:
        overlaps = _overlaps(len(plane), size_px)
        return overlaps @ plane @ overlaps.T
    rows = plane[::factor].copy()
    for place in range(1, factor):
        rows += plane[place::factor]
    summed = rows[:, ::factor].copy()
    for place in range(1, factor):
        summed += rows[:, place::factor]
    return summed / np.float32(factor * factor)


@lru_cache
def _overlaps(side: int, size_px: int) -> Float32[np.ndarray, "size_px side"]:
    """How much of each new pixel, along one axis, each old one covers."""
    edges = np.arange(size_px + 1) * (side / size_px)
    first, last = edges[:-1, None], edges[1:, None]
    pixel = np.arange(side)[None]
    covered = np.minimum(last, pixel + 1) - np.maximum(first, pixel)
    return (covered.clip(0) * (size_px / side)).astype(np.float32)


def over(rgba: UInt8[np.ndarray, "n h w 4"], background: tuple[float, float, float]) -> UInt8[np.ndarray, "n h w 3"]:
    """Lay straight-alpha views over one sRGB colour, 0 to 1."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    behind = np.asarray(background, np.float32) * 255
    return np.rint(rgba[..., :3] * alpha + behind * (1 - alpha)).astype(np.uint8)
