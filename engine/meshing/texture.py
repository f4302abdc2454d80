"""The views are painted onto the mesh.

uv triangles -> texel: place, normal -> every view: visible? weight, colour -> the two best blended
                                                 nowhere visible -> colours that flow in over the surface
"""

from dataclasses import dataclass, replace
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numba import njit, prange
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_matrix, diags
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import factorized

from engine.files.types import MeshArrays
from engine.geometry import Orbit
from engine.meshing.rasterize import rasterize_mesh
from engine.meshing.settings import MeshSettings, Progress
from engine.meshing.threads import use_threads
from engine.meshing.unwrap import unwrap
from engine.meshing.views import MeshingError, pixel_of

Array = NDArray[Any]
VISIBILITY_SCALE = 2  # the mesh's z-buffer is drawn this much finer than the views
TOLERANCE_M = 0.004  # about a voxel: how far the mesh may err along a ray and still see itself
EDGE_PX = 2.0  # pixels this near to a step in depth mix two surfaces: they count less, the nearer the less
STEP_M = 0.02  # depth between neighbouring pixels from which on they lie on two surfaces
FACING_MIN = 0.1  # cosine (84 degrees) beyond which a view is too oblique to be worth a colour


@dataclass(frozen=True)
class Texels:
    """The texels that a mesh's charts cover."""

    row: Int[np.ndarray, " m"]
    """Texture row, 0 at the top."""
    column: Int[np.ndarray, " m"]
    """Texture column."""
    point: Float[np.ndarray, "m 3"]
    """Place on the surface, metres."""
    normal: Float[np.ndarray, "m 3"]
    """Smooth unit normal, outwards."""
    corners: Int[np.ndarray, "m 3"]
    """The vertices of the face that the texel lies on."""
    weights: Float[np.ndarray, "m 3"]
    """Their barycentric weights."""


@njit(cache=True)
@no_type_check  # jaxtyping would wrap what numba compiles
def _fill_charts(corners: Array, face: Array, bary: Array) -> None:
    """Write face and weights of the second and third corner into the texels whose centre a uv triangle covers."""
    size = face.shape[0]
    for f in range(len(corners)):
        (ax, ay), (bx, by), (cx, cy) = corners[f, 0], corners[f, 1], corners[f, 2]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0:
            continue
        x0, x1 = max(int(np.ceil(min(ax, bx, cx) - 0.5)), 0), min(int(max(ax, bx, cx) + 0.5), size)
        y0, y1 = max(int(np.ceil(min(ay, by, cy) - 0.5)), 0), min(int(max(ay, by, cy) + 0.5), size)
        for y in range(y0, y1):
            for x in range(x0, x1):
                px, py = x + 0.5 - ax, y + 0.5 - ay
                wb = (px * (cy - ay) - py * (cx - ax)) / area
                wc = ((bx - ax) * py - (by - ay) * px) / area
                if wb >= -1e-6 and wc >= -1e-6 and wb + wc <= 1 + 1e-6:
                    face[y, x] = f
                    bary[y, x, 0], bary[y, x, 1] = wb, wc


def vertex_normals(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> Float[np.ndarray, "v 3"]:
    """Return unit normals, the faces' normals weighted by their area."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    face_normal = np.cross(b - a, c - a)
    summed = np.stack(
        [np.bincount(faces.ravel(), np.repeat(face_normal[:, k], 3), len(vertices)) for k in range(3)], -1
    )
    return summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), 1e-12)


def chart_texels(mesh: MeshArrays, uv: Float[np.ndarray, "f 3 2"], size: int) -> Texels:
    """Return every texel that the uv charts cover, with its place on the surface."""
    face = np.full((size, size), -1, np.int32)
    bary = np.zeros((size, size, 2))
    _fill_charts(np.ascontiguousarray(uv * size, np.float64), face, bary)
    row, column = np.nonzero(face >= 0)
    corners, bc = mesh.faces[face[row, column]], bary[row, column]
    weights = np.concatenate([1 - bc.sum(1, keepdims=True), bc], 1)
    normal = (vertex_normals(mesh.vertices, mesh.faces)[corners] * weights[..., None]).sum(1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    return Texels(row, column, (mesh.vertices[corners] * weights[..., None]).sum(1), normal, corners, weights)


def edge_weight(depth_m: Float[np.ndarray, "n H W"], alpha: Float[np.ndarray, "n h w"]) -> Float[np.ndarray, "n h w"]:
    """Return per pixel how far it is from a step in the mesh's depth or from the mask's edge: 0 on it, 1 well inside."""
    result = np.empty(alpha.shape, np.float32)
    for view, (fine, mask) in enumerate(zip(depth_m, alpha, strict=True)):
        far = np.where(fine > 0, fine, 1e3)
        step = ndimage.maximum_filter(far, 3) - ndimage.minimum_filter(far, 3) > STEP_M
        steps = step.reshape(mask.shape[0], VISIBILITY_SCALE, mask.shape[1], VISIBILITY_SCALE).any((1, 3))
        distance = ndimage.distance_transform_edt(~(steps | (mask < 0.99)))
        result[view] = np.clip(distance / EDGE_PX, 1e-3, 1)
    return result


@njit(cache=True, parallel=True)
@no_type_check  # jaxtyping would wrap what numba compiles
def _blend(
    point: Array, normal: Array, T: Array, centre: Array, focal: float, cu: float, cv: float, rgba: Array,
    depth: Array, edge: Array, scale: int, sharpness: float, given: int, given_weight: float, tolerance: float,
    facing_min: float, colour: Array, total: Array,
) -> None:  # fmt: skip
    n, h, w = edge.shape
    for m in prange(len(point)):
        weight = np.zeros(n)
        sampled = np.zeros((n, 3))
        for i in range(n):
            tx, ty, tz = centre[i, 0] - point[m, 0], centre[i, 1] - point[m, 1], centre[i, 2] - point[m, 2]
            length = np.sqrt(tx * tx + ty * ty + tz * tz)
            facing = (tx * normal[m, 0] + ty * normal[m, 1] + tz * normal[m, 2]) / length
            if facing < facing_min:
                continue
            framed, u, v, cz = pixel_of(point[m, 0], point[m, 1], point[m, 2], T[i], focal, cu, cv, h, w)
            if not framed:
                continue
            # a pixel of the z-buffer may see the surface half a pixel away: allow for its slope
            seen = depth[i, int(v * scale), int(u * scale)]
            slope = min(np.sqrt(1 - facing * facing) / facing, 4.0)
            if seen > 0 and cz > seen + tolerance + slope * cz / (focal * scale):
                continue
            # straight colours, bilinear between pixel centres, every pixel as much as it is covered
            px, py = int(u - 0.5), int(v - 0.5)
            ax, ay = u - 0.5 - px, v - 0.5 - py
            covered = trust = 0.0
            for k in range(4):
                yy, xx = py + k // 2, px + k % 2
                part = (ay if k // 2 else 1 - ay) * (ax if k % 2 else 1 - ax)
                a = part * rgba[i, yy, xx, 3] / 255.0
                covered += a
                trust += part * edge[i, yy, xx]
                for c in range(3):
                    sampled[i, c] += a * rgba[i, yy, xx, c]
            if covered > 0.3:
                for c in range(3):
                    sampled[i, c] /= covered
                weight[i] = facing**sharpness * trust * covered * (given_weight if i == given else 1.0)
        # the two best views, each above the third best: sharp, and still continuous where they change places
        first = second = third = 0.0
        for i in range(n):
            if weight[i] > first:
                first, second, third = weight[i], first, second
            elif weight[i] > second:
                second, third = weight[i], second
            elif weight[i] > third:
                third = weight[i]
        floor = 0.999 * third
        for i in range(n):
            if weight[i] > floor:
                total[m] += weight[i] - floor
                for c in range(3):
                    colour[m, c] += (weight[i] - floor) * sampled[i, c]
        if total[m] > 0:
            for c in range(3):
                colour[m, c] /= total[m]


def blend_views(
    texels: Texels,
    mesh: MeshArrays,
    orbit: Orbit,
    rgba: UInt8[np.ndarray, "n h w 4"],
    settings: MeshSettings,
    given_view: int | None = None,
) -> tuple[Float[np.ndarray, "m 3"], Bool[np.ndarray, " m"]]:
    """Return each texel's colour (0 to 255) from the views that see it, and whether any did."""
    fine = orbit.resized(VISIBILITY_SCALE * orbit.width, VISIBILITY_SCALE * orbit.height)
    depth = rasterize_mesh(mesh, fine).depth_m
    edge = edge_weight(depth, rgba[..., 3] / 255.0)
    colour, total = np.zeros((len(texels.point), 3)), np.zeros(len(texels.point))
    T = np.stack([camera.T_camera_world for camera in orbit.cameras])
    centre = np.ascontiguousarray(orbit.T_world_camera[:, :3, 3])
    _blend(
        texels.point, texels.normal, T, centre, orbit.focal_px, *orbit.principal_px, np.ascontiguousarray(rgba), depth,
        edge, VISIBILITY_SCALE, settings.sharpness, -1 if given_view is None else given_view, settings.given_view_weight,
        TOLERANCE_M, FACING_MIN, colour, total,
    )  # fmt: skip
    return colour, total > 0


def fill_unseen(
    texels: Texels, mesh: MeshArrays, colour: Float[np.ndarray, "m 3"], seen: Bool[np.ndarray, " m"]
) -> Float[np.ndarray, "m 3"]:
    """Let seen colours flow over the surface into what no view saw: Laplace's equation on the edges of the mesh.

    Only unseen texels change. Parts of the mesh that were not seen at all get the mean colour.
    """
    if seen.all():
        return colour
    count = len(mesh.vertices)
    corners, weights = texels.corners[seen].ravel(), texels.weights[seen].ravel()
    total = np.bincount(corners, weights, count)
    repeated = np.repeat(colour[seen], 3, axis=0) * weights[:, None]
    known = total > 0
    summed = np.stack([np.bincount(corners, repeated[:, k], count) for k in range(3)], -1)
    vertex = np.where(known[:, None], summed / np.maximum(total, 1e-12)[:, None], colour[seen].mean(0))
    a, b = mesh.faces.ravel(), np.roll(mesh.faces, -1, axis=1).ravel()
    edges = coo_matrix((np.ones(2 * len(a)), (np.r_[a, b], np.r_[b, a])), shape=(count, count)).tocsr()
    part = connected_components(edges, directed=False)[1]
    free = np.flatnonzero(~known & np.isin(part, part[known]))
    if len(free):
        degree = diags(np.asarray(edges.sum(1)).ravel()[free])
        inflow = edges[free][:, np.flatnonzero(known)] @ vertex[known]
        solve = factorized((degree - edges[free][:, free]).tocsc())
        vertex[free] = np.stack([solve(inflow[:, k]) for k in range(3)], -1)
    filled = colour.copy()
    filled[~seen] = (vertex[texels.corners[~seen]] * texels.weights[~seen][..., None]).sum(1)
    return filled


def texture_from_views(
    mesh: MeshArrays,
    orbit: Orbit,
    rgba: UInt8[np.ndarray, "n h w 4"],
    *,
    given_view: int | None = None,
    settings: MeshSettings | None = None,
    progress: Progress | None = None,
) -> MeshArrays:
    """Unwrap a mesh and paint the views onto it.

    Args:
        mesh: closed or not, metres, our world.
        orbit: the cameras, one for each view.
        rgba: sRGB, straight alpha.
        given_view: the view that is a given picture, the others being generated: it paints all that faces it.
        settings: texture_size, padding_px, sharpness, given_view_weight and threads are read.
        progress: called with a stage and the share done.

    Returns:
        The same vertices and faces with uv and a square texture, every texel painted.

    Raises:
        MeshingError: views that do not fit the orbit, or that never see the mesh.
    """
    settings = settings or MeshSettings()
    report = progress or (lambda stage, share: None)
    expected = (len(orbit), orbit.height, orbit.width, 4)
    if rgba.shape != expected:
        raise MeshingError(f"rgba must be {expected} (views, height, width, 4) like its orbit, got {rgba.shape}")
    use_threads(settings.threads)
    report("unwrap", 0.0)
    uv = unwrap(mesh, settings)
    report("texture", 0.5)
    texels = chart_texels(mesh, uv, settings.texture_size)
    colour, seen = blend_views(texels, mesh, orbit, rgba, settings, given_view)
    if not seen.any():
        raise MeshingError("no view sees the mesh: do the poses fit it, and is alpha above 0?")
    report("fill", 0.8)
    colour = fill_unseen(texels, mesh, colour, seen)
    texture = np.zeros((settings.texture_size, settings.texture_size, 3), np.uint8)
    painted = np.zeros(texture.shape[:2], bool)
    texture[texels.row, texels.column] = np.clip(np.round(colour), 0, 255).astype(np.uint8)
    painted[texels.row, texels.column] = True
    # all that is free between the islands continues the nearest one: no seam at any mip level that padding allows
    nearest = ndimage.distance_transform_edt(~painted, return_distances=False, return_indices=True)
    report("texture", 1.0)
    return replace(mesh, uv=uv, texture=texture[nearest[0], nearest[1]])
