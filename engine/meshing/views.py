"""What one posed depth map says about space: a signed distance to its silhouette and a plane for each pixel.

Depth maps are never interpolated. A pixel's surface is the plane through its neighbours on the same surface, so that
distances are right below the size of a pixel and nothing is invented between foreground and background.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float
from numba import njit, prange
from numpy.typing import NDArray
from scipy import ndimage

from engine.errors import TurntableError
from engine.geometry import Orbit, rays_world

Array = NDArray[Any]
SILHOUETTE_FACTOR = 4  # silhouettes are found on a grid this much finer: a quarter of a pixel
STEEP = 6.0  # slopes (80 degrees off the view) from which a surface must prove that it is no step in depth
STEEPEST = 25.0  # slopes (88 degrees) that no depth map resolves


NO_PLANE = 0.05  # cosines below this mark pixels that have a depth but no plane (wires, steps, grazing surfaces)


class MeshingError(TurntableError):
    """Depth maps, masks or a mesh from which no surface can be made."""


@dataclass(frozen=True)
class ViewFields:
    """All views of an orbit as the carving kernel reads them; float32."""

    T_camera_world: Float[np.ndarray, "n 4 4"]
    """World to camera, metres."""
    focal_px: float
    """Focal length in pixels."""
    principal_px: tuple[float, float]
    """Principal point in pixels."""
    silhouette_px: Float[np.ndarray, "n h w"]
    """Signed distance to the silhouette at pixel centres, pixels; positive outside."""
    depth_m: Float[np.ndarray, "n h w"]
    """Planar depth after the plane fit, metres; 0 where unknown."""
    planes: Float[np.ndarray, "n h w 4"]
    """World planes (normal towards the camera, offset): normal . p + offset is metres in front of the surface."""
    cosine: Float[np.ndarray, "n h w"]
    """Cosine between the normal and the ray back to the camera; under NO_PLANE without a plane, 0 without a depth."""


def check_inputs(orbit: Orbit, depth_m: Float[np.ndarray, "..."] | None, alpha: Float[np.ndarray, "..."]) -> None:
    """Raise MeshingError, in one line, for what cannot become a mesh."""
    expected = (len(orbit), orbit.height, orbit.width)
    for name, array in (("depth_m", depth_m), ("alpha", alpha)):
        if array is None:
            continue
        if array.shape != expected:
            raise MeshingError(f"{name} must be {expected} (views, height, width) like its orbit, got {array.shape}")
        if not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).any((1, 2)).argmax())
            raise MeshingError(f"{name} of view {bad} holds values that are not finite: use 0 where nothing is")
    if len(orbit) < 3:
        raise MeshingError(f"a mesh needs at least 3 views from different sides, got {len(orbit)}: render the orbit")
    if not (alpha > 0).any():
        raise MeshingError("alpha is 0 in every view: there is no object in these images")
    if depth_m is not None and not (depth_m > 0).any():
        raise MeshingError("depth_m is 0 in every view: render the orbit with depth, or take depth from the splats")


def silhouette_distance_px(alpha: Float[np.ndarray, "h w"], level: float) -> Float[np.ndarray, "h w"]:
    """Return the signed distance in pixels to the line alpha = level, positive outside the object."""
    k = SILHOUETTE_FACTOR
    fine = ndimage.zoom(alpha, k, order=1, grid_mode=True, mode="nearest") >= level
    if fine.all() or not fine.any():
        return np.full(alpha.shape, -1e3 if fine.all() else 1e3, np.float32)
    # the line runs half a fine cell from the last cells of either side
    signed = ndimage.distance_transform_edt(~fine) - ndimage.distance_transform_edt(fine)
    signed = signed - 0.5 * np.sign(signed)
    h, w = alpha.shape
    return (signed.reshape(h, k, w, k).mean((1, 3)) / k).astype(np.float32)


def outlines_px(alpha: Float[np.ndarray, "n h w"], level: float, threads: int) -> Float[np.ndarray, "n h w"]:
    """Return `silhouette_distance_px` of all views."""
    with ThreadPoolExecutor(threads) as pool:  # scipy lets go of the interpreter while it works
        return np.stack(list(pool.map(partial(silhouette_distance_px, level=level), alpha)))


@njit(cache=True)
@no_type_check  # jaxtyping would wrap what numba compiles
def pixel_of(x: float, y: float, z: float, T: Array, focal: float, cu: float, cv: float, h: int, w: int) -> Any:
    """Return whether a camera's frame holds a world point with its four nearest pixel centres, u, v and depth in metres."""
    cz = T[2, 0] * x + T[2, 1] * y + T[2, 2] * z + T[2, 3]
    if cz <= 1e-6:
        return False, 0.0, 0.0, cz
    u = focal * (T[0, 0] * x + T[0, 1] * y + T[0, 2] * z + T[0, 3]) / cz + cu
    v = focal * (T[1, 0] * x + T[1, 1] * y + T[1, 2] * z + T[1, 3]) / cz + cv
    return u >= 0.5 and v >= 0.5 and u < w - 0.5 and v < h - 0.5, u, v, cz


@njit(cache=True)
@no_type_check  # jaxtyping would wrap what numba compiles
def bilinear(field: Array, u: float, v: float) -> float:
    """Return a view's field at u, v, between the centres of pixels."""
    px, py = int(u - 0.5), int(v - 0.5)
    ax, ay = u - 0.5 - px, v - 0.5 - py
    upper = (1 - ax) * field[py, px] + ax * field[py, px + 1]
    lower = (1 - ax) * field[py + 1, px] + ax * field[py + 1, px + 1]
    return (1 - ay) * upper + ay * lower


@njit(cache=True)
@no_type_check  # jaxtyping would wrap what numba compiles
def _axis_slope(
    depth: Array, view: int, y: int, x: int, q: float, axis: int, focal: float, steep: float, steepest: float
) -> float:
    """Slope of 1/z along one image axis, from the flatter side, so that steps in depth are not crossed.

    A steep slope must be the same on both sides: a wire one pixel wide has a step on either side and faces the camera.
    """
    h, w = depth.shape[1:]
    slopes = np.full(2, np.inf)
    for k in range(2):
        side = 2 * k - 1
        yy, xx = (y, x + side) if axis == 0 else (y + side, x)
        if 0 <= yy < h and 0 <= xx < w and depth[view, yy, xx] > 0:
            slopes[k] = side * (1.0 / depth[view, yy, xx] - q)
    best = slopes[0] if abs(slopes[0]) < abs(slopes[1]) else slopes[1]
    relative = abs(best) / q * focal
    if relative <= steep:
        return best
    even = abs(slopes[0] - slopes[1]) < 0.5 * max(abs(slopes[0]), abs(slopes[1]))
    return best if relative <= steepest and even else np.inf


@njit(cache=True, parallel=True)
@no_type_check  # jaxtyping would wrap what numba compiles
def _fit_inverse_depth(depth: Array, focal: float, steep: float, steepest: float) -> Array:
    """Fit 1/z = a du + b dv + c around each pixel (planes are linear in it).

    Returns [n, h, w, 3]; c = 0 where there is no depth and c = -1/z where there is a depth but no plane.
    """
    n, h, w = depth.shape
    out = np.zeros((n, h, w, 3), np.float32)
    for row in prange(n * h):
        view, y = row // h, row % h
        for x in range(w):
            z = depth[view, y, x]
            if z <= 0:
                continue
            q = 1.0 / z
            ga = _axis_slope(depth, view, y, x, q, 0, focal, steep, steepest)
            gb = _axis_slope(depth, view, y, x, q, 1, focal, steep, steepest)
            if ga == np.inf or gb == np.inf:
                out[view, y, x, 2] = -q
                continue
            # least squares over the neighbours near that plane; the allowance is about a pixel of jitter on it
            allowance = 0.6 * (abs(ga) + abs(gb)) + 0.35 * q / focal
            n0 = nx = ny = nxx = nxy = nyy = r0 = rx = ry = 0.0
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    yy, xx = y + dy, x + dx
                    if 0 <= yy < h and 0 <= xx < w and depth[view, yy, xx] > 0:
                        r = 1.0 / depth[view, yy, xx] - q - ga * dx - gb * dy
                        if abs(r) <= allowance:
                            n0 += 1
                            nx += dx
                            ny += dy
                            nxx += dx * dx
                            nxy += dx * dy
                            nyy += dy * dy
                            r0 += r
                            rx += r * dx
                            ry += r * dy
            # normal equations by Cramer's rule, for what is left after the first guess
            det = nxx * (nyy * n0 - ny * ny) - nxy * (nxy * n0 - ny * nx) + nx * (nxy * ny - nyy * nx)
            da = db = dc = 0.0
            if n0 >= 5 and det > 1e-3:
                da = (rx * (nyy * n0 - ny * ny) - nxy * (ry * n0 - ny * r0) + nx * (ry * ny - nyy * r0)) / det
                db = (nxx * (ry * n0 - ny * r0) - rx * (nxy * n0 - ny * nx) + nx * (nxy * r0 - ry * nx)) / det
                dc = (nxx * (nyy * r0 - ry * ny) - nxy * (nxy * r0 - ry * nx) + rx * (nxy * ny - nyy * nx)) / det
                dc = min(max(dc, -allowance), allowance)
            out[view, y, x, 0], out[view, y, x, 1], out[view, y, x, 2] = ga + da, gb + db, q + dc
    return out


def view_fields(
    orbit: Orbit,
    depth_m: Float[np.ndarray, "n h w"],
    alpha: Float[np.ndarray, "n h w"],
    alpha_level: float,
    threads: int,
) -> ViewFields:
    """Turn depth in metres (0 = nothing) and alpha in [0, 1] into the fields that the carving reads."""
    fits = _fit_inverse_depth(np.ascontiguousarray(depth_m, np.float32), orbit.focal_px, STEEP, STEEPEST).astype(
        np.float64
    )
    a, b, c = np.moveaxis(fits, -1, 0)
    valid, plane = c != 0, c > 0
    c = np.abs(c)
    # 1/z = a du + b dv + c with du = f x/z - (u - cu): multiply by z to get the camera-space plane through the pixel
    u = np.arange(orbit.width) + 0.5 - orbit.principal_px[0]
    v = np.arange(orbit.height)[:, None] + 0.5 - orbit.principal_px[1]
    local = np.stack([a * orbit.focal_px, b * orbit.focal_px, c - a * u - b * v], -1)  # local . p = 1 on the surface
    length = np.where(valid, np.linalg.norm(local, axis=-1), 1.0)
    rotation, centre = orbit.T_world_camera[:, :3, :3], orbit.T_world_camera[:, :3, 3]
    normal = -np.einsum("nij,nhwj->nhwi", rotation, local) / length[..., None]
    offset = 1 / length - np.einsum("nhwi,ni->nhw", normal, centre)
    directions = np.stack([rays_world(camera)[1] for camera in orbit.cameras])
    cosine = np.clip(-(normal * directions).sum(-1), NO_PLANE, 1)
    cosine = np.where(plane, cosine, np.where(valid, 0.5 * NO_PLANE, 0))
    return ViewFields(
        np.stack([camera.T_camera_world for camera in orbit.cameras]),
        orbit.focal_px,
        orbit.principal_px,
        outlines_px(alpha, alpha_level, threads),
        np.where(valid, 1 / np.where(valid, c, 1), 0).astype(np.float32),
        np.concatenate([normal, offset[..., None]], -1).astype(np.float32),
        cosine.astype(np.float32),
    )
