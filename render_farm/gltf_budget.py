"""How much a glTF document holds, from its JSON and its pictures' headers alone."""

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from render_farm.image_header import image_size

TRIANGLES, STRIP, FAN = 4, 5, 6
"""Primitive modes, glTF 2.0 section 5.24.4; the others are points and lines."""
HEADER_BYTES = 1 << 18
"""How much of a picture is looked at: a JPEG's size may come after a large thumbnail."""


def count_triangles(document: dict[str, Any]) -> int:
    """Return the triangles that the nodes of the document's scene show, each mesh as often as it is shown."""
    accessors = document.get("accessors", [])
    meshes = [
        sum(_primitive_triangles(primitive, accessors) for primitive in mesh.get("primitives", []))
        for mesh in document.get("meshes", [])
    ]
    nodes = document.get("nodes", [])
    total = 0
    for index in _shown(document, nodes):
        if "mesh" in nodes[index]:
            total += meshes[nodes[index]["mesh"]] * _instances(nodes[index], accessors)
    return total


def _primitive_triangles(primitive: dict[str, Any], accessors: Sequence[dict[str, Any]]) -> int:
    place = primitive.get("indices", primitive.get("attributes", {}).get("POSITION"))
    if place is None:
        return 0
    count, mode = int(accessors[place]["count"]), primitive.get("mode", TRIANGLES)
    if mode == TRIANGLES:
        return count // 3
    return max(count - 2, 0) if mode in (STRIP, FAN) else 0


def _instances(node: dict[str, Any], accessors: Sequence[dict[str, Any]]) -> int:
    attributes = node.get("extensions", {}).get("EXT_mesh_gpu_instancing", {}).get("attributes", {})
    return max([int(accessors[place]["count"]) for place in attributes.values()], default=1)


def _shown(document: dict[str, Any], nodes: Sequence[dict[str, Any]]) -> list[int]:
    """Nodes of the scene, or all where there is none. A node that is its own ancestor is a broken file, not a loop."""
    scenes = document.get("scenes", [])
    if not scenes:
        return list(range(len(nodes)))
    waiting, seen = list(scenes[document.get("scene", 0)].get("nodes", [])), []
    known: set[int] = set()
    while waiting:
        index = waiting.pop()
        if index in known:
            continue
        known.add(index)
        seen.append(index)
        waiting += nodes[index].get("children", [])
    return seen


def image_pixels(path: Path, document: dict[str, Any], buffers: Sequence[bytes | memoryview]) -> list[tuple[int, int]]:
    """Return (width, height) of every picture whose header can be read; one that is not there counts nothing."""
    views = document.get("bufferViews", [])
    sizes = [image_size(_picture_start(path, image, views, buffers)) for image in document.get("images", [])]
    return [size for size in sizes if size is not None]


def _picture_start(
    path: Path, image: dict[str, Any], views: Sequence[dict[str, Any]], buffers: Sequence[bytes | memoryview]
) -> bytes:
    if "bufferView" in image:
        view = views[image["bufferView"]]
        start = view.get("byteOffset", 0)
        return bytes(buffers[view["buffer"]][start : start + min(view["byteLength"], HEADER_BYTES)])
    uri = image.get("uri", "")
    if uri.startswith("data:"):
        try:
            return base64.b64decode(uri.partition(",")[2][: HEADER_BYTES // 3 * 4])
        except binascii.Error:
            return b""
    place = path.parent / unquote(uri)
    if not uri or not place.is_file():
        return b""
    with place.open("rb") as file:
        return file.read(HEADER_BYTES)
