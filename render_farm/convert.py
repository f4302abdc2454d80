"""From Blender's pixels to ours: one 32-bit multilayer EXR in, the arrays of one view of `orbit/1` out::

Combined (linear, premultiplied) -> straight -> sRGB -> 8 bits
Depth (planar z, 1e10 = nothing)  -> metres, 0 = nothing
Normal (world, averaged)          -> unit length, 0 = nothing
Normal, the stored pose           -> the same in OpenCV camera axes
BaseColour AOV / its weight       -> sRGB; where a shader could not be read: diffuse + glossy colour
Roughness, Metallic AOV / weight  -> 8 bits, linear; where a shader could not be read: Blender's defaults
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from render_farm.errors import FarmError
from render_farm.exr import ExrError, read_exr

FAR_M = 1e9
"""Cycles writes 1e10 where a ray hits nothing."""
TINY = 1e-6
UNKNOWN_MATERIAL = (0.5, 0.0)
"""Roughness and metallic of a surface whose shader could not be read: those of Blender's own new material."""

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
    camera_normal: Float[np.ndarray, "h w 3"] | None = None
    """Unit length, OpenCV camera axes, 0 where nothing is."""
    material: UInt8[np.ndarray, "h w 2"] | None = None
    """Roughness and metallic, linear, 0 where nothing is."""


def read_channels(path: Path) -> Channels:
    """Return every channel of every part, named PASS.COMPONENT without the view layer's name.

    Blender 4.5 writes one part, Blender 5 one for each pass unless told otherwise: both are read.

    Raises:
        FarmError: `bad-output`: it is no EXR, or cut off.
    """
    try:
        named = read_exr(path)
    except ExrError as error:
        raise FarmError(
            "bad-output", f"{path.name}: Blender's EXR cannot be read ({error}); is the disk full?"
        ) from error
    return {".".join(name.split(".")[-2:]): np.asarray(pixels, np.float32) for name, pixels in named.items()}


def srgb_from_linear(linear: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Apply the sRGB transfer function (IEC 61966-2-1): what Blender's Standard view transform does."""
    clipped = np.clip(linear, 0.0, 1.0)
    return np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** (1 / 2.4) - 0.055)


def _bytes(values: Float[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n"]:
    return np.round(np.clip(np.nan_to_num(values), 0.0, 1.0) * 255).astype(np.uint8)


def convert_view(
    channels: Channels, passes: tuple[str, ...], T_world_camera: Float[np.ndarray, "4 4"] | None = None
) -> ViewImages:
    """Convert one view's channels; `camera_normal` needs the view's pose.

    Raises:
        FarmError: `bad-output`: a channel is missing.
    """
    coverage = np.clip(_value(channels, "Combined", "A").astype(np.float64), 0.0, 1.0)
    alpha = _bytes(coverage)
    pixels = _Pixels(channels, alpha > 0, coverage)
    normal = pixels.normal() if {"normal", "camera_normal"} & set(passes) else None
    camera_normal = None
    if normal is not None and "camera_normal" in passes:
        assert T_world_camera is not None
        camera_normal = normal @ T_world_camera[:3, :3]  # rows: n_camera = R^T n_world
    return ViewImages(
        rgba=np.concatenate([pixels.image(pixels.colour()), alpha[..., None]], -1),
        depth_m=pixels.image(pixels.depth_m()) if "depth" in passes else None,
        normal=None if normal is None or "normal" not in passes else pixels.image(normal.astype(np.float32)),
        albedo=pixels.image(pixels.albedo()) if "albedo" in passes else None,
        camera_normal=None if camera_normal is None else pixels.image(camera_normal.astype(np.float32)),
        material=pixels.image(pixels.material()) if "material" in passes else None,
    )


def _value(channels: Channels, layer: str, components: str = "XVZ") -> Float[np.ndarray, "h w"]:
    """The one channel of a layer: Blender calls it X, V or Z."""
    for component in components:
        if f"{layer}.{component}" in channels:
            return channels[f"{layer}.{component}"]
    raise FarmError("bad-output", f"Blender's EXR has no channel of {layer}; it has {', '.join(channels)}")


class _Pixels:
    """The m pixels of one view where something is; the others are 0 in every image, and most of a picture."""

    def __init__(self, channels: Channels, seen: Bool[np.ndarray, "h w"], coverage: Float[np.ndarray, "h w"]) -> None:
        self._channels, self._seen = channels, seen
        self._coverage = coverage[seen][:, None]  # [m, 1]

    def image(self, values: Shaped[np.ndarray, "m ..."]) -> Shaped[np.ndarray, "h w ..."]:
        """Put values back where they belong."""
        image = np.zeros((*self._seen.shape, *values.shape[1:]), values.dtype)
        image[self._seen] = values
        return image

    def colour(self) -> UInt8[np.ndarray, "m 3"]:
        """Premultiplied linear light to straight sRGB."""
        return _bytes(srgb_from_linear(self._stack("Combined", "RGB") / np.maximum(self._coverage, TINY)))

    def depth_m(self) -> Float[np.ndarray, " m"]:
        """Planar depth; 0 where only something nearly transparent is."""
        depth = self._one("Depth")[:, 0]
        return np.where(np.isfinite(depth) & (depth > 0) & (depth < FAR_M), depth, 0).astype(np.float32)

    def normal(self) -> Float[np.ndarray, "m 3"]:
        """Averages of unit vectors are shorter than 1."""
        normal = self._stack("Normal", "XYZ")
        length = np.linalg.norm(normal, axis=-1, keepdims=True)
        there = np.isfinite(length) & (length > TINY)
        return np.where(there, normal / np.where(there, length, 1.0), 0.0)

    def albedo(self) -> UInt8[np.ndarray, "m 3"]:
        """Base colour; what a shader that could not be read reflects."""
        reflected = self._stack("DiffCol", "RGB") + self._stack("GlossCol", "RGB")
        known = self._weighted(self._stack("BaseColour", "RGB"), reflected / np.maximum(self._coverage, TINY))
        return _bytes(srgb_from_linear(known))

    def material(self) -> UInt8[np.ndarray, "m 2"]:
        """Both AOVs carry the weight of the base colour: behind glass and cut-outs a surface counts by what is seen."""
        values = np.concatenate([self._one("Roughness"), self._one("Metallic")], -1)
        return _bytes(self._weighted(values, np.broadcast_to(UNKNOWN_MATERIAL, values.shape)))

    def _weighted(
        self, values: Float[np.ndarray, "m c"], fallback: Float[np.ndarray, "m c"]
    ) -> Float[np.ndarray, "m c"]:
        weight = self._one("BaseWeight")
        return np.where(weight > TINY, values / np.maximum(weight, TINY), fallback)

    def _one(self, layer: str) -> Float[np.ndarray, "m 1"]:
        return _value(self._channels, layer)[self._seen][:, None].astype(np.float64)

    def _stack(self, layer: str, components: str) -> Float[np.ndarray, "m c"]:
        try:
            planes = [self._channels[f"{layer}.{component}"] for component in components]
        except KeyError as error:
            found = ", ".join(self._channels)
            raise FarmError("bad-output", f"Blender's EXR has no channel {error}; it has {found}") from error
        return np.stack([plane[self._seen] for plane in planes], -1).astype(np.float64)
