"""The json of `orbit/1` (design.md, "The orbit on disk"): cameras and facts in, a checked document out, and back."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from engine.errors import OrbitError
from engine.files.types import Normalisation, OrbitImages
from engine.geometry import Orbit, focal_px_from_fov_deg
from engine.geometry.camera import check_poses
from engine.geometry.orbit import orbit_position

FORMAT = "orbit/1"
COLOUR = "sRGB, Standard view transform"
FIXED = {"format": FORMAT, "camera_axes": "opencv", "world_up": "+z", "alpha": "straight"}
"""Keys with one allowed value."""
MATERIAL_CHANNELS = "G roughness, B metallic"
STATED = {"normal_space": "world", "camera_normal_axes": "opencv", "material_channels": MATERIAL_CHANNELS}
"""Keys that may be absent, and have one allowed value."""
TEXTS = ("caption", "label", "license", "attribution", "source")
"""Optional sentences about the object; absent or null means unknown."""
KNOWN = {
    *FIXED, *TEXTS, "uid", "orbit", "width", "height", "focal_px", "principal_px", "fov_deg", "distance_m",
    "elevation_deg", "azimuth_deg", "T_world_camera", "color", "normalisation", "seed", "renderer", "depth_scale_m",
    "normal_space", "camera_normal_axes", "material_channels", "given_view",
}  # fmt: skip
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
"""What uid and orbit may be: both become parts of file names."""

PLACE_TOLERANCE = 1e-3
"""Camera position against azimuth, elevation and distance, as a part of the distance; optical axis and roll in
radians. Seven decimals (as the shards store poses) and float32 scenes err by 1e-6; a wrong sign or a swapped axis
errs by 1e-1 and more. 1e-3 is about half a pixel at 512."""
FOCAL_TOLERANCE = 1e-3
"""focal_px against fov_deg, relative: fields of view are written with two decimals (49.13), which is 2e-4."""


@dataclass(frozen=True)
class OrbitDocument:
    """A checked json: everything but the images."""

    uid: str
    """The object's id."""
    orbit: Orbit
    """Cameras."""
    facts: Mapping[str, Any]
    """Keyword arguments of OrbitImages: normalisation, seed, renderer, texts, given_view, extra."""
    depth_scale_m: float | None
    """Metres for each step of the depth images; None where there are none."""

    @property
    def sample(self) -> str:
        """KEY.ORBIT, what every image's name begins with."""
        return f"{self.uid}.{self.orbit.name}"


def document_from_images(images: OrbitImages, depth_scale_m: float | None) -> dict[str, Any]:
    """Return the json document of a sample. Raises OrbitError where `extra` would hide a known key."""
    clash = sorted(KNOWN & set(images.extra))
    if clash:
        raise OrbitError(f"orbit {images.uid}: extra holds {clash[0]!r}, which orbit/1 itself writes; rename it")
    orbit = images.orbit
    document: dict[str, Any] = {"format": FORMAT, "uid": images.uid, "orbit": orbit.name}
    document |= {key: getattr(images, key) for key in TEXTS}
    document |= dict(images.extra)
    document |= {
        "width": orbit.width, "height": orbit.height, "focal_px": float(orbit.focal_px),
        "principal_px": [float(value) for value in orbit.principal_px], "fov_deg": orbit.fov_deg,
        "distance_m": _one_or_all(orbit.distance_m), "elevation_deg": _one_or_all(orbit.elevation_deg),
        "azimuth_deg": orbit.azimuth_deg.tolist(), "T_world_camera": orbit.T_world_camera.tolist(),
        "camera_axes": FIXED["camera_axes"], "world_up": FIXED["world_up"], "alpha": FIXED["alpha"], "color": COLOUR,
        "normalisation": {
            "scale": float(images.normalisation.scale), "centre": [float(v) for v in images.normalisation.centre],
        },
        "seed": images.seed, "renderer": dict(images.renderer),
    }  # fmt: skip
    if depth_scale_m is not None:
        document["depth_scale_m"] = depth_scale_m
    if images.given_view is not None:
        document["given_view"] = images.given_view
    if images.normal is not None:
        document["normal_space"] = "world"
    if images.camera_normal is not None:
        document["camera_normal_axes"] = FIXED["camera_axes"]
    if images.material is not None:
        document["material_channels"] = MATERIAL_CHANNELS
    return document


def encode_document(document: Mapping[str, Any]) -> bytes:
    """Serialise a document, after the same checks that a reader makes. Raises OrbitError."""
    name = f"orbit {document['uid']}"
    try:
        data = json.dumps(document, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        check_document(document, name)  # says which camera value it is, if it is one
        raise OrbitError(f"{name}: extra or renderer holds what json cannot: {error}") from error
    check_document(document, name)
    return data


def decode_document(data: bytes, name: str) -> OrbitDocument:
    """Parse and check a json. `name` is the file's, for messages. Raises OrbitError."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise OrbitError(f"{name}: is not whole json: {error}; write the orbit again") from error
    if not isinstance(document, dict):
        raise OrbitError(f"{name}: must hold a json object, found {type(document).__name__}")
    checked = check_document(document, name)
    try:
        json.dumps(document, allow_nan=False)
    except ValueError as error:
        raise OrbitError(f"{name}: holds NaN or Infinity, which json does not have") from error
    return checked


def check_document(document: Mapping[str, Any], name: str) -> OrbitDocument:
    """Check every known key. Raises OrbitError naming the file, the key, what was expected and found."""
    fields = _Fields(document, name)
    fields.fixed()
    uid, orbit_name = fields.file_name_part("uid"), fields.file_name_part("orbit")
    orbit = _orbit(fields, orbit_name)
    _check_places(orbit, name)
    depth_scale_m = None
    if document.get("depth_scale_m") is not None:
        depth_scale_m = fields.number("depth_scale_m", positive=True)
    facts = {key: fields.text(key) for key in TEXTS}
    extra = {key: value for key, value in document.items() if key not in KNOWN}
    return OrbitDocument(
        uid, orbit,
        {**facts, "normalisation": fields.normalisation(), "seed": fields.seed(), "renderer": fields.renderer(),
         "given_view": fields.given_view(len(orbit)), "extra": extra},
        depth_scale_m,
    )  # fmt: skip


def _orbit(fields: "_Fields", orbit_name: str) -> Orbit:
    width, height = fields.count("width"), fields.count("height")
    focal_px, fov_deg = fields.number("focal_px", positive=True), fields.number("fov_deg", positive=True)
    if fov_deg >= 180:
        raise fields.wrong("fov_deg", "an angle below 180 degrees", repr(fov_deg))
    expected = focal_px_from_fov_deg(fov_deg, height)
    if abs(focal_px - expected) > FOCAL_TOLERANCE * expected:
        found = f"{focal_px:.4f}; fov_deg is vertical: focal_px = 0.5 * height / tan(fov / 2)"
        raise fields.wrong("focal_px", f"{expected:.4f} for fov_deg {fov_deg:g} at height {height}", found)
    azimuth_deg = fields.numbers("azimuth_deg", (None,))
    elevation_deg = fields.one_or_all("elevation_deg", len(azimuth_deg))
    if (beyond := elevation_deg[np.abs(elevation_deg) > 90]).size:
        raise fields.wrong("elevation_deg", "between -90 and 90", repr(float(beyond[0])))
    distance_m = fields.one_or_all("distance_m", len(azimuth_deg), positive=True)
    poses = fields.numbers("T_world_camera", (None, 4, 4))
    if len(poses) != len(azimuth_deg):
        raise fields.wrong("T_world_camera", f"{len(azimuth_deg)} matrices, one for each azimuth_deg", str(len(poses)))
    principal = fields.numbers("principal_px", (2,))
    if not np.isfinite(principal).all():
        raise fields.wrong("principal_px", "two finite numbers", str(principal.tolist()))
    try:
        check_poses(poses)
    except ValueError as error:
        raise OrbitError(f"{fields.name}: {error}") from error
    return Orbit(
        orbit_name, poses, azimuth_deg, elevation_deg, distance_m, width, height, focal_px,
        (float(principal[0]), float(principal[1])),
    )  # fmt: skip


def _check_places(orbit: Orbit, name: str) -> None:
    """Cameras stand where azimuth, elevation and distance say, look at the origin and are upright."""
    for index, pose in enumerate(orbit.T_world_camera):
        where = f"{name}: T_world_camera[{index}]"
        azimuth_deg, elevation_deg = float(orbit.azimuth_deg[index]), float(orbit.elevation_deg[index])
        stated_m, place = float(orbit.distance_m[index]), pose[:3, 3]
        if not math.isfinite(azimuth_deg):
            raise OrbitError(f"{name}: azimuth_deg[{index}] must be finite, found {azimuth_deg}")
        distance_m = float(np.linalg.norm(place))
        if abs(distance_m - stated_m) > PLACE_TOLERANCE * stated_m:
            raise OrbitError(f"{where} must stand distance_m = {stated_m:g} from the origin, found {distance_m:g}")
        if np.linalg.norm(pose[:3, 2] + place / distance_m) > PLACE_TOLERANCE:
            raise OrbitError(
                f"{where} must look at the origin along its +Z (OpenCV axes), found the direction {_short(pose[:3, 2])} "
                f"from {_short(place)}; convert other axes with engine.geometry.frames"
            )
        expected = orbit_position(azimuth_deg, elevation_deg, stated_m)
        if np.linalg.norm(place - expected) > PLACE_TOLERANCE * stated_m:
            raise OrbitError(
                f"{where} must stand at {_short(expected)} (azimuth_deg {azimuth_deg:g}, elevation_deg "
                f"{elevation_deg:g}), found {_short(place)}; azimuth 0 is -Y and grows counter-clockwise"
            )
        if abs(pose[2, 0]) > PLACE_TOLERANCE or pose[2, 1] > PLACE_TOLERANCE:
            raise OrbitError(f"{where} must be upright (its +X level, its +Y downwards), found it rolled")


def _one_or_all(values: Float[np.ndarray, " n"]) -> float | list[float]:
    """One number where all views share it, as in a ring."""
    return float(values[0]) if (values == values[0]).all() else values.tolist()


def _short(vector: Float[np.ndarray, "3"]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in vector) + ")"


class _Fields:
    """Typed access to a document's keys, with errors that name file and key."""

    def __init__(self, document: Mapping[str, Any], name: str) -> None:
        self.document, self.name = document, name

    def wrong(self, key: str, expected: str, found: str) -> OrbitError:
        return OrbitError(f"{self.name}: {key} must be {expected}, found {found[:160]}")

    def required(self, key: str) -> Any:
        if key not in self.document:
            raise OrbitError(f"{self.name}: {key} is missing; orbit/1 requires it")
        return self.document[key]

    def fixed(self) -> None:
        for key, expected in FIXED.items():
            if self.required(key) != expected:
                raise self.wrong(key, repr(expected), repr(self.document[key]))
        colour = self.document.get("color")
        if colour is not None and ("srgb" not in str(colour).lower() or re.search("agx|filmic", str(colour).lower())):
            raise self.wrong("color", repr(COLOUR), repr(colour))
        for key, stated in STATED.items():
            if self.document.get(key) not in (None, stated):
                raise self.wrong(key, repr(stated), repr(self.document[key]))

    def file_name_part(self, key: str) -> str:
        value = self.required(key)
        if not (isinstance(value, str) and NAME.fullmatch(value)):
            raise self.wrong(key, "letters, digits, '.', '_', '-', not beginning with '.'", repr(value))
        return value

    def text(self, key: str) -> str:
        value = self.document.get(key)
        if value is not None and not isinstance(value, str):
            raise self.wrong(key, "a string", repr(value))
        return value or ""

    def number(self, key: str, *, positive: bool = False) -> float:
        return self._number(self.required(key), key, positive)

    def _number(self, value: object, key: str, positive: bool) -> float:
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not good or (positive and not value > 0):  # type: ignore[operator]
            raise self.wrong(key, "a positive finite number" if positive else "a finite number", repr(value))
        return float(value)  # type: ignore[arg-type]

    def count(self, key: str) -> int:
        value = self.required(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.wrong(key, "a positive whole number", repr(value))
        return value

    def one_or_all(self, key: str, count: int, *, positive: bool = False) -> Float[np.ndarray, " n"]:
        """A number that holds for every view, or a list of one each."""
        value = self.required(key)
        if not isinstance(value, list):
            return np.full(count, self._number(value, key, positive))
        if len(value) != count:
            raise self.wrong(key, f"a number or a list of {count}, one for each view", f"a list of {len(value)}")
        return np.array([self._number(item, f"{key}[{index}]", positive) for index, item in enumerate(value)])

    def numbers(self, key: str, shape: tuple[int | None, ...]) -> Float[np.ndarray, "..."]:
        """A nested list of numbers; None in `shape` stands for any length of at least 1. May hold NaN."""
        expected = "a list of numbers of shape " + " x ".join("n" if size is None else str(size) for size in shape)
        value = self.required(key)
        try:
            array = np.array(value)
        except ValueError as error:  # ragged
            raise self.wrong(key, expected, "lists of different lengths") from error
        if array.dtype.kind not in "if":
            raise self.wrong(key, expected, repr(value))
        fits = array.ndim == len(shape) and all(s in (None, a) for s, a in zip(shape, array.shape, strict=True))
        if not fits or array.size == 0:
            raise self.wrong(key, expected, "shape " + " x ".join(map(str, array.shape)))
        return array.astype(np.float64)

    def normalisation(self) -> Normalisation:
        value = self.document.get("normalisation")
        if value is None:
            return Normalisation(1.0, (0.0, 0.0, 0.0))
        if not isinstance(value, dict) or set(value) != {"scale", "centre"}:
            raise self.wrong("normalisation", "an object with scale and centre", repr(value))
        fields = _Fields(value, f"{self.name}: normalisation")
        centre = fields.numbers("centre", (3,))
        if not np.isfinite(centre).all():
            raise fields.wrong("centre", "three finite numbers", str(centre.tolist()))
        return Normalisation(
            fields.number("scale", positive=True), (float(centre[0]), float(centre[1]), float(centre[2]))
        )

    def seed(self) -> int | None:
        value = self.document.get("seed")
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise self.wrong("seed", "a whole number or null", repr(value))
        return value

    def given_view(self, views: int) -> int | None:
        value = self.document.get("given_view")
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < views):
            raise self.wrong("given_view", f"the number of a view, 0 to {views - 1}, or null", repr(value))
        return value

    def renderer(self) -> Mapping[str, Any]:
        value = self.document.get("renderer")
        if value is not None and not isinstance(value, dict):
            raise self.wrong("renderer", "an object", repr(value))
        return value or {}
