"""What a shader looks like without light: base colour, roughness, metalness and opacity, read from its nodes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from render_farm.worker.nodes import as_output, mix, rgb, scaled, source, value, vector

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
HAS_ROUGHNESS = frozenset({"BSDF_PRINCIPLED", "BSDF_GLOSSY", "BSDF_METALLIC", "BSDF_GLASS", "BSDF_REFRACTION"})
"""Shaders whose Roughness is that of a mirror; the diffuse one's is another quantity, and it counts as 1."""
METALS = frozenset({"BSDF_GLOSSY", "BSDF_METALLIC"})

Extract = Callable[[Any, Any], Any]
"""Tree and shader node -> output socket of what is asked for."""


@dataclass(frozen=True)
class Surface:
    """One quantity of a shader."""

    value: Any
    """Output socket: a colour or a vector."""
    alpha: Any
    """Output socket of its opacity; None where it is opaque."""


def base_colour(tree: Any, node: Any) -> Any:
    """What artists call albedo: the Base Color, whatever the metalness."""
    return as_output(tree, node.inputs[COLOUR_INPUTS[node.type]])


def roughness_metallic(tree: Any, node: Any) -> Any:
    """(roughness, metallic, 0) as glTF means them."""
    rough = as_output(tree, node.inputs["Roughness"]) if node.type in HAS_ROUGHNESS else value(tree, 1.0)
    if node.type == "BSDF_PRINCIPLED":
        return vector(tree, rough, as_output(tree, node.inputs["Metallic"]))
    return vector(tree, rough, value(tree, 1.0 if node.type in METALS else 0.0))


def read_surface(tree: Any, socket: Any, extract: Extract) -> Surface | None:
    """Return what feeds a shader socket, or None if its kind of shader is not known."""
    feed = source(socket)
    if feed is None:
        return None
    node = feed.node
    if node.type in COLOUR_INPUTS:
        alpha = node.inputs.get("Alpha") if node.type == "BSDF_PRINCIPLED" else None
        opaque = alpha is None or (not alpha.is_linked and alpha.default_value >= 1.0)
        return Surface(extract(tree, node), None if opaque else as_output(tree, alpha))
    if node.type == "BSDF_TRANSPARENT":
        return Surface(rgb(tree, (0.0, 0.0, 0.0, 1.0)), value(tree, 0.0))
    if node.type == "MIX_SHADER":
        first, second = (read_surface(tree, node.inputs[i], extract) for i in (1, 2))
        return _mixed(tree, node, first, second)
    if node.type == "ADD_SHADER":
        first, second = sorted(node.inputs[:2], key=_glows)
        return read_surface(tree, first, extract) or read_surface(tree, second, extract)
    return None


def _glows(socket: Any) -> int:
    """Of a sum of shaders the reflecting one has the base colour; of light and nothing, the light."""
    feed = source(socket)
    return {"EMISSION": 1, "BSDF_TRANSPARENT": 2}.get(feed.node.type, 0) if feed is not None else 3


def _mixed(tree: Any, node: Any, first: Surface | None, second: Surface | None) -> Surface | None:
    """Mix as the mix shader does: opacities linearly, values by how much of each is opaque (premultiplied)."""
    if first is None or second is None:
        return None
    factor = as_output(tree, node.inputs[0])
    if first.alpha is None and second.alpha is None:
        return Surface(mix(tree, "RGBA", factor, first.value, second.value), None)
    alphas = [surface.alpha or value(tree, 1.0) for surface in (first, second)]
    values = [scaled(tree, s.value, alpha) for s, alpha in zip((first, second), alphas, strict=True)]
    alpha = mix(tree, "FLOAT", factor, *alphas)
    inverse = tree.nodes.new("ShaderNodeMath")
    inverse.operation = "DIVIDE"  # Cycles gives 0 for a division by 0
    inverse.inputs[0].default_value = 1.0
    tree.links.new(alpha, inverse.inputs[1])
    return Surface(scaled(tree, mix(tree, "RGBA", factor, *values), inverse.outputs[0]), alpha)
