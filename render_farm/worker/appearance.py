"""What an object's materials look like, in facts for the filters: textured, coloured or plain."""

from collections.abc import Iterable
from typing import Any

import bpy

from render_farm.worker.nodes import output_of, source, upstream
from render_farm.worker.surfaces import COLOUR_INPUTS

VERTEX_NODES = frozenset({"ATTRIBUTE", "VERTEX_COLOR"})
EMISSION = ("Emission Color", "Emission")
DEFAULT = (0.8, 0.8, 0.8)
"""Of surfaces without a material."""
COLOUR_STEP = 100
"""Plain colours that agree to a hundredth, linear, are one."""


def look(materials: Iterable[bpy.types.Material]) -> dict[str, Any]:
    """Return `textured` (image, or a procedural pattern; vertex; colours: several plain base colours; plain),
    `base_colours` (number of plain ones) and `materials`."""
    count, kinds = 0, set[str]()
    plain = set[tuple[int, ...]]()
    for material in materials:
        count += 1
        for socket in _colours(material):
            kind = _kind(socket)
            kinds.add(kind)
            if kind == "plain":
                plain.add(_rounded(socket.default_value))
        if material.node_tree is None:
            plain.add(_rounded(material.diffuse_color))
    colours = "colours" if len(plain) > 1 else "plain"
    textured = next((kind for kind in ("image", "vertex") if kind in kinds), colours)
    return {"textured": textured, "base_colours": len(plain), "materials": count}


def _colours(material: bpy.types.Material) -> list[Any]:
    """Sockets of base colours, and of emission where there is any."""
    output = None if material.node_tree is None else output_of(material.node_tree)
    if output is None:
        return []
    shaders = [node for node in upstream(output.inputs["Surface"]) if node.type in COLOUR_INPUTS]
    found = [node.inputs[COLOUR_INPUTS[node.type]] for node in shaders]
    glowing = [node.inputs[name] for node in shaders for name in EMISSION if name in node.inputs]
    return found + [socket for socket in glowing if source(socket) is not None]


def _kind(socket: Any) -> str:
    nodes = {node.type for node in upstream(socket)}
    if any(kind.startswith("TEX_") for kind in nodes):
        return "image"
    if nodes & VERTEX_NODES:
        return "vertex"
    return "plain"


def _rounded(colour: Any) -> tuple[int, ...]:
    return tuple(round(float(part) * COLOUR_STEP) for part in tuple(colour)[:3])
