"""An orbit as it is stored -> a clip as a network learns it: mirrored, rolled, recoloured, shrunk, described.

    RawSample --look--> (bad?) --decode only what is needed--> OrbitImages --clip_from_images--> Clip

What is drawn for a clip depends on the run's seed, the object, its orbit and the pass (or the variant), never on the
process that draws it.
"""

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from engine.errors import OrbitError
from engine.files import OrbitImages
from engine.files.orbit_codec import decode_orbit, image_name
from engine.files.orbit_json import OrbitDocument, decode_document
from engine.files.orbit_shard import MEMBER
from engine.geometry import Orbit, rotation_about
from engine.training.data.colours import Jitter, drawn_jitter, recoloured
from engine.training.data.degradations import Degradations, degraded, suited
from engine.training.data.shrinking import over, shrunk, shrunk_depth
from engine.training.data.stream import RawSample, member_names
from engine.training.data.tally import BadSample
from engine.training.plans import DataPlan
from engine.training.types import Clip, Position, seed_from

WHITE = (1.0, 1.0, 1.0)
GREY = (128 / 255, 128 / 255, 128 / 255)
RIFF_HEADER = 8
"""Bytes of a WebP before those that its header counts."""


# ---------------------------------------------------------------- names in tars
@dataclass(frozen=True)
class OrbitMembers:
    """Files of `orbit/1` samples: KEY.ORBIT.json, KEY.ORBIT.rgba_00.webp; only those that a plan needs."""

    orbit: str
    """Name of the orbits that are taken; * for any."""
    depth: bool
    """Whether depth is."""

    def wanted(self, name: str) -> bool:
        """Whether a file belongs to an orbit that is taken, and is one of its json, pictures or depths."""
        match = MEMBER.fullmatch(name.rsplit("/", 1)[-1])
        if match is None or self.orbit not in ("*", match["sample"].rpartition(".")[2]):
            return False
        return match["part"].startswith(("json", "rgba_", "depth_") if self.depth else ("json", "rgba_"))

    def split(self, name: str) -> tuple[str, str]:
        """KEY.ORBIT and the file's whole name."""
        base = name.rsplit("/", 1)[-1]
        match = MEMBER.fullmatch(base)
        assert match is not None, "only wanted files are split"
        return match["sample"], base

    def nothing(self, urls: Sequence[str]) -> str:
        """Name the orbits that are there in place of the one that is wanted."""
        found: set[str] = set()
        for url in urls:
            matches = (MEMBER.fullmatch(name.rsplit("/", 1)[-1]) for name in member_names(url))
            found |= {match["sample"].rpartition(".")[2] for match in matches if match}
        if not found:
            return "holds no orbit/1 sample; seal orbits into shards with turntable-farm run"
        there = ", ".join(sorted(found))
        return (
            f"shards hold {there}, the recipe takes {self.orbit}: name shards of {self.orbit}, or a recipe of {there}"
        )


# ---------------------------------------------------------------- before decoding
def look(raw: RawSample, plan: DataPlan) -> None:
    """Raise BadSample for what shows without decoding: parts, sizes, texts. Quick, since readers that share shards
    all have to know which samples do not count."""
    if raw.problem is not None:
        reason, detail = raw.problem
        advice = "shards are empty; render orbits into them with turntable-farm run" if reason == "empty" else ""
        raise BadSample(raw.name, reason, detail, advice)
    document = _json(raw)
    views = document.get("azimuth_deg")
    if not isinstance(views, list) or not views:
        raise BadSample(raw.name, "damaged", "its json has no azimuth_deg")
    _look_at_size(raw.name, document, len(views), plan)
    if plan.caption == "object" and not (document.get("caption") or document.get("label")):
        raise BadSample(
            raw.name, "no caption", "has neither caption nor label",
            "samples have neither caption nor label, the recipe learns from them: write caption into their "
            "json, or seal them again with turntable-farm run --captions",
        )  # fmt: skip
    if plan.depth and document.get("depth_scale_m") is None:
        raise BadSample(
            raw.name,
            "no depth",
            "has no depth",
            "samples have no depth, the recipe needs it: render again with turntable-farm run --passes depth",
        )
    for view in range(len(views)):
        name = image_name(raw.name, "rgba", view)
        if not _whole_webp(raw.parts.get(name)):
            what = "is cut off or no WebP" if name in raw.parts else "is missing"
            raise BadSample(raw.name, "damaged", f"{name} {what}")


def _json(raw: RawSample) -> dict[str, Any]:
    data = raw.parts.get(f"{raw.name}.json")
    if data is None:
        raise BadSample(raw.name, "damaged", "its json is missing")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadSample(raw.name, "damaged", f"its json is broken: {error}") from error
    if not isinstance(document, dict):
        raise BadSample(raw.name, "damaged", f"its json must hold an object, found {type(document).__name__}")
    return document


def _look_at_size(name: str, document: dict[str, Any], views: int, plan: DataPlan) -> None:
    width, height = document.get("width"), document.get("height")
    if not (isinstance(width, int) and isinstance(height, int)):
        raise BadSample(name, "damaged", "its json has no width and height")
    if width != height:
        raise BadSample(
            name, "not square", f"{width} x {height} px",
            f"shards hold views of {width} x {height} px, clips are square: render square ones",
        )  # fmt: skip
    if width < plan.size_px:
        raise BadSample(
            name, "too small", f"{width} px",
            f"shards hold {width} px, the recipe trains at {plan.size_px}: render larger ones, or train smaller "
            f"(turntable train --size-px {width})",
        )  # fmt: skip
    if views < plan.views:
        raise BadSample(
            name, "too few views", f"{views} views",
            f"shards hold orbits of {views} views, the recipe trains on {plan.views}: name others, or render "
            f"them with turntable-farm run --views {plan.views}",
        )  # fmt: skip


def _whole_webp(data: bytes | None) -> bool:
    if data is None or len(data) < 16 or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return False
    return int.from_bytes(data[4:8], "little") + RIFF_HEADER <= len(data)


# ---------------------------------------------------------------- what is drawn
@dataclass(frozen=True)
class Augmentation:
    """What a clip looks like, beside what is stored."""

    order: tuple[int, ...]
    """Stored views, first to last."""
    start: int
    """See Clip.start."""
    mirrored: bool
    """Whether left is right."""
    jitter: Jitter
    """Colours of all views."""
    background: tuple[float, float, float]
    """sRGB, 0 to 1."""
    whole: bool
    """Whether every view is in it."""


def drawn_augmentation(
    uid: str, orbit: str, views: int, plan: DataPlan, *, seed: int, epoch: int, turn: int = 0, augment: bool = True
) -> Augmentation:
    """Draw what is done to an object.

    Pixels (mirrored, colours, background, which views) are drawn for the pass, or for the variant where the plan has a
    number of these; the start view always for the pass.

    Args:
        uid: the object's.
        orbit: its orbit's name.
        views: of the stored orbit.
        plan: what may be done.
        seed: the run's.
        epoch: the pass.
        turn: see Step.turn.
        augment: False: nothing is drawn; views are the stored ones, or evenly spread over them.
    """
    if not augment:
        order = tuple(place * views // plan.views for place in range(plan.views))
        background = WHITE if plan.background == "random" else plan.background
        return Augmentation(order, 0, False, Jitter(), background, plan.views == views)
    when: object = (epoch + turn) % plan.variants if plan.variants else (f"{epoch}.{turn}" if turn else epoch)
    generator = np.random.default_rng(seed_from(seed, "clip", uid, orbit, when))
    mirrored = bool(generator.random() < plan.mirror)
    background = _drawn_background(generator) if plan.background == "random" else plan.background
    jitter = drawn_jitter(plan.colour, generator)
    rest = np.sort(generator.permutation(views - 1)[: plan.views - 1]) + 1
    starts = np.random.default_rng(seed_from(seed, "start", uid, orbit, f"{epoch}.{turn}" if turn else epoch))
    start = int(starts.integers(views))
    if starts.random() >= plan.roll:
        start = 0
    base = mirrored_order(views) if mirrored else range(views)
    order = tuple(base[(start + int(place)) % views] for place in (0, *rest))
    return Augmentation(order, start, mirrored, jitter, background, plan.views == views)


def _drawn_background(generator: np.random.Generator) -> tuple[float, float, float]:
    kind, colour = int(generator.integers(3)), generator.random(3)
    return (WHITE, GREY, (float(colour[0]), float(colour[1]), float(colour[2])))[kind]


# ---------------------------------------------------------------- cameras
def mirrored_order(views: int) -> range | tuple[int, ...]:
    """Return the views so that azimuths, which a mirror makes fall, rise again; the first one stays the first."""
    return (0, *range(views - 1, 0, -1))


def mirrored_orbit(orbit: Orbit) -> Orbit:
    """Return the cameras of mirrored pictures, which see the object mirrored at the world's plane x = 0.

    The world is mirrored and each picture with it: T' = M T M with M = diag(-1, 1, 1, 1), no reflection any more.
    Views stay in order; a camera at azimuth a comes to stand at -a.
    """
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    return replace(
        orbit,
        T_world_camera=mirror @ orbit.T_world_camera @ mirror,
        azimuth_deg=_turned(-orbit.azimuth_deg),
        principal_px=(orbit.width - orbit.principal_px[0], orbit.principal_px[1]),
    )


def rebased_orbit(orbit: Orbit) -> Orbit:
    """Return the orbit in a world that is turned about its up axis so that the first view stands at azimuth 0."""
    first = float(orbit.azimuth_deg[0])
    turn = np.eye(4)
    turn[:3, :3] = rotation_about("z", -first)
    return replace(orbit, T_world_camera=turn @ orbit.T_world_camera, azimuth_deg=_turned(orbit.azimuth_deg - first))


def _turned(azimuth_deg: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Degrees in [0, 360), without what rounding leaves just below 360."""
    turned = np.mod(azimuth_deg, 360.0)
    return np.where(turned > 360.0 - 1e-9, 0.0, turned)


# ---------------------------------------------------------------- the clip
@dataclass(frozen=True)
class ClipMaker:
    """What the clips of a run share."""

    plan: DataPlan
    """What is done to orbits."""
    seed: int
    """The run's."""
    augment: bool = True
    """Whether anything is drawn: not for validation."""
    degradations: Degradations | None = None
    """What the refiner's low-quality views suffer; None: what suits their size."""

    def clip(self, raw: RawSample, position: Position, turn: int = 0) -> Clip:
        """Decode a sample that `look` has passed. Raises BadSample."""
        try:
            document = decode_document(raw.parts[f"{raw.name}.json"], f"{raw.name}.json")
            if document.sample != raw.name:
                raise OrbitError(f"its json says that it is {document.sample}; name and content must agree")
            views = len(document.orbit)
            augmentation = self.drawn(document.uid, document.orbit.name, views, position.epoch, turn)
            images = _decoded(raw, document, augmentation.order, self.plan.depth)
        except OrbitError as error:
            raise BadSample(raw.name, "damaged", str(error)) from error
        return self._made(images, augmentation, position, turn)

    def drawn(self, uid: str, orbit: str, views: int, epoch: int, turn: int = 0) -> Augmentation:
        """See `drawn_augmentation`."""
        return drawn_augmentation(
            uid, orbit, views, self.plan, seed=self.seed, epoch=epoch, turn=turn, augment=self.augment
        )

    def from_images(self, images: OrbitImages, position: Position, turn: int = 0) -> Clip:
        """Return the clip of an orbit at hand. Raises BadSample where the plan cannot take it."""
        name, orbit = f"{images.uid}.{images.orbit.name}", images.orbit
        _look_at_size(name, {"width": orbit.width, "height": orbit.height}, len(orbit), self.plan)
        if self.plan.depth and images.depth_m is None:
            raise BadSample(name, "no depth", "has no depth")
        augmentation = self.drawn(images.uid, orbit.name, len(orbit), position.epoch, turn)
        return self._made(images.subset(augmentation.order), augmentation, position, turn)

    def _made(self, images: OrbitImages, drawn: Augmentation, position: Position, turn: int) -> Clip:
        plan, size = self.plan, self.plan.size_px
        orbit = _orbit(images.orbit, drawn, plan)
        rgba = recoloured(shrunk(_flipped(images.rgba) if drawn.mirrored else images.rgba, size), drawn.jitter)
        depth_m = None
        if plan.depth and images.depth_m is not None:
            depth_m = shrunk_depth(images.depth_m[:, :, ::-1] if drawn.mirrored else images.depth_m, size)
        when = (position.epoch, turn) if turn else (position.epoch,)
        low = None
        if plan.degrade:
            settings = self.degradations or suited(size)
            generator = np.random.default_rng(seed_from(self.seed, "degrade", images.uid, orbit.name, *when))
            low = degraded(over(rgba, drawn.background), rgba[..., 3], drawn.background, generator, settings)
        return Clip(
            uid=images.uid, rgba=rgba, orbit=orbit, background=drawn.background, caption=self._caption(images),
            seed=seed_from(self.seed, "draws", f"{images.uid}.{orbit.name}", *when), position=position,
            depth_m=depth_m, degraded=low, pixels_key=self._key(images, drawn), start=drawn.start,
        )  # fmt: skip

    def _caption(self, images: OrbitImages) -> str:
        if self.plan.caption == "empty":
            return ""
        told = images.caption or images.label
        if not told:
            raise BadSample(f"{images.uid}.{images.orbit.name}", "no caption", "has neither caption nor label")
        return told + self.plan.caption_suffix

    def _key(self, images: OrbitImages, drawn: Augmentation) -> str:
        """Views of which only some are taken hardly ever come again, nor do colours that are drawn every time."""
        endless = self.augment and not self.plan.variants
        if not drawn.whole or (endless and (self.plan.colour > 0 or self.plan.background == "random")):
            return ""
        content = sum(zlib.crc32(view.data) for view in np.ascontiguousarray(images.rgba))  # whatever view is first
        said = (
            images.uid,
            images.orbit.name,
            drawn.mirrored,
            drawn.jitter,
            drawn.background,
            self.plan.size_px,
            content,
        )
        return hashlib.sha256(repr(said).encode()).hexdigest()


def _orbit(orbit: Orbit, drawn: Augmentation, plan: DataPlan) -> Orbit:
    """Cameras of the views in their new order, at their new size."""
    turned = mirrored_orbit(orbit) if drawn.mirrored else orbit
    turned = rebased_orbit(turned) if plan.rebase else turned
    return turned if orbit.width == plan.size_px else turned.resized(plan.size_px, plan.size_px)


def _flipped(rgba: UInt8[np.ndarray, "n h w 4"]) -> UInt8[np.ndarray, "n h w 4"]:
    """Left and right swapped, pixels moved as one number each: three times as fast."""
    pixels = np.ascontiguousarray(rgba).view(np.uint32)
    return np.ascontiguousarray(pixels[:, :, ::-1]).view(np.uint8)


def _decoded(raw: RawSample, document: OrbitDocument, order: tuple[int, ...], depth: bool) -> OrbitImages:
    """Decode some views, in their new order, and nothing that is not needed."""
    document = document if depth else replace(document, depth_scale_m=None)
    kinds = ("rgba", "depth") if depth else ("rgba",)
    named = {
        image_name(document.sample, kind, place): image_name(document.sample, kind, view)
        for kind in kinds
        for place, view in enumerate(order)
    }
    some = replace(document, orbit=document.orbit.subset(order))
    try:
        return decode_orbit(some, lambda name: raw.parts.get(named.get(name, "")), raw.url)
    except OrbitError:  # once more in the stored order: names the right file, and knows views that fill their frame
        return decode_orbit(document, raw.parts.get, raw.url).subset(order)
