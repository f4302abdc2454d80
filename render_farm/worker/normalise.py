"""Bring the object into the unit frame: bounding box centred on the origin, longest side 1.

The visible objects go into one collection outside the scene, and the scene holds a single empty that instances it.
Scaling the instance moves the *evaluated* result as one rigid thing, whatever made it: several roots, unapplied
transforms, armatures, constraints and drivers that think in world space (which re-parenting would break), instances
of instances. It is moved first and scaled then, by two empties, one inside the other: Blender multiplies transforms in
32 bits, and one product of both would put an object that stands far from the origin beside its place.

    objects -> collection "Asset" <- empty, - centre -> collection "Centred" <- empty, * scale
    p_normalised = scale * (p_asset - centre)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix

from render_farm.worker import parity
from render_farm.worker.budget import estimate_triangles
from render_farm.worker.events import WorkerError
from render_farm.worker.posing import Pose, go_to
from render_farm.worker.shapes import Shape, box, has_faceless, mesh_hash, shapes

SMALLEST_SIDE = 1e-9
"""Asset units; below this float32 geometry is a point."""
LARGEST_SIDE = 1e12
MOST_CHECKED = 200
"""Surfaces; of a million leaves the first ones tell as much."""
UNMEASURED = ("its hair, points or volumes were not measured: they may reach beyond the unit box",)
OFF_UNIT = 1e-3
"""How far the normalised object may be from where it belongs before we call it our own mistake."""


@dataclass(frozen=True)
class Placed:
    """What was put into the scene."""

    facts: dict[str, Any]
    """scale, centre, triangles, objects, instances, mesh_hash."""
    warnings: tuple[str, ...]
    """What the caller should know."""
    shapes: list[Shape]
    """Every surface, in the asset's own frame."""
    matrix: Any
    """[4, 4] from the asset's frame to the unit frame."""

    def materials(self) -> list[bpy.types.Material]:
        """Materials that are in use, each once, in order of appearance."""
        return list(dict.fromkeys(material for shape in self.shapes for material in shape.materials))


def new_scene(source: bpy.types.Scene) -> bpy.types.Scene:
    """Make a scene with factory settings and make it current: a .blend's own render settings must not leak in.

    Only its clock is taken over: caches are looked up in seconds.
    """
    scene = bpy.data.scenes.new("Turntable")
    scene.render.fps, scene.render.fps_base = source.render.fps, source.render.fps_base
    window_manager = bpy.context.window_manager
    if window_manager is not None and window_manager.windows:
        for window in window_manager.windows:
            window.scene = scene
    return scene


def place(scene: bpy.types.Scene, objects: list[bpy.types.Object], pose: Pose, policy: Mapping[str, Any]) -> Placed:
    """Instance the objects into the scene, normalised.

    Raises:
        WorkerError: there are no triangles or too many, the box has no size, or points are no numbers.
    """
    limit = int(policy["max_triangles"])
    _check_count(estimate_triangles(objects), limit)
    parity.measure_what_renders()
    mover, scaler = _instance(scene, objects)
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for frame in pose.sampled:
        if frame != pose.frame:
            go_to(scene, frame)
            frame_low, frame_high = box(shapes(_depsgraph(scene)))
            low, high = np.minimum(low, frame_low), np.maximum(high, frame_high)
    go_to(scene, pose.frame)
    found = shapes(_depsgraph(scene))
    triangles = sum(len(shape.corners) for shape in found)
    _check_count(triangles, limit)
    frame_low, frame_high = box(found)
    low, high = np.minimum(low, frame_low), np.maximum(high, frame_high)
    _check_box(low, high, triangles, len(objects))
    centre = (low + high) / 2
    scale = 1.0 / float((high - low).max())
    matrix = np.diag([scale, scale, scale, 1.0])
    matrix[:3, 3] = -scale * centre
    rounded = centre.astype(np.float32).astype(np.float64)
    mover.matrix_world = Matrix.Translation((-rounded).tolist())
    scaler.matrix_world = Matrix.Translation((scale * (rounded - centre)).tolist()) @ Matrix.Scale(scale, 4)
    _check_placed(scene, found, matrix)
    x, y, z = centre.tolist()
    instances = len(found) > len(objects) or len({id(shape.points) for shape in found}) < len(found)
    facts = {
        "scale": scale, "centre": (x, y, z), "triangles": triangles, "objects": len(objects), "instances": instances,
        "mesh_hash": mesh_hash(found, matrix),
    }  # fmt: skip
    return Placed(facts, UNMEASURED if has_faceless(_depsgraph(scene)) else (), found, matrix)


def _instance(scene: bpy.types.Scene, objects: list[bpy.types.Object]) -> tuple[bpy.types.Object, bpy.types.Object]:
    """The inner empty, which moves, and the outer one, which scales."""
    mover = _empty("Asset", objects)
    scaler = _empty("Centred", [mover])
    scene.collection.objects.link(scaler)
    return mover, scaler


def _empty(name: str, objects: list[bpy.types.Object]) -> bpy.types.Object:
    """An empty that instances these objects."""
    collection = bpy.data.collections.new(name)
    for item in objects:
        collection.objects.link(item)
    holder = bpy.data.objects.new(name, None)
    holder.instance_type = "COLLECTION"
    holder.instance_collection = collection
    return holder


def _depsgraph(scene: bpy.types.Scene) -> bpy.types.Depsgraph:
    view_layer = scene.view_layers[0]
    view_layer.update()
    return view_layer.depsgraph


def _check_count(triangles: int, limit: int) -> None:
    if triangles > limit:
        raise WorkerError("too-large", f"it has {triangles} triangles, instances counted: expected at most {limit}; "
                          "simplify it or raise max_triangles")  # fmt: skip


def _check_box(low: Any, high: Any, triangles: int, objects: int) -> None:
    """Raise WorkerError for what cannot be normalised."""
    if triangles == 0:
        raise WorkerError("no-triangles", f"it holds no triangles: expected a surface, found {objects} visible objects "
                          "without faces; is everything hidden, or is it a point cloud?")  # fmt: skip
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise WorkerError("not-finite", "its bounding box is not finite: some vertices or transforms are no numbers; "
                          "repair the mesh")  # fmt: skip
    longest = float((high - low).max())
    if not SMALLEST_SIDE < longest < LARGEST_SIDE:
        raise WorkerError("zero-size", f"its bounding box has no usable size: expected a longest side between "
                          f"{SMALLEST_SIDE:g} and {LARGEST_SIDE:g}, found {longest:g}; scale it")  # fmt: skip


def _check_placed(scene: bpy.types.Scene, found: list[Shape], normalise: Any) -> None:
    """Every surface must have moved by the same transform: their boxes are not measured again, their origins are."""
    expected = np.array([(normalise @ shape.matrix)[:3, 3] for shape in found])
    moved = np.array([shape.matrix[:3, 3] for shape in shapes(_depsgraph(scene), only_places=True)])
    near = [np.abs(moved - place).max(1).min() for place in expected[:MOST_CHECKED]] if len(moved) else [np.inf]
    if max(near) > OFF_UNIT * max(1.0, float(np.abs(expected).max())):
        raise WorkerError("internal", f"normalising failed: a surface is {max(near):g} from where it belongs")
