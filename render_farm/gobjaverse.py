"""G-Objaverse's published renderings as orbits, without rendering: a folder in, `OrbitImages` out::

    FOLDER/00000/00000.json  00000.png  00000_nd.exr  00000_albedo.png  00000_mr.png      ...  FOLDER/00039/

    views  0 to 23   a ring, 15 degrees apart         -> orbit gobjaverse_ring1
    view   24        closes that ring: left out
    views 25, 26     from above and from below        -> orbit gobjaverse_poles
    views 27 to 38   a further ring, 30 degrees apart -> orbit gobjaverse_ring2 (39 closes it: left out)

Known from the dataset's own code (modelscope/richdreamer, dataset/gobjaverse) and from loaders that agree with it: poses
are OpenCV axes in a +Z-up world; the EXR's R, G, B are normals of Unity's left-handed world (ours: -R, -B, G) and A is
depth, used there as planar z, wrong at edges, where it is nearer than any object can be. Uncertain, hence arguments: one
answer of the authors (richdreamer issue 48) calls the depth a distance, their warping example does not. What contradicts
the layout is refused: normals that look away from their cameras, cameras that do not look at the origin, a ring that does
not close.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from engine.errors import OrbitError
from engine.files import OrbitImages
from engine.geometry import Orbit
from engine.geometry.camera import check_poses, focal_px_from_fov_deg
from engine.geometry.frames import directions_from_unity, from_gobjaverse
from render_farm.exr import ExrError, read_exr
from render_farm.records import Provenance

ORBITS: dict[str, tuple[range, int | None]] = {
    "gobjaverse_ring1": (range(24), 24),
    "gobjaverse_poles": (range(25, 27), None),
    "gobjaverse_ring2": (range(27, 39), 39),
}
"""Orbit -> its views, and the view that closes the ring and is left out."""
NEAREST_M = 3**0.5 / 2 + 0.001
"""Half the diagonal of the unit box: no surface is nearer than the camera's distance less this."""
AIM_TOLERANCE_M = 1e-3
"""How far an optical axis may pass the origin: the json holds about six digits."""
CLOSE_DEG = 0.5
"""Azimuths that are the same view of a ring."""
FOV_TOLERANCE_DEG = 0.01
FACING = 0.75
"""Share of an orbit's normals that must face their camera: of one world read as another, a half or fewer do; smooth shading
and the backs of open surfaces turn some away."""


@dataclass(frozen=True)
class _View:
    """One folder's files."""

    pose: Float[np.ndarray, "4 4"]
    fov_deg: float
    rgba: UInt8[np.ndarray, "h w 4"]
    depth_m: Float[np.ndarray, "h w"] | None
    normal: Float[np.ndarray, "h w 3"] | None
    albedo: UInt8[np.ndarray, "h w 3"] | None
    material: UInt8[np.ndarray, "h w 2"] | None
    facing: tuple[int, int]
    """Normals that face the camera, and all."""


def read_gobjaverse(
    folder: Path,
    uid: str,
    provenance: Provenance | None = None,
    *,
    orbits: tuple[str, ...] = tuple(ORBITS),
    depth: Literal["planar", "distance"] = "planar",
    normals: Literal["unity", "world"] = "unity",
    material_channels: tuple[int, int] | None = (0, 1),
) -> tuple[OrbitImages, ...]:
    """Read one object.

    Args:
        folder: the object's `campos_512_v4` (or the folder that holds it).
        uid: the object's name.
        provenance: what is known about it.
        orbits: which of ORBITS; only their views must be there.
        depth: what the EXR's A is: planar z, or the distance from the camera.
        normals: the world of the EXR's R, G, B: Unity's, or ours.
        material_channels: where _mr.png keeps metalness and roughness: R and G, as the authors say (richdreamer issue
            41). None leaves them out.

    Raises:
        OrbitError: a view or a file is missing, or contradicts the layout; the message names it.
    """
    root = folder / "campos_512_v4" if (folder / "campos_512_v4").is_dir() else folder
    if not root.is_dir():
        raise OrbitError(f"{folder}: expected an object of G-Objaverse (folders 00000 to 00039), found no folder there")
    unknown = sorted(set(orbits) - set(ORBITS))
    if unknown:
        raise ValueError(f"orbits must be of {', '.join(ORBITS)}, got {unknown[0]!r}")
    _check_folders(root, orbits)
    read = _Reader(root, depth, normals, material_channels)
    return tuple(_orbit(read, name, uid, provenance or Provenance()) for name in orbits)


def _check_folders(root: Path, orbits: tuple[str, ...]) -> None:
    needed = {index for name in orbits for index in ORBITS[name][0]}
    missing = sorted(index for index in needed if not (root / f"{index:05d}").is_dir())
    if missing:
        found = sum(1 for path in root.iterdir() if path.is_dir() and path.name.isdigit())
        raise OrbitError(f"{root}: the folder of view {missing[0]:05d} is missing ({len(missing)} of {len(needed)} are; {found} "
                         "numbered folders found, expected 40); download the object again")  # fmt: skip


def _orbit(read: "_Reader", name: str, uid: str, known: Provenance) -> OrbitImages:
    chosen, closing = ORBITS[name]
    views = [read.view(index) for index in chosen]
    first = views[0]
    for index, view in zip(chosen, views, strict=True):
        if abs(view.fov_deg - first.fov_deg) > FOV_TOLERANCE_DEG or view.rgba.shape != first.rgba.shape:
            raise OrbitError(f"{read.place(index)}: expected the picture size and field of view of view {chosen[0]:05d} "
                             f"({first.rgba.shape[1]} x {first.rgba.shape[0]}, {first.fov_deg:.3f} degrees), found "
                             f"{view.rgba.shape[1]} x {view.rgba.shape[0]}, {view.fov_deg:.3f} degrees")  # fmt: skip
    facing, known_normals = (sum(view.facing[which] for view in views) for which in (0, 1))
    if facing < FACING * known_normals:
        raise OrbitError(f"{read.root}: {name}: expected normals that face their cameras, found that "
                         f"{facing / known_normals:.0%} do; are they in another world than {read.normals!r}, or inside out?")  # fmt: skip
    cameras = _cameras(name, np.stack([view.pose for view in views]), first)
    if closing is not None and (read.root / f"{closing:05d}").is_dir():
        _check_closing(read, closing, cameras)
    return OrbitImages(
        uid, cameras, np.stack([view.rgba for view in views]), _stack([view.depth_m for view in views]),
        _stack([view.normal for view in views]), _stack([view.albedo for view in views]),
        material=_stack([view.material for view in views]), renderer={"engine": "G-Objaverse"}, caption=known.caption,
        label=known.label, license=known.license, attribution=known.attribution, source=known.source,
    )  # fmt: skip


def _cameras(name: str, poses: Float[np.ndarray, "n 4 4"], first: _View) -> Orbit:
    height, width = first.rgba.shape[:2]
    place = poses[:, :3, 3]
    distance_m = np.linalg.norm(place, axis=1)
    # the picture's right side: it gives the azimuth of a camera above the origin too, where its place cannot
    azimuth_deg = np.degrees(np.arctan2(poses[:, 1, 0], poses[:, 0, 0])) % 360.0
    elevation_deg = np.degrees(np.arcsin(np.clip(place[:, 2] / distance_m, -1.0, 1.0)))
    focal_px = focal_px_from_fov_deg(first.fov_deg, height)
    return Orbit(name, poses, azimuth_deg, elevation_deg, distance_m, width, height, focal_px, (width / 2, height / 2))


def _check_closing(read: "_Reader", closing: int, cameras: Orbit) -> None:
    """The view that closes a ring stands where the first does; only its elevation may differ, if the ring climbs."""
    pose, _ = read.camera(closing)
    azimuth_deg = float(np.degrees(np.arctan2(pose[1, 0], pose[0, 0])))
    apart = abs((azimuth_deg - float(cameras.azimuth_deg[0]) + 180.0) % 360.0 - 180.0)
    if apart > CLOSE_DEG:
        raise OrbitError(f"{read.place(closing)}: expected the view that closes {cameras.name}, at azimuth "
                         f"{cameras.azimuth_deg[0]:.2f} degrees, found {azimuth_deg % 360:.2f}; the views are not numbered as in "
                         "G-Objaverse")  # fmt: skip


def _stack(images: list[Any]) -> Any:
    """None where any view lacks the picture."""
    return None if any(image is None for image in images) else np.stack(images)


class _Reader:
    """The files of one object."""

    def __init__(self, root: Path, depth: str, normals: str, material_channels: tuple[int, int] | None) -> None:
        self.root, self.depth, self.normals, self.material_channels = root, depth, normals, material_channels

    def place(self, index: int, ending: str = ".json") -> Path:
        """Return a file of a view."""
        return self.root / f"{index:05d}" / f"{index:05d}{ending}"

    def view(self, index: int) -> _View:
        """Read a view's files; albedo, material and EXR may be absent."""
        pose, (x_fov, y_fov) = self.camera(index)
        rgba = self._picture(index, ".png", "RGBA")
        if rgba is None:
            raise OrbitError(f"{self.place(index, '.png')}: the picture is missing; download the object again")
        height, width = rgba.shape[:2]
        if abs(np.tan(x_fov / 2) * height - np.tan(y_fov / 2) * width) > 1e-3 * width:
            raise OrbitError(f"{self.place(index)}: expected square pixels, found x_fov {x_fov:g} and y_fov {y_fov:g} (radians) "
                             f"for {width} x {height} pixels")  # fmt: skip
        seen = rgba[..., 3] > 0
        albedo = self._picture(index, "_albedo.png", "RGB")
        depth_m, normal, facing = self._geometry(index, pose, float(y_fov), seen)
        return _View(
            pose, float(np.degrees(y_fov)), rgba, depth_m, normal,
            None if albedo is None else albedo * seen[..., None].astype(np.uint8), self._material(index, seen), facing,
        )  # fmt: skip

    def camera(self, index: int) -> tuple[Float[np.ndarray, "4 4"], tuple[float, float]]:
        """Return a view's pose and fields of view in radians; the camera looks at the origin."""
        path = self.place(index)
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            rows = np.array([document[key] for key in ("x", "y", "z", "origin")], float)
            fov = (float(document["x_fov"]), float(document["y_fov"]))
        except FileNotFoundError as error:
            raise OrbitError(f"{path}: the camera is missing; download the object again") from error
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise OrbitError(f"{path}: expected a camera with x, y, z, origin, x_fov and y_fov, found none "
                             f"({type(error).__name__}: {error}); download the object again") from error  # fmt: skip
        if rows.shape != (4, 3) or not np.isfinite(rows).all() or not (0 < fov[0] < np.pi and 0 < fov[1] < np.pi):
            raise OrbitError(f"{path}: expected four vectors of three numbers and fields of view in radians, found "
                             f"{rows.tolist()} and {fov}")  # fmt: skip
        pose = from_gobjaverse(rows)
        try:
            check_poses(pose)
        except ValueError as error:
            raise OrbitError(f"{path}: {str(error).replace('T_world_camera[0]', 'its camera')}") from error
        miss_m = float(np.linalg.norm(np.cross(pose[:3, 3], pose[:3, 2])))
        if miss_m > AIM_TOLERANCE_M or pose[:3, 2] @ pose[:3, 3] >= 0:
            raise OrbitError(f"{path}: expected a camera that looks at the origin along its z, found one at "
                             f"{_short(pose[:3, 3])} that looks along {_short(pose[:3, 2])} and passes it by {miss_m:.4g} m")  # fmt: skip
        if abs(pose[2, 0]) > AIM_TOLERANCE_M or pose[2, 1] > AIM_TOLERANCE_M:
            raise OrbitError(f"{path}: expected an upright camera (its x level, its y downwards), found x {_short(pose[:3, 0])}, "
                             f"y {_short(pose[:3, 1])}; is its world +Z up?")  # fmt: skip
        return pose, fov

    def _picture(self, index: int, ending: str, mode: str) -> UInt8[np.ndarray, "h w c"] | None:
        path = self.place(index, ending)
        if not path.exists():
            return None
        try:
            with Image.open(path) as image:
                if mode == "RGBA" and "A" not in image.getbands():
                    raise OrbitError(f"{path}: expected RGBA, found {image.mode}: no alpha says what is the object")
                return np.asarray(image.convert(mode))
        except (OSError, SyntaxError, ValueError) as error:  # Pillow's, for what is cut off or broken inside
            raise OrbitError(f"{path}: the picture cannot be read ({error}); download the object again") from error

    def _material(self, index: int, seen: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 2"] | None:
        """Ours: roughness, metallic."""
        picture = None if self.material_channels is None else self._picture(index, "_mr.png", "RGB")
        if picture is None or self.material_channels is None:
            return None
        metallic, roughness = self.material_channels
        return picture[..., [roughness, metallic]] * seen[..., None].astype(np.uint8)

    def _geometry(
        self, index: int, pose: Float[np.ndarray, "4 4"], y_fov: float, seen: Bool[np.ndarray, "h w"]
    ) -> tuple[Float[np.ndarray, "h w"] | None, Float[np.ndarray, "h w 3"] | None, tuple[int, int]]:
        """Depth, normals, and how many of them face the camera."""
        path = self.place(index, "_nd.exr")
        if not path.exists():
            return None, None, (0, 0)
        channels = _exr_channels(path)
        if channels.shape[:2] != seen.shape:
            raise OrbitError(f"{path}: expected {seen.shape[1]} x {seen.shape[0]} pixels as in the picture, found "
                             f"{channels.shape[1]} x {channels.shape[0]}")  # fmt: skip
        rays = _rays(y_fov, *seen.shape)  # [h, w, 3], z = 1
        depth_m = channels[..., 3] / (np.linalg.norm(rays, axis=-1) if self.depth == "distance" else 1.0)
        depth_m = np.where(np.isfinite(depth_m) & seen, depth_m, 0.0)
        depth_m[depth_m < np.linalg.norm(pose[:3, 3]) - NEAREST_M] = 0.0
        normal = directions_from_unity(channels[..., :3]) if self.normals == "unity" else channels[..., :3]
        length = np.linalg.norm(normal, axis=-1, keepdims=True)
        known = (depth_m > 0)[..., None] & (length > 1e-3) & np.isfinite(length)
        normal = np.where(known, normal / np.where(known, length, 1.0), 0.0)
        there = known[..., 0]
        facing = ((normal * (rays @ pose[:3, :3].T)).sum(-1)[there] < 0).sum()
        return depth_m.astype(np.float32), normal.astype(np.float32), (int(facing), int(there.sum()))


def _exr_channels(path: Path) -> Float[np.ndarray, "h w 4"]:
    """R, G, B, A, whatever order they are stored in."""
    try:
        named = read_exr(path)
    except ExrError as error:
        raise OrbitError(f"{path}: the EXR cannot be read ({error}); download the object again") from error
    missing = [name for name in "RGBA" if name not in named]
    if missing:
        raise OrbitError(
            f"{path}: expected the channels R, G, B (normal) and A (depth), found {', '.join(sorted(named))}"
        )
    return np.stack([np.asarray(named[name], np.float64) for name in "RGBA"], -1)


def _rays(y_fov: float, height: int, width: int) -> Float[np.ndarray, "h w 3"]:
    """Through pixel centres, OpenCV camera axes, z = 1."""
    focal_px = focal_px_from_fov_deg(float(np.degrees(y_fov)), height)
    u, v = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
    return np.stack([u / focal_px, v / focal_px, np.ones_like(u)], -1)


def _short(vector: Float[np.ndarray, "3"]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in vector) + ")"
