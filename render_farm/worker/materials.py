"""Materials: vertex colours of bare meshes are shown, and every surface also writes what it looks like to AOVs.

Why AOVs: the diffuse-colour pass is black on metals and dimmed under a specular layer; roughness has no pass at all.
What artists call albedo is the Base Color input, so that very socket is wired to a Shader AOV node, through mixes;
roughness and metalness likewise.

    BaseColour           COLOR  base colour * opacity
    Roughness, Metallic  VALUE  each * opacity
    BaseWeight           VALUE  opacity
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import bpy

from render_farm.worker.nodes import output_of, parts, scaled, source, value
from render_farm.worker.surfaces import Extract, base_colour, read_surface, roughness_metallic

BASE_AOV, ROUGHNESS_AOV, METALLIC_AOV, WEIGHT_AOV = "BaseColour", "Roughness", "Metallic", "BaseWeight"
AOVS = {
    "albedo": ((BASE_AOV, "COLOR"),),
    "material": ((ROUGHNESS_AOV, "VALUE"), (METALLIC_AOV, "VALUE")),
}
"""Pass -> its AOVs and their types; BaseWeight besides."""
EXTRACTS: dict[str, Extract] = {"albedo": base_colour, "material": roughness_metallic}


def colour_bare_meshes(picture: Path | None = None) -> None:
    """Give meshes without a material (PLY, some OBJ), which Blender leaves grey, their picture or their vertex colours.

    Args:
        picture: that the file names; for meshes with texture coordinates.
    """
    for mesh in bpy.data.meshes:
        if any(mesh.materials):
            continue
        if picture is not None and picture.is_file() and mesh.uv_layers:
            tree, shader = _new_material(mesh, "picture")
            node = tree.nodes.new("ShaderNodeTexImage")
            node.image = bpy.data.images.load(str(picture), check_existing=True)
        elif mesh.color_attributes:
            tree, shader = _new_material(mesh, "colours")
            node = tree.nodes.new("ShaderNodeVertexColor")
            node.layer_name = (mesh.color_attributes.active_color or mesh.color_attributes[0]).name
        else:
            continue
        tree.links.new(node.outputs["Color"], shader.inputs["Base Color"])


def _new_material(mesh: bpy.types.Mesh, name: str) -> tuple[Any, Any]:
    """Node tree and Principled shader of the mesh's first material, made for it."""
    material = bpy.data.materials.new(f"{mesh.name} {name}")
    material.use_nodes = True
    if mesh.materials:
        mesh.materials[0] = material
    else:
        mesh.materials.append(material)
    return material.node_tree, next(node for node in material.node_tree.nodes if node.type == "BSDF_PRINCIPLED")


def add_outputs(materials: Iterable[bpy.types.Material], passes: tuple[str, ...]) -> list[str]:
    """Add the AOV nodes that the passes need; return a sentence for each material that cannot be read.

    Cycles adds up an AOV at every surface that a camera path passes through. Values and weight are all multiplied by
    opacity; a path goes on behind a surface with probability 1 - opacity, so that their quotient is the blend one sees.
    Where the weight is 0 the parent falls back on the colour passes and on Blender's default roughness.
    """
    wanted = [name for name in EXTRACTS if name in passes]
    if not wanted:
        return []
    _remove_outputs()
    done: set[Any] = set()
    return [
        f"material {material.name!r} has a shader that cannot be read: albedo is taken from Blender's passes, "
        "roughness 0.5, metallic 0"
        for material in materials
        if material.node_tree is not None and not _add_outputs(material.node_tree, wanted, done)
    ]


def _remove_outputs() -> None:
    """A .blend may have AOVs of its own, which would add to ours where they have the same names."""
    trees = [material.node_tree for material in bpy.data.materials if material.node_tree is not None]
    for tree in [*trees, *(group for group in bpy.data.node_groups if group.bl_idname == "ShaderNodeTree")]:
        for node in [node for node in tree.nodes if node.type == "OUTPUT_AOV"]:
            tree.nodes.remove(node)


def _add_outputs(tree: Any, wanted: list[str], done: set[Any]) -> bool:
    """Whether the tree's surface could be read."""
    output = output_of(tree)
    if output is None or not output.inputs["Surface"].is_linked:
        return True  # black or a volume: there is nothing to read
    tree, socket = _innermost(tree, output.inputs["Surface"])
    if socket in done:
        return True
    done.add(socket)
    for name in wanted:
        surface = read_surface(tree, socket, EXTRACTS[name])
        if surface is None:
            return False
        alpha = surface.alpha or value(tree, 1.0)
        feed = scaled(tree, surface.value, alpha)
        if name == "albedo":
            _write(tree, BASE_AOV, "Color", feed)
        else:
            rough, metallic = parts(tree, feed)
            _write(tree, ROUGHNESS_AOV, "Value", rough)
            _write(tree, METALLIC_AOV, "Value", metallic)
        if name == wanted[0]:
            _write(tree, WEIGHT_AOV, "Value", alpha)
    return True


def _innermost(tree: Any, socket: Any) -> tuple[Any, Any]:
    """Follow a shader into the node groups that make it up; AOV nodes work in there as well."""
    feed = source(socket)
    while feed is not None and feed.node.type == "GROUP" and feed.node.node_tree is not None:
        inner = feed.node.node_tree
        ends = [node for node in inner.nodes if node.type == "GROUP_OUTPUT" and node.is_active_output]
        if not ends:
            break
        tree, socket = inner, ends[0].inputs[feed.identifier]
        feed = source(socket)
    return tree, socket


def _write(tree: Any, name: str, socket: str, feed: Any) -> None:
    node = tree.nodes.new("ShaderNodeOutputAOV")
    if hasattr(node, "aov_name"):
        node.aov_name = name
    else:  # Blender 4.1 and older
        node.name = name
    tree.links.new(feed, node.inputs[socket])
