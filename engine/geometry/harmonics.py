"""Spherical harmonics as 3D Gaussian splats use them: the basis, and what a rotation of the world does to coefficients.

Order and signs are those of INRIA's 3DGS (Kerbl et al. 2023, utils/sh_utils.py), degree 0 to 3: coefficient
l * l + l + m for m = -l .. l, with the Condon-Shortley sign, so that degree 1 is (-y, z, -x).
"""

from typing import Any

import numpy as np
from jaxtyping import Float

SH_C0 = 0.28209479177387814
SH_C1 = 0.4886025119029199
SH_C2 = (1.0925484305920792, -1.0925484305920792, 0.31539156525252005, -1.0925484305920792, 0.5462742152960396)
SH_C3 = (
    -0.5900435899266435, 2.890611442640554, -0.4570457994644658, 0.3731763325901154, -0.4570457994644658,
    1.445305721320277, -0.5900435899266435,
)  # fmt: skip
MAX_DEGREE = 3


def degree_of(coefficients: int) -> int:
    """Return the degree that has this many coefficients: 1, 4, 9, 16. Raises ValueError for any other number."""
    counts = [(degree + 1) ** 2 for degree in range(MAX_DEGREE + 1)]
    if coefficients not in counts:
        raise ValueError(f"spherical harmonics have {counts} coefficients for degree 0 to 3, got {coefficients}")
    return counts.index(coefficients)


def sh_terms(x: Any, y: Any, z: Any, degree: int) -> list[Any]:
    """Return the (degree + 1)^2 basis polynomials in the coordinates of unit directions.

    Arithmetic only, so that numpy arrays and torch tensors go through the one place that knows the signs.
    """
    xx, yy, zz = x * x, y * y, z * z
    bands = [
        [SH_C0 + 0 * x],
        [-SH_C1 * y, SH_C1 * z, -SH_C1 * x],
        [SH_C2[0] * x * y, SH_C2[1] * y * z, SH_C2[2] * (2 * zz - xx - yy), SH_C2[3] * x * z, SH_C2[4] * (xx - yy)],
        [
            SH_C3[0] * y * (3 * xx - yy), SH_C3[1] * x * y * z, SH_C3[2] * y * (4 * zz - xx - yy),
            SH_C3[3] * z * (2 * zz - 3 * xx - 3 * yy), SH_C3[4] * x * (4 * zz - xx - yy), SH_C3[5] * z * (xx - yy),
            SH_C3[6] * x * (xx - 3 * yy),
        ],
    ]  # fmt: skip
    return [term for band in bands[: degree + 1] for term in band]


def sh_basis(directions: Float[np.ndarray, "*n 3"], degree: int) -> Float[np.ndarray, "*n k"]:
    """Return the (degree + 1)^2 basis values in unit directions (from the camera to the splat)."""
    x, y, z = np.moveaxis(directions, -1, 0)
    return np.stack(sh_terms(x, y, z, degree), -1)


def sh_rotation(rotation: Float[np.ndarray, "3 3"], degree: int) -> Float[np.ndarray, "k k"]:
    """Return the block-diagonal (real Wigner-D) matrix that takes coefficients along when the world is rotated.

    A rotated function is f'(d) = f(R^T d). Each band of spherical harmonics is closed under rotation, so the new
    coefficients solve Y(d) c' = Y(R^T d) c exactly; more directions than unknowns keep the solve well conditioned.
    """
    directions = _spread_directions(32)
    before, after = sh_basis(directions @ rotation, degree), sh_basis(directions, degree)
    matrix = np.zeros(((degree + 1) ** 2, (degree + 1) ** 2))
    for band in range(degree + 1):
        part = slice(band * band, (band + 1) ** 2)
        matrix[part, part] = np.linalg.lstsq(after[:, part], before[:, part], rcond=None)[0]
    return matrix


def rotate_sh(sh: Float[np.ndarray, "n k c"], rotation: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "n k c"]:
    """Rotate coefficients with the world: p' = rotation @ p. Keeps the type; computed in float64."""
    matrix = sh_rotation(np.asarray(rotation, np.float64), degree_of(sh.shape[1]))
    return np.einsum("kj,njc->nkc", matrix, sh.astype(np.float64)).astype(sh.dtype)


def _spread_directions(count: int) -> Float[np.ndarray, "n 3"]:
    """A Fibonacci spiral: even enough that no band is degenerate on it."""
    index = np.arange(count) + 0.5
    z = 1 - 2 * index / count
    angle = np.pi * (1 + 5**0.5) * index
    radius = np.sqrt(1 - z * z)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], -1)
