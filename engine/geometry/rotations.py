"""Rotations: quaternions (w, x, y, z) and 3x3 matrices in, the same out."""

from typing import Literal

import numpy as np
from jaxtyping import Float


def matrix_from_quaternion(wxyz: Float[np.ndarray, "*n 4"]) -> Float[np.ndarray, "*n 3 3"]:
    """Return rotation matrices of quaternions, which are normalised first. Raises ValueError for a zero quaternion."""
    norm = np.linalg.norm(wxyz, axis=-1, keepdims=True)
    if not np.all(norm > 0):
        raise ValueError("quaternions must not be zero: a rotation needs a direction")
    w, x, y, z = np.moveaxis(wxyz / norm, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def quaternion_from_matrix(rotation: Float[np.ndarray, "*n 3 3"]) -> Float[np.ndarray, "*n 4"]:
    """Return unit quaternions with w >= 0 of rotation matrices.

    Of the four ways to divide, each matrix takes the one with the largest divisor (Shepperd 1978), so that no angle
    loses precision.
    """
    r = np.asarray(rotation)
    xx, yy, zz = r[..., 0, 0], r[..., 1, 1], r[..., 2, 2]
    four_squares = np.stack([1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz], -1)
    wx, wy, wz = r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]
    xy, xz, yz = r[..., 0, 1] + r[..., 1, 0], r[..., 0, 2] + r[..., 2, 0], r[..., 1, 2] + r[..., 2, 1]
    candidates = np.stack(
        [
            np.stack([four_squares[..., 0], wx, wy, wz], -1),
            np.stack([wx, four_squares[..., 1], xy, xz], -1),
            np.stack([wy, xy, four_squares[..., 2], yz], -1),
            np.stack([wz, xz, yz, four_squares[..., 3]], -1),
        ],
        -2,
    )  # [*n, 4 ways, 4], each proportional to the quaternion
    best = np.argmax(four_squares, -1)
    chosen = np.take_along_axis(candidates, best[..., None, None], -2)[..., 0, :]
    chosen = chosen / np.linalg.norm(chosen, axis=-1, keepdims=True)
    return np.where(chosen[..., :1] < 0, -chosen, chosen)


def rotation_about(axis: Literal["x", "y", "z"], angle_deg: float) -> Float[np.ndarray, "3 3"]:
    """Return the right-handed rotation by angle_deg about a world axis."""
    a, b = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    cosine, sine = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    matrix = np.eye(3)
    matrix[a, a] = matrix[b, b] = cosine
    matrix[a, b], matrix[b, a] = -sine, sine
    return matrix
