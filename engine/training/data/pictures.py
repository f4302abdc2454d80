"""Single pictures with captions, as VideoMV learns them beside orbits: LAION's tars in, clips of one view out.

A sample is KEY.jpg (.png, .webp) with KEY.txt or KEY.json, as img2dataset writes it. Where the json tells aesthetic
score, watermark and safety, VideoMV's limits hold (its configuration for joint training).
"""

import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from engine.training.data.stream import RawSample
from engine.training.data.tally import BadSample, PassedOver
from engine.training.plans import DataPlan
from engine.training.types import Clip, Position, seed_from

IMAGES = ("jpg", "jpeg", "png", "webp")
TEXTS = ("txt", "json")
MIN_AESTHETIC, MAX_WATERMARK, MAX_UNSAFE, MAX_ASPECT = 4.0, 0.3, 0.2, 3.0
"""VideoMV's filters; the last one is of the longer side over the shorter one."""
AESTHETIC = ("aesthetic", "aesthetic_score", "AESTHETIC_SCORE")
"""Keys that LAION's releases have for it."""
MAX_PIXELS = 50_000_000
"""Larger pictures are bad samples: they would take a worker's memory."""
NO_PICTURE = (
    "shards hold no picture; expected KEY.jpg (.png, .webp) with KEY.txt or KEY.json, as img2dataset --output_format "
    "webdataset writes them"
)
DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, KeyError, TypeError, Image.DecompressionBombError)
"""What Pillow's decoders raise on broken files."""


@dataclass(frozen=True)
class PictureMembers:
    """Files of picture samples: KEY.EXTENSION, where KEY ends at the first dot of the name."""

    def wanted(self, name: str) -> bool:
        """Whether a file is a picture or tells of one."""
        return name.rpartition(".")[2].lower() in (*IMAGES, *TEXTS)

    def split(self, name: str) -> tuple[str, str]:
        """KEY and extension."""
        folder, _, base = name.removeprefix("./").rpartition("/")
        key, _, extension = base.partition(".")
        return f"{folder}/{key}" if folder else key, extension.lower()

    def nothing(self, urls: Sequence[str]) -> str:
        """Say what was expected."""
        return NO_PICTURE


def look(raw: RawSample, plan: DataPlan) -> None:
    """Judge a sample without decoding it.

    Raises:
        BadSample: no picture, no caption where one is learned from, or the file is broken.
        PassedOver: a filter does not let it through, or it is smaller than the clip: pictures are not enlarged.
    """
    if raw.problem is not None:
        reason, detail = raw.problem
        raise BadSample(raw.name, reason, detail)
    data = next((raw.parts[kind] for kind in IMAGES if kind in raw.parts), None)
    if data is None:
        raise BadSample(raw.name, "damaged", "has no picture (.jpg, .png, .webp)", NO_PICTURE)
    facts = _facts(raw)
    if plan.caption == "object" and not _caption(raw, facts):
        raise BadSample(
            raw.name, "no caption", "has no caption",
            "pictures have no captions: expected KEY.txt, or \"caption\" in KEY.json",
        )  # fmt: skip
    score, watermark = _number(facts, *AESTHETIC), _number(facts, "pwatermark")
    unsafe = _number(facts, "punsafe")
    if score is not None and score < MIN_AESTHETIC:
        raise PassedOver("aesthetic")
    if watermark is not None and watermark > MAX_WATERMARK:
        raise PassedOver("watermark")
    if unsafe is not None and unsafe > MAX_UNSAFE:
        raise PassedOver("unsafe")
    _judge_shape(*_opened(raw.name, data).size, plan.size_px)


def picture_clip(raw: RawSample, position: Position, turn: int = 0, *, plan: DataPlan, seed: int) -> Clip:
    """Decode a sample that `look` has passed: its shorter side becomes the clip's, the middle is cut out.

    The caption has no suffix: that is what orbits are told by.

    Raises:
        BadSample: it cannot be decoded.
    """
    kind = next(kind for kind in IMAGES if kind in raw.parts)
    rgba = _decoded(raw.name, raw.parts[kind], plan.size_px)
    when = (position.epoch, turn) if turn else (position.epoch,)
    content = hashlib.sha256(raw.parts[kind]).hexdigest()
    return Clip(
        uid=raw.name, rgba=rgba[None], orbit=None, background=(1.0, 1.0, 1.0),
        caption=_caption(raw, _facts(raw)) if plan.caption == "object" else "",
        seed=seed_from(seed, "draws", "picture", raw.name, *when), position=position,
        pixels_key=hashlib.sha256(repr((raw.name, plan.size_px, content)).encode()).hexdigest(),
    )  # fmt: skip


def _opened(name: str, data: bytes) -> Image.Image:
    try:
        opened = Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP"))
    except DECODING_ERRORS as error:
        raise BadSample(name, "damaged", f"its picture cannot be decoded: {error}") from error
    if opened.width * opened.height > MAX_PIXELS:
        raise BadSample(name, "damaged", f"{opened.width} x {opened.height} pixels are too many")
    return opened


def _decoded(name: str, data: bytes, size: int) -> UInt8[np.ndarray, "size size 4"]:
    opened = _opened(name, data)
    try:
        opened.draft("RGB", (size, size))  # JPEG: decoded at a half, a quarter ... where that is large enough
        picture = _flat(ImageOps.exif_transpose(opened))
    except DECODING_ERRORS as error:
        raise BadSample(name, "damaged", f"its picture cannot be decoded: {error}") from error
    fitted = ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)  # antialiased; middle of the longer side
    return np.dstack([np.asarray(fitted), np.full((size, size), 255, np.uint8)])


def _judge_shape(width: int, height: int, size: int) -> None:
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise PassedOver("aspect")
    if min(width, height) < size:
        raise PassedOver("too small")


def _flat(picture: Image.Image) -> Image.Image:
    """As RGB; what is transparent lies over white."""
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return picture.convert("RGB")
    behind = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(behind, picture.convert("RGBA")).convert("RGB")


def _facts(raw: RawSample) -> Mapping[str, Any]:
    data = raw.parts.get("json")
    if data is None:
        return {}
    try:
        facts = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadSample(raw.name, "damaged", f"its json is broken: {error}") from error
    if not isinstance(facts, dict):
        raise BadSample(raw.name, "damaged", f"its json must hold an object, found {type(facts).__name__}")
    return facts


def _caption(raw: RawSample, facts: Mapping[str, Any]) -> str:
    if "txt" in raw.parts:
        return raw.parts["txt"].decode("utf-8", "replace").strip()
    return str(facts.get("caption") or facts.get("TEXT") or "").strip()


def _number(facts: Mapping[str, Any], *keys: str) -> float | None:
    """The first key that holds a number; LAION leaves scores out, or null, where none was computed."""
    for key in keys:
        value = facts.get(key)
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    return None
