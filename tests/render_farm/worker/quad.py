"""A textured quad that faces the front, written by hand, and what the middle of its picture shows."""

import json
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def textured_glb(
    path: Path, image: Path | None, *, uri: str = "", kind: str = "baseColorTexture", **material: Any
) -> Path:
    """A quad facing the front, with an image in the file or beside it."""
    points = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32)
    uv = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32)
    faces = np.array([0, 1, 2, 0, 2, 3], np.uint16)
    blobs = [points.tobytes(), uv.tobytes(), faces.tobytes()]
    source: dict[str, Any] = {"uri": uri}
    if image is not None:
        blobs.append(image.read_bytes())
        source = {"bufferView": 3, "mimeType": "image/png"}
    blobs = [blob + bytes(-len(blob) % 4) for blob in blobs]
    starts = np.cumsum([0, *map(len, blobs)]).tolist()
    pbr = {"metallicFactor": 0.0, kind: {"index": 0}} | material.pop("pbr", {})
    document = {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": pbr, "doubleSided": True} | material], "textures": [{"source": 0}],
        "images": [source], "buffers": [{"byteLength": starts[-1]}],
        "bufferViews": [{"buffer": 0, "byteOffset": a, "byteLength": b - a} for a, b in pairwise(starts)],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3", "min": [-1, -1, 0], "max": [1, 1, 0]},
            {"bufferView": 1, "componentType": 5126, "count": 4, "type": "VEC2"},
            {"bufferView": 2, "componentType": 5123, "count": 6, "type": "SCALAR"},
        ],
    }  # fmt: skip
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    body = (
        struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", starts[-1], b"BIN\x00") + b"".join(blobs)
    )
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body)
    return path


def png(path: Path, colour: tuple[int, ...], size: tuple[int, int] = (64, 64)) -> Path:
    Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour).save(path)
    return path


def middle(outcome: Any, channel: str, weighted: bool = True) -> float:
    view = outcome.channels()[0]
    value = view[channel][22:26, 22:26].mean()
    if weighted:
        value = value / scalars(view, "BaseWeight")[22:26, 22:26].mean()
    return float(value)


def scalars(view: dict[str, Any], name: str) -> Any:
    """A VALUE AOV; Blender names its channel V or X."""
    return next(view[f"{name}.{component}"] for component in "VX" if f"{name}.{component}" in view)


def scalar(outcome: Any, name: str) -> float:
    view = outcome.channels()[0]
    return float(scalars(view, name)[22:26, 22:26].mean() / scalars(view, "BaseWeight")[22:26, 22:26].mean())


FRONT = {"azimuths": (0.0,), "elevation": 0.0}
