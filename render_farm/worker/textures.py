"""Images of materials: unreadable ones become neutral values, very large ones are halved until they fit."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import bpy

from render_farm.worker.nodes import upstream

NEUTRAL = (0.8, 0.8, 0.8, 1.0)
"""Blender's own default base colour, linear."""


@dataclass(frozen=True)
class Shrunk:
    """What was found and done."""

    facts: dict[str, Any]
    """images, largest_image_px (as it came), textures_resized."""
    warnings: tuple[str, ...]
    """One sentence for each image made smaller."""


def shrink(limit_px: int) -> Shrunk:
    """Halve images until neither side is longer than `limit_px`."""
    images = [image for image in bpy.data.images if image.users and image.size[0] > 0]
    largest_px = max((max(image.size) for image in images), default=0)
    warnings = [_shrink(image, limit_px) for image in images if max(image.size) > limit_px]
    facts = {"images": len(images), "largest_image_px": largest_px, "textures_resized": len(warnings)}
    return Shrunk(facts, tuple(warnings))


def _shrink(image: bpy.types.Image, limit_px: int) -> str:
    before = tuple(image.size)
    tiles = [tile.number for tile in image.tiles] if image.source == "TILED" else [0]
    for tile in tiles:
        width, height = before
        while max(width, height) > limit_px:
            width, height = max(1, width // 2), max(1, height // 2)
        image.scale(width, height, tile_index=tile)
    image.pack()  # Cycles would read the file again
    return f"{_name(image)} was made smaller: {before[0]} x {before[1]} to {width} x {height} pixels"


def part_colours_from_data() -> None:
    """Give colours of a glTF a picture of their own where the same one also holds data.

    Blender's importer then declares the picture, which is one for both, to be data, and the colours turn pale.
    """
    copies: dict[bpy.types.Image, bpy.types.Image] = {}
    for _, tree in _trees():
        for node in _coloured(tree):
            if node.image is not None and node.image.colorspace_settings.is_data:
                if node.image not in copies:
                    copies[node.image] = node.image.copy()
                    copies[node.image].colorspace_settings.name = "sRGB"
                node.image = copies[node.image]


def _coloured(tree: Any) -> Iterator[Any]:
    """Image nodes that colour surfaces."""
    for shader in [node for node in tree.nodes if node.type in {"BSDF_PRINCIPLED", "EMISSION"}]:
        for socket in shader.inputs:
            if socket.type == "RGBA":
                yield from (node for node in upstream(socket) if node.type == "TEX_IMAGE")


def replace_missing() -> list[str]:
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
    return image.source in {"FILE", "MOVIE", "SEQUENCE", "TILED"} and (image.size[0] == 0 or image.size[1] == 0)


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
