"""One pinhole camera: where it stands, what it sees. The only place that builds intrinsics."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

POSE_TOLERANCE = 1e-4  # poses are stored with seven decimals and multiplied a few times


def focal_px_from_fov_deg(fov_deg: float, height: int) -> float:
    """Return the focal length in pixels of a vertical field of view in degrees."""
    if not 0 < fov_deg < 180:
        raise ValueError(f"fov_deg must lie between 0 and 180, got {fov_deg}")
    return float(0.5 * height / np.tan(np.radians(fov_deg) / 2))


def fov_deg_from_focal_px(focal_px: float, height: int) -> float:
    """Return the vertical field of view in degrees of a focal length in pixels."""
    return float(2 * np.degrees(np.arctan(0.5 * height / focal_px)))


def look_at(
    position: Float[np.ndarray, "3"],
    target: Float[np.ndarray, "3"],
    up: Float[np.ndarray, "3"] | None = None,
) -> Float[np.ndarray, "4 4"]:
    """Return T_world_camera of a camera at `position` that looks at `target`, upright against `up` (+Z).

    Looking straight along `up`, the picture's top points to +Y (seen from above) as in Blender's top view.
    Raises ValueError if position and target coincide.
    """
    forward = np.asarray(target, float) - np.asarray(position, float)
    length = np.linalg.norm(forward)
    if not length > 0:
        raise ValueError(f"position and target must differ, both are {np.asarray(position).tolist()}")
    forward /= length
    upwards = np.array([0.0, 0.0, 1.0]) if up is None else np.asarray(up, float)
    right = np.cross(forward, upwards)
    if np.linalg.norm(right) < 1e-9:
        right = np.array([1.0, 0.0, 0.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2], pose[:3, 3] = right, np.cross(forward, right), forward, position
    return pose


def check_poses(poses: Float[np.ndarray, "*n 4 4"]) -> None:
    """Raise ValueError, naming the first bad one, unless all are rigid: orthonormal, right-handed, finite."""
    poses = np.asarray(poses).reshape(-1, 4, 4)
    if _all_rigid(poses):
        return
    for index, pose in enumerate(poses):
        rotation = pose[:3, :3]
        problem = None
        if not np.isfinite(pose).all():
            problem = "holds values that are not finite"
        elif not np.allclose(pose[3], [0, 0, 0, 1], atol=POSE_TOLERANCE):
            problem = f"must end in the row 0 0 0 1, found {pose[3].tolist()}"
        elif not np.allclose(rotation @ rotation.T, np.eye(3), atol=POSE_TOLERANCE):
            problem = "must have a rotation with orthonormal columns: scaled or sheared poses are not cameras"
        elif np.linalg.det(rotation) < 0:
            problem = "mirrors (determinant -1): convert it with engine.geometry.frames, do not flip one axis"
        if problem:
            raise ValueError(f"T_world_camera[{index}] {problem}")


def _all_rigid(poses: Float[np.ndarray, "n 4 4"]) -> bool:
    """All at once: an orbit is checked often, and pose by pose that takes as long as decoding its pictures."""
    rotations = poses[:, :3, :3]
    error = np.abs(rotations @ rotations.swapaxes(1, 2) - np.eye(3))
    near = np.isfinite(poses).all() and (np.abs(poses[:, 3] - [0, 0, 0, 1]) <= POSE_TOLERANCE).all()
    return bool(near and (error <= POSE_TOLERANCE).all() and (np.linalg.det(rotations) > 0).all())


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with square pixels, in the axes of CONVENTIONS.md (OpenCV camera, +Z-up world)."""

    T_world_camera: Float[np.ndarray, "4 4"]
    """Pose: p_world = T_world_camera @ p_camera; metres."""
    width: int
    """Image width in pixels."""
    height: int
    """Image height in pixels."""
    focal_px: float
    """Focal length in pixels, both axes."""
    principal_px: tuple[float, float]
    """Principal point (u, v) in pixels; the first pixel's centre is (0.5, 0.5)."""

    def __post_init__(self) -> None:
        check_poses(self.T_world_camera)
        if self.width < 1 or self.height < 1:
            raise ValueError(f"width and height must be positive, got {self.width} x {self.height}")
        if not (np.isfinite(self.focal_px) and self.focal_px > 0):
            raise ValueError(f"focal_px must be positive and finite, got {self.focal_px}")

    @staticmethod
    def from_fov(T_world_camera: Float[np.ndarray, "4 4"], fov_deg: float, width: int, height: int) -> "Camera":
        """Return the camera of a vertical field of view, its principal point in the middle of the picture."""
        focal_px = focal_px_from_fov_deg(fov_deg, height)
        return Camera(T_world_camera, width, height, focal_px, (width / 2, height / 2))

    @property
    def K(self) -> Float[np.ndarray, "3 3"]:
        """Intrinsics: pixel = K @ p_camera / z."""
        return np.array(
            [[self.focal_px, 0, self.principal_px[0]], [0, self.focal_px, self.principal_px[1]], [0, 0, 1.0]]
        )

    @property
    def T_camera_world(self) -> Float[np.ndarray, "4 4"]:
        """Inverse pose: p_camera = T_camera_world @ p_world."""
        rotation, centre = self.T_world_camera[:3, :3], self.T_world_camera[:3, 3]
        inverse = np.eye(4)
        inverse[:3, :3], inverse[:3, 3] = rotation.T, -rotation.T @ centre
        return inverse

    @property
    def fov_deg(self) -> float:
        """Vertical field of view in degrees."""
        return fov_deg_from_focal_px(self.focal_px, self.height)

    def resized(self, width: int, height: int) -> "Camera":
        """Return the camera of the same picture at another size of the same aspect."""
        if abs(width * self.height - height * self.width) > max(self.width, self.height):
            raise ValueError(f"{width} x {height} has another aspect than {self.width} x {self.height}: crop first")
        scale = height / self.height
        principal_px = (self.principal_px[0] * width / self.width, self.principal_px[1] * scale)
        return Camera(self.T_world_camera, width, height, self.focal_px * scale, principal_px)
