"""Numba kernels, one thread a Gaussian: EWA projection to ellipses, and its gradient. Same mathematics as projection.py.

A view is a float32 array of 20 numbers: rotation world to camera (9, row-major), translation (3), camera centre (3),
focal, principal (u, v), width, height.
"""

import math
from typing import Any, no_type_check

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from engine.geometry import Camera
from engine.splats.limits import ALPHA_MIN, BLUR_PX2, GUARD_BAND, NEAR_M

Array = NDArray[Any]


def view_of(camera: Camera) -> Array:
    """Return a camera as the 20 numbers that the kernels take."""
    T = camera.T_camera_world
    numbers = [*T[:3, :3].ravel(), *T[:3, 3], *camera.T_world_camera[:3, 3]]
    return np.array([*numbers, camera.focal_px, *camera.principal_px, camera.width, camera.height], np.float32)


@njit(inline="always", cache=True)
@no_type_check  # jaxtyping would wrap what numba compiles
def _rotation(q: Array) -> tuple[Any, ...]:
    """Rotation matrix (9 numbers) of a quaternion of any length, and one over that length."""
    inverse = np.float32(1.0) / math.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
    w, x, y, z = q[0] * inverse, q[1] * inverse, q[2] * inverse, q[3] * inverse
    one, two = np.float32(1.0), np.float32(2.0)
    return (
        one - two * (y * y + z * z), two * (x * y - w * z), two * (x * z + w * y),
        two * (x * y + w * z), one - two * (x * x + z * z), two * (y * z - w * x),
        two * (x * z - w * y), two * (y * z + w * x), one - two * (x * x + y * y),
        w, x, y, z, inverse,
    )  # fmt: skip


@njit(inline="always", cache=True)
@no_type_check  # jaxtyping would wrap what numba compiles
def _guarded_slopes(x: float, y: float, z: float, view: Array) -> tuple[Any, ...]:
    """Clamp x / z and y / z to the guard band; the flags say whether they were inside it."""
    f, cu, cv, width, height = view[15], view[16], view[17], view[18], view[19]
    margin = np.float32(0.5 * (GUARD_BAND - 1))
    raw_x, raw_y = x / z, y / z
    slope_x = min(max(raw_x, -(cu + margin * width) / f), (width - cu + margin * width) / f)
    slope_y = min(max(raw_y, -(cv + margin * height) / f), (height - cv + margin * height) / f)
    return slope_x, slope_y, raw_x == slope_x, raw_y == slope_y


@njit(inline="always", cache=True)
@no_type_check  # jaxtyping would wrap what numba compiles
def _spread(R: tuple[Any, ...], s: Array, view: Array, fz: float, slope_x: float, slope_y: float) -> tuple[Any, ...]:
    """Rows of J @ W (2x3) and of J @ W @ R @ diag(s) (2x3)."""
    t00, t01, t02 = view[0] - slope_x * view[6], view[1] - slope_x * view[7], view[2] - slope_x * view[8]
    t10, t11, t12 = view[3] - slope_y * view[6], view[4] - slope_y * view[7], view[5] - slope_y * view[8]
    t00, t01, t02, t10, t11, t12 = fz * t00, fz * t01, fz * t02, fz * t10, fz * t11, fz * t12
    m00 = (t00 * R[0] + t01 * R[3] + t02 * R[6]) * s[0]
    m01 = (t00 * R[1] + t01 * R[4] + t02 * R[7]) * s[1]
    m02 = (t00 * R[2] + t01 * R[5] + t02 * R[8]) * s[2]
    m10 = (t10 * R[0] + t11 * R[3] + t12 * R[6]) * s[0]
    m11 = (t10 * R[1] + t11 * R[4] + t12 * R[7]) * s[1]
    m12 = (t10 * R[2] + t11 * R[5] + t12 * R[8]) * s[2]
    return t00, t01, t02, t10, t11, t12, m00, m01, m02, m10, m11, m12


@njit(inline="always", cache=True)
@no_type_check  # jaxtyping would wrap what numba compiles
def _shortest(s: Array) -> int:
    if s[0] <= s[1] and s[0] <= s[2]:
        return 0
    return 1 if s[1] <= s[2] else 2


@njit(parallel=True, cache=True)
@no_type_check  # jaxtyping would wrap what numba compiles
def project_forward(
    means: Array, scales: Array, quaternions: Array, opacity: Array, view: Array,
    pixels: Array, conics: Array, depth: Array, normals: Array, boxes: Array,
) -> None:  # fmt: skip
    """Fill pixels [n,2], conics [n,3], depth [n], normals [n,3] and boxes [n,4] (u0, u1, v0, v1; empty if undrawn)."""
    for i in prange(len(means)):
        boxes[i, :] = 0
        m = means[i]
        x = view[0] * m[0] + view[1] * m[1] + view[2] * m[2] + view[9]
        y = view[3] * m[0] + view[4] * m[1] + view[5] * m[2] + view[10]
        z = view[6] * m[0] + view[7] * m[1] + view[8] * m[2] + view[11]
        depth[i] = z
        if z <= NEAR_M or opacity[i] < ALPHA_MIN:
            continue
        R = _rotation(quaternions[i])
        slope_x, slope_y, _, _ = _guarded_slopes(x, y, z, view)
        fz = view[15] / z
        _, _, _, _, _, _, m00, m01, m02, m10, m11, m12 = _spread(R, scales[i], view, fz, slope_x, slope_y)
        a = m00 * m00 + m01 * m01 + m02 * m02 + np.float32(BLUR_PX2)
        b = m00 * m10 + m01 * m11 + m02 * m12
        c = m10 * m10 + m11 * m11 + m12 * m12 + np.float32(BLUR_PX2)
        determinant = a * c - b * b
        if determinant <= 0:
            continue
        u, v = fz * x + view[16], fz * y + view[17]
        pixels[i, 0], pixels[i, 1] = u, v
        conics[i, 0], conics[i, 1], conics[i, 2] = c / determinant, -b / determinant, a / determinant
        k = _shortest(scales[i])
        n0, n1, n2 = R[k], R[3 + k], R[6 + k]
        away = (m[0] - view[12]) * n0 + (m[1] - view[13]) * n1 + (m[2] - view[14]) * n2
        sign = np.float32(-1.0) if away > 0 else np.float32(1.0)
        normals[i, 0], normals[i, 1], normals[i, 2] = sign * n0, sign * n1, sign * n2
        # The ellipse reaches as far as its alpha stays above ALPHA_MIN; a pixel counts by its centre.
        reach = math.sqrt(2.0 * math.log(opacity[i] / ALPHA_MIN))
        half_u, half_v = reach * math.sqrt(a), reach * math.sqrt(c)
        boxes[i, 0] = max(0, math.ceil(u - half_u - 0.5))
        boxes[i, 1] = min(int(view[18]), math.floor(u + half_u - 0.5) + 1)
        boxes[i, 2] = max(0, math.ceil(v - half_v - 0.5))
        boxes[i, 3] = min(int(view[19]), math.floor(v + half_v - 0.5) + 1)


@njit(parallel=True, cache=True)
@no_type_check  # jaxtyping would wrap what numba compiles
def project_backward(
    means: Array, scales: Array, quaternions: Array, view: Array, conics: Array, boxes: Array, d_ellipse: Array,
    d_depth: Array, d_normals: Array, d_means: Array, d_log_scales: Array, d_quaternions: Array,
) -> None:  # fmt: skip
    """Gradients of means [n,3], log scales [n,3] and quaternions [n,4].

    d_ellipse [n,5] holds the gradients of u, v and of the conic's three numbers; d_depth [n] and d_normals [n,3] those
    of the blended z and normal.
    """
    for i in prange(len(means)):
        if boxes[i, 1] <= boxes[i, 0] or boxes[i, 3] <= boxes[i, 2]:
            continue
        m, s = means[i], scales[i]
        x = view[0] * m[0] + view[1] * m[1] + view[2] * m[2] + view[9]
        y = view[3] * m[0] + view[4] * m[1] + view[5] * m[2] + view[10]
        z = view[6] * m[0] + view[7] * m[1] + view[8] * m[2] + view[11]
        R = _rotation(quaternions[i])
        slope_x, slope_y, inside_x, inside_y = _guarded_slopes(x, y, z, view)
        fz = view[15] / z
        t00, t01, t02, t10, t11, t12, m00, m01, m02, m10, m11, m12 = _spread(R, s, view, fz, slope_x, slope_y)

        # conic = inverse(covariance): d_cov = -conic @ d_conic @ conic, all symmetric
        A, B, C = conics[i, 0], conics[i, 1], conics[i, 2]
        dA, dB, dC = d_ellipse[i, 2], d_ellipse[i, 3] * np.float32(0.5), d_ellipse[i, 4]
        p00, p01, p10, p11 = A * dA + B * dB, A * dB + B * dC, B * dA + C * dB, B * dB + C * dC
        g00 = -(p00 * A + p01 * B)
        g01 = -(p00 * B + p01 * C)
        g11 = -(p10 * B + p11 * C)

        # covariance = M M^T with M = T R S: d_M = 2 d_cov M
        h00, h01, h02 = 2 * (g00 * m00 + g01 * m10), 2 * (g00 * m01 + g01 * m11), 2 * (g00 * m02 + g01 * m12)
        h10, h11, h12 = 2 * (g01 * m00 + g11 * m10), 2 * (g01 * m01 + g11 * m11), 2 * (g01 * m02 + g11 * m12)
        d_log_scales[i, 0] = h00 * m00 + h10 * m10
        d_log_scales[i, 1] = h01 * m01 + h11 * m11
        d_log_scales[i, 2] = h02 * m02 + h12 * m12
        h00, h01, h02 = h00 * s[0], h01 * s[1], h02 * s[2]
        h10, h11, h12 = h10 * s[0], h11 * s[1], h12 * s[2]

        # d_R = T^T (d_M S), plus the normal's column
        r0, r1, r2 = t00 * h00 + t10 * h10, t00 * h01 + t10 * h11, t00 * h02 + t10 * h12
        r3, r4, r5 = t01 * h00 + t11 * h10, t01 * h01 + t11 * h11, t01 * h02 + t11 * h12
        r6, r7, r8 = t02 * h00 + t12 * h10, t02 * h01 + t12 * h11, t02 * h02 + t12 * h12
        k = _shortest(s)
        n0, n1, n2 = R[k], R[3 + k], R[6 + k]
        away = (m[0] - view[12]) * n0 + (m[1] - view[13]) * n1 + (m[2] - view[14]) * n2
        sign = np.float32(-1.0) if away > 0 else np.float32(1.0)
        e0, e1, e2 = sign * d_normals[i, 0], sign * d_normals[i, 1], sign * d_normals[i, 2]
        if k == 0:
            r0, r3, r6 = r0 + e0, r3 + e1, r6 + e2
        elif k == 1:
            r1, r4, r7 = r1 + e0, r4 + e1, r7 + e2
        else:
            r2, r5, r8 = r2 + e0, r5 + e1, r8 + e2

        # rotation matrix -> unit quaternion -> quaternion of any length
        qw, qx, qy, qz, inverse = R[9], R[10], R[11], R[12], R[13]
        dw = 2 * (qx * (r7 - r5) + qy * (r2 - r6) + qz * (r3 - r1))
        dx = 2 * (qw * (r7 - r5) + qy * (r1 + r3) + qz * (r2 + r6)) - 4 * qx * (r4 + r8)
        dy = 2 * (qw * (r2 - r6) + qx * (r1 + r3) + qz * (r5 + r7)) - 4 * qy * (r0 + r8)
        dz = 2 * (qw * (r3 - r1) + qx * (r2 + r6) + qy * (r5 + r7)) - 4 * qz * (r0 + r4)
        along = dw * qw + dx * qx + dy * qy + dz * qz
        d_quaternions[i, 0], d_quaternions[i, 1] = (dw - along * qw) * inverse, (dx - along * qx) * inverse
        d_quaternions[i, 2], d_quaternions[i, 3] = (dy - along * qy) * inverse, (dz - along * qz) * inverse

        # d_T = (d_M S) R^T, then T = J W and J = f/z [[1, 0, -sx], [0, 1, -sy]]
        k00, k01, k02 = (
            h00 * R[0] + h01 * R[1] + h02 * R[2],
            h00 * R[3] + h01 * R[4] + h02 * R[5],
            h00 * R[6] + h01 * R[7] + h02 * R[8],
        )
        k10, k11, k12 = (
            h10 * R[0] + h11 * R[1] + h12 * R[2],
            h10 * R[3] + h11 * R[4] + h12 * R[5],
            h10 * R[6] + h11 * R[7] + h12 * R[8],
        )
        d_fz = (k00 * t00 + k01 * t01 + k02 * t02 + k10 * t10 + k11 * t11 + k12 * t12) / fz
        d_slope_x = -fz * (k00 * view[6] + k01 * view[7] + k02 * view[8])
        d_slope_y = -fz * (k10 * view[6] + k11 * view[7] + k12 * view[8])
        du, dv = d_ellipse[i, 0], d_ellipse[i, 1]
        px, py = du * fz, dv * fz
        pz = d_depth[i] - (d_fz + du * x + dv * y) * fz / z
        if inside_x:
            px += d_slope_x / z
            pz -= d_slope_x * slope_x / z
        if inside_y:
            py += d_slope_y / z
            pz -= d_slope_y * slope_y / z
        d_means[i, 0] = view[0] * px + view[3] * py + view[6] * pz
        d_means[i, 1] = view[1] * px + view[4] * py + view[7] * pz
        d_means[i, 2] = view[2] * px + view[5] * py + view[8] * pz
