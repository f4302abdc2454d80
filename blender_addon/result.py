"""What a generation left in its folder: a folder goes in, checked paths and cameras come out. No Blender here.

orbit.json, {uid}.{orbit}.rgba_00.webp ...   required
splats.ply, mesh.glb, report.json            imported if there; what is not is said in `notes`
"""

import json
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .errors import FixItError

AGAIN = "Generate into this folder again: finished stages are not repeated."
NAME = re.compile(r"[A-Za-z0-9._-]+")
POSE_TOLERANCE = 1e-4  # poses are stored with seven decimals
IMAGE_SUFFIXES = (".webp", ".png")


@dataclass(frozen=True)
class Views:
    """The orbit's cameras, which share their intrinsics, and one picture each."""

    T_world_camera: np.ndarray
    """[n, 4, 4] float64: poses in the +Z-up world, OpenCV camera axes, normalised units."""
    azimuth_deg: np.ndarray
    """[n] float64: 0 at -Y, counter-clockwise seen from above."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    focal_px: float
    """Focal length in pixels, both axes."""
    principal_px: tuple[float, float]
    """(u, v) in pixels; the first pixel's centre is (0.5, 0.5)."""
    images: tuple[Path, ...]
    """RGBA pictures, in the order of the poses."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def pixel_m(self) -> float:
        """Size of a pixel at the origin, where the object stands; normalised units."""
        return float(np.median(np.linalg.norm(self.T_world_camera[:, :3, 3], axis=1)) / self.focal_px)


@dataclass(frozen=True)
class Result:
    """One generation."""

    folder: Path
    """Where it lies, absolute."""
    uid: str
    """The object's id."""
    orbit: str
    """The orbit's name, such as ring24."""
    views: Views
    """Cameras and pictures."""
    splats: Path | None
    """splats.ply, if there."""
    mesh: Path | None
    """mesh.glb, if there; its header has been checked."""
    scale: float
    """p_normalised = scale * (p_asset - centre)."""
    centre: tuple[float, float, float]
    """In asset units, +Z-up world."""
    report: dict[str, Any] = field(default_factory=dict)
    """report.json; empty if it is not there."""
    notes: tuple[str, ...] = ()
    """What is missing, one sentence each."""


def read_result(folder: Path) -> Result:
    """Check a result folder. Raises FixItError where cameras, pictures or a mesh that is there cannot be trusted."""
    folder = Path(folder).absolute()
    if not folder.is_dir():
        raise FixItError(f"{folder}: expected a result folder, found none", "Choose the folder that holds orbit.json.")
    header = _orbit_json(folder / "orbit.json")
    uid, orbit = header["uid"], header["orbit"]
    scale, centre = _normalisation(header)
    splats, mesh = folder / "splats.ply", folder / "mesh.glb"
    notes = [
        f"{path.name} is not in {folder.name}: imported without it." for path in (splats, mesh) if not path.is_file()
    ]
    if mesh.is_file():
        check_glb(mesh)
    report, trouble = _report(folder / "report.json")
    return Result(
        folder, uid, orbit, _views(header, folder),
        splats if splats.is_file() else None, mesh if mesh.is_file() else None,
        scale, centre, report, (*notes, *trouble),
    )  # fmt: skip


def _orbit_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FixItError(f"{path.parent.name}: expected orbit.json, found none", f"Choose a result folder, or: {AGAIN}")
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FixItError(f"orbit.json cannot be read ({error})", AGAIN) from None
    found = header.get("format") if isinstance(header, dict) else type(header).__name__
    if found != "orbit/1":
        raise FixItError(f"orbit.json: expected format orbit/1, found {found}", "Update the add-on, or generate again.")
    needed = ("uid", "orbit", "width", "height", "focal_px", "principal_px", "T_world_camera", "azimuth_deg")
    missing = [key for key in needed if key not in header]
    if missing:
        raise FixItError(f"orbit.json lacks {', '.join(missing)}", AGAIN)
    for key in ("uid", "orbit"):
        if not isinstance(header[key], str) or not NAME.fullmatch(header[key]):
            raise FixItError(
                f"orbit.json: expected a {key} of letters, digits, '.', '_', '-', found {header[key]!r}", AGAIN
            )
    for key, only in (("camera_axes", "opencv"), ("world_up", "+z")):
        if header.get(key, only) != only:
            raise FixItError(f"orbit.json: expected {key} {only}, found {header[key]}", AGAIN)
    return header


def _views(header: dict[str, Any], folder: Path) -> Views:
    try:
        poses = np.array(header["T_world_camera"], np.float64)
        azimuths = np.array(header["azimuth_deg"], np.float64)
        width, height, focal_px = int(header["width"]), int(header["height"]), float(header["focal_px"])
        u, v = (float(value) for value in header["principal_px"])
    except (TypeError, ValueError) as error:
        raise FixItError(f"orbit.json: its camera numbers cannot be read ({error})", AGAIN) from None
    if poses.ndim != 3 or poses.shape[1:] != (4, 4) or azimuths.shape != poses.shape[:1] or not len(poses):
        found = f"{poses.shape} and {azimuths.shape}"
        raise FixItError(f"orbit.json: expected n poses 4x4 and n azimuths, found {found}", AGAIN)
    if width < 1 or height < 1 or not np.isfinite([focal_px, u, v]).all() or focal_px <= 0:
        raise FixItError(
            f"orbit.json: expected a picture and a focal length, found {width} x {height}, {focal_px}", AGAIN
        )
    for index, pose in enumerate(poses):
        rotation = pose[:3, :3]
        rigid = np.isfinite(pose).all() and np.allclose(rotation @ rotation.T, np.eye(3), atol=POSE_TOLERANCE)
        if not rigid or np.linalg.det(rotation) < 0 or not np.allclose(pose[3], (0, 0, 0, 1), atol=POSE_TOLERANCE):
            raise FixItError(f"orbit.json: T_world_camera[{index}] is not a rigid pose", AGAIN)
    images = _images(folder, f"{header['uid']}.{header['orbit']}", len(poses))
    return Views(poses, azimuths, width, height, focal_px, (u, v), images)


def _images(folder: Path, stem: str, count: int) -> tuple[Path, ...]:
    names = [f"{stem}.rgba_{index:02d}" for index in range(count)]
    found = [next((p for s in IMAGE_SUFFIXES if (p := folder / (name + s)).is_file()), None) for name in names]
    missing = [name for name, path in zip(names, found, strict=True) if path is None]
    if missing:
        raise FixItError(
            f"{folder.name}: expected {count} views, {len(missing)} missing: {missing[0]}.webp first", AGAIN
        )
    return tuple(path for path in found if path is not None)


def _normalisation(header: dict[str, Any]) -> tuple[float, tuple[float, float, float]]:
    stored = header.get("normalisation") or {"scale": 1.0, "centre": [0.0, 0.0, 0.0]}
    try:
        scale, (x, y, z) = float(stored["scale"]), (float(value) for value in stored["centre"])
    except (KeyError, TypeError, ValueError):
        raise FixItError(f"orbit.json: expected normalisation scale and centre, found {stored}", AGAIN) from None
    if not (np.isfinite([scale, x, y, z]).all() and scale > 0):
        raise FixItError(f"orbit.json: expected a finite normalisation, found scale {scale}, centre {x, y, z}", AGAIN)
    return scale, (x, y, z)


def check_glb(path: Path) -> None:
    """Raise FixItError unless the file is a whole glTF 2 binary: Blender's importer may crash on broken ones."""
    remedy = "Make the mesh again (--from meshing), or remove mesh.glb to import without it."
    data = path.read_bytes()
    if len(data) < 20 or data[:4] != b"glTF":
        raise FixItError(f"{path.name}: expected a binary glTF file, found none", remedy)
    version, length = struct.unpack_from("<II", data, 4)
    if version != 2 or length != len(data):
        raise FixItError(
            f"{path.name}: expected glTF 2 of {length} bytes, found version {version}, {len(data)} bytes", remedy
        )
    size, kind = struct.unpack_from("<I4s", data, 12)
    try:
        document = json.loads(data[20 : 20 + size])
        holds_mesh = bool(document.get("meshes"))
    except (ValueError, AttributeError):
        raise FixItError(f"{path.name}: its glTF description cannot be read", remedy) from None
    if kind != b"JSON" or not holds_mesh:
        raise FixItError(f"{path.name}: expected a mesh, found none", remedy)


def _report(path: Path) -> tuple[dict[str, Any], list[str]]:
    if not path.is_file():
        return {}, [f"report.json is not in {path.parent.name}: preset and seed are unknown."]
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return {}, [f"report.json cannot be read ({error}): preset and seed are unknown."]
    if not isinstance(report, dict):
        return {}, ["report.json holds no settings: preset and seed are unknown."]
    return report, []
