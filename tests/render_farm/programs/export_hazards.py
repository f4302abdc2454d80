"""Blender program: .blend files that are awkward or hostile. ``python export_hazards.py FOLDER``

hostile.blend    a text block that registers itself and a Python driver, both of which would write FOLDER/executed
scene.blend      instances of a collection with a lamp in it, hidden things, a constraint in world space, and render
                 settings of its own; what shows is a box of 2 x 1 x 1 around (5, 0, 0)
posed.blend      a box on an armature, animated: at frame 1 it stands at x = 0, at frame 11, the current one, at x = 4
"""

import os
import sys
import tempfile
from pathlib import Path

os.environ["BLENDER_USER_RESOURCES"] = tempfile.mkdtemp()

import bpy


def cube(name: str, at: tuple[float, float, float], size: tuple[float, float, float] = (1, 1, 1)) -> bpy.types.Object:
    bpy.ops.mesh.primitive_cube_add(size=1.0, location=at)
    made = bpy.context.object
    made.name, made.scale = name, size
    return made


def hostile(folder: Path) -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    write = f"open({str(folder / 'executed')!r}, 'a').write"
    text = bpy.data.texts.new("startup.py")
    text.write(f"{write}('text ')\n")
    text.use_module = True
    text.name = "startup.py"
    box = cube("box", (0, 0, 0))
    curve = box.driver_add("location", 2)
    curve.driver.type = "SCRIPTED"
    curve.driver.expression = f"__import__('builtins').open({str(folder / 'executed')!r}, 'a').write('driver ') * 0"
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "hostile.blend"))
    (folder / "executed").unlink(missing_ok=True)  # building it may have run the driver


def scene(folder: Path) -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    current = bpy.context.scene
    kept = bpy.data.collections.new("kept aside")
    box = cube("box", (0, 0, 0))
    for collection in box.users_collection:
        collection.objects.unlink(box)
    kept.objects.link(box)
    lamp = bpy.data.objects.new("lamp", bpy.data.lights.new("lamp", "POINT"))
    lamp.data.energy, lamp.location = 1e6, (0, 0, 3)
    kept.objects.link(lamp)
    for x in (4.5, 5.5):
        holder = bpy.data.objects.new("instance", None)
        holder.instance_type, holder.instance_collection, holder.location = "COLLECTION", kept, (x, 0, 0)
        current.collection.objects.link(holder)
    # a small box that a world-space constraint holds inside the visible extent
    held = cube("held", (100, 0, 0), (0.1, 0.1, 0.1))
    limit = held.constraints.new("LIMIT_LOCATION")
    limit.use_max_x, limit.max_x, limit.owner_space = True, 5.2, "WORLD"
    cube("hidden in render", (20, 0, 0)).hide_render = True
    cube("hidden in viewport", (-20, 0, 0)).hide_viewport = True
    cube("hidden by eye", (0, 20, 0)).hide_set(True)
    excluded = bpy.data.collections.new("excluded")
    current.collection.children.link(excluded)
    excluded.objects.link(bpy.data.objects.new("excluded box", box.data))
    excluded.objects[0].location = (0, 0, 50)
    bpy.context.view_layer.layer_collection.children["excluded"].exclude = True
    lost = bpy.data.objects.new("point", bpy.data.meshes.new("point"))
    lost.data.from_pydata([(0, 300, 0)], [], [])  # a loose vertex far away is not part of any surface
    current.collection.objects.link(lost)
    current.render.use_border, current.render.film_transparent, current.view_settings.exposure = True, False, 3.0
    current.render.border_max_x = 0.2
    current.world = bpy.data.worlds.new("red")
    current.world.color = (1, 0, 0)
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    current.collection.objects.link(camera)
    current.camera = camera
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "scene.blend"))


def posed(folder: Path) -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.object.armature_add()
    rig = bpy.context.object
    shape = cube("bone shape", (0, 0, 30))
    rig.pose.bones[0].custom_shape = shape
    box = cube("box", (0, 0, 0))
    box.modifiers.new("rig", "ARMATURE").object = rig
    group = box.vertex_groups.new(name=rig.pose.bones[0].name)
    group.add(list(range(8)), 1.0, "ADD")
    bone = rig.pose.bones[0]
    for frame, x in ((1, 0.0), (11, 4.0)):
        bone.location = (x, 0, 0)
        bone.keyframe_insert("location", frame=frame)
    bpy.context.scene.frame_set(11)
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "posed.blend"))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    hostile(target)
    scene(target)
    posed(target)
    sys.stdout.flush()
    os._exit(0)
