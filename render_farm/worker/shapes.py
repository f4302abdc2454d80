"""What Blender shows once everything is evaluated: the triangles of every instance, their box and their fingerprint."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np

HAVE_FACES = frozenset({"MESH", "CURVE", "SURFACE", "FONT", "META"})
FACELESS = frozenset({"CURVES", "VOLUME", "POINTCLOUD", "GPENCIL", "GREASEPENCIL"})
"""What renders without them."""
CHUNK = 1 << 20
"""Triangles whose moments are computed at a time."""
NO_SIZE = 1e-12
"""Factor below which a transform leaves nothing of an object."""
STEP = 1e-4
"""What is equal to this, in the unit box, is equal."""
CUBATURE = np.array([[1 / 3, 1 / 3, 1 / 3], [0.6, 0.2, 0.2], [0.2, 0.6, 0.2], [0.2, 0.2, 0.6]])
CUBATURE_WEIGHTS = np.array([-27 / 48, 25 / 48, 25 / 48, 25 / 48])
"""Points on a triangle and their weights: exact for cubic polynomials (Strang and Fix 1973)."""


@dataclass(frozen=True)
class Shape:
    """One evaluated surface in one place."""

    points: Any
    """[n, 3] float32, its own coordinates; only those that faces use. Shared between instances."""
    corners: Any
    """[t, 3] int32, into points."""
    matrix: Any
    """[4, 4] to the scene."""
    materials: tuple[bpy.types.Material, ...]
    """Of its slots; the file's own data."""

    def placed(self) -> Any:
        """Points in the scene, [n, 3] float64."""
        return self.points @ self.matrix[:3, :3].T + self.matrix[:3, 3]


def shapes(graph: bpy.types.Depsgraph, *, only_places: bool = False) -> list[Shape]:
    """Return every surface that a render would show. Loose vertices and edges are left out.

    Args:
        graph: evaluated.
        only_places: read no triangles and no materials; things without faces are then among them.
    """
    known: dict[int, tuple[Any, Any]] = {}
    found = []
    for instance in graph.object_instances:
        item, matrix = instance.object, np.array(instance.matrix_world, np.float64)
        if not instance.show_self or item.type not in HAVE_FACES or _hidden(instance):
            continue
        if np.abs(matrix[:3, :3]).max() < NO_SIZE:
            continue  # animations hide things so: a point that is not there must not count for the box
        if only_places:
            found.append(Shape(None, None, matrix, ()))
            continue
        points, corners = _triangles(item, known)
        if len(corners):
            slots = [slot.material for slot in item.material_slots] or list(getattr(item.data, "materials", ()))
            materials = tuple(material.original for material in slots if material is not None)
            found.append(Shape(points, corners, matrix, materials))
    return found


def has_faceless(graph: bpy.types.Depsgraph) -> bool:
    """Whether anything renders that has no triangles, and so no measured extent: hair, points, volumes."""
    items = (instance.object for instance in graph.object_instances)
    return any(item.type in FACELESS or _has_strands(item) for item in items)


def _has_strands(item: Any) -> bool:
    return any(system.settings.render_type == "PATH" for system in item.particle_systems)


def _hidden(instance: Any) -> bool:
    """Whether a render leaves it out. What particles, vertices and nodes instance shows even if it is hidden itself."""
    scattered = instance.is_instance and (
        instance.particle_system is not None or instance.parent.instance_type != "COLLECTION"
    )
    return bool(instance.object.hide_render and not scattered)


def _triangles(item: Any, known: dict[int, tuple[Any, Any]]) -> tuple[Any, Any]:
    """Points and triangles of an evaluated object; of a mesh that several share, once."""
    if item.type == "MESH" and item.mode == "OBJECT" and not any(m.type == "SUBSURF" for m in item.modifiers):
        key = item.data.as_pointer()
        if key not in known:
            known[key] = _read(item.data)
        return known[key]
    mesh = item.to_mesh()
    if mesh is None:
        return np.empty((0, 3), np.float32), np.empty((0, 3), np.int32)
    result = _read(mesh)
    item.to_mesh_clear()
    return result


def _read(mesh: bpy.types.Mesh) -> tuple[Any, Any]:
    points = np.empty(len(mesh.vertices) * 3, np.float32)
    mesh.vertices.foreach_get("co", points)
    mesh.calc_loop_triangles()
    corners = np.empty(len(mesh.loop_triangles) * 3, np.int32)
    mesh.loop_triangles.foreach_get("vertices", corners)
    used = np.zeros(len(mesh.vertices), bool)
    used[corners] = True
    if used.all():
        return points.reshape(-1, 3), corners.reshape(-1, 3)
    index = np.cumsum(used, dtype=np.int32) - 1
    return points.reshape(-1, 3)[used], index[corners].reshape(-1, 3)


def box(found: list[Shape]) -> tuple[Any, Any]:
    """Low and high corner, [3] each, in the scene; infinite where there is nothing."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for shape in found:
        points = shape.placed()
        low, high = np.minimum(low, points.min(0)), np.maximum(high, points.max(0))
    return low, high


def mesh_hash(found: list[Shape], normalise: Any) -> str:
    """Return the fingerprint of the shape, sha256 in hexadecimal.

    It is taken over the number of triangles, the area, and the moments of the surface up to the third order, in the
    unit frame, each rounded to 1e-4. Order, names and materials of objects, scale, place, and how a flat face is cut
    into triangles do not matter. Sorted, rounded vertices would do as well on equal files, but of the thousands of numbers
    some are always rounded differently once a copy has another size.

    Args:
        found: the surfaces.
        normalise: [4, 4], scene to unit frame.
    """
    total, triangles = np.zeros(20), 0
    for shape in found:
        matrix = normalise @ shape.matrix
        points = shape.points @ matrix[:3, :3].T + matrix[:3, 3]
        triangles += len(shape.corners)
        for start in range(0, len(shape.corners), CHUNK):
            total += _moments(points[shape.corners[start : start + CHUNK]])
    area = max(total[0], 1e-12)
    numbers = np.concatenate([[np.log(area)], total[1:] / area])
    rounded = np.round(numbers / STEP).astype("<i8")
    return hashlib.sha256(np.int64(triangles).astype("<i8").tobytes() + rounded.tobytes()).hexdigest()


def _moments(triangles: Any) -> Any:
    """Integrals of 1, x, y, z, xx, xy, ... zzz over triangles [t, 3, 3]: [20]."""
    first, second, third = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    areas = np.linalg.norm(np.cross(second - first, third - first), axis=1) / 2
    points = np.einsum("qc,tcd->qtd", CUBATURE, triangles)
    total = np.zeros(20)
    for weight, place in zip(CUBATURE_WEIGHTS, points, strict=True):
        total += weight * np.stack([areas @ monomial for monomial in _monomials(place)])
    return total


def _monomials(points: Any) -> Iterator[Any]:
    x, y, z = points.T
    yield np.ones(len(points))
    yield from (x, y, z)
    squares = (x * x, x * y, x * z, y * y, y * z, z * z)
    yield from squares
    xx, xy, xz, yy, yz, zz = squares
    yield from (xx * x, xx * y, xx * z, xy * y, xy * z, xz * z, yy * y, yy * z, yz * z, zz * z)
