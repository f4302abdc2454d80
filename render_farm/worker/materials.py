"""Materials: vertex colours of bare meshes are shown, and every surface also writes what it looks like to AOVs.

Why AOVs: the diffuse-colour pass is black on metals and dimmed under a specular layer; roughness has no pass at all.
What artists call albedo is the Base Color input, so that very socket is wired to a Shader AOV node, through mixes;
roughness and metalness likewise.

    BaseColour           COLOR  base colour * opacity
    Roughness, Metallic  VALUE  each * opacity
    BaseWeight           VALUE  opacity
"""

from collections.abc import Iterable
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


def colour_bare_meshes() -> None:
    """Show the vertex colours of meshes that have no material (PLY, some OBJ): Blender would leave them grey."""
    for mesh in bpy.data.meshes:
        if any(mesh.materials) or not mesh.color_attributes:
            continue
        colours = mesh.color_attributes.active_color or mesh.color_attributes[0]
        material = bpy.data.materials.new(f"{mesh.name} colours")
        material.use_nodes = True
        nodes, links = material.node_tree.nodes, material.node_tree.links
        attribute = nodes.new("ShaderNodeVertexColor")
        attribute.layer_name = colours.name
        shader = next(node for node in nodes if node.type == "BSDF_PRINCIPLED")
        links.new(attribute.outputs["Color"], shader.inputs["Base Color"])
        if mesh.materials:
            mesh.materials[0] = material
        else:
            mesh.materials.append(material)


def add_outputs(materials: Iterable[bpy.types.Material], passes: tuple[str, ...]) -> list[str]:
    """Add the AOV nodes that the passes need; return a sentence for each material that cannot be read.

    Cycles adds up an AOV at every surface that a camera path passes through. Values and weight are all multiplied by
    opacity; a path goes on behind a surface with probability 1 - opacity, so that their quotient is the blend one sees.
    Where the weight is 0 the parent falls back on the colour passes and on Blender's default roughness.
    """
    wanted = [name for name in EXTRACTS if name in passes]
    if not wanted:
        return []
    done: set[Any] = set()
    return [
        f"material {material.name!r} has a shader that cannot be read: albedo is taken from Blender's passes, "
        "roughness 0.5, metallic 0"
        for material in materials
        if material.node_tree is not None and not _add_outputs(material.node_tree, wanted, done)
    ]


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
