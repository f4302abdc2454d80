"""Pictures to look at: compositing straight alpha over a background, contact sheets, PNGs."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from engine.files.atomic import write_bytes

Background = Literal["white", "grey", "black", "checker"]
LEVELS = {"white": 1.0, "grey": 0.5, "black": 0.0}
CHECKER_LEVELS = (0.62, 0.72)
"""Two calm greys: darker than a white object, lighter than a black one."""
CHECKER_PX = 16
PAPER, INK = 32, 210
"""Grey of a sheet's gaps and of its titles, 0 to 255."""
TITLE_PX = 14


def background_image(width: int, height: int, background: Background) -> Float[np.ndarray, "h w 3"]:
    """Return a background in sRGB, [0, 1]."""
    if background != "checker":
        return np.full((height, width, 3), LEVELS[background])
    v, u = np.mgrid[:height, :width] // CHECKER_PX
    return np.repeat(np.where((u + v) % 2, *CHECKER_LEVELS)[..., None], 3, -1)


def composite(
    rgba: UInt8[np.ndarray, "*n h w 4"], background: Background | Float[np.ndarray, "h w 3"] = "white"
) -> Float[np.ndarray, "*n h w 3"]:
    """Lay straight-alpha images over a background, in sRGB (as the papers' white pictures and 2D tools do).

    Args:
        rgba: sRGB, straight alpha.
        background: by name, or a picture in [0, 1].

    Returns:
        sRGB in [0, 1], float64.
    """
    height, width = rgba.shape[-3:-1]
    behind = background_image(width, height, background) if isinstance(background, str) else background
    alpha = rgba[..., 3:] / 255.0
    return rgba[..., :3] / 255.0 * alpha + behind * (1 - alpha)


def to_bytes(image: Float[np.ndarray, "*n h w 3"]) -> UInt8[np.ndarray, "*n h w 3"]:
    """Round [0, 1] to 8 bits; values outside are clipped."""
    return np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)


def contact_sheet(
    rows: Sequence[Sequence[UInt8[np.ndarray, "_h _w _c"]]],
    *,
    titles: Sequence[str] = (),
    background: Background = "checker",
    gap_px: int = 4,
) -> UInt8[np.ndarray, "h w 3"]:
    """Arrange rows of images (RGB, or RGBA over the background) on one dark sheet.

    Images of any size; every column is as wide as its widest and every row as high as its highest, images centred.

    Args:
        rows: may differ in length.
        titles: a line above each row; none where empty.
        background: behind transparent images.
        gap_px: between images and around them.
    """
    if not rows or not all(len(row) for row in rows):
        raise ValueError("a contact sheet needs at least one image in every row")
    if titles and len(titles) != len(rows):
        raise ValueError(f"titles must be one for each of {len(rows)} rows, got {len(titles)}")
    opaque = [[to_bytes(composite(i, background)) if i.shape[-1] == 4 else i for i in row] for row in rows]
    columns = max(len(row) for row in rows)
    widths = [max((row[c].shape[1] for row in opaque if c < len(row)), default=0) for c in range(columns)]
    heights = [max(image.shape[0] for image in row) for row in opaque]
    title_px = TITLE_PX + gap_px if titles else 0
    sheet = Image.new(
        "RGB", (sum(widths) + gap_px * (columns + 1), sum(heights) + (gap_px + title_px) * len(rows) + gap_px),
        (PAPER,) * 3,
    )  # fmt: skip
    draw, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(TITLE_PX - 3), gap_px
    for index, row in enumerate(opaque):
        if titles:
            draw.text((gap_px, top), titles[index], (INK,) * 3, font)
            top += title_px
        left = gap_px
        for image, width in zip(row, widths, strict=False):
            offset = ((width - image.shape[1]) // 2, (heights[index] - image.shape[0]) // 2)
            sheet.paste(Image.fromarray(image), (left + offset[0], top + offset[1]))
            left += width + gap_px
        top += heights[index] + gap_px
    return np.asarray(sheet)


def grid(images: Sequence[UInt8[np.ndarray, "_h _w _c"]], columns: int) -> list[list[UInt8[np.ndarray, "_h _w _c"]]]:
    """Break a sequence of images into rows."""
    return [list(images[start : start + columns]) for start in range(0, len(images), columns)]


def write_preview(
    path: Path,
    rows: Sequence[Sequence[UInt8[np.ndarray, "_h _w _c"]]],
    *,
    titles: Sequence[str] = (),
    background: Background = "checker",
) -> None:
    """Write a contact sheet as PNG, all or nothing. Arguments as `contact_sheet`."""
    write_png(path, contact_sheet(rows, titles=titles, background=background))


def write_png(path: Path, image: UInt8[np.ndarray, "h w c"]) -> None:
    """Write one RGB or RGBA image as PNG, all or nothing. Raises TurntableError when the file system refuses."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())
