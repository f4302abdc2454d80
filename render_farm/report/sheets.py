"""Contact sheets: the objects of a shard, four views each, small, on neutral grey. Pictures come out of the tars."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from engine.files.images import ImageProblem, decode_webp
from engine.files.preview import composite, to_bytes
from render_farm.errors import RunError
from render_farm.report.data import ObjectRow, Picture
from render_farm.shards import Output

VIEW_SHARES = (0.0, 0.25, 0.5, 0.75)
"""Front and three others, as shares of the orbit."""
VIEW_PX, COLUMNS, GAP_PX, TEXT_PX = 96, 3, 10, 30
PER_SHEET = 90
"""Objects; a WebP may be 16,383 pixels high, but nobody scrolls that far."""
PAPER, INK, FAINT, ALARM = (118, 118, 118), (255, 255, 255), (208, 208, 208), (255, 205, 60)
QUALITY = 82
LETTERS = 60
"""That fit into a line."""


@dataclass(frozen=True)
class Sheet:
    """One picture of the report."""

    name: str
    """File beside index.html."""
    shard: str
    """Whose objects it shows."""
    objects: int
    """How many."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""


def write_sheets(
    output: Output, folder: str, shard: str, objects: Sequence[ObjectRow], pictures: dict[str, list[Picture]]
) -> list[Sheet]:
    """Write the sheets of one shard. Raises RunError where a picture cannot be read."""
    sheets = []
    for page, start in enumerate(range(0, len(objects), PER_SHEET)):
        group = objects[start : start + PER_SHEET]
        image = draw_sheet(group, {row.uid: [load(output, p) for p in pictures.get(row.uid, [])] for row in group})
        name = f"sheet_{shard}_{page:02d}.webp"
        output.put_bytes(f"{folder}/{name}", webp(image))
        sheets.append(Sheet(name, shard, len(group), image.width, image.height))
    return sheets


def draw_sheet(objects: Sequence[ObjectRow], views: dict[str, list[Image.Image]]) -> Image.Image:
    """Draw objects as tiles: their views side by side, below them label, uid and flags."""
    tile_w, tile_h = VIEW_PX * len(VIEW_SHARES), VIEW_PX + TEXT_PX
    rows, columns = -(-len(objects) // COLUMNS), min(COLUMNS, len(objects))
    sheet = Image.new("RGB", (columns * (tile_w + GAP_PX) + GAP_PX, rows * (tile_h + GAP_PX) + GAP_PX), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for index, row in enumerate(objects):
        left = GAP_PX + index % COLUMNS * (tile_w + GAP_PX)
        top = GAP_PX + index // COLUMNS * (tile_h + GAP_PX)
        for at, view in enumerate(views.get(row.uid, [])):
            small = view.resize((VIEW_PX, max(1, round(VIEW_PX * view.height / view.width))), Image.Resampling.LANCZOS)
            sheet.paste(small.crop((0, 0, VIEW_PX, VIEW_PX)), (left + at * VIEW_PX, top))
        draw.text((left, top + VIEW_PX + 1), _line(row.label or row.caption or "(no label)"), INK, font)
        draw.text((left, top + VIEW_PX + 14), _line(row.uid), FAINT, font)
        marks = [*row.flags, *(["duplicate"] if row.duplicate_of else [])]
        if marks:
            draw.text((left + tile_w, top + VIEW_PX + 1), _line(", ".join(marks)), ALARM, font, anchor="ra")
            draw.rectangle((left - 3, top - 3, left + tile_w + 2, top + tile_h), outline=ALARM)
    return sheet


def _line(text: str) -> str:
    """One short line of what the default font can draw."""
    flat = " ".join(text.split()).encode("latin-1", "replace").decode("latin-1")
    return flat if len(flat) <= LETTERS else flat[: LETTERS - 3] + "..."


def load(output: Output, picture: Picture) -> Image.Image:
    """Read one picture from its tar, laid on the sheet's grey."""
    try:
        rgba = decode_webp(output.get_range(picture.tar, picture.offset, picture.size))
    except ImageProblem as problem:
        raise RunError(
            f"{output.address(picture.tar)}: view {picture.view} of {picture.uid} {problem}; run verify"
        ) from problem
    if rgba.shape[-1] == 3:
        return Image.fromarray(rgba)
    paper = np.full((*rgba.shape[:2], 3), PAPER[0] / 255)
    return Image.fromarray(to_bytes(composite(rgba, paper)))


def webp(image: Image.Image) -> bytes:
    """Encode for the eye."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, method=4)
    return buffer.getvalue()


def data_uri(image: Image.Image, side: int = 72) -> str:
    """Return a thumbnail that lives inside the page."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return "data:image/webp;base64," + base64.b64encode(webp(small)).decode()
