"""The picture that an object is made from: read, its object found, put into the frame as the networks know it.

file -> read_picture -> ensure_alpha -> recentred, or hi3d_framing -> a square canvas, and the way back
        (picture_file)  (matting)       (resampling)
"""

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8

from engine.errors import PictureError
from engine.multiview.foreground import compose, grey_colour
from engine.multiview.matting import BORDER_SHARE, cut_by_colour, cut_by_rembg, fit_background
from engine.multiview.picture_file import MAX_SIDE_PX, MIN_SIDE_PX, decode_file
from engine.multiview.resampling import bilinear, resample

log = logging.getLogger(__name__)

Matting = Literal["auto", "keep", "colour", "rembg"]
"""auto: the first that applies; keep: the file's alpha, opaque where it has none; colour: take an even background away;
rembg: ask the network."""

VISIBLE = 26
"""Alpha, 0 to 255, from which something counts as the object: a tenth."""
TRANSPARENT = 128
"""A file's alpha means something when some of it lies below: half."""
SMALL_PX = 128
"""Objects below this longest side come out blurred: a warning."""
WHITE = 1.0
"""Grey level behind the object."""
VIDEOMV_SHARE = 200 / 256
"""The released recentring: longest side 200 px in a canvas of 256."""
HI3D_SHARE = 0.77
"""Object's longest visible side over the frame's side in ring16: the median over 682 real objects is 0.766 (half of
them lie between 0.70 and 0.83); a flat object of longest side 1 at 1.5 m in a field of view of 49.13 degrees fills
1 / (2 * 1.5 * tan(49.13 / 2)) = 0.73, and what is nearer than its centre looks larger. In ring24 it is 0.71."""
Hi3DFraming = Literal["recentred", "kept", "released_stage1", "released_stage2"]
"""recentred: square, object in the middle; kept: its own frame, see `kept`; released_stage1: cover the square and
crop its middle; released_stage2: squash to the square. The last two as published, without a look at where the object is."""


@dataclass(frozen=True)
class Picture:
    """One still picture."""

    rgba: UInt8[np.ndarray, "h w 4"]
    """sRGB, straight alpha, upright."""
    name: str = "the picture"
    """For messages: the file it came from."""
    notes: tuple[str, ...] = ()
    """What was done to it on the way, each a clause for the report."""

    @property
    def width(self) -> int:
        """Pixels."""
        return self.rgba.shape[1]

    @property
    def height(self) -> int:
        """Pixels."""
        return self.rgba.shape[0]

    def noted(self, note: str) -> "Picture":
        """Return the picture with one more note."""
        return replace(self, notes=(*self.notes, note))


def read_picture(path: Path | str) -> Picture:
    """Read a picture file: upright, in sRGB, with straight alpha (255 everywhere where the file has none).

    Orientation (EXIF), colour profiles (ICC), palettes, greys, 16 bits, CMYK and L*a*b* are converted; a picture with
    a side above MAX_SIDE_PX is reduced.

    Raises:
        PictureError: missing, empty, truncated, no picture, an animation or several pages, a drawing or a raw file,
            too large (MAX_PIXELS) or too small (MIN_SIDE_PX).
    """
    decoded = decode_file(Path(path))
    picture = Picture(decoded.rgba, str(path))
    width, height = decoded.stored_size
    if max(width, height) <= MAX_SIDE_PX:
        return picture
    log.info("%s: reduced from %d x %d to %d x %d pixels", path, width, height, picture.width, picture.height)
    return picture.noted(f"reduced from {width} x {height} pixels to a longest side of {MAX_SIDE_PX}")


# ---------------------------------------------------------------- the object
def ensure_alpha(picture: Picture, *, method: Matting = "auto") -> Picture:
    """Return the picture with the object's alpha, and a note of how it was found.

    Raises:
        PictureError: nothing is there: all transparent, or nothing but background, or smaller than MIN_SIDE_PX.
        MissingDependencyError: rembg is needed and not installed, or its weights are not here.
    """
    alpha = picture.rgba[..., 3]
    own = bool((alpha < TRANSPARENT).any())
    if method == "keep" or (method == "auto" and own):
        return _checked(picture, "is transparent everywhere")
    rgb = picture.rgba[..., :3]
    background, share = fit_background(rgb)
    even = share >= BORDER_SHARE
    uneven = (
        f"{picture.name} has no transparency and its background is not of one colour ({share:.0%} of its border, "
        f"{BORDER_SHARE:.0%} expected)"
    )
    if method == "colour" and not even:
        raise PictureError(f"{uneven}; use another matting, or a picture on one colour")
    if method != "rembg" and even:
        found = replace(picture, rgba=cut_by_colour(rgb, background)).noted("background of one colour taken away")
        return _checked(found, "shows nothing but its background")
    cut = cut_by_rembg(rgb, uneven if method == "auto" else f"rembg was asked for {picture.name}")
    found = replace(picture, rgba=cut).noted("background taken away by rembg (u2net)")
    return _checked(found, "shows nothing that rembg takes for an object")


def object_box(rgba: UInt8[np.ndarray, "h w 4"]) -> tuple[int, int, int, int] | None:
    """Return left, top, right, bottom of what is visible, in pixels (right and bottom exclusive); None if nothing."""
    seen = rgba[..., 3] >= VISIBLE
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _checked(picture: Picture, empty: str) -> Picture:
    box = object_box(picture.rgba)
    if box is None:
        raise PictureError(f"{picture.name} {empty}; expected one object; use a picture that shows it")
    width, height = box[2] - box[0], box[3] - box[1]
    if max(width, height) < MIN_SIDE_PX:
        raise PictureError(
            f"{picture.name} shows an object of {width} x {height} pixels; expected at least {MIN_SIDE_PX} on its longer "
            "side; crop or photograph it larger"
        )
    if max(width, height) < SMALL_PX:
        log.warning("%s shows an object of %d x %d pixels; below %d the result is blurred", picture.name, width,
                    height, SMALL_PX)  # fmt: skip
    return picture


# ---------------------------------------------------------------- the frame
@dataclass(frozen=True)
class Placement:
    """Where a picture lies on its canvas: canvas = scale * picture + offset_px, pixel centres at +0.5 in both."""

    picture_size: tuple[int, int]
    """Width and height of the picture, pixels."""
    canvas_size: tuple[int, int]
    """Width and height of the canvas, pixels."""
    scale: tuple[float, float]
    """Canvas pixels a picture pixel, along x and y."""
    offset_px: tuple[float, float]
    """Where the picture's top left corner lies on the canvas, pixels."""

    def to_canvas(self, points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """Map points (x, y) of the picture to the canvas."""
        return points * np.array(self.scale) + np.array(self.offset_px)

    def to_picture(self, points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """Map points (x, y) of the canvas back to the picture."""
        return (points - np.array(self.offset_px)) / np.array(self.scale)


@dataclass(frozen=True)
class Framed:
    """A picture on its canvas."""

    rgba: UInt8[np.ndarray, "h w 4"]
    """sRGB, straight alpha."""
    rgb: UInt8[np.ndarray, "h w 3"]
    """The same over the background: what a network is shown."""
    background: float
    """Grey level behind the object, sRGB, 0 to 1."""
    placement: Placement
    """The way back."""


def over_grey(rgba: UInt8[np.ndarray, "h w 4"], level: float) -> UInt8[np.ndarray, "h w 3"]:
    """Lay a picture over a grey level, 0 to 1."""
    return compose(rgba, grey_colour(level))


def recentred(
    picture: Picture, size: int, longest_side_share: float = VIDEOMV_SHARE, background: float = WHITE
) -> Framed:
    """Put the object in the middle of a square canvas, its longest side a given share of it.

    The release (recenter_i2v.py) does so in whole pixels, with a crop one pixel short to the right and below; here the
    object's box lands exactly.

    Args:
        picture: with the object's alpha.
        size: width and height of the canvas, pixels.
        longest_side_share: longest side of the object's box over `size`, in (0, 1].
        background: grey level behind the object, sRGB, 0 to 1: 1 for pictures, 0.5 for VideoMV's text orbits.

    Raises:
        PictureError: nothing is visible.
        ValueError: a share or a size out of range.
    """
    if not 0 < longest_side_share <= 1 or size < 1:
        raise ValueError(f"longest_side_share must lie in (0, 1] and size be at least 1: {longest_side_share}, {size}")
    if object_box(picture.rgba) is None:
        raise PictureError(f"{picture.name} is transparent everywhere; expected one object; use another picture")
    alpha = picture.rgba[..., 3]
    (left, right), (top, bottom) = _outline(alpha.max(0)), _outline(alpha.max(1))
    scale = longest_side_share * size / max(right - left, bottom - top)
    offset = size / 2 - scale * (left + right) / 2, size / 2 - scale * (top + bottom) / 2
    placement = Placement((picture.width, picture.height), (size, size), (scale, scale), offset)
    corners = placement.to_picture(np.array([[0.0, 0.0], [size, size]])).ravel()
    around = (float(corners[0]), float(corners[1]), float(corners[2]), float(corners[3]))
    rgba = resample(picture.rgba, around, width=size, height=size)
    return Framed(rgba, over_grey(rgba, background), background, placement)


def kept(picture: Picture, size: int, background: float = WHITE) -> Framed:
    """Put the whole picture in the middle of a square canvas, its longer side as long as the canvas.

    For a picture whose camera is known, such as a stored view: wherever its object is, there it stays.

    Args:
        picture: its own alpha is believed.
        size: width and height of the canvas, pixels.
        background: grey level behind the object, sRGB, 0 to 1.
    """
    width, height = picture.width, picture.height
    longer = max(width, height)
    left, top = (width - longer) / 2, (height - longer) / 2
    rgba = picture.rgba
    if (width, height) != (size, size):  # resampling would round colours under alpha once more
        rgba = resample(rgba, (left, top, left + longer, top + longer), width=size, height=size)
    scale = size / longer
    placement = Placement((width, height), (size, size), (scale, scale), (-left * scale, -top * scale))
    return Framed(rgba, over_grey(rgba, background), background, placement)


def _outline(profile: UInt8[np.ndarray, " n"]) -> tuple[float, float]:
    """First and last place that is covered; a pixel that is covered in part counts in part."""
    seen = np.flatnonzero(profile >= VISIBLE)
    first, last = int(seen[0]), int(seen[-1])
    level = profile.astype(float)
    before = level[first] / max(level[first], level[min(first + 1, last)])
    after = level[last] / max(level[last], level[max(last - 1, first)])
    return first + 1 - before, last + after


def hi3d_framing(picture: Picture, size: int, framing: Hi3DFraming = "recentred") -> Framed:
    """Frame a picture for Hi3D, over white.

    The renders it was trained on show the whole object in the middle of a square; the published scripts do not care
    and hand an off-centre or wide picture on as it is, to each stage in another way. The default does care.

    Args:
        picture: with the object's alpha.
        size: width and height of the canvas, pixels: 512 in stage 1, 1024 in stage 2.
        framing: see `Hi3DFraming`. The released ones resize as OpenCV's default does, not antialiased.

    Raises:
        PictureError: nothing is visible.
    """
    if framing == "recentred":
        return recentred(picture, size, HI3D_SHARE, WHITE)
    if framing == "kept":
        return kept(picture, size)
    width, height = size, size
    if framing == "released_stage1":
        cover = max(size / picture.height, size / picture.width)
        width, height = math.ceil(picture.width * cover), math.ceil(picture.height * cover)
    left, top = round((width - size) * 0.5), round((height - size) * 0.5)
    window = np.s_[top : top + size, left : left + size]
    alpha = picture.rgba[..., 3:].astype(np.float32)
    over_white = over_grey(picture.rgba, WHITE).astype(np.float32)  # at the picture's own size, before it is resized
    rgb, alpha = (bilinear(part, width=width, height=height)[window] for part in (over_white, alpha))
    share = alpha / 255
    straight = np.where(share > 0, (rgb - 255 * (1 - share)) / np.maximum(share, 1 / 510), 0)
    rgba = np.rint(np.clip(np.concatenate([straight, alpha], -1), 0, 255)).astype(np.uint8)
    scale = width / picture.width, height / picture.height
    placement = Placement((picture.width, picture.height), (size, size), scale, (float(-left), float(-top)))
    return Framed(rgba, np.rint(rgb).astype(np.uint8), WHITE, placement)
