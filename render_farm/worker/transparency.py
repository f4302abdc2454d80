"""Transparent materials: found, and kept, made opaque or refused."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np

from render_farm.worker.events import WorkerError
from render_farm.worker.nodes import output_of, source, upstream

GLASS = frozenset({"BSDF_GLASS", "BSDF_REFRACTION"})
TRANSMISSION = ("Transmission Weight", "Transmission")
"""The Principled shader's socket, before and after Blender 4."""
CUT_OUTS = frozenset({"MULTIPLY", "ROUND", "GREATER_THAN", "LESS_THAN", "SUBTRACT"})
"""Arithmetic on alpha that glTF's importer builds for factors and cut-outs."""
LARGEST_READ_PX = 2048 * 2048
"""Alpha channels of larger images are not looked at: they count as transparent."""
OPAQUE = 0.999


@dataclass(frozen=True)
class SeeThrough:
    """What was found."""

    found: bool
    """Whether the asset has transparent surfaces, whatever was done with them."""
    refracts: bool
    """Whether light passes through glass as it is rendered: what lies behind comes noisy through it."""
    warnings: tuple[str, ...]
    """What was done."""


def apply(materials: Iterable[bpy.types.Material], policy: str) -> SeeThrough:
    """Find transparent materials and do with them as the policy says.

    Raises:
        WorkerError: there are some, and the policy is refuse.
    """
    clear = [material for material in materials if material.node_tree is not None and _is_clear(material.node_tree)]
    if clear and policy == "refuse":
        raise WorkerError("transparent", f"material {clear[0].name!r} is transparent: allow it with the policy keep or "
                          "opaque")  # fmt: skip
    if policy != "opaque":
        return SeeThrough(bool(clear), any(_refracts(material.node_tree) for material in clear), ())
    for material in clear:
        _make_opaque(material.node_tree)
    return SeeThrough(bool(clear), False, tuple(f"material {material.name!r} was made opaque" for material in clear))


def _shaders(tree: Any) -> Iterator[Any]:
    output = output_of(tree)
    if output is not None:
        yield from upstream(output.inputs["Surface"])


def _is_clear(tree: Any) -> bool:
    output = output_of(tree)
    return output is not None and _shows_through(output.inputs["Surface"])


def _refracts(tree: Any) -> bool:
    return any(node.type in GLASS or (node.type == "BSDF_PRINCIPLED" and _transmits(node)) for node in _shaders(tree))


def _shows_through(socket: Any) -> bool:
    """Whether the camera sees anything behind this shader."""
    feed = source(socket)
    if feed is None:
        return False
    node = feed.node
    if node.type == "MIX_SHADER":
        return _mix_shows_through(node)
    if node.type == "ADD_SHADER":
        return any(_shows_through(entry) for entry in node.inputs)
    if node.type == "GROUP":
        return any(_is_clear_shader(inner) for inner in upstream(socket))
    return _is_clear_shader(node)


def _mix_shows_through(node: Any) -> bool:
    factor, first, second = node.inputs[:3]
    if _is_camera_ray(factor):
        return _shows_through(second)
    if not factor.is_linked and factor.default_value in (0.0, 1.0):
        return _shows_through(second if factor.default_value else first)
    nothing = source(first)
    if nothing is not None and nothing.node.type == "BSDF_TRANSPARENT":  # the factor is the other side's opacity
        return _is_thin(factor) or _shows_through(second)
    return _shows_through(first) or _shows_through(second)


def _is_camera_ray(factor: Any) -> bool:
    """glTF's unlit materials: emission for the camera, nothing for light."""
    feed = source(factor)
    return feed is not None and feed.node.type == "LIGHT_PATH" and feed.name == "Is Camera Ray"


def _is_clear_shader(node: Any) -> bool:
    return bool(
        node.type in GLASS
        or node.type == "BSDF_TRANSPARENT"
        or (node.type == "BSDF_PRINCIPLED" and (_is_thin(node.inputs["Alpha"]) or _transmits(node)))
    )


def _transmits(node: Any) -> bool:
    return any(name in node.inputs and (node.inputs[name].is_linked or node.inputs[name].default_value > 0)
               for name in TRANSMISSION)  # fmt: skip


def _is_thin(alpha: Any) -> bool:
    """Whether an alpha socket is anywhere below 1. Only one that hangs on images can be proved opaque."""
    feed = source(alpha)
    if feed is None:
        return bool(alpha.default_value < OPAQUE)
    if feed.node.type == "VALUE":
        return bool(feed.default_value < OPAQUE)
    if feed.node.type == "TEX_IMAGE" and feed.name == "Alpha":
        return feed.node.image is not None and _has_holes(feed.node.image)
    if feed.node.type == "MATH" and feed.node.operation in CUT_OUTS:
        return any(_is_thin(entry) for entry in feed.node.inputs if entry.is_linked)
    return True


def _has_holes(image: Any) -> bool:
    if image.channels < 4 or image.depth in {8, 24} or image.alpha_mode == "NONE":
        return False
    width, height = image.size
    if width * height > LARGEST_READ_PX:
        return True
    pixels = np.empty(width * height * 4, np.float32)
    image.pixels.foreach_get(pixels)
    return bool(pixels[3::4].min(initial=1.0) < OPAQUE)


def _make_opaque(tree: Any) -> None:
    for node in list(_shaders(tree)):
        owner = node.id_data
        if node.type == "BSDF_PRINCIPLED":
            _set(owner, node.inputs["Alpha"], 1.0)
            for name in TRANSMISSION:
                if name in node.inputs:
                    _set(owner, node.inputs[name], 0.0)
        elif node.type in GLASS:
            _replace_glass(owner, node)
        elif node.type == "MIX_SHADER" and not _is_camera_ray(node.inputs[0]):
            _skip_clear_side(owner, node)
    volume = output_of(tree).inputs["Volume"]
    for link in list(volume.links):
        tree.links.remove(link)


def _set(tree: Any, socket: Any, number: float) -> None:
    for link in list(socket.links):
        tree.links.remove(link)
    socket.default_value = number


def _replace_glass(tree: Any, node: Any) -> None:
    solid = tree.nodes.new("ShaderNodeBsdfPrincipled")
    for name, target in (("Color", "Base Color"), ("Roughness", "Roughness")):
        feed = source(node.inputs[name])
        if feed is None:
            solid.inputs[target].default_value = node.inputs[name].default_value
        else:
            tree.links.new(feed, solid.inputs[target])
    for link in list(node.outputs[0].links):
        tree.links.new(solid.outputs[0], link.to_socket)


def _skip_clear_side(tree: Any, node: Any) -> None:
    """A mix of something and nothing becomes something."""
    sides = [source(node.inputs[i]) for i in (1, 2)]
    solid = [side for side in sides if side is not None and side.node.type != "BSDF_TRANSPARENT"]
    if len(solid) == 1:
        for link in list(node.outputs[0].links):
            tree.links.new(solid[0], link.to_socket)
