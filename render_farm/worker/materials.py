"""Materials: missing textures become neutral grey, and every surface also writes its base colour to an AOV.

Why an AOV: the diffuse-colour pass is black on metals and dimmed under a specular layer. What artists call albedo is
the Base Color input, so that very socket is wired to a Shader AOV node, through mix shaders.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import bpy

NEUTRAL = (0.8, 0.8, 0.8, 1.0)
"""Blender's own default base colour, linear."""
BASE_AOV, WEIGHT_AOV = "BaseColour", "BaseWeight"
COLOUR_INPUTS = {
    "BSDF_PRINCIPLED": "Base Color",
    "BSDF_DIFFUSE": "Color",
    "BSDF_GLOSSY": "Color",
    "BSDF_METALLIC": "Base Color",
    "BSDF_SHEEN": "Color",
    "BSDF_TOON": "Color",
    "BSDF_TRANSLUCENT": "Color",
    "BSDF_GLASS": "Color",
    "BSDF_REFRACTION": "Color",
    "SUBSURFACE_SCATTERING": "Color",
    "EMISSION": "Color",
}
"""The socket that holds a shader's base colour."""


# ------------------------------------------------------------------------------------------------ missing textures
def replace_missing_textures() -> list[str]:
    """Cut unreadable images out of every shader, leaving neutral values; return one sentence for each image."""
    missing = {image for image in bpy.data.images if _is_missing(image)}
    found = {_name(image) for image in missing if image.users}
    for owner, tree in _trees():
        for node in [n for n in tree.nodes if n.type in {"TEX_IMAGE", "TEX_ENVIRONMENT"}]:
            if node.image is None:
                found.add(f"a texture of {owner!r}")
            if node.image is None or node.image in missing:
                _neutralise(tree, node)
    return [f"{name} is missing: rendered with a neutral colour" for name in sorted(found)]


def _is_missing(image: bpy.types.Image) -> bool:
    """Loading is lazy: size is 0 x 0 where the pixels cannot be had."""
    return image.source in {"FILE", "SEQUENCE", "TILED"} and (image.size[0] == 0 or image.size[1] == 0)


def _name(image: bpy.types.Image) -> str:
    file_name = image.filepath.replace("\\", "/").rsplit("/", 1)[-1]
    return f"texture {(file_name or image.name)!r}"


def _trees() -> Iterator[tuple[str, Any]]:
    """Every shader's node tree, and the name of what it belongs to."""
    yield from ((m.name, m.node_tree) for m in bpy.data.materials if m.node_tree is not None)
    yield from ((group.name, group) for group in bpy.data.node_groups if group.bl_idname == "ShaderNodeTree")


def _neutralise(tree: Any, node: Any) -> None:
    for output in node.outputs:
        for link in list(output.links):
            socket = link.to_socket
            tree.links.remove(link)
            _set_neutral(tree, socket, is_alpha=output.name == "Alpha")
    node.image = None


def _set_neutral(tree: Any, socket: Any, *, is_alpha: bool) -> None:
    """Give a socket that lost its texture a value that shows nothing of it."""
    node = socket.node
    if node.type in {"NORMAL_MAP", "BUMP", "DISPLACEMENT", "VECTOR_DISPLACEMENT"}:
        for link in [link for output in node.outputs for link in output.links]:
            tree.links.remove(link)
    elif node.type in {"SEPARATE_COLOR", "SEPRGB"}:  # roughness and metalness packed in one image
        for link in [link for output in node.outputs for link in output.links]:
            target = link.to_socket
            tree.links.remove(link)
            _set_neutral(tree, target, is_alpha=False)
    elif node.type == "BSDF_PRINCIPLED" and socket.name == "Metallic":
        socket.default_value = 0.0
    elif node.type == "BSDF_PRINCIPLED" and socket.name in {"Emission Color", "Emission"}:
        socket.default_value = (0.0, 0.0, 0.0, 1.0)
    elif is_alpha:
        if socket.type == "VALUE":
            socket.default_value = 1.0
    elif socket.type == "RGBA":
        socket.default_value = NEUTRAL


# ------------------------------------------------------------------------------------------------ bare meshes
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


# ------------------------------------------------------------------------------------------------ base colour
@dataclass(frozen=True)
class Surface:
    """What a shader looks like without light."""

    colour: Any
    """Output socket of its base colour."""
    alpha: Any
    """Output socket of its opacity; None where it is opaque."""


def add_base_colour_outputs() -> None:
    """Add AOV nodes to every material whose shader can be read; the parent falls back on passes for the others.

    Cycles adds up an AOV at every surface that a camera path passes through. Colour and weight are both multiplied by
    opacity; a path goes on behind a surface with probability 1 - opacity, so that their quotient is the blend one sees.
    """
    for material in bpy.data.materials:
        if material.node_tree is None:
            continue
        tree = material.node_tree
        output = tree.get_output_node("CYCLES") or tree.get_output_node("ALL")
        surface = None if output is None else _read_surface(tree, output.inputs["Surface"])
        if surface is not None:
            alpha = surface.alpha or _value(tree, 1.0)
            _write_aov(tree, BASE_AOV, "Color", _scaled(tree, surface.colour, alpha))
            _write_aov(tree, WEIGHT_AOV, "Value", alpha)


def _source(socket: Any) -> Any:
    """The output socket that feeds an input, through reroutes; None where nothing does."""
    while socket.is_linked:
        link = socket.links[0]
        if link.from_node.type != "REROUTE":
            return link.from_socket
        socket = link.from_node.inputs[0]
    return None


def _read_surface(tree: Any, socket: Any) -> Surface | None:
    """Return the surface that feeds a shader socket, or None if its kind of shader is not known."""
    source = _source(socket)
    if source is None:
        return None
    node = source.node
    if node.type in COLOUR_INPUTS:
        alpha = node.inputs.get("Alpha") if node.type == "BSDF_PRINCIPLED" else None
        opaque = alpha is None or (not alpha.is_linked and alpha.default_value >= 1.0)
        return Surface(
            _as_output(tree, node.inputs[COLOUR_INPUTS[node.type]]), None if opaque else _as_output(tree, alpha)
        )
    if node.type == "BSDF_TRANSPARENT":
        return Surface(_rgb(tree, (0.0, 0.0, 0.0, 1.0)), _value(tree, 0.0))
    if node.type == "MIX_SHADER":
        return _mixed(tree, node, _read_surface(tree, node.inputs[1]), _read_surface(tree, node.inputs[2]))
    if node.type == "ADD_SHADER":
        return _read_surface(tree, node.inputs[0]) or _read_surface(tree, node.inputs[1])
    return None


def _mixed(tree: Any, node: Any, first: Surface | None, second: Surface | None) -> Surface | None:
    """Mix as the mix shader does: opacities linearly, colours by how much of each is opaque (premultiplied)."""
    if first is None or second is None:
        return None
    factor = _as_output(tree, node.inputs[0])
    if first.alpha is None and second.alpha is None:
        return Surface(_mix(tree, "RGBA", factor, first.colour, second.colour), None)
    alphas = [surface.alpha or _value(tree, 1.0) for surface in (first, second)]
    colours = [_scaled(tree, s.colour, alpha) for s, alpha in zip((first, second), alphas, strict=True)]
    alpha = _mix(tree, "FLOAT", factor, *alphas)
    inverse = tree.nodes.new("ShaderNodeMath")
    inverse.operation = "DIVIDE"  # Cycles gives 0 for a division by 0
    inverse.inputs[0].default_value = 1.0
    tree.links.new(alpha, inverse.inputs[1])
    return Surface(_scaled(tree, _mix(tree, "RGBA", factor, *colours), inverse.outputs[0]), alpha)


def _mix(tree: Any, kind: str, factor: Any, first: Any, second: Any) -> Any:
    node = tree.nodes.new("ShaderNodeMix")
    node.data_type = kind
    of_kind = [socket for socket in node.inputs if socket.enabled]
    for source, socket in zip((factor, first, second), of_kind, strict=True):
        tree.links.new(source, socket)
    return next(socket for socket in node.outputs if socket.enabled)


def _scaled(tree: Any, colour: Any, factor: Any) -> Any:
    node = tree.nodes.new("ShaderNodeVectorMath")
    node.operation = "SCALE"
    tree.links.new(colour, node.inputs["Vector"])
    tree.links.new(factor, node.inputs["Scale"])
    return node.outputs["Vector"]


def _as_output(tree: Any, socket: Any) -> Any:
    """An input's value as an output socket."""
    source = _source(socket)
    if source is not None:
        return source
    return _rgb(tree, socket.default_value) if socket.type == "RGBA" else _value(tree, socket.default_value)


def _rgb(tree: Any, colour: Any) -> Any:
    node = tree.nodes.new("ShaderNodeRGB")
    node.outputs[0].default_value = colour
    return node.outputs[0]


def _value(tree: Any, value: float) -> Any:
    node = tree.nodes.new("ShaderNodeValue")
    node.outputs[0].default_value = value
    return node.outputs[0]


def _write_aov(tree: Any, name: str, socket: str, source: Any) -> None:
    node = tree.nodes.new("ShaderNodeOutputAOV")
    if hasattr(node, "aov_name"):
        node.aov_name = name
    else:  # Blender 4.1 and older
        node.name = name
    tree.links.new(source, node.inputs[socket])
