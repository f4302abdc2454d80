"""Bring the object into the unit frame: bounding box centred on the origin, longest side 1.

The visible objects go into one collection outside the scene, and the scene holds a single empty that instances it.
Scaling the instance moves the *evaluated* result as one rigid thing, whatever made it: several roots, unapplied
transforms, armatures, constraints and drivers that think in world space (which re-parenting would break), instances
of instances.

    objects -> collection "Asset" <- instanced by an empty: p_normalised = scale * (p_asset - centre)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix

from render_farm.worker.events import WorkerError

SMALLEST_SIDE = 1e-9
"""Asset units; below this float32 geometry is a point."""
LARGEST_SIDE = 1e12
OFF_UNIT = 1e-3
"""How far the normalised box may be from the unit box before we call it our own mistake."""


@dataclass(frozen=True)
class Placed:
    """What was put into the scene."""

    scale: float
    """Asset units to normalised units."""
    centre: tuple[float, float, float]
    """Centre of the asset's box, asset units, +Z up."""
    triangles: int
    """Of everything visible, instances counted."""
    objects: int
    """Visible objects in the file."""


@dataclass(frozen=True)
class Extent:
    """Bounds of everything that has a surface."""

    low: Any
    """[3] asset units."""
    high: Any
    """[3] asset units."""
    triangles: int
    """Number of triangles; bounds mean nothing when it is 0."""


def new_scene() -> bpy.types.Scene:
    """Make a scene with factory settings and make it current: a .blend's own render settings must not leak in."""
    scene = bpy.data.scenes.new("Turntable")
    window_manager = bpy.context.window_manager
    if window_manager is not None and window_manager.windows:
        for window in window_manager.windows:
            window.scene = scene
    return scene


def place(scene: bpy.types.Scene, objects: list[bpy.types.Object]) -> Placed:
    """Instance the objects into the scene, normalised.

    Raises:
        WorkerError: there are no triangles, the box has no size, or points are no numbers.
    """
    scene.frame_set(bpy.context.scene.frame_current)
    collection = bpy.data.collections.new("Asset")
    for item in objects:
        collection.objects.link(item)
    for light in bpy.data.lights:  # those inside instanced collections cannot be left out one by one
        light.energy = 0.0
    holder = bpy.data.objects.new("Asset", None)
    holder.instance_type = "COLLECTION"
    holder.instance_collection = collection
    scene.collection.objects.link(holder)
    extent = measure(scene)
    check_extent(extent, len(objects))
    centre = (extent.low + extent.high) / 2
    scale = 1.0 / float((extent.high - extent.low).max())
    holder.matrix_world = Matrix.Scale(scale, 4) @ Matrix.Translation((-centre).tolist())
    _check_unit(measure(scene))
    x, y, z = centre.tolist()
    return Placed(scale, (x, y, z), extent.triangles, len(objects))


def check_extent(extent: Extent, objects: int) -> None:
    """Raise WorkerError for what cannot be normalised."""
    if extent.triangles == 0:
        raise WorkerError("no-triangles", f"it holds no triangles: expected a surface, found {objects} visible objects "
                          "without faces; is everything hidden, or is it a point cloud?")  # fmt: skip
    if not (np.isfinite(extent.low).all() and np.isfinite(extent.high).all()):
        raise WorkerError("not-finite", "its bounding box is not finite: some vertices or transforms are no numbers; "
                          "repair the mesh")  # fmt: skip
    longest = float((extent.high - extent.low).max())
    if not SMALLEST_SIDE < longest < LARGEST_SIDE:
        raise WorkerError("zero-size", f"its bounding box has no usable size: expected a longest side between "
                          f"{SMALLEST_SIDE:g} and {LARGEST_SIDE:g}, found {longest:g}; scale it")  # fmt: skip


def _check_unit(extent: Extent) -> None:
    sides = extent.high - extent.low
    middle = (extent.high + extent.low) / 2
    if abs(sides.max() - 1) > OFF_UNIT or np.abs(middle).max() > OFF_UNIT:
        raise WorkerError("internal", f"normalising failed: sides {sides.round(4).tolist()}, centre "
                          f"{middle.round(4).tolist()}")  # fmt: skip


def measure(scene: bpy.types.Scene) -> Extent:
    """Return the world bounds of every evaluated, rendered surface. Loose vertices and edges do not count."""
    graph = _depsgraph(scene)
    low, high, triangles = np.full(3, np.inf), np.full(3, -np.inf), 0
    for points, count in _surfaces(graph):
        triangles += count
        low, high = np.minimum(low, points.min(0)), np.maximum(high, points.max(0))
        if np.isnan(points).any():
            low = np.full(3, np.nan)
    return Extent(low, high, triangles)


def _depsgraph(scene: bpy.types.Scene) -> bpy.types.Depsgraph:
    view_layer = scene.view_layers[0]
    view_layer.update()
    return view_layer.depsgraph


def _surfaces(graph: bpy.types.Depsgraph) -> Iterator[tuple[Any, int]]:
    """Yield world points [n, 3] that faces use, and the number of triangles, for every instance."""
    for instance in graph.object_instances:
        item = instance.object
        if not instance.show_self or item.type not in {"MESH", "CURVE", "SURFACE", "FONT", "META"}:
            continue
        mesh = item.to_mesh()
        if mesh is not None:
            points, triangles = _used_points(mesh)
            if triangles:
                matrix = np.array(instance.matrix_world, np.float64)
                yield points @ matrix[:3, :3].T + matrix[:3, 3], triangles
        item.to_mesh_clear()


def _used_points(mesh: bpy.types.Mesh) -> tuple[Any, int]:
    """Vertices that belong to a face, and the number of triangles."""
    corners = np.empty(len(mesh.loops), np.int32)
    mesh.loops.foreach_get("vertex_index", corners)
    points = np.empty(len(mesh.vertices) * 3, np.float32)
    mesh.vertices.foreach_get("co", points)
    used = np.zeros(len(mesh.vertices), bool)
    used[corners] = True
    return points.reshape(-1, 3)[used].astype(np.float64), len(corners) - 2 * len(mesh.polygons)
