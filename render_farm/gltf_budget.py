"""How much a glTF document holds, from its JSON and its pictures' headers alone."""

import base64
import binascii
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from PIL.Image import DecompressionBombError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

File = io.BytesIO | io.BufferedReader
TRIANGLES, STRIP, FAN = 4, 5, 6
"""Primitive modes, glTF 2.0 section 5.24.4; the others are points and lines."""
PICTURES: dict[bytes, Callable[[File], ImageFile]] = {
    b"\x89PNG": PngImageFile, b"\xff\xd8": JpegImageFile, b"RIFF": WebPImageFile,
}  # fmt: skip
"""How the pictures begin that a glTF may hold, and who reads their headers. Not `Image.open`: it refuses to name the size
of pictures that it takes for bombs, and whether they are is decided here."""
LARGEST_WEBP = (16383, 16383)
"""Pixels that a WebP may have (RFC 9649). One that Pillow takes for a bomb all the same, above 0.18e9, counts as so many."""


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
    """Return (width, height) of every picture whose header can be read; one that cannot be had counts nothing."""
    views = document.get("bufferViews", [])
    sizes = []
    for image in document.get("images", []):
        try:
            with _open_picture(path, image, views, buffers) as file:
                sizes.append(image_size(file))
        except (OSError, binascii.Error):
            continue
    return [size for size in sizes if size is not None]


def image_size(file: File) -> tuple[int, int] | None:
    """Return (width, height) in pixels of a PNG, JPEG or WebP; None if it is none of these (such as KTX2) or cut off."""
    start = file.read(4)
    file.seek(0)
    try:
        for magic, reader in PICTURES.items():
            if start.startswith(magic):
                return reader(file).size
    except DecompressionBombError:
        return LARGEST_WEBP
    except (OSError, SyntaxError, ValueError):  # Pillow's, for what is cut off or broken
        return None
    return None


def _open_picture(
    path: Path, image: dict[str, Any], views: Sequence[dict[str, Any]], buffers: Sequence[bytes | memoryview]
) -> File:
    if "bufferView" in image:
        view = views[image["bufferView"]]
        start = view.get("byteOffset", 0)
        return io.BytesIO(buffers[view["buffer"]][start : start + view["byteLength"]])
    uri = image.get("uri", "")
    if uri.startswith("data:"):
        return io.BytesIO(base64.b64decode(uri.partition(",")[2]))
    return place_of(path, uri).open("rb")


def place_of(path: Path, uri: str) -> Path:
    """Return the file that a glTF names, as Blender finds it: some are written with Windows' separators."""
    return path.parent / os.path.normpath(unquote(uri.replace("\\", "/")))


def part_uris(document: Any) -> list[str]:
    """Return the files that a glTF document names as buffers and pictures; whatever else is in it, this does not fail."""
    lists = [document.get(name) for name in ("buffers", "images")] if isinstance(document, dict) else []
    items = [item for found in lists if isinstance(found, list) for item in found if isinstance(item, dict)]
    uris = [item.get("uri") for item in items]
    return [uri for uri in uris if isinstance(uri, str) and uri and not uri.startswith("data:")]
