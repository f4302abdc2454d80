"""Blender program: build one small, asymmetric, coloured object and export it in every format.

``python export_formats.py FOLDER``. A flat body with a four-colour texture, a red tower on one corner, a small green
block at the front; nested under two roots with transforms that are not applied.
"""

import os
import sys
import tempfile
from pathlib import Path

os.environ["BLENDER_USER_RESOURCES"] = tempfile.mkdtemp()

import bpy
import numpy as np

QUADRANTS = ((0.8, 0.1, 0.1), (0.1, 0.6, 0.1), (0.1, 0.1, 0.8), (0.8, 0.7, 0.1))


def material(name: str, colour: tuple[float, float, float], image: object = None) -> bpy.types.Material:
    made = bpy.data.materials.new(name)
    made.use_nodes = True
    shader = made.node_tree.nodes["Principled BSDF"]
    shader.inputs["Base Color"].default_value = (*colour, 1.0)
    shader.inputs["Roughness"].default_value = 0.9
    if image is not None:
        texture = made.node_tree.nodes.new("ShaderNodeTexImage")
        texture.image = image
        made.node_tree.links.new(texture.outputs["Color"], shader.inputs["Base Color"])
    return made


def quadrant_image(folder: Path) -> bpy.types.Image:
    pixels = np.ones((16, 16, 4), np.float32)
    for i, colour in enumerate(QUADRANTS):
        pixels[8 * (i // 2) : 8 * (i // 2) + 8, 8 * (i % 2) : 8 * (i % 2) + 8, :3] = colour
    image = bpy.data.images.new("quadrants", 16, 16)
    image.pixels.foreach_set(pixels.ravel())
    image.filepath_raw = str(folder / "quadrants.png")
    image.file_format = "PNG"
    image.save()
    return bpy.data.images.load(str(folder / "quadrants.png"))


def block(name: str, size: tuple[float, float, float], at: tuple[float, float, float]) -> bpy.types.Object:
    bpy.ops.mesh.primitive_cube_add(size=1.0)
    made = bpy.context.object
    made.name, made.scale, made.location = name, size, at  # the scale is not applied
    return made


def build(folder: Path) -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    body = block("body", (1.0, 0.7, 0.2), (0, 0, 0))
    tower = block("tower", (0.2, 0.2, 0.7), (0.35, 0.2, 0.4))
    tower.rotation_euler = (0, 0, 0.3)
    front = block("front", (0.15, 0.3, 0.1), (-0.3, -0.45, 0.0))
    body.data.materials.append(material("quadrants", (1, 1, 1), quadrant_image(folder)))
    tower.data.materials.append(material("red", (0.7, 0.05, 0.05)))
    front.data.materials.append(material("green", (0.05, 0.6, 0.1)))
    pivot = bpy.data.objects.new("pivot", None)
    pivot.location, pivot.scale = (3.0, -2.0, 1.0), (2.0, 2.0, 2.0)
    bpy.context.scene.collection.objects.link(pivot)
    body.parent = tower.parent = pivot
    front.location = (3.0 - 0.6, -2.0 - 0.9, 1.0)  # a second root, where the pivot would have put it
    front.scale = (0.3, 0.6, 0.2)
    for item in (body, tower, front):  # PLY has vertex colours only
        colour = item.data.materials[0].node_tree.nodes["Principled BSDF"].inputs["Base Color"].default_value
        attribute = item.data.color_attributes.new("Col", "BYTE_COLOR", "CORNER")
        shade = (0.6, 0.6, 0.6, 1.0) if item is body else (*colour[:3], 1.0)
        for corner in attribute.data:
            corner.color = shade
    bpy.context.view_layer.update()


def export(folder: Path) -> None:
    ops = bpy.ops
    ops.wm.save_as_mainfile(filepath=str(folder / "object.blend"))
    ops.export_scene.gltf(filepath=str(folder / "object.glb"), export_vertex_color="NONE")
    ops.export_scene.gltf(
        filepath=str(folder / "object.gltf"), export_format="GLTF_SEPARATE", export_vertex_color="NONE"
    )
    ops.wm.obj_export(filepath=str(folder / "object.obj"), path_mode="COPY")
    ops.export_scene.fbx(filepath=str(folder / "object.fbx"), path_mode="COPY", embed_textures=True)
    ops.wm.ply_export(filepath=str(folder / "object.ply"))
    ops.wm.stl_export(filepath=str(folder / "object.stl"))
    for suffix in ("usd", "usda", "usdc", "usdz"):
        ops.wm.usd_export(filepath=str(folder / f"object.{suffix}"))
    if bpy.app.build_options.alembic:
        ops.wm.alembic_export(filepath=str(folder / "object.abc"), as_background_job=False)
    if hasattr(ops.wm, "collada_export") and bpy.app.version < (5, 0, 0):
        ops.wm.collada_export(filepath=str(folder / "object.dae"))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    build(target)
    export(target)
    sys.stdout.flush()
    os._exit(0)
