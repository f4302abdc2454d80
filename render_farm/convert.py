"""From Blender's pixels to ours: one 32-bit multilayer EXR in, the arrays of one view of `orbit/1` out::

Combined (linear, premultiplied) -> straight -> sRGB -> 8 bits
Depth (planar z, 1e10 = nothing)  -> metres, 0 = nothing
Normal (world, averaged)          -> unit length, 0 = nothing
BaseColour AOV / its weight       -> sRGB; where a shader could not be read: diffuse + glossy colour
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import OpenEXR
from jaxtyping import Bool, Float, UInt8

from render_farm.errors import FarmError

FAR_M = 1e9
"""Cycles writes 1e10 where a ray hits nothing."""
TINY = 1e-6

Channels = dict[str, Float[np.ndarray, "h w"]]


@dataclass(frozen=True)
class ViewImages:
    """One view, as `orbit/1` wants it."""

    rgba: UInt8[np.ndarray, "h w 4"]
    """sRGB, straight alpha."""
    depth_m: Float[np.ndarray, "h w"] | None
    """Planar camera z, metres, 0 where nothing is."""
    normal: Float[np.ndarray, "h w 3"] | None
    """World, unit length, 0 where nothing is."""
    albedo: UInt8[np.ndarray, "h w 3"] | None
    """Base colour, sRGB, black where nothing is."""


def read_channels(path: Path) -> Channels:
    """Return every channel of every part, named PASS.COMPONENT without the view layer's name.

    Blender 4.5 writes one part, Blender 5 one for each pass unless told otherwise: both are read.
    """
    try:
        file = OpenEXR.File(str(path), separate_channels=True)
        named = [(name, channel.pixels) for part in file.parts for name, channel in part.channels.items()]
    except Exception as error:
        raise FarmError(
            "bad-output", f"{path.name}: Blender's EXR cannot be read ({error}); is the disk full?"
        ) from error
    return {".".join(name.split(".")[-2:]): np.asarray(pixels, np.float32) for name, pixels in named}


def srgb_from_linear(linear: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Apply the sRGB transfer function (IEC 61966-2-1): what Blender's Standard view transform does."""
    clipped = np.clip(linear, 0.0, 1.0)
    return np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** (1 / 2.4) - 0.055)


def _bytes(values: Float[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n"]:
    return np.round(np.clip(np.nan_to_num(values), 0.0, 1.0) * 255).astype(np.uint8)


def _stack(channels: Channels, layer: str, components: str) -> Float[np.ndarray, "h w c"]:
    try:
        return np.stack([channels[f"{layer}.{component}"] for component in components], -1)
    except KeyError as error:
        raise FarmError("bad-output", f"Blender's EXR has no channel {error}; it has {', '.join(channels)}") from error


def convert_view(channels: Channels, passes: tuple[str, ...]) -> ViewImages:
    """Convert one view's channels."""
    combined = _stack(channels, "Combined", "RGBA").astype(np.float64)
    coverage = np.clip(combined[..., 3:], 0.0, 1.0)
    straight = np.where(coverage > TINY, combined[..., :3] / np.maximum(combined[..., 3:], TINY), 0.0)
    alpha = _bytes(coverage)
    seen = alpha[..., 0] > 0
    rgb = np.where(seen[..., None], _bytes(srgb_from_linear(straight)), np.uint8(0))
    return ViewImages(
        rgba=np.concatenate([rgb, alpha], -1),
        depth_m=_depth(channels, seen) if "depth" in passes else None,
        normal=_normal(channels, seen) if "normal" in passes else None,
        albedo=_albedo(channels, coverage, seen) if "albedo" in passes else None,
    )


def _depth(channels: Channels, seen: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    depth = channels.get("Depth.Z", channels.get("Depth.V"))
    if depth is None:
        raise FarmError("bad-output", f"Blender's EXR has no depth channel; it has {', '.join(channels)}")
    there = seen & np.isfinite(depth) & (depth > 0) & (depth < FAR_M)
    return np.where(there, depth, 0).astype(np.float32)


def _normal(channels: Channels, seen: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "h w 3"]:
    normal = _stack(channels, "Normal", "XYZ").astype(np.float64)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    there = seen[..., None] & np.isfinite(length) & (length > TINY)
    return np.where(there, normal / np.where(there, length, 1.0), 0.0).astype(np.float32)


def _albedo(
    channels: Channels, coverage: Float[np.ndarray, "h w 1"], seen: Bool[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    base = _stack(channels, "BaseColour", "RGB").astype(np.float64)
    weight = channels["BaseWeight.V" if "BaseWeight.V" in channels else "BaseWeight.X"][..., None].astype(np.float64)
    reflected = _stack(channels, "DiffCol", "RGB") + _stack(channels, "GlossCol", "RGB")
    fallback = reflected / np.maximum(coverage, TINY)
    linear = np.where(weight > TINY, base / np.maximum(weight, TINY), fallback)
    return np.where(seen[..., None], _bytes(srgb_from_linear(linear)), np.uint8(0))
