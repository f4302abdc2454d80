"""Objects for bm_farm.py, made by Blender: ``python tests/benchmarks/make_objects.py FOLDER``.

monkey.glb   a smooth, glossy, painted Suzanne on metal feet       (metal, curved reflections)
bush.glb     600 thin leaves on a stem                             (foliage: edges, occlusion)
lamp.glb     a glass bell over an emitting bulb on a diffuse foot  (transmission, emission)
"""

import os
import random
import sys
from pathlib import Path

import bpy


def material(name: str, colour: tuple[float, float, float], **values: float) -> bpy.types.Material:
    """A principled material; further inputs by their names with _ for spaces."""
    made = bpy.data.materials.new(name)
    made.use_nodes = True
    shader = next(node for node in made.node_tree.nodes if node.type == "BSDF_PRINCIPLED")
    shader.inputs["Base Color"].default_value = (*colour, 1.0)
    for key, value in values.items():
        shader.inputs[key.replace("_", " ")].default_value = value
    return made


def give(made: bpy.types.Material, *, smooth: bool = True) -> None:
    """Give the active object a material."""
    item = bpy.context.object
    item.data.materials.append(made)
    if smooth:
        bpy.ops.object.shade_smooth()


def monkey() -> None:
    """Suzanne."""
    bpy.ops.mesh.primitive_monkey_add(size=1.6)
    bpy.ops.object.modifier_add(type="SUBSURF")
    bpy.context.object.modifiers[-1].levels = 2
    give(material("paint", (0.55, 0.08, 0.05), Roughness=0.25))
    for x in (-0.45, 0.45):
        bpy.ops.mesh.primitive_uv_sphere_add(radius=0.28, location=(x, 0.0, -0.85), segments=48, ring_count=24)
        give(material("steel", (0.7, 0.7, 0.75), Metallic=1.0, Roughness=0.15))


def bush() -> None:
    """Leaves at random places and angles, the same in each run."""
    rng = random.Random(0)
    greens = [material(f"leaf {k}", (0.1 + 0.05 * k, 0.35 + 0.08 * k, 0.08), Roughness=0.6) for k in range(3)]
    points, faces = [], []
    for _ in range(600):
        centre = [rng.gauss(0.0, 0.22), rng.gauss(0.0, 0.22), rng.gauss(0.55, 0.2)]
        along, across = ([rng.gauss(0.0, 0.05) for _ in range(3)] for _ in range(2))
        corners = ((1, 0), (0, 0.5), (-1, 0), (0, -0.5))
        faces.append(tuple(range(len(points), len(points) + 4)))
        points += [[c + u * a + v * b for c, a, b in zip(centre, along, across, strict=True)] for u, v in corners]
    mesh = bpy.data.meshes.new("leaves")
    mesh.from_pydata(points, [], faces)
    for green in greens:
        mesh.materials.append(green)
    for index, polygon in enumerate(mesh.polygons):
        polygon.material_index = index % 3
    bpy.context.collection.objects.link(bpy.data.objects.new("leaves", mesh))
    bpy.ops.mesh.primitive_cylinder_add(radius=0.04, depth=1.0, location=(0.0, 0.0, 0.1))
    give(material("wood", (0.2, 0.1, 0.05), Roughness=0.9))


def lamp() -> None:
    """A desk lamp."""
    bpy.ops.mesh.primitive_cone_add(radius1=0.45, radius2=0.1, depth=0.5, location=(0.0, 0.0, -0.35), vertices=48)
    give(material("clay", (0.75, 0.6, 0.45), Roughness=0.8), smooth=False)
    bpy.ops.mesh.primitive_uv_sphere_add(radius=0.4, location=(0.0, 0.0, 0.3), segments=48, ring_count=24)
    give(material("glass", (0.9, 0.95, 1.0), Roughness=0.05, Transmission_Weight=1.0))
    bpy.ops.mesh.primitive_ico_sphere_add(radius=0.12, location=(0.0, 0.0, 0.3), subdivisions=3)
    bulb = material("bulb", (1.0, 0.8, 0.5), Emission_Strength=1.0)
    shader = next(node for node in bulb.node_tree.nodes if node.type == "BSDF_PRINCIPLED")
    shader.inputs["Emission Color"].default_value = (1.0, 0.8, 0.5, 1.0)
    give(bulb)


def main(folder: Path) -> None:
    """Write all objects."""
    for make in (monkey, bush, lamp):
        bpy.ops.wm.read_factory_settings(use_empty=True)
        make()
        bpy.ops.export_scene.gltf(filepath=str(folder / f"{make.__name__}.glb"), export_apply=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)  # bpy may hang in its own clean-up
