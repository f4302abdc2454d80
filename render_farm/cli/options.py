"""Flags that several commands share, and the values that they stand for."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.command_line import Quiet, Verbose
from render_farm.errors import RunError
from render_farm.records import Filters
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


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Talk:
    """How much is said."""

    verbose: Verbose = False
    """Say more, Blender's own words among it."""
    quiet: Quiet = False
    """Say nothing but errors."""


@dataclass(frozen=True)
class SpecFlags:
    """What to render: everything that changes a picture."""

    orbit: Layout = "ring24"
    """ring24: VideoMV's 24 views; ring16: one ring of Hi3D; hi3d: its six rings; hammersley: a sphere of views; random:
    independent views; custom: those of --places."""
    fit: Fit = "fixed"
    """fixed: the papers' distances, wide objects are cropped and flagged; sphere: a distance at which all objects fit."""
    views: int | None = None
    """Views of a ring, a sphere or at random; by default the layout's own."""
    fov_deg: float | None = None
    """Vertical field of view; by default the layout's own."""
    distance_m: float | None = None
    """Camera distance, the object's longest side being 1; by default the layout's own."""
    elevation_deg: float | None = None
    """Degrees above the horizon; by default drawn for each object from the layout's range."""
    start: Literal["front", "random"] = "front"
    """Azimuth of the first view."""
    places: Path | None = None
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
    hdri_folder: Path | None = None
    """HDR pictures (.exr, .hdr) for hdri light; by default the skies that Blender carries."""
    condition: Literal["none", "area", "hdri"] = "none"
    """Extra views under random light, for models to be conditioned on; stored as the orbit `condition`."""
    condition_views: int = 4
    """How many of them."""
    frame: str = "first"
    """Pose of animated objects: first, rest (of the armature), or a frame number."""
    bounds: Literal["frame", "all-frames"] = "frame"
    """What is scaled to unit size: that pose, or all poses together."""
    animated: Literal["render", "refuse"] = "render"
    """What is done with animated objects."""
    missing_textures: Literal["neutral", "refuse"] = "neutral"
    """What is done where a texture cannot be had."""
    transparent: Literal["keep", "opaque", "refuse"] = "keep"
    """What is done with transparent materials."""
    max_texture_px: int = 4096
    """Larger textures are scaled down."""
    max_triangles: int = 10_000_000
    """Objects of more triangles are refused."""
    quality: str = "lossless"
    """Of stored colour pictures: lossless, or WebP quality 1 to 100."""
    seed: int | None = None
    """What is drawn is drawn from this; by default derived from the model's bytes."""

    def spec(self) -> RenderSpec:
        """Return the render spec. Raises ValueError for values out of range."""
        hdris = _hdris(self.hdri_folder)
        condition = None
        if self.condition != "none":
            views = CameraSpec("random", fit="sphere", views=self.condition_views, elevation_range_deg=(-10.0, 45.0))
            condition = Condition(views, _light(self.condition, hdris))
        cameras = CameraSpec(
            self.orbit, self.fit, self.views, self.fov_deg, self.distance_m, self.elevation_deg, start=self.start,
            places=() if self.places is None else read_places(self.places),
        )  # fmt: skip
        policy = AssetPolicy(
            _frame(self.frame), self.bounds, self.animated, self.missing_textures, self.transparent,
            self.max_texture_px, self.max_triangles,
        )  # fmt: skip
        return RenderSpec(
            cameras, _light(self.light, hdris), condition, policy, self.size, self.size, self.samples, self.denoise,
            self.passes, quality_from_text(self.quality), self.seed,
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
class FilterFlags:
    """Which objects are left out; none of this changes a picture."""

    untextured: Literal["keep", "plain", "refuse"] = "keep"
    """plain: refuse objects of one plain colour; refuse: all without image textures or vertex colours."""
    tiny_coverage: float = 0.005
    """Refuse objects that cover less than this share of their pictures."""
    cropped: Literal["keep", "flag", "refuse"] = "flag"
    """Objects that reach a picture's edge."""
    over_exposed: Literal["keep", "flag", "refuse"] = "flag"
    """Objects that are mostly clipped to white."""
    duplicates: Literal["keep", "file", "flag", "refuse"] = "flag"
    """file: of equal files only one is rendered; flag: also name clusters of equal meshes and pictures in the manifest;
    refuse: exports leave out all of a cluster but the first."""
    licences: tuple[str, ...] = ()
    """SPDX ids that are allowed, such as CC0-1.0 CC-BY*; '?' lets unknown ones through. By default all."""

    def filters(self) -> Filters:
        """Return the filters of a run."""
        return Filters(
            untextured=self.untextured, tiny_coverage=self.tiny_coverage, cropped=self.cropped,
            over_exposed=self.over_exposed, duplicates=self.duplicates, licences=self.licences,
        )  # fmt: skip


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


def _frame(text: str) -> Any:
    return int(text) if text.lstrip("-").isdigit() else text


def quality_from_text(text: str) -> Any:
    """Return `lossless` or a number."""
    return int(text) if text.isdigit() else text
