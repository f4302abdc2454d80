"""Blender program: .blend files that render differently from what their viewport shows. ``python export_odd.py FOLDER``

Every one holds a red cube of side 2 around the origin, and besides it

render_only.blend   an array of four that only a render shows
view_only.blend     an array of four that only the viewport shows
helpers.blend       a shadow catcher, a holdout, and an object that cameras do not see, all far out
scattered.blend     60 cubes of side 0.2 as particles, hidden themselves; the viewport shows a tenth of the particles
hairy.blend         hair of half a metre
added.blend         a shader that is the sum of blue light and red paint
outputs.blend       AOV nodes of its own, named as ours
movie.blend         a texture from a film that is not there
linked.blend        an object from a library that is not there
"""

import os
import sys
import tempfile
from pathlib import Path

os.environ["BLENDER_USER_RESOURCES"] = tempfile.mkdtemp()

import bpy

RED = (0.8, 0.1, 0.1, 1.0)


def start() -> tuple[object, object]:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    made = cube("red", 2.0)
    material = bpy.data.materials.new("red")
    material.use_nodes = True
    material.node_tree.nodes["Principled BSDF"].inputs["Base Color"].default_value = RED
    made.data.materials.append(material)
    return made, material.node_tree


def cube(name: str, size: float, at: tuple[float, float, float] = (0, 0, 0)) -> object:
    bpy.ops.mesh.primitive_cube_add(size=size, location=at)
    bpy.context.object.name = name
    return bpy.context.object


def array(*, render: bool) -> None:
    modifier = start()[0].modifiers.new("array", "ARRAY")
    modifier.count = 4
    modifier.show_render, modifier.show_viewport = render, not render


def helpers() -> None:
    start()
    cube("catcher", 2.0, (9, 0, 0)).is_shadow_catcher = True
    cube("holdout", 2.0, (0, 9, 0)).is_holdout = True
    cube("unseen", 2.0, (0, 0, 9)).visible_camera = False


def scattered() -> None:
    emitter, _ = start()
    leaf = cube("leaf", 0.2, (9, 9, 9))
    leaf.hide_render = True
    settings = emitter.modifiers.new("leaves", "PARTICLE_SYSTEM").particle_system.settings
    settings.type, settings.render_type, settings.instance_object = "HAIR", "OBJECT", leaf
    settings.use_advanced_hair, settings.count, settings.particle_size, settings.hair_length = True, 60, 1.0, 1.0
    settings.display_percentage = 10


def hairy() -> None:
    emitter, _ = start()
    settings = emitter.modifiers.new("hair", "PARTICLE_SYSTEM").particle_system.settings
    settings.type, settings.count, settings.hair_length = "HAIR", 100, 0.5


def added() -> None:
    _, tree = start()
    paint = tree.nodes["Principled BSDF"]
    light, total = tree.nodes.new("ShaderNodeEmission"), tree.nodes.new("ShaderNodeAddShader")
    light.inputs["Color"].default_value, light.inputs["Strength"].default_value = (0, 0, 1, 1), 0.2
    tree.links.new(light.outputs[0], total.inputs[0])
    tree.links.new(paint.outputs[0], total.inputs[1])
    tree.links.new(total.outputs[0], tree.nodes["Material Output"].inputs["Surface"])


def outputs() -> None:
    _, tree = start()
    for name, socket, content in (("BaseColour", "Color", (0, 1, 0, 1)), ("Roughness", "Value", 0.4)):
        node = tree.nodes.new("ShaderNodeOutputAOV")
        node.aov_name = name
        node.inputs[socket].default_value = content


def movie() -> None:
    _, tree = start()
    node = tree.nodes.new("ShaderNodeTexImage")
    node.image = bpy.data.images.new("film", 8, 8)
    node.image.source, node.image.filepath = "MOVIE", "//gone.mp4"
    tree.links.new(node.outputs[0], tree.nodes["Principled BSDF"].inputs["Base Color"])


def linked() -> None:
    start()
    library = str(target / "library.blend")
    bpy.ops.wm.save_as_mainfile(filepath=library)
    start()
    with bpy.data.libraries.load(library, link=True) as (_, wanted):
        wanted.objects = ["red"]
    bpy.context.scene.collection.objects.link(wanted.objects[0])


if __name__ == "__main__":
    target = Path(sys.argv[1])
    made = {
        "render_only": lambda: array(render=True), "view_only": lambda: array(render=False), "helpers": helpers,
        "scattered": scattered, "hairy": hairy, "added": added, "outputs": outputs, "movie": movie, "linked": linked,
    }  # fmt: skip
    for name, make in made.items():
        make()
        bpy.ops.wm.save_as_mainfile(filepath=str(target / f"{name}.blend"))
    (target / "library.blend").unlink()
    sys.stdout.flush()
    os._exit(0)
