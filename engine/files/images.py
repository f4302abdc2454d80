"""Single images as bytes: RGBA, colour, normals, material as WebP, depth as 16-bit PNG. Arrays in, bytes out, and back.

Decoders say what is wrong without knowing the file's name (`ImageProblem`); the caller adds it.
"""

import io
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8, UInt16
from PIL import Image

Quality = int | Literal["lossless"]
"""WebP quality 1 to 100, or exact."""

LOSSLESS_EFFORT = {"method": 2, "quality": 20}
"""Six times as fast as libwebp's default effort for 4 % larger files (256-pixel renders)."""
PNG_END = b"IEND\xaeB`\x82"
MAX_DEPTH = 65535
"""Largest value of a 16-bit depth image."""


class ImageProblem(ValueError):
    """The bytes are not the image they should be; one clause without the file's name."""


def encode_webp(image: UInt8[np.ndarray, "h w c"], quality: Quality = "lossless") -> bytes:
    """Encode RGB or RGBA; lossless keeps the colour of transparent pixels too.

    An RGBA image that is opaque everywhere is always stored lossless: libwebp drops its alpha, and only the lossless
    bitstream has a flag that keeps it (`_declare_alpha`).
    """
    opaque_rgba = image.shape[-1] == 4 and bool((image[..., 3] == 255).all())
    buffer = io.BytesIO()
    if quality == "lossless" or opaque_rgba:
        Image.fromarray(image).save(buffer, "WEBP", lossless=True, exact=True, **LOSSLESS_EFFORT)
    else:
        Image.fromarray(image).save(buffer, "WEBP", quality=quality, method=4)
    return _declare_alpha(buffer.getvalue()) if opaque_rgba else buffer.getvalue()


def _declare_alpha(webp: bytes) -> bytes:
    """Set alpha_is_used (WebP lossless specification, section 3): readers then give RGBA, here with alpha 255."""
    assert webp[12:16] == b"VP8L", "a simple lossless WebP was expected"
    data = bytearray(webp)
    data[24] |= 0x10  # bit 28 after the signature: 14 bits width, 14 bits height, alpha_is_used
    return bytes(data)


def decode_webp(data: bytes) -> UInt8[np.ndarray, "h w c"]:
    """Decode a WebP: 4 channels where it has alpha, else 3. Raises ImageProblem."""
    image = _load(data, "WEBP")
    return np.asarray(image.convert("RGBA" if image.mode == "RGBA" else "RGB"))


def encode_depth(values: UInt16[np.ndarray, "h w"]) -> bytes:
    """Encode 16-bit values as a greyscale PNG."""
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def decode_depth(data: bytes) -> UInt16[np.ndarray, "h w"]:
    """Decode a 16-bit greyscale PNG. Raises ImageProblem."""
    if not data.rstrip(b"\0").endswith(PNG_END):
        raise ImageProblem("is truncated or not a PNG: its end marker is missing; render it again")
    image = _load(data, "PNG")
    if not image.mode.startswith("I;16"):
        raise ImageProblem(f"must be a 16-bit greyscale PNG, found mode {image.mode}")
    return np.asarray(image).astype(np.uint16)


def encode_normal(normal: Float[np.ndarray, "h w 3"]) -> bytes:
    """Encode unit normals losslessly as n * 0.5 + 0.5; alpha 0 and grey 128 where there is none (length 0)."""
    length = np.linalg.norm(normal, axis=-1)  # renderers blend normals at edges: shorter than 1 there
    there = length > 1e-6
    unit = normal.astype(np.float64) / np.where(there, length, 1)[..., None]
    pixels = np.full((*normal.shape[:2], 4), 128, np.uint8)
    pixels[..., :3] = np.clip(np.rint(127.5 + 127.5 * unit), 0, 255)
    pixels[~there, :3] = 128
    pixels[..., 3] = np.where(there, 255, 0)
    return encode_webp(pixels)


def decode_normal(data: bytes) -> Float[np.ndarray, "h w 3"]:
    """Decode to unit normals, float32, 0 where there is none: alpha below half, or near grey 128. Raises ImageProblem.

    Eight bits leave up to 0.4 degrees of error.
    """
    pixels = np.asarray(_load(data, "WEBP").convert("RGBA"))
    normal = pixels[..., :3] / 127.5 - 1
    length = np.linalg.norm(normal, axis=-1)
    there = (pixels[..., 3] >= 128) & (length > 0.5)  # real ones lie within 0.007 of length 1
    return np.where(there[..., None], normal / np.maximum(length, 1e-9)[..., None], 0).astype(np.float32)


def encode_material(material: UInt8[np.ndarray, "h w 2"]) -> bytes:
    """Encode roughness and metallic losslessly in the channels of glTF's metallicRoughnessTexture: G and B; R is 0."""
    return encode_webp(np.pad(material, ((0, 0), (0, 0), (1, 0))))


def decode_material(data: bytes) -> UInt8[np.ndarray, "h w 2"]:
    """Decode to roughness and metallic. Raises ImageProblem."""
    return decode_webp(data)[..., 1:3]


def _load(data: bytes, kind: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=[kind])
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ImageProblem(f"is truncated or not a {kind} of {len(data)} bytes ({error}); render it again") from error
    return image
