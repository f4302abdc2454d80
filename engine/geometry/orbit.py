"""A turntable: cameras on a circle around the origin, all looking at it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from engine.geometry.camera import Camera, check_poses, focal_px_from_fov_deg, fov_deg_from_focal_px, look_at


def orbit_position(azimuth_deg: float, elevation_deg: float, distance_m: float) -> Float[np.ndarray, "3"]:
    """Return the camera's place in metres; azimuth 0 is -Y and grows counter-clockwise seen from above."""
    azimuth, elevation = np.radians(azimuth_deg), np.radians(elevation_deg)
    return distance_m * np.array(
        [np.cos(elevation) * np.sin(azimuth), -np.cos(elevation) * np.cos(azimuth), np.sin(elevation)]
    )


@dataclass(frozen=True)
class Orbit:
    """Posed cameras with shared intrinsics around the origin."""

    name: str
    """Short name such as ring24; part of file names."""
    T_world_camera: Float[np.ndarray, "n 4 4"]
    """Poses, metres."""
    azimuth_deg: Float[np.ndarray, " n"]
    """Degrees, 0 at -Y, counter-clockwise seen from above."""
    elevation_deg: float
    """Degrees above the horizon."""
    distance_m: float
    """Distance of every camera from the origin, metres."""
    width: int
    """Image width in pixels."""
    height: int
    """Image height in pixels."""
    focal_px: float
    """Focal length in pixels, both axes."""
    principal_px: tuple[float, float]
    """Principal point (u, v) in pixels."""

    def __post_init__(self) -> None:
        if len(self.T_world_camera) != len(self.azimuth_deg):
            raise ValueError(f"{len(self.T_world_camera)} poses but {len(self.azimuth_deg)} azimuths: one each")
        check_poses(self.T_world_camera)
        self.camera(0)

    def __len__(self) -> int:
        return len(self.T_world_camera)

    @property
    def fov_deg(self) -> float:
        """Vertical field of view in degrees."""
        return fov_deg_from_focal_px(self.focal_px, self.height)

    def camera(self, index: int) -> Camera:
        """Return one camera."""
        return Camera(self.T_world_camera[index], self.width, self.height, self.focal_px, self.principal_px)

    @property
    def cameras(self) -> list[Camera]:
        """All cameras, in order."""
        return [self.camera(i) for i in range(len(self))]

    def subset(self, indices: Sequence[int]) -> "Orbit":
        """Return the orbit of some of its views, in the order given."""
        chosen = list(indices)
        return replace(self, T_world_camera=self.T_world_camera[chosen], azimuth_deg=self.azimuth_deg[chosen])

    def resized(self, width: int, height: int) -> "Orbit":
        """Return the same orbit photographed at another size of the same aspect."""
        camera = self.camera(0).resized(width, height)
        return replace(self, width=width, height=height, focal_px=camera.focal_px, principal_px=camera.principal_px)


@dataclass(frozen=True)
class Ring:
    """A family of orbits: one elevation an object, evenly spaced azimuths."""

    name: str
    """Short name; part of file names."""
    views: int
    """Number of cameras on the full circle."""
    fov_deg: float
    """Vertical field of view in degrees."""
    distance_m: float
    """Distance from the origin, metres; the object's longest side is 1."""
    elevation_range_deg: tuple[float, float]
    """Elevations in degrees are drawn uniformly from here, one an object."""

    def draw_elevation_deg(self, generator: np.random.Generator) -> float:
        """Draw one object's elevation."""
        return float(generator.uniform(*self.elevation_range_deg))

    def orbit(self, elevation_deg: float, width: int, height: int) -> Orbit:
        """Return the ring at one elevation, first view at azimuth 0."""
        if not -90 <= elevation_deg <= 90:
            raise ValueError(f"elevation_deg must lie between -90 and 90, got {elevation_deg}")
        azimuths = np.arange(self.views) * 360.0 / self.views
        poses = np.stack([look_at(orbit_position(a, elevation_deg, self.distance_m), np.zeros(3)) for a in azimuths])
        focal_px = focal_px_from_fov_deg(self.fov_deg, height)
        return Orbit(
            self.name, poses, azimuths, float(elevation_deg), self.distance_m, width, height, focal_px,
            (width / 2, height / 2),
        )  # fmt: skip


RING24 = Ring("ring24", 24, 39.6, 2.0, (5.0, 30.0))
"""VideoMV section 3.2: 24 views, G-Objaverse's field of view."""
RING16 = Ring("ring16", 16, 49.13, 1.5, (-10.0, 40.0))
"""Hi3D section 5.1: 16 views at 1.5 m; field of view from SyncDreamer's 35 mm lens on a 32 mm sensor."""
RINGS = {ring.name: ring for ring in (RING24, RING16)}
"""The papers' orbits by name."""
