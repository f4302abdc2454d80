"""A turntable: cameras around the origin, all looking at it; on one circle, unless a farm wants a sphere of them."""

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
    elevation_deg: Float[np.ndarray, " n"]
    """Degrees above the horizon; the same for every view of a ring."""
    distance_m: Float[np.ndarray, " n"]
    """Distance of each camera from the origin, metres."""
    width: int
    """Image width in pixels."""
    height: int
    """Image height in pixels."""
    focal_px: float
    """Focal length in pixels, both axes."""
    principal_px: tuple[float, float]
    """Principal point (u, v) in pixels."""

    def __post_init__(self) -> None:
        counts = {len(self.T_world_camera), len(self.azimuth_deg), len(self.elevation_deg), len(self.distance_m)}
        if len(counts) != 1:
            raise ValueError(
                f"{len(self.T_world_camera)} poses, {len(self.azimuth_deg)} azimuths, {len(self.elevation_deg)} "
                f"elevations and {len(self.distance_m)} distances: one each"
            )
        check_poses(self.T_world_camera)
        self.camera(0)

    @staticmethod
    def around_origin(
        name: str,
        azimuth_deg: Float[np.ndarray, " n"],
        elevation_deg: Float[np.ndarray, " n"],
        distance_m: Float[np.ndarray, " n"],
        fov_deg: float,
        width: int,
        height: int,
    ) -> "Orbit":
        """Return upright cameras that look at the origin from these places.

        Raises:
            ValueError: an elevation beyond the poles, or a camera at the origin.
        """
        places = zip(azimuth_deg.tolist(), elevation_deg.tolist(), distance_m.tolist(), strict=True)
        poses = []
        for azimuth, elevation, distance in places:
            if not -90 <= elevation <= 90:
                raise ValueError(f"elevation_deg must lie between -90 and 90, got {elevation}")
            pose = look_at(orbit_position(azimuth, elevation, distance), np.zeros(3))
            if abs(elevation) == 90:  # there is no up: keep the picture's right where the ring has it
                pose = _pole_pose(azimuth, elevation, distance)
            poses.append(pose)
        focal_px = focal_px_from_fov_deg(fov_deg, height)
        return Orbit(
            name, np.stack(poses), azimuth_deg, elevation_deg, distance_m, width, height, focal_px,
            (width / 2, height / 2),
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.T_world_camera)

    @property
    def is_ring(self) -> bool:
        """Whether all cameras share elevation and distance."""
        return bool(np.ptp(self.elevation_deg) == 0 and np.ptp(self.distance_m) == 0)

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
        return replace(
            self,
            T_world_camera=self.T_world_camera[chosen],
            azimuth_deg=self.azimuth_deg[chosen],
            elevation_deg=self.elevation_deg[chosen],
            distance_m=self.distance_m[chosen],
        )

    def resized(self, width: int, height: int) -> "Orbit":
        """Return the same orbit photographed at another size of the same aspect."""
        camera = self.camera(0).resized(width, height)
        return replace(self, width=width, height=height, focal_px=camera.focal_px, principal_px=camera.principal_px)


def _pole_pose(azimuth_deg: float, elevation_deg: float, distance_m: float) -> Float[np.ndarray, "4 4"]:
    """The limit of the ring's pose as its elevation reaches a pole: `look_at` alone would forget the azimuth."""
    azimuth = np.radians(azimuth_deg)
    right = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    forward = np.array([0.0, 0.0, -np.sign(elevation_deg)])
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = right, np.cross(forward, right), forward, -distance_m * forward
    return pose


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
        azimuth_deg = np.arange(self.views) * 360.0 / self.views
        same = np.ones(self.views)
        return Orbit.around_origin(
            self.name, azimuth_deg, elevation_deg * same, self.distance_m * same, self.fov_deg, width, height
        )


RING24 = Ring("ring24", 24, 39.6, 2.0, (5.0, 30.0))
"""VideoMV section 3.2: 24 views, G-Objaverse's field of view."""
RING16 = Ring("ring16", 16, 49.13, 1.5, (-10.0, 40.0))
"""Hi3D section 5.1: 16 views at 1.5 m; field of view from SyncDreamer's 35 mm lens on a 32 mm sensor."""
RINGS = {ring.name: ring for ring in (RING24, RING16)}
"""The papers' orbits by name."""
