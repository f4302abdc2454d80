"""Which triangle each pixel sees: a z-buffer in numba, for visibility while texturing and for judging the result."""

from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float, Int, UInt8
from numba import njit, prange
from numpy.typing import NDArray

from engine.files.types import MeshArrays
from engine.geometry import Orbit

Array = NDArray[Any]


@dataclass(frozen=True)
class ViewBuffers:
    """What every pixel of every view sees of a mesh."""

    face: Int[np.ndarray, "n h w"]
    """Index of the nearest face, -1 for nothing; int32."""
    depth_m: Float[np.ndarray, "n h w"]
    """Planar depth, metres, 0 for nothing; float32."""
    barycentric: Float[np.ndarray, "n h w 2"]
    """Weights of the face's second and third corner, perspective-correct; float32."""


@njit(cache=True, parallel=True)
@no_type_check  # jaxtyping would wrap what numba compiles
def _rasterize(
    vertices: Array, faces: Array, T: Array, focal: float, cu: float, cv: float, face: Array, depth: Array, bary: Array
) -> None:
    n, h, w = face.shape
    for i in prange(n):
        u, v, inverse = np.empty(len(vertices)), np.empty(len(vertices)), np.empty(len(vertices))
        for k in range(len(vertices)):
            x, y, z = vertices[k]
            cz = T[i, 2, 0] * x + T[i, 2, 1] * y + T[i, 2, 2] * z + T[i, 2, 3]
            inverse[k] = 1 / cz if cz > 1e-6 else 0.0
            u[k] = focal * (T[i, 0, 0] * x + T[i, 0, 1] * y + T[i, 0, 2] * z + T[i, 0, 3]) * inverse[k] + cu
            v[k] = focal * (T[i, 1, 0] * x + T[i, 1, 1] * y + T[i, 1, 2] * z + T[i, 1, 3]) * inverse[k] + cv
        for f in range(len(faces)):
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            if inverse[a] == 0 or inverse[b] == 0 or inverse[c] == 0:
                continue
            area = (u[b] - u[a]) * (v[c] - v[a]) - (v[b] - v[a]) * (u[c] - u[a])
            if area == 0:
                continue
            x0, x1 = max(int(np.ceil(min(u[a], u[b], u[c]) - 0.5)), 0), min(int(max(u[a], u[b], u[c]) + 0.5), w)
            y0, y1 = max(int(np.ceil(min(v[a], v[b], v[c]) - 0.5)), 0), min(int(max(v[a], v[b], v[c]) + 0.5), h)
            for y in range(y0, y1):
                for x in range(x0, x1):
                    px, py = x + 0.5, y + 0.5
                    wb = ((px - u[a]) * (v[c] - v[a]) - (py - v[a]) * (u[c] - u[a])) / area
                    wc = ((u[b] - u[a]) * (py - v[a]) - (v[b] - v[a]) * (px - u[a])) / area
                    wa = 1 - wb - wc
                    if wa < 0 or wb < 0 or wc < 0:
                        continue
                    q = wa * inverse[a] + wb * inverse[b] + wc * inverse[c]  # 1/z is linear in the image
                    if depth[i, y, x] == 0 or q * depth[i, y, x] > 1:
                        depth[i, y, x] = 1 / q
                        face[i, y, x] = f
                        bary[i, y, x, 0], bary[i, y, x, 1] = wb * inverse[b] / q, wc * inverse[c] / q


def rasterize_mesh(mesh: MeshArrays, orbit: Orbit) -> ViewBuffers:
    """Draw a mesh's z-buffer into every view of an orbit, both sides of every face."""
    shape = (len(orbit), orbit.height, orbit.width)
    face, depth = np.full(shape, -1, np.int32), np.zeros(shape, np.float32)
    bary = np.zeros((*shape, 2), np.float32)
    T = np.stack([camera.T_camera_world for camera in orbit.cameras])
    vertices = np.ascontiguousarray(mesh.vertices, np.float64)
    faces = np.ascontiguousarray(mesh.faces, np.int64)
    _rasterize(vertices, faces, T, orbit.focal_px, *orbit.principal_px, face, depth, bary)
    return ViewBuffers(face, depth, bary)


def sample_texture(texture: UInt8[np.ndarray, "h w 3"], uv: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 3"]:
    """Sample a texture bilinearly at uv (origin top left); colours 0 to 255."""
    h, w = texture.shape[:2]
    x = np.clip(uv[:, 0] * w - 0.5, 0, w - 1)
    y = np.clip(uv[:, 1] * h - 0.5, 0, h - 1)
    x0, y0 = np.minimum(x.astype(int), w - 2), np.minimum(y.astype(int), h - 2)
    ax, ay = (x - x0)[:, None], (y - y0)[:, None]
    top = texture[y0, x0] * (1 - ax) + texture[y0, x0 + 1] * ax
    bottom = texture[y0 + 1, x0] * (1 - ax) + texture[y0 + 1, x0 + 1] * ax
    return top * (1 - ay) + bottom * ay


def draw_mesh(mesh: MeshArrays, orbit: Orbit, *, supersampling: int = 1) -> UInt8[np.ndarray, "n h w 4"]:
    """Draw a textured (or vertex-coloured) mesh unlit into every view: straight sRGB and alpha.

    Args:
        mesh: without texture and vertex colours it is grey.
        orbit: the cameras.
        supersampling: samples along each side of a pixel; 1 is not antialiased.
    """
    if supersampling > 1:
        fine = draw_mesh(mesh, orbit.resized(orbit.width * supersampling, orbit.height * supersampling))
        n, k = len(orbit), supersampling
        blocks = fine.reshape(n, orbit.height, k, orbit.width, k, 4).astype(np.float64)
        alpha = blocks[..., 3:].mean((2, 4)) / 255
        straight = (blocks[..., :3] * (blocks[..., 3:] > 0)).mean((2, 4)) / np.maximum(alpha, 1e-9)
        return np.rint(np.concatenate([straight * (alpha > 0), 255 * alpha], -1)).astype(np.uint8)
    buffers = rasterize_mesh(mesh, orbit)
    image = np.zeros((*buffers.face.shape, 4), np.uint8)
    hit = buffers.face >= 0
    faces, bc = buffers.face[hit], buffers.barycentric[hit].astype(np.float64)
    weights = np.concatenate([1 - bc.sum(1, keepdims=True), bc], 1)
    if mesh.texture is not None and mesh.uv is not None:
        rgb = sample_texture(mesh.texture, (mesh.uv[faces] * weights[..., None]).sum(1))
    elif mesh.vertex_colours is not None:
        rgb = (mesh.vertex_colours[mesh.faces[faces]] * weights[..., None]).sum(1)
    else:
        rgb = np.full((len(faces), 3), 200.0)
    image[hit] = np.concatenate([np.round(rgb), np.full((len(faces), 1), 255.0)], 1).astype(np.uint8)
    return image
