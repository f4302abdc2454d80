"""A picture's file, whatever it is, as straight-alpha sRGB: path in, pixels out.

Phones, cameras, scanners and the web store pictures turned, in wide gamuts, for print, with 16 bits, with a palette.
All of that ends here; what cannot be one still picture is refused in one line.
"""

import io
import logging
import shlex
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms, ImageOps

from engine.errors import PictureError
from engine.multiview.resampling import resample

log = logging.getLogger(__name__)

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "AVIF", "HEIF", "GIF")
"""What is tried, by Pillow's names; MPO is what some phones call a JPEG."""
NAMES = "PNG, JPEG, WebP, TIFF, BMP, AVIF or HEIC"
SAVE_AS = "save it as PNG or JPEG"
MAX_PIXELS = 120_000_000
"""Larger pictures are refused before they are decoded; phones reach 108 million."""
MAX_SIDE_PX = 2048
"""Larger pictures are reduced to this longest side: twice what any model here sees."""
MIN_SIDE_PX = 24
"""A smaller picture shows nothing."""
RAW_SUFFIXES = frozenset({".dng", ".nef", ".cr2", ".cr3", ".arw", ".raf", ".orf", ".rw2"})
"""Camera raw files: many open as a TIFF that holds only their thumbnail."""
DECODING_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, OverflowError, MemoryError,
    RuntimeError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow's decoders raise on broken files."""


@dataclass(frozen=True)
class Decoded:
    """What a file shows."""

    rgba: UInt8[np.ndarray, "h w 4"]
    """sRGB, straight alpha (255 everywhere where the file has none), upright; no side above MAX_SIDE_PX."""
    stored_size: tuple[int, int]
    """Width and height in the file, pixels, before it is turned."""


def decode_file(path: Path) -> Decoded:
    """Read a picture file. Raises PictureError, see `engine.multiview.pictures.read_picture`."""
    _check_file(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's about size and odd tags: both are judged here
        with _open(path) as file:
            size = file.size
            _check_header(file, path)
            rgba = _to_rgba(_upright(file, path), path)
    height, width = rgba.shape[:2]
    scale = MAX_SIDE_PX / max(width, height)
    if scale < 1:
        whole = (0.0, 0.0, float(width), float(height))
        rgba = resample(rgba, whole, width=round(scale * width), height=round(scale * height))
    return Decoded(rgba, size)


# ---------------------------------------------------------------- the file
def _check_file(path: Path) -> None:
    if path.is_dir():
        raise PictureError(f"{path} is a folder; expected a picture ({NAMES}); name one file in it")
    try:
        size, head = path.stat().st_size, path.open("rb").read(1024)
    except FileNotFoundError:
        raise PictureError(f"{path} does not exist; expected a picture ({NAMES}); check the path") from None
    except OSError as error:
        raise PictureError(f"{path} cannot be read: {error.strerror or error}; check its permissions") from error
    if size == 0:
        raise PictureError(f"{path} is empty (0 bytes); expected a picture ({NAMES}); fetch or save it again")
    if path.suffix.lower() in {".svg", ".svgz"} or b"<svg" in head.lower():
        raise PictureError(f"{path} is an SVG drawing; expected pixels ({NAMES}); export it as PNG")
    if path.suffix.lower() in RAW_SUFFIXES:
        raise PictureError(f"{path} is a camera's raw file; expected {NAMES}; develop it and {SAVE_AS}")


def _open(path: Path) -> Image.Image:
    _learn_heic()
    try:
        return Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN])
    except Image.DecompressionBombError as error:  # Pillow's own limit, above MAX_PIXELS
        raise PictureError(
            f"{path} has more than {MAX_PIXELS // 1_000_000} million pixels; make it smaller: a side of "
            f"{MAX_SIDE_PX} px is all that is used"
        ) from error
    except DECODING_ERRORS as error:
        _refuse_unreadable(path, error)


def _learn_heic() -> None:
    Image.init()
    if "HEIF" in Image.OPEN:
        return
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.register_heif_opener()


def _refuse_unreadable(path: Path, error: Exception) -> NoReturn:
    with path.open("rb") as file:
        head = file.read(16)
    if head[4:8] == b"ftyp" and head[8:12] in {b"heic", b"heix", b"mif1", b"msf1", b"hevc"}:
        raise PictureError(
            f"{path} is HEIC, which needs pillow-heif here; pip install pillow-heif, or {SAVE_AS}"
        ) from error
    raise PictureError(f"{path} is not a picture that can be read; expected {NAMES}; {SAVE_AS}") from error


def _check_header(image: Image.Image, path: Path) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise PictureError(
            f"{path} is {width} x {height}, {width * height / 1e6:.0f} million pixels; expected at most "
            f"{MAX_PIXELS // 1_000_000} million; make it smaller: a side of {MAX_SIDE_PX} px is all that is used"
        )
    if min(width, height) < MIN_SIDE_PX:
        raise PictureError(
            f"{path} is {width} x {height} pixels; expected at least {MIN_SIDE_PX} a side; use a larger picture"
        )
    try:
        frames = getattr(image, "n_frames", 1)
    except DECODING_ERRORS as error:
        _refuse_broken(path, error)
    if frames > 1 and image.format not in {"MPO", "HEIF"}:  # there the others are previews and depth
        what = "pages" if image.format == "TIFF" else "frames"
        code = f"from PIL import Image; Image.open({str(path)!r}).save('frame.png')"
        raise PictureError(
            f"{path} has {frames} {what}; expected one still picture; take the first with: "
            f"python -c {shlex.quote(code)}"
        )


def _refuse_broken(path: Path, error: Exception) -> NoReturn:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise PictureError(
        f"{path} is truncated or broken ({reason}); expected a whole picture; fetch or save it again"
    ) from error


# ---------------------------------------------------------------- the pixels
def _upright(file: Image.Image, path: Path) -> Image.Image:
    """Decode and turn as EXIF says. A JPEG that will be reduced is decoded at half, a quarter or an eighth already."""
    try:
        if max(file.size) >= 2 * MAX_SIDE_PX:
            file.draft(None, (MAX_SIDE_PX, MAX_SIDE_PX))
        file.load()
    except DECODING_ERRORS as error:
        _refuse_broken(path, error)
    try:
        return ImageOps.exif_transpose(file)
    except DECODING_ERRORS:  # the pixels are whole, what is said about them is not
        log.warning("%s: its EXIF data is broken; the picture is taken as it is stored", path)
        return file


def _to_rgba(image: Image.Image, path: Path) -> UInt8[np.ndarray, "h w 4"]:
    """Any of Pillow's modes to sRGB with straight alpha."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bits(image, path)
    if image.mode in {"P", "PA", "1"} or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in {"RGBa", "La"}:
        image = image.convert(image.mode.upper())
    alpha = image.getchannel("A") if "A" in image.getbands() and image.mode != "LAB" else None
    colour = image.convert({"LA": "L", "RGBA": "RGB"}.get(image.mode, image.mode))
    rgb = _to_srgb(colour, profile, path)
    opaque = np.full((image.height, image.width), 255, np.uint8)
    return np.dstack([np.asarray(rgb), opaque if alpha is None else np.asarray(alpha)])


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    """Greys of 16 bits to 8, with the one transparent grey that a PNG may name."""
    values = np.asarray(image)
    top = 65535 if image.mode.startswith("I;16") or values.max() > 255 else 255
    if image.mode == "F" or values.min() < 0 or values.max() > top:
        raise PictureError(f"{path} has {image.mode} pixels without a known white; expected 8 or 16 bits; {SAVE_AS}")
    grey = np.rint(values.astype(np.float32) * (255 / top)).astype(np.uint8)
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return Image.fromarray(grey)
    alpha = np.where(values == transparent, 0, 255).astype(np.uint8)
    return Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])


def _to_srgb(colour: Image.Image, profile: bytes | None, path: Path) -> Image.Image:
    """Convert through the embedded profile; without one, or with a broken one, as Pillow converts modes."""
    lab = colour.mode == "LAB"
    if not profile and not lab:
        return colour.convert("RGB")
    try:
        source = ImageCms.createProfile("LAB") if lab else ImageCms.ImageCmsProfile(io.BytesIO(profile or b""))
        return _through_profile(colour, source)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        log.warning("%s: its colour profile cannot be used (%s); its colours are taken as sRGB", path, error)
        return colour.convert("RGB")


def _through_profile(colour: Image.Image, source: Any) -> Image.Image:
    converted = ImageCms.profileToProfile(
        colour,
        source,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,  # what lies in sRGB already stays what it is
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert converted is not None, "profileToProfile returns None only where it works in place"
    return converted
