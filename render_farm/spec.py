"""What to render: pure values. The same asset and spec give the same seed, cameras and lights, byte for byte.

    sha256 of the asset + RenderSpec     ->  task key (names the work)
    sha256 of the asset + camera layout  ->  seed  ->  cameras.py, lights.py

Everything that changes a picture is in `RenderSpec`; how it is computed (threads, device, deadlines) is `Execution`.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

Layout = Literal["ring24", "ring16", "hi3d", "hammersley", "random", "custom"]
Fit = Literal["fixed", "sphere"]
LightKind = Literal["uniform", "area", "hdri"]
Denoise = Literal["none", "fast"]
Pass = Literal["depth", "normal", "camera_normal", "albedo", "material"]
PASSES: tuple[Pass, ...] = get_args(Pass)
Frame = Literal["first", "rest"] | int
Device = Literal["cpu", "gpu"]

SPEC_VERSION = 3
"""Raised whenever the same spec would give other pixels or poses."""
CAMERAS_VERSION = 2
"""Raised whenever the same asset and layout would draw other cameras or lights; part of every seed."""
BLENDER_HDRIS = ("city", "courtyard", "forest", "interior", "night", "studio", "sunrise", "sunset")
"""The HDR skies that every Blender carries (CC0)."""


@dataclass(frozen=True)
class CameraSpec:
    """Where the cameras stand. All look at the origin, upright; cameras.py turns this into orbits."""

    layout: Layout = "ring24"
    """ring24: VideoMV's ring; ring16: one ring of Hi3D; hi3d: its six rings, 96 views; hammersley: a sphere of evenly
    spread views; random: independent views; custom: `places`."""
    fit: Fit = "fixed"
    """fixed: the papers' distances, at which wide objects are cropped (and said to be); sphere: the distance at which
    the sphere around the unit box always fits."""
    views: int | None = None
    """Number of views of a ring, of each of six rings, of the sphere or of random ones; None: the paper's, or 32."""
    fov_deg: float | None = None
    """Vertical field of view, degrees; None: the layout's own."""
    distance_m: float | None = None
    """From the origin; None: the layout's own. Only with fit fixed."""
    elevation_deg: float | None = None
    """Of a ring, degrees above the horizon; None draws it from the ring's range."""
    elevation_range_deg: tuple[float, float] | None = None
    """What rings and random views draw from, degrees; None: the layout's own."""
    start: Literal["front", "random"] = "front"
    """Azimuth of the first view: 0, or drawn for each object."""
    places: tuple[tuple[float, float, float], ...] = ()
    """Of custom: azimuth in degrees, elevation in degrees, distance in metres of each view."""

    def __post_init__(self) -> None:
        _check_choices(self)
        if (self.layout == "custom") != bool(self.places):
            raise ValueError(
                f"places belong to layout custom, got layout {self.layout!r} with {len(self.places)} places"
            )
        if self.fit == "sphere" and self.distance_m is not None:
            raise ValueError("distance_m must be None with fit sphere, which computes it from the field of view")
        if self.views is not None and not 1 <= self.views <= 1000:
            raise ValueError(f"views must lie between 1 and 1000, got {self.views}")
        if self.fov_deg is not None and not 1 <= self.fov_deg <= 150:
            raise ValueError(f"fov_deg must lie between 1 and 150, got {self.fov_deg}")
        if self.distance_m is not None and not 0.1 <= self.distance_m <= 50:
            raise ValueError(f"distance_m must lie between 0.1 and 50, got {self.distance_m}")
        if self.elevation_deg is not None and not -90 <= self.elevation_deg <= 90:
            raise ValueError(f"elevation_deg must lie between -90 and 90, got {self.elevation_deg}")
        for place in self.places:
            _check_place(*place)
        low, high = self.elevation_range_deg or (0.0, 0.0)
        if not -90 <= low <= high <= 90:
            raise ValueError(f"elevation_range_deg must rise within -90 and 90, got {self.elevation_range_deg}")


def _check_place(azimuth_deg: float, elevation_deg: float, distance_m: float) -> None:
    if not math.isfinite(azimuth_deg):
        raise ValueError(f"azimuths of places must be finite, got {azimuth_deg}")
    if not -90 <= elevation_deg <= 90:
        raise ValueError(f"elevations of places must lie between -90 and 90, got {elevation_deg}")
    if not 0.1 <= distance_m <= 50:
        raise ValueError(f"distances of places must lie between 0.1 and 50, got {distance_m}")


def _check_choices(settings: object, **called: str) -> None:
    """Raise ValueError for a field that has none of its type's values; `called` has other names for fields."""
    for name, kind in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if get_origin(kind) is Literal and value not in get_args(kind):
            choices = ", ".join(get_args(kind))
            raise ValueError(f"{called.get(name, name)} must be one of {choices}, got {value!r}")


@dataclass(frozen=True)
class Hdri:
    """One HDR picture that may light the object."""

    name: str
    """A sky that Blender carries, or a file's name in the folder that `Execution.hdri_folder` says."""
    sha256: str = ""
    """Of the file's bytes; empty for Blender's own."""


@dataclass(frozen=True)
class LightSpec:
    """The light on the object, fixed in the world so that the views of an orbit agree; lights.py draws what is drawn."""

    kind: LightKind = "uniform"
    """uniform: a white sky all around; area: one to three soft lamps of random place, size, warmth and strength over a
    weak sky; hdri: a picture of `hdris`, turned at random."""
    strength: float = 1.0
    """Factor on all light."""
    hdris: tuple[Hdri, ...] = tuple(Hdri(name) for name in BLENDER_HDRIS)
    """What hdri draws from; not used otherwise."""

    def __post_init__(self) -> None:
        _check_choices(self, kind="light")
        if not 0 < self.strength <= 1000:
            raise ValueError(f"strength must lie between 0 and 1000, got {self.strength}")
        if self.kind == "hdri" and not self.hdris:
            raise ValueError("light hdri needs at least one HDR picture")


@dataclass(frozen=True)
class Condition:
    """Extra views, under random light, of the object that a model is to be conditioned on; orbit name `condition`."""

    cameras: CameraSpec = field(
        default_factory=lambda: CameraSpec("random", fit="sphere", views=4, elevation_range_deg=(-10.0, 45.0))
    )
    """Where they stand."""
    light: LightSpec = field(default_factory=lambda: LightSpec("hdri"))
    """Drawn once an object, and recorded."""


@dataclass(frozen=True)
class AssetPolicy:
    """What is done with assets as they are. What was done to an object is recorded with it."""

    frame: Frame = "first"
    """Pose of animated and skinned objects: the first frame of their animation, the armature's rest pose, or a frame."""
    bounds: Literal["frame", "all-frames"] = "frame"
    """What is brought to unit size: the box of that pose, or the box around the poses of all frames."""
    animated: Literal["render", "refuse"] = "render"
    """refuse: objects with an animation end with reason `animated`."""
    missing_textures: Literal["neutral", "refuse"] = "neutral"
    """neutral: a texture that cannot be had is replaced by a plain value."""
    transparent: Literal["keep", "opaque", "refuse"] = "keep"
    """keep: as the material says; opaque: alpha is taken for 1, transmission for 0; refuse: reason `transparent`."""
    max_texture_px: int = 4096
    """Larger textures are halved until they fit."""
    max_triangles: int = 10_000_000
    """More than these, instances counted, end with reason `too-large`."""
    max_file_bytes: int = 2_000_000_000
    """Larger files are refused as `too-large` before Blender is started."""

    def __post_init__(self) -> None:
        _check_choices(self)
        if self.frame not in ("first", "rest") and type(self.frame) is not int:
            raise ValueError(f"frame must be first, rest or a whole number, got {self.frame!r}")
        for name in ("max_texture_px", "max_triangles", "max_file_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class RenderSpec:
    """The pictures of one object. Whatever changes them is here, and nothing else is."""

    cameras: CameraSpec = field(default_factory=CameraSpec)
    """Target views."""
    light: LightSpec = field(default_factory=LightSpec)
    """On the target views."""
    condition: Condition | None = None
    """Condition views besides."""
    assets: AssetPolicy = field(default_factory=AssetPolicy)
    """Poses, textures, budgets."""
    width: int = 256
    """Pixels."""
    height: int = 256
    """Pixels."""
    samples: int = 64
    """Paths for each pixel."""
    denoise: Denoise = "none"
    """fast: Open Image Denoise, quality and prefilter FAST; meant for 16 samples."""
    passes: tuple[Pass, ...] = ("depth", "normal", "albedo")
    """What is rendered besides colour."""
    quality: int | Literal["lossless"] = "lossless"
    """Of stored colour pictures: WebP quality 1 to 100, or lossless. Depth and normals always are."""
    seed: int | None = None
    """What is drawn is drawn from this; None derives it from the asset's bytes and the camera layout."""

    def __post_init__(self) -> None:
        _check_choices(self)
        if not (8 <= self.width <= 8192 and 8 <= self.height <= 8192):
            raise ValueError(f"width and height must lie between 8 and 8192, got {self.width} x {self.height}")
        if not 1 <= self.samples <= 65536:
            raise ValueError(f"samples must lie between 1 and 65536, got {self.samples}")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must lie between 0 and 2^63 - 1, got {self.seed}")
        if self.quality != "lossless" and not 1 <= self.quality <= 100:
            raise ValueError(f"quality must be 'lossless' or 1 to 100, got {self.quality}")
        unknown = sorted(set(self.passes) - set(PASSES))
        if unknown:
            raise ValueError(f"passes must be of {', '.join(PASSES)}, got {unknown[0]!r}")

    def canonical_json(self) -> str:
        """Return the one JSON text of this spec: sorted keys, no spaces, whole floats as floats."""
        fields = asdict(self) | {"passes": [name for name in PASSES if name in self.passes]}
        return json.dumps({"version": SPEC_VERSION, **_canonical(fields)}, sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """Sixteen bytes, hexadecimal, that name this spec."""
        return hashlib.blake2b(self.canonical_json().encode(), digest_size=16).hexdigest()

    @staticmethod
    def from_json(text: str) -> "RenderSpec":
        """Read a canonical JSON back.

        Raises:
            ValueError: of another version, or with keys that are not known.
        """
        document: dict[str, Any] = json.loads(text)
        version = document.pop("version", None)
        if version != SPEC_VERSION:
            raise ValueError(f"the spec is of version {version}, this program writes {SPEC_VERSION}: use the program that "
                             "made it, or start a new run")  # fmt: skip
        try:
            return _spec(document)
        except (TypeError, KeyError) as error:
            raise ValueError(f"this is no render spec: {error}") from error


def _spec(document: dict[str, Any]) -> RenderSpec:
    condition = document.pop("condition")
    cameras, light = _cameras(document.pop("cameras")), _light(document.pop("light"))
    assets = AssetPolicy(**document.pop("assets"))
    passes = tuple(document.pop("passes"))
    views = None if condition is None else Condition(_cameras(condition["cameras"]), _light(condition["light"]))
    return RenderSpec(cameras, light, views, assets, passes=passes, **document)


def _cameras(fields: dict[str, Any]) -> CameraSpec:
    places = tuple((float(a), float(e), float(d)) for a, e, d in fields.pop("places"))
    limits = fields.pop("elevation_range_deg")
    return CameraSpec(**fields, places=places, elevation_range_deg=None if limits is None else (limits[0], limits[1]))


def _light(fields: dict[str, Any]) -> LightSpec:
    hdris = tuple(Hdri(**hdri) for hdri in fields.pop("hdris"))
    return LightSpec(**fields, hdris=hdris)


FLOATS = frozenset({"fov_deg", "distance_m", "elevation_deg", "elevation_range_deg", "places", "strength"})
"""Fields whose 30 and 30.0 are the same value and must be the same text."""


def _canonical(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _canonical(item, key) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item, name) for item in value]
    if name in FLOATS and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


@dataclass(frozen=True)
class Execution:
    """How to run the children: nothing here changes what is asked for."""

    threads: int = 4
    """Render threads of one child."""
    device: Device = "cpu"
    """gpu fails where Blender finds none; it never falls back silently."""
    hdri_folder: str = ""
    """Where HDR files of the spec lie."""
    start_timeout_s: float = 120.0
    """Until Blender has come up."""
    import_timeout_s: float = 300.0
    """Until the asset is read and normalised."""
    first_view_timeout_s: float = 900.0
    """Until the first picture: building the BVH, compiling GPU kernels."""
    view_timeout_s: float = 300.0
    """From one picture to the next."""
    heartbeat_timeout_s: float = 120.0
    """Without any sign of life from a child that renders."""
    max_memory_bytes: int = 0
    """Of one child and all it started; 0: no limit. Beyond it the child is ended with reason `memory`."""
    max_scratch_bytes: int = 20 * 2**30
    """Of one child's temporary files; beyond it the child is ended with reason `disk-full`."""

    def __post_init__(self) -> None:
        _check_choices(self)
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")
        for name in ("start_timeout_s", "import_timeout_s", "first_view_timeout_s", "view_timeout_s",
                     "heartbeat_timeout_s"):  # fmt: skip
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("max_memory_bytes", "max_scratch_bytes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


def task_key(asset_sha256: str, spec: RenderSpec) -> str:
    """Return the name of one unit of work: this asset, rendered so. 32 hexadecimal digits."""
    return hashlib.blake2b(f"{asset_sha256}|{spec.digest}".encode(), digest_size=16).hexdigest()


def task_seed(asset_sha256: str, spec: RenderSpec) -> int:
    """Return the seed of one unit of work: the spec's own, or 32 bits of the asset's hash and the camera layout.

    Size, samples, light, denoising and SPEC_VERSION do not enter: the same object rendered larger, or by a later program,
    has the same cameras.
    """
    if spec.seed is not None:
        return spec.seed
    name = f"{asset_sha256}|{spec.cameras.layout}|{CAMERAS_VERSION}"
    return int(hashlib.blake2b(name.encode(), digest_size=4).hexdigest(), 16)
