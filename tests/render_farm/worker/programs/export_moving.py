"""Blender program: things that move, repeat and shine. ``python export_moving.py FOLDER``

skinned.*      a 1 x 1 x 4 column on two bones; rest: upright, box 1 x 1 x 4. Frames 1 to 21: the upper bone's pose moves
               the upper half by +10 along x (frame 1: by 2, frame 21: by 10). One lamp, one camera, one bone shape.
key.*          a cube whose shape key lifts its top from 1 to 3; the key is animated from 1 (frame 1) to 0 (frame 11),
               stored as 0.5
nla.blend      a cube moved by an NLA strip: x = 0 at frame 5, x = 8 at frame 15, beside a cube that stands still
instancer.blend  an instancer of 5 by geometry nodes, two nested collection instances, a driver that depends on the frame
shaders.blend  a node group that makes the shader, glass, a mix with transparency, and an unknown shader, on four cubes
heavy.blend    a cube of 12 subdivisions that nobody can evaluate
"""

import os
import sys
import tempfile
from pathlib import Path

os.environ["BLENDER_USER_RESOURCES"] = tempfile.mkdtemp()

import bpy


def reset() -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)


def cube(name: str, at: tuple[float, float, float] = (0, 0, 0), size: tuple[float, float, float] = (1, 1, 1)) -> object:
    bpy.ops.mesh.primitive_cube_add(size=1.0, location=at)
    made = bpy.context.object
    made.name = name
    for vertex in made.data.vertices:
        vertex.co = [a * b for a, b in zip(vertex.co, size, strict=True)]
    return made


def skinned(folder: Path) -> None:
    reset()
    bpy.ops.object.armature_add()
    rig = bpy.context.object
    bpy.ops.object.mode_set(mode="EDIT")
    upper = rig.data.edit_bones.new("upper")
    lower = rig.data.edit_bones[0]
    lower.name, lower.head, lower.tail = "lower", (0, 0, 0), (0, 0, 2)
    upper.head, upper.tail, upper.parent = (0, 0, 2), (0, 0, 4), lower
    bpy.ops.object.mode_set(mode="OBJECT")
    column = cube("column", (0, 0, 2), (1, 1, 4))
    column.parent = rig
    column.modifiers.new("rig", "ARMATURE").object = rig
    for bone, top in (("lower", False), ("upper", True)):
        group = column.vertex_groups.new(name=bone)
        group.add([v.index for v in column.data.vertices if (v.co.z > 0) == top], 1.0, "ADD")
    shape = cube("bone shape", (0, 0, 50))
    rig.pose.bones["lower"].custom_shape = shape
    shape.hide_set(True)
    pose = rig.pose.bones["upper"]
    for frame, x in ((1, 2.0), (21, 10.0)):
        pose.location = (x, 0, 0)  # the bone's x is the world's
        pose.keyframe_insert("location", frame=frame)
    for made in (bpy.data.objects.new("lamp", bpy.data.lights.new("lamp", "POINT")),
                 bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))):  # fmt: skip
        made.location = (90, 0, 0)
        bpy.context.scene.collection.objects.link(made)
    bpy.context.scene.frame_end = 21
    bpy.context.scene.frame_set(11)
    save(folder, "skinned", bone_shape=shape)


def key(folder: Path) -> None:
    reset()
    box = cube("box")
    box.shape_key_add(name="Basis")
    lifted = box.shape_key_add(name="lifted")
    for point in lifted.data:
        if point.co.z > 0:
            point.co.z += 2
    for frame, value in ((1, 1.0), (11, 0.0)):
        lifted.value = value
        lifted.keyframe_insert("value", frame=frame)
    bpy.context.scene.frame_end = 11
    bpy.context.scene.frame_set(6)  # halfway: 0.5 is what is stored
    save(folder, "key")


def save(folder: Path, name: str, bone_shape: object = None) -> None:
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / f"{name}.blend"))
    if bone_shape is not None:
        bpy.data.objects.remove(bone_shape)
    bpy.ops.export_scene.gltf(filepath=str(folder / f"{name}.glb"), export_lights=True, export_cameras=True)
    bpy.ops.export_scene.fbx(filepath=str(folder / f"{name}.fbx"), add_leaf_bones=False)
    bpy.ops.wm.usd_export(filepath=str(folder / f"{name}.usdc"), export_animation=True)


def nla(folder: Path) -> None:
    reset()
    cube("still")
    moved = cube("moved", (0, 5, 0))
    for frame, x in ((5, 0.0), (15, 8.0)):
        moved.location.x = x
        moved.keyframe_insert("location", frame=frame, index=0)
    action = moved.animation_data.action
    moved.animation_data.action = None
    track = moved.animation_data.nla_tracks.new()
    track.strips.new("walk", 5, action)
    bpy.context.scene.frame_set(12)
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "nla.blend"))


def instancer(folder: Path) -> None:
    reset()
    scene = bpy.context.scene
    line = bpy.data.meshes.new("line")
    line.from_pydata([(x, 0, 0) for x in (0, 2, 4, 6, 8)], [], [])
    source = bpy.data.objects.new("points", line)
    scene.collection.objects.link(source)
    group = bpy.data.node_groups.new("scatter", "GeometryNodeTree")
    group.interface.new_socket("Geometry", in_out="INPUT", socket_type="NodeSocketGeometry")
    group.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
    kinds = ("NodeGroupInput", "GeometryNodeInstanceOnPoints", "GeometryNodeMeshCube", "NodeGroupOutput")
    start, scatter, shape, end = (group.nodes.new(kind) for kind in kinds)
    group.links.new(start.outputs[0], scatter.inputs["Points"])
    group.links.new(shape.outputs["Mesh"], scatter.inputs["Instance"])
    group.links.new(scatter.outputs["Instances"], end.inputs[0])
    source.modifiers.new("scatter", "NODES").node_group = group
    inner, outer = bpy.data.collections.new("inner"), bpy.data.collections.new("outer")
    box = cube("box")
    for collection in box.users_collection:
        collection.objects.unlink(box)
    inner.objects.link(box)
    for name, where, what, x in (("in", outer, inner, 0.0), ("a", scene.collection, outer, 20.0),
                                 ("b", scene.collection, outer, 30.0)):  # fmt: skip
        holder = bpy.data.objects.new(name, None)
        holder.instance_type, holder.instance_collection, holder.location = "COLLECTION", what, (x, 0, 0)
        where.objects.link(holder)
    driven = cube("driven", (0, 0, 0))
    curve = driven.driver_add("location", 2)
    curve.driver.type, curve.driver.expression = "SCRIPTED", "frame * 2"  # evaluated without Python
    scene.frame_set(3)
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "instancer.blend"))


def material(name: str) -> tuple[object, object, object]:
    made = bpy.data.materials.new(name)
    made.use_nodes = True
    made.node_tree.nodes.clear()
    return made, made.node_tree, made.node_tree.nodes.new("ShaderNodeOutputMaterial")


def grouped() -> object:
    group = bpy.data.node_groups.new("paint", "ShaderNodeTree")
    group.interface.new_socket("Colour", in_out="INPUT", socket_type="NodeSocketColor")
    group.interface.new_socket("Shader", in_out="OUTPUT", socket_type="NodeSocketShader")
    start, shader, end = (group.nodes.new(k) for k in ("NodeGroupInput", "ShaderNodeBsdfPrincipled", "NodeGroupOutput"))
    shader.inputs["Roughness"].default_value, shader.inputs["Metallic"].default_value = 0.25, 1.0
    group.links.new(start.outputs[0], shader.inputs["Base Color"])
    group.links.new(shader.outputs[0], end.inputs[0])
    made, tree, output = material("grouped")
    user = tree.nodes.new("ShaderNodeGroup")
    user.node_tree = group
    user.inputs[0].default_value = (1.0, 0.5, 0.0, 1.0)
    tree.links.new(user.outputs[0], output.inputs[0])
    return made


def shaders(folder: Path) -> None:
    reset()
    glass, tree, output = material("glass")
    tree.links.new(tree.nodes.new("ShaderNodeBsdfGlass").outputs[0], output.inputs[0])
    veil, tree, output = material("veil")
    mix = tree.nodes.new("ShaderNodeMixShader")
    diffuse = tree.nodes.new("ShaderNodeBsdfDiffuse")
    diffuse.inputs[0].default_value = (0.0, 0.0, 1.0, 1.0)
    tree.links.new(tree.nodes.new("ShaderNodeBsdfTransparent").outputs[0], mix.inputs[1])
    tree.links.new(diffuse.outputs[0], mix.inputs[2])
    tree.links.new(mix.outputs[0], output.inputs[0])
    hair, tree, output = material("hair")
    tree.links.new(tree.nodes.new("ShaderNodeBsdfHairPrincipled").outputs[0], output.inputs[0])
    for index, made in enumerate((grouped(), glass, veil, hair)):
        cube(made.name, (1.5 * index - 2.25, 0, 0)).data.materials.append(made)
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "shaders.blend"))


def heavy(folder: Path) -> None:
    reset()
    modifier = cube("heavy").modifiers.new("smooth", "SUBSURF")
    modifier.levels, modifier.render_levels = 0, 11
    array = bpy.context.object.modifiers.new("copies", "ARRAY")
    array.count = 1000
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "heavy.blend"))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for make in (skinned, key, nla, instancer, shaders, heavy):
        make(target)
    sys.stdout.flush()
    os._exit(0)
