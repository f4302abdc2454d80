"""Splats in the scene: arrays go in, one object comes out, which renders in Cycles and in EEVEE.

    points with attributes --geometry nodes--> one icosphere each, scaled and turned --material--> Gaussians

Blender 5.3 draws splats itself: there `native_splats` is tried first.
"""

import bpy
import numpy as np

from . import native_splats
from .nodes import NodeWriter
from .ply import Splats
from .splat_frames import SH_DC, in_own_axes
from .splat_harmonics import EEVEE_DEGREE, packed
from .splat_material import CUTOFF, splat_material

INRADIUS = 0.9339
"""Of the icosphere with 80 faces and radius 1: made larger by this, the faceted ball still holds the round one."""
TRANSPARENT_BOUNCES = 512
"""Each splat takes two of Cycles' transparent bounces, in and out; a solid object has some hundred behind a pixel."""


def add_splats(splats: Splats, name: str, collection: bpy.types.Collection, notes: list[str]) -> bpy.types.Object:
    """Add splats, which are in the +Z-up world already, to a collection; say in `notes` what was left out."""
    if native_splats.identifier() is not None:
        try:
            return native_splats.add_native(splats, name, collection)
        except native_splats.NATIVE_TROUBLE as error:
            notes.append(f"Blender's own splats refused these ({error}): drawn as ellipsoids.")
    mesh = _points(splats, name)
    target = bpy.data.objects.new(name, mesh)
    collection.objects.link(target)
    material = splat_material(name, splats.degree)
    mesh.materials.append(material)
    modifier = target.modifiers.new("Splats", "NODES")
    modifier.node_group = ellipsoid_nodes(name, material)
    target["turntable_splats"] = len(splats)
    target["turntable_sh_degree"] = splats.degree
    if splats.degree > EEVEE_DEGREE:
        notes.append(
            f"Splats: Cycles draws their harmonics of degree {splats.degree}, EEVEE up to degree {EEVEE_DEGREE} "
            "(it reads 8 attributes per splat)."
        )
    return target


def _points(splats: Splats, name: str) -> bpy.types.Mesh:
    """Return a mesh of points only, whose attributes the nodes and the shader read."""
    mesh = bpy.data.meshes.new(name)
    mesh.vertices.add(len(splats))
    mesh.vertices.foreach_set("co", splats.means.ravel())
    put_attribute(mesh, "splat_scale", "FLOAT_VECTOR", splats.scales)
    put_attribute(mesh, "splat_rotation", "QUATERNION", splats.quaternions)
    colour = np.concatenate([0.5 + SH_DC * splats.sh[:, 0], splats.opacities[:, None]], 1)
    put_attribute(mesh, "splat_colour", "FLOAT_COLOR", colour)
    put_attribute(mesh, "splat_opacity", "FLOAT", splats.opacities)  # also for the nodes, which have no alpha
    for label, four in packed(in_own_axes(splats)).items():
        put_attribute(mesh, label, "FLOAT_COLOR", four)
    mesh.update()
    return mesh


FIELDS = {"FLOAT": "value", "FLOAT_VECTOR": "vector", "QUATERNION": "value", "FLOAT_COLOR": "color"}


def put_attribute(data: bpy.types.ID, name: str, kind: str, values: np.ndarray) -> None:
    """Write one point attribute of a mesh or point cloud."""
    attribute = data.attributes.new(name, kind, "POINT")
    attribute.data.foreach_set(FIELDS[kind], np.ascontiguousarray(values, np.float32).ravel())


def ellipsoid_nodes(name: str, material: bpy.types.Material) -> bpy.types.NodeTree:
    """Return the geometry nodes that put an ellipsoid on every point."""
    tree = bpy.data.node_groups.new(name, "GeometryNodeTree")
    tree.is_modifier = True
    tree.interface.new_socket("Geometry", in_out="INPUT", socket_type="NodeSocketGeometry")
    tree.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
    _control(tree, "Size", 1.0, 4.0, "Makes every splat larger or smaller")
    _control(tree, "Minimum Opacity", 0.0, 1.0, "Leaves out splats that are fainter than this")
    _control(tree, "Viewport Share", 1.0, 1.0, "Share of the splats drawn in the viewport; renders have all of them")
    write = NodeWriter(tree)
    inputs = write.add("NodeGroupInput").outputs
    ball = write.add("GeometryNodeMeshIcoSphere")
    write.feed(ball.inputs["Radius"], CUTOFF / INRADIUS)
    write.feed(ball.inputs["Subdivisions"], 2)
    painted = write.add("GeometryNodeSetMaterial")
    write.feed(painted.inputs["Geometry"], ball.outputs["Mesh"])
    painted.inputs["Material"].default_value = material
    instance = write.add("GeometryNodeInstanceOnPoints")
    write.feed(instance.inputs["Points"], inputs["Geometry"])
    write.feed(instance.inputs["Selection"], _selection(write, inputs))
    write.feed(instance.inputs["Instance"], painted.outputs[0])
    write.feed(instance.inputs["Rotation"], _named(write, "splat_rotation", "QUATERNION"))
    write.feed(instance.inputs["Scale"], write.scaled(_named(write, "splat_scale", "FLOAT_VECTOR"), inputs["Size"]))
    write.feed(write.add("NodeGroupOutput").inputs[0], instance.outputs[0])
    return tree


def _control(tree: bpy.types.NodeTree, name: str, value: float, limit: float, description: str) -> None:
    socket = tree.interface.new_socket(name, in_out="INPUT", socket_type="NodeSocketFloat", description=description)
    socket.default_value, socket.min_value, socket.max_value = value, 0.0, limit


def _named(write: NodeWriter, name: str, kind: str) -> bpy.types.NodeSocket:
    node = write.add("GeometryNodeInputNamedAttribute", name, data_type=kind)
    node.inputs["Name"].default_value = name
    return next(socket for socket in node.outputs if socket.enabled and socket.name == "Attribute")


def _selection(write: NodeWriter, inputs: bpy.types.NodeInputs) -> bpy.types.NodeSocket:
    """Return which points are drawn: opaque enough and, in the viewport, within the share."""
    faint = write.math("LESS_THAN", _named(write, "splat_opacity", "FLOAT"), inputs["Minimum Opacity"])
    draw = write.add("FunctionNodeRandomValue", data_type="FLOAT")
    chance = next(socket for socket in draw.outputs if socket.enabled)
    beyond = write.math("GREATER_THAN", chance, inputs["Viewport Share"])
    skipped = write.math("MULTIPLY", beyond, write.add("GeometryNodeIsViewport").outputs[0])
    return write.math("LESS_THAN", write.math("ADD", faint, skipped), 0.5)


def allow_transparency(scene: bpy.types.Scene, notes: list[str]) -> None:
    """Raise Cycles' transparent bounces so that layered splats do not end in black; say so."""
    cycles = getattr(scene, "cycles", None)
    if cycles is not None and cycles.transparent_max_bounces < TRANSPARENT_BOUNCES:
        before, cycles.transparent_max_bounces = cycles.transparent_max_bounces, TRANSPARENT_BOUNCES
        notes.append(
            f"Cycles' transparent bounces raised from {before} to {TRANSPARENT_BOUNCES}: splats lie in layers."
        )
