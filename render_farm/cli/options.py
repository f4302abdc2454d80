"""Flags that several commands share, and the values that they stand for. Light: --help loads them all."""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import OmitArgPrefixes as Flags

from engine.command_line import Several, Unset
from render_farm.errors import RunError
from render_farm.run.settings import FarmSettings
from render_farm.spec import (
    BLENDER_HDRIS,
    AssetPolicy,
    CameraSpec,
    Condition,
    Denoise,
    Device,
    Execution,
    Fit,
    Hdri,
    Layout,
    LightKind,
    LightSpec,
    Pass,
    RenderSpec,
)

HDRI_SUFFIXES = (".exr", ".hdr")
RunFolder = Annotated[Path, tyro.conf.Positional]
Quality = int | Literal["lossless"]
UNUSED = {
    "hi3d": ("elevation_deg",), "hammersley": ("elevation_deg",), "random": ("elevation_deg",),
    "custom": ("views", "distance_m", "elevation_deg"),
}  # fmt: skip
"""What `cameras` does not look at, by layout: given all the same, it is refused and not ignored."""
WHY = {
    "hi3d": "whose six rings have their own elevations", "hammersley": "whose views are all around",
    "random": "whose elevations are drawn", "custom": "whose views are those of --places",
}  # fmt: skip


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class SourceFlags:
    """Which objects. With a run that has objects already, those that it does not have are added."""

    assets: Unset[Path] = None
    """Folder of models, or list of them (.csv .tsv .parquet .json): path, maybe uid, caption, label, license, source."""
    objaverse: bool = False
    """Objaverse 1.0, through its own package; what is not on disk is fetched."""
    objaverse_xl: Several[Literal["github", "thingiverse", "smithsonian", "sketchfab"]] = ()
    """Sources of Objaverse-XL, through the same package."""
    alignment: bool = False
    """Of Objaverse-XL: only its alignment subset."""
    objaverse_home: Unset[Path] = None
    """Where that package keeps its files; by default ~/.objaverse."""
    uids: Unset[Path] = None
    """A file of Objaverse uids (of XL: sha256), one a line."""
    lvis: Several[str] = ()
    """LVIS categories of Objaverse."""
    captions: Unset[Path] = None
    """Cap3D's CSV: uid, caption."""
    limit: Unset[int] = None
    """At most so many objects."""
    downloads: int = 8
    """Downloads at a time."""

    @property
    def given(self) -> bool:
        """Whether any source is named."""
        return self.assets is not None or self.objaverse or bool(self.objaverse_xl)


@dataclass(frozen=True)
class SpecFlags:
    """What to render: everything that changes a picture."""

    orbit: Layout = "ring24"
    """ring24: VideoMV's ring; ring16: one of Hi3D's; hi3d: all six; hammersley: a sphere; random; custom: --places."""
    fit: Fit = "fixed"
    """fixed: the papers' distances, wide objects are cropped and flagged; sphere: a distance at which all objects fit."""
    views: Unset[int] = None
    """Views of a ring, a sphere or at random; by default the layout's own."""
    fov_deg: Unset[float] = None
    """Vertical field of view; by default the layout's own."""
    distance_m: Unset[float] = None
    """Camera distance, the object's longest side being 1; by default the layout's own. Not with custom."""
    elevation_deg: Unset[float] = None
    """Of a ring, degrees above the horizon; by default drawn for each object from the layout's range."""
    start: Literal["front", "random"] = "front"
    """Azimuth of the first view."""
    places: Unset[Path] = None
    """JSON list of [azimuth_deg, elevation_deg, distance_m] for --orbit custom."""
    size: int = 256
    """Width and height in pixels."""
    samples: int = 64
    """Paths for each pixel; 16 is enough with --denoise fast."""
    denoise: Denoise = "none"
    """fast: Open Image Denoise with its FAST settings."""
    passes: tuple[Pass, ...] = ("depth", "normal", "albedo")
    """Rendered besides colour: depth normal camera_normal albedo material (roughness and metalness)."""
    light: LightKind = "uniform"
    """On the views: uniform white sky, random area lamps, or a random HDR picture."""
    hdri_folder: Unset[Path] = None
    """HDR pictures (.exr, .hdr) for hdri light; by default the skies that Blender carries."""
    condition: Literal["none", "area", "hdri"] = "none"
    """Extra views under random light, for models to be conditioned on; stored as the orbit `condition`."""
    condition_views: int = 4
    """How many of them."""
    quality: Quality = "lossless"
    """Of stored colour pictures: lossless, or WebP quality 1 to 100."""
    seed: Unset[int] = None
    """What is drawn is drawn from this; by default derived from the model's bytes."""
    assets: Flags[AssetPolicy] = field(default_factory=AssetPolicy)
    """What is done with models as they are."""

    def spec(self) -> RenderSpec:
        """Return the render spec. Raises ValueError for values out of range, and for those that --orbit has no use for."""
        for name in UNUSED.get(self.orbit, ()):
            if getattr(self, name) is not None:
                flag = "--" + name.replace("_", "-")
                raise ValueError(f"{flag} changes nothing with --orbit {self.orbit}, {WHY[self.orbit]}: leave it out")
        hdris = _hdris(self.hdri_folder)
        condition = None
        if self.condition != "none":
            views = CameraSpec("random", fit="sphere", views=self.condition_views, elevation_range_deg=(-10.0, 45.0))
            condition = Condition(views, _light(self.condition, hdris))
        cameras = CameraSpec(
            self.orbit, self.fit, self.views, self.fov_deg, self.distance_m, self.elevation_deg, start=self.start,
            places=() if self.places is None else read_places(self.places),
        )  # fmt: skip
        return RenderSpec(
            cameras, _light(self.light, hdris), condition, self.assets, self.size, self.size, self.samples, self.denoise,
            self.passes, self.quality, self.seed,
        )  # fmt: skip


@dataclass(frozen=True)
class ComputeFlags:
    """How it is computed: nothing here changes what is asked for."""

    device: Device = "cpu"
    """gpu: an error where Blender finds none."""
    import_timeout_s: float = 300.0
    """Seconds that reading a model may take."""
    view_timeout_s: float = 300.0
    """Seconds that one view may take (the first one: three times that)."""
    max_memory_gib: float = 0.0
    """Memory that one Blender may take; 0: no limit."""

    def execution(self, threads: int, hdri_folder: Path | None) -> Execution:
        """Return the execution settings of one child."""
        return Execution(
            threads=threads, device=self.device, hdri_folder="" if hdri_folder is None else str(hdri_folder.resolve()),
            import_timeout_s=self.import_timeout_s, first_view_timeout_s=3 * self.view_timeout_s,
            view_timeout_s=self.view_timeout_s, max_memory_bytes=int(self.max_memory_gib * 2**30),
        )  # fmt: skip


@dataclass(frozen=True)
class FarmFlags:
    """How a machine works: none of this changes a picture."""

    workers: Unset[int] = None
    """Blenders at a time; by default one for each core, or one for each GPU of --gpus."""
    threads: Unset[int] = None
    """Render threads of each; by default the cores shared out. Many workers of one thread beat one of many."""
    finishers: int = 1
    """Processes that convert, check and store."""
    gpus: Several[str] = ()
    """Numbers or UUIDs of GPUs, dealt out to the workers in turn; with --device gpu."""
    recycle: int = 75
    """Objects after which a Blender is replaced by a fresh one."""
    recycle_gib: float = 0.0
    """Memory at which a Blender is replaced after an object; 0: never."""
    retries: int = 2
    """Further attempts after a crash, a timeout or a full disk."""
    scratch: Unset[Path] = None
    """Folder for temporary files; by default in the run's folder."""
    compute: Flags[ComputeFlags] = field(default_factory=ComputeFlags)
    """Each Blender."""

    def settings(self, hdri_folder: Path | None) -> FarmSettings:
        """Return the scheduler's settings."""
        workers = (len(self.gpus) or cores()) if self.workers is None else self.workers
        threads = max(1, cores() // max(1, workers)) if self.threads is None else self.threads
        return FarmSettings(
            slots=workers, execution=self.compute.execution(threads, hdri_folder), recycle_objects=self.recycle,
            recycle_bytes=int(self.recycle_gib * 2**30), retries=self.retries, finishers=self.finishers, gpus=self.gpus,
        )  # fmt: skip


@dataclass(frozen=True)
class NewRunFlags:
    """A run's own settings, fixed when it is made."""

    out: Unset[str] = None
    """Folder or URL (s3://bucket/folder) for shards, receipts and manifest; by default the run's folder."""
    shard_objects: int = 256
    """Objects in a shard, about: what is stored as one tar, and what a cluster's job must finish to keep it."""


def read_places(path: Path) -> tuple[tuple[float, float, float], ...]:
    """Read custom camera places.

    Raises:
        RunError: not a JSON list of three numbers each.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return tuple((float(azimuth), float(elevation), float(distance)) for azimuth, elevation, distance in rows)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}; name a JSON file") from error
    except (TypeError, ValueError) as error:
        raise RunError(f"{path}: expected a JSON list of [azimuth_deg, elevation_deg, distance_m], found something else "
                       f"({error})") from error  # fmt: skip


def _hdris(folder: Path | None) -> tuple[Hdri, ...]:
    if folder is None:
        return tuple(Hdri(name) for name in BLENDER_HDRIS)
    files = sorted(file for file in folder.glob("*") if file.suffix.lower() in HDRI_SUFFIXES)
    if not files:
        raise RunError(f"{folder}: expected HDR pictures ({', '.join(HDRI_SUFFIXES)}), found none; check the path")
    return tuple(Hdri(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files)


def _light(kind: Literal["uniform", "area", "hdri"], hdris: tuple[Hdri, ...]) -> LightSpec:
    return LightSpec(kind, hdris=hdris if kind == "hdri" else ())
