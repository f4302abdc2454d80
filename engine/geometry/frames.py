"""Every other convention, by name, to ours and back. CONVENTIONS.md has the table.

Poses in and out are 4x4 (or as the other side keeps them); `to_X` takes ours, `from_X` gives ours.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from engine.geometry.camera import Camera
from engine.geometry.rays import pluecker_rays
from engine.geometry.rotations import rotation_about

Pose = Float[np.ndarray, "*n 4 4"]

FLIP_YZ = np.diag([1.0, -1.0, -1.0, 1.0])
"""Camera axes OpenCV <-> OpenGL; its own inverse."""
Y_UP_FROM_Z_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
"""World: (x, y, z) -> (x, z, -y). glTF and LGM."""
SPLAT_FROM_Z_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
"""World: (x, y, z) -> (x, -z, y), +Y down. 3DGS PLY as INRIA's COLMAP scenes and TRELLIS write it."""
QUARTER_TURN = rotation_about("z", 90.0)
"""World: our first view stands at -Y, VideoMV's and SyncDreamer's at +X."""


def _world(rotation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "4 4"]:
    transform = np.eye(4)
    transform[:3, :3] = rotation
    return transform


def invert_pose(pose: Pose) -> Pose:
    """Invert rigid poses exactly (transpose, not a solve)."""
    rotation = np.swapaxes(pose[..., :3, :3], -1, -2)
    inverse = np.zeros_like(pose)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3] = -(rotation @ pose[..., :3, 3:])[..., 0]
    inverse[..., 3, 3] = 1
    return inverse


# ---------------------------------------------------------------- OpenGL, Blender: +Z-up world, camera looks along -Z
def to_opengl(T_world_camera: Pose) -> Pose:
    """Camera to world with OpenGL camera axes (+X right, +Y up, -Z forward), same world."""
    return T_world_camera @ FLIP_YZ


def from_opengl(pose: Pose) -> Pose:
    """Inverse of `to_opengl`."""
    return pose @ FLIP_YZ


to_blender = to_opengl
"""Blender's `matrix_world` of a camera object is an OpenGL camera pose in a +Z-up world."""
from_blender = from_opengl
"""Inverse of `to_blender`."""


# ---------------------------------------------------------------- glTF: +Y-up world, OpenGL camera
def to_gltf(T_world_camera: Pose) -> Pose:
    """Camera node matrix of glTF 2.0 (section 3.10): +Y-up world, camera looks along -Z."""
    return _world(Y_UP_FROM_Z_UP) @ T_world_camera @ FLIP_YZ


def from_gltf(pose: Pose) -> Pose:
    """Inverse of `to_gltf`."""
    return _world(Y_UP_FROM_Z_UP.T) @ pose @ FLIP_YZ


def points_to_gltf(points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """World points or directions to glTF's +Y-up world: (x, z, -y)."""
    return points @ Y_UP_FROM_Z_UP.T.astype(points.dtype)


def points_from_gltf(points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """Inverse of `points_to_gltf`."""
    return points @ Y_UP_FROM_Z_UP.astype(points.dtype)


# ---------------------------------------------------------------- 3DGS PLY: +Y-down world, OpenCV camera
def to_splat_ply(T_world_camera: Pose) -> Pose:
    """Pose in the +Y-down world of 3DGS PLY files."""
    return _world(SPLAT_FROM_Z_UP) @ T_world_camera


def from_splat_ply(pose: Pose) -> Pose:
    """Inverse of `to_splat_ply`."""
    return _world(SPLAT_FROM_Z_UP.T) @ pose


# ---------------------------------------------------------------- VideoMV: the 16 numbers that its U-Nets are given
def to_videomv(T_world_camera: Pose) -> Float[np.ndarray, "*n 16"]:
    """Camera vectors of the released VideoMV: OpenGL camera to world, first view at +X, row-major, 16 numbers."""
    pose = _world(QUARTER_TURN) @ T_world_camera @ FLIP_YZ
    return pose.reshape(*pose.shape[:-2], 16)


def from_videomv(vector: Float[np.ndarray, "*n 16"]) -> Pose:
    """Inverse of `to_videomv`."""
    pose = vector.reshape(*vector.shape[:-1], 4, 4)
    return _world(QUARTER_TURN.T) @ pose @ FLIP_YZ


# ---------------------------------------------------------------- LGM: +Y-up world, OpenGL camera, first view at (0, 0, d)
to_lgm = to_gltf
"""LGM's world is glTF's. Its `orbit_camera(elevation, azimuth)` counts elevation downwards: pass minus ours."""
from_lgm = from_gltf
"""Inverse of `to_lgm`."""


def lgm_input_poses(
    T_world_camera: Float[np.ndarray, "n 4 4"], *, released_flip: bool = False
) -> Float[np.ndarray, "n 4 4"]:
    """Poses as LGM and VideoMV's reconstructor want them: OpenGL camera to world, first camera moved to (0, 0, d).

    d is the first camera's distance from the origin. LGM section 3.2 (camera pose normalisation).

    Args:
        T_world_camera: our poses.
        released_flip: reproduce VideoMV's inference scripts, which negate the camera's y and z axes once more before
            the first camera is moved. The optical axes then no longer meet at the origin; kept for comparison with
            the release only.
    """
    poses = to_lgm(T_world_camera)
    if released_flip:
        poses = poses @ FLIP_YZ
    distance_m = np.linalg.norm(poses[0, :3, 3])
    moved = np.eye(4)
    moved[2, 3] = distance_m
    return moved @ invert_pose(poses[0]) @ poses


def from_lgm_input_poses(
    poses: Float[np.ndarray, "n 4 4"], first: Float[np.ndarray, "4 4"]
) -> Float[np.ndarray, "n 4 4"]:
    """Inverse of `lgm_input_poses` (without the flip), given our pose of the first view."""
    return from_lgm(to_lgm(first) @ invert_pose(poses[0]) @ poses)


def lgm_rays(poses: Float[np.ndarray, "n 4 4"], cameras: Sequence[Camera]) -> Float[np.ndarray, "n 6 h w"]:
    """Ray images that LGM's network is given beside the pictures (section 3.2): moment o x d, then unit direction d.

    Both are in LGM's +Y-up world, channels first: rays of cameras of ours that stand there.

    Args:
        poses: from `lgm_input_poses`, at any scale.
        cameras: one for each pose, all of one size; their own poses do not matter.
    """
    there = [replace(c, T_world_camera=pose @ FLIP_YZ) for c, pose in zip(cameras, poses, strict=True)]
    return np.stack([np.moveaxis(pluecker_rays(camera), -1, 0) for camera in there])


def lgm_rasterizer_matrices(
    poses: Float[np.ndarray, "n 4 4"], fov_deg: float, near_m: float = 0.5, far_m: float = 2.5
) -> tuple[Float[np.ndarray, "n 4 4"], Float[np.ndarray, "n 4 4"], Float[np.ndarray, "n 3"]]:
    """Matrices that LGM's rasterizer takes: view, view-projection (both transposed, row vectors) and camera place.

    Args:
        poses: from `lgm_input_poses`.
        fov_deg: vertical field of view.
        near_m: near plane; only touches the unused z row.
        far_m: far plane; likewise.
    """
    cv = poses @ FLIP_YZ
    view = np.swapaxes(invert_pose(cv), -1, -2)
    tangent = np.tan(np.radians(fov_deg) / 2)
    projection = np.zeros((4, 4))
    projection[0, 0] = projection[1, 1] = 1 / tangent
    projection[2, 2] = (far_m + near_m) / (far_m - near_m)
    projection[3, 2] = -(far_m * near_m) / (far_m - near_m)
    projection[2, 3] = 1
    return view, view @ projection, -cv[:, :3, 3]


# ---------------------------------------------------------------- SyncDreamer, whose renders Hi3D trains on
def to_syncdreamer(T_world_camera: Pose) -> Float[np.ndarray, "*n 3 4"]:
    """World-to-camera 3x4 as in SyncDreamer's meta.pkl: OpenCV camera, +Z-up world, first view at +X."""
    return invert_pose(_world(QUARTER_TURN) @ T_world_camera)[..., :3, :]


def from_syncdreamer(pose: Float[np.ndarray, "*n 3 4"]) -> Pose:
    """Inverse of `to_syncdreamer`."""
    bottom = np.broadcast_to(np.array([0.0, 0, 0, 1]), (*pose.shape[:-2], 1, 4))
    return _world(QUARTER_TURN.T) @ invert_pose(np.concatenate([pose, bottom], -2))


def syncdreamer_azimuth_rad(azimuth_deg: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Azimuth as SyncDreamer stores it: radians from +X, where our first view has been turned to."""
    return np.radians(azimuth_deg)


# ---------------------------------------------------------------- G-Objaverse: poses as ours, normals in Unity's world
def to_gobjaverse(T_world_camera: Pose) -> Float[np.ndarray, "*n 4 3"]:
    """Rows x, y, z, origin as in G-Objaverse's json (Shap-E's format): OpenCV axes in a +Z-up world, as ours."""
    return np.swapaxes(T_world_camera[..., :3, :], -1, -2)


def from_gobjaverse(rows: Float[np.ndarray, "*n 4 3"]) -> Pose:
    """Inverse of `to_gobjaverse`."""
    bottom = np.broadcast_to(np.array([0.0, 0, 0, 1]), (*rows.shape[:-2], 1, 4))
    return np.concatenate([np.swapaxes(rows, -1, -2), bottom], -2)


def directions_to_unity(directions: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """World directions in Unity's left-handed +Y-up world, as in G-Objaverse's normal maps: (-x, z, -y)."""
    return np.stack([-directions[..., 0], directions[..., 2], -directions[..., 1]], -1)


def directions_from_unity(directions: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """Inverse of `directions_to_unity`: (-x, -z, y)."""
    return np.stack([-directions[..., 0], -directions[..., 2], directions[..., 1]], -1)
