"""Splats from the +Y-down world of their files to Blender's +Z-up world: centres, rotations, harmonics. Only numpy."""

from dataclasses import replace

import numpy as np

from .ply import Splats

Z_UP_FROM_PLY = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
"""(x, y, z) of the file -> (x, z, -y): a quarter turn about X."""
TURN = np.array([np.sqrt(0.5), -np.sqrt(0.5), 0.0, 0.0])
"""The same turn as a quaternion w x y z."""
SH_DC = 0.28209479177387814
"""Degree 0 of the real spherical harmonics: sqrt(1 / 4 pi)."""
SH_1 = 0.4886025119029199
"""Degree 1: sqrt(3 / 4 pi)."""


def as_seen(splats: Splats, blur_m: float) -> Splats:
    """Return the splats as wide as 3DGS renderers draw them at the distance they were made for.

    Those renderers add 0.3 px^2 to every splat's picture (Kerbl et al. 2023), and a fit counts on it. A ray tracer adds
    nothing: without this, holes open between the splats.

    Args:
        splats: as trained.
        blur_m: standard deviation of the blur where the object stands, metres.
    """
    return replace(splats, scales=np.sqrt(splats.scales**2 + np.float32(blur_m) ** 2))


def to_z_up(splats: Splats) -> Splats:
    """Return the same splats in Blender's world."""
    quaternions = multiply(TURN, splats.quaternions.astype(np.float64))
    sh = splats.sh
    if splats.degree:
        sh = np.einsum("jk,nkc->njc", sh_rotation(Z_UP_FROM_PLY, splats.degree), sh.astype(np.float64))
    return replace(
        splats,
        means=(splats.means @ Z_UP_FROM_PLY.T).astype(np.float32),
        quaternions=quaternions.astype(np.float32),
        sh=sh.astype(np.float32),
    )


def multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the quaternion products a * b (first b, then a), [..., 4] w x y z."""
    aw, ax, ay, az = np.moveaxis(a, -1, 0)
    bw, bx, by, bz = np.moveaxis(b, -1, 0)
    return np.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        -1,
    )


def matrices(quaternions: np.ndarray) -> np.ndarray:
    """Return rotation matrices [n, 3, 3] of unit quaternions [n, 4]."""
    w, x, y, z = np.moveaxis(quaternions, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def sh_basis(directions: np.ndarray, degree: int) -> np.ndarray:
    """Return the real spherical harmonics [..., (degree + 1)^2] of unit directions [..., 3], signs as 3DGS has them."""
    x, y, z = np.moveaxis(directions, -1, 0)
    xx, yy, zz = x * x, y * y, z * z
    basis = [
        np.full_like(x, SH_DC),
        -SH_1 * y, SH_1 * z, -SH_1 * x,
        1.0925484305920792 * x * y, -1.0925484305920792 * y * z, 0.31539156525252005 * (2 * zz - xx - yy),
        -1.0925484305920792 * x * z, 0.5462742152960396 * (xx - yy),
        -0.5900435899266435 * y * (3 * xx - yy), 2.890611442640554 * x * y * z,
        -0.4570457994644658 * y * (4 * zz - xx - yy), 0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
        -0.4570457994644658 * x * (4 * zz - xx - yy), 1.445305721320277 * z * (xx - yy),
        -0.5900435899266435 * x * (xx - 3 * yy),
    ]  # fmt: skip
    return np.stack(basis[: (degree + 1) ** 2], -1)


def sh_rotation(rotation: np.ndarray, degree: int) -> np.ndarray:
    """Return D [k, k] with sh_turned = D @ sh, so that the turned splat sends the same colour along turned directions.

    f'(R d) = f(d) for every d; each degree's harmonics span their own turns, so D follows exactly from enough directions.
    """
    return np.linalg.pinv(sh_basis(PROBES @ rotation.T, degree)) @ sh_basis(PROBES, degree)


def in_own_axes(splats: Splats) -> np.ndarray:
    """Return harmonics [n, k, 3] for directions along each splat's own axes: f_own(d) = f(R d), as in `sh_rotation`."""
    own = splats.sh.astype(np.float64)
    if not splats.degree:
        return own
    fit = np.linalg.pinv(sh_basis(PROBES, splats.degree))
    for start in range(0, len(splats), BATCH):
        part = slice(start, start + BATCH)
        turned = PROBES @ matrices(splats.quaternions[part].astype(np.float64)).transpose(0, 2, 1)  # [n, probes, 3]
        own[part] = fit @ (sh_basis(turned, splats.degree) @ own[part])
    return own


def _spiral(count: int) -> np.ndarray:
    """Return unit directions [count, 3], evenly spread: the Fibonacci sphere."""
    z = 1 - (2 * np.arange(count) + 1) / count
    angle = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    return np.stack([np.sqrt(1 - z * z) * np.cos(angle), np.sqrt(1 - z * z) * np.sin(angle), z], -1)


PROBES = _spiral(24)
"""Directions at which harmonics are compared: more than the 16 of degree 3, so that they fix them."""
BATCH = 4096
"""Splats turned at a time: 4096 * 24 * 16 numbers are 13 MB."""
