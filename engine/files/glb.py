"""A textured mesh as glTF binary (glTF 2.0): our +Z-up world out to +Y up, one mesh, one matte material.

The bytes are laid out here rather than by trimesh, which writes vertex colours as 8-bit sRGB where glTF wants linear
light. Same mesh, same bytes. `glb_reader.py` reads this and other tools' files.
"""

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from engine.errors import FileFormatError
from engine.files.atomic import write_bytes
from engine.files.colour import linear_from_srgb
from engine.files.types import MeshArrays
from engine.geometry.frames import points_to_gltf

FLOAT, UINT16, UINT32 = 5126, 5123, 5125
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
LINEAR, LINEAR_MIPMAP_LINEAR, CLAMP_TO_EDGE = 9729, 9987, 33071
JSON_CHUNK, BINARY_CHUNK = 0x4E4F534A, 0x004E4942
MAGIC = b"glTF"


def write_mesh(path: Path, mesh: MeshArrays, *, roughness: float = 0.9, double_sided: bool = False) -> None:
    """Write a mesh as .glb, all or nothing.

    Vertices are split at texture seams only, with bit-identical positions, so that merging equal positions gives the
    mesh back; normals are smooth across the seams. A texture wins over vertex colours, which glTF would multiply.

    Args:
        path: the file.
        mesh: in our world; becomes float32.
        roughness: of the material; metallic is always 0.
        double_sided: for thin shells; closed meshes do not need it.

    Raises:
        FileFormatError: empty, not finite, indices out of range, or a texture without uv.
        TurntableError: the file system refused.
    """
    _check(mesh, str(path))
    builder = _Builder()
    attributes, corners = _split(mesh)
    names = {"POSITION": "VEC3", "NORMAL": "VEC3", "TEXCOORD_0": "VEC2", "COLOR_0": "VEC4"}
    primitive: dict[str, Any] = {
        "attributes": {name: builder.accessor(values, names[name]) for name, values in attributes.items()},
        "indices": builder.accessor(corners.reshape(-1).astype("<u4"), "SCALAR", ELEMENT_ARRAY_BUFFER),
        "material": 0,
        "mode": 4,
    }
    look: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": float(roughness)}
    document: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "Turntable"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": path.stem}],
        "meshes": [{"name": path.stem, "primitives": [primitive]}],
        "materials": [
            {"name": "material", "pbrMetallicRoughness": look, "alphaMode": "OPAQUE", "doubleSided": double_sided}
        ],
    }
    if mesh.texture is not None:
        look["baseColorTexture"] = {"index": 0}
        wrap = {"wrapS": CLAMP_TO_EDGE, "wrapT": CLAMP_TO_EDGE}
        document |= {
            "textures": [{"sampler": 0, "source": 0}],
            "samplers": [{"magFilter": LINEAR, "minFilter": LINEAR_MIPMAP_LINEAR, **wrap}],
            "images": [{"bufferView": builder.view(_png(mesh.texture)), "mimeType": "image/png", "name": "base_color"}],
        }
    write_bytes(path, builder.glb(document))


def _split(mesh: MeshArrays) -> tuple[dict[str, np.ndarray], Int[np.ndarray, "f 3"]]:
    """Attributes by glTF name, one row for each (vertex, uv) that occurs, and the faces over them."""
    corners = mesh.faces.reshape(-1, 1).astype(np.int64)  # [3f, 1]
    if mesh.uv is not None:
        uv = mesh.uv.reshape(-1, 2).astype("<f4") + np.float32(0)  # + 0 makes -0 and 0 one value
        corners = np.concatenate([corners, uv.view("<i4").astype(np.int64)], 1)
    rows, first, inverse = np.unique(corners, axis=0, return_index=True, return_inverse=True)
    vertex = rows[:, 0]
    positions = points_to_gltf(mesh.vertices.astype(np.float32)) + np.float32(0)
    normals = vertex_normals(positions, mesh.faces)
    attributes = {"POSITION": positions[vertex].astype("<f4"), "NORMAL": normals[vertex].astype("<f4")}
    if mesh.uv is not None:
        attributes["TEXCOORD_0"] = uv[first]
    if mesh.vertex_colours is not None and mesh.texture is None:
        attributes["COLOR_0"] = _linear_colours(mesh.vertex_colours)[vertex]
    return attributes, inverse.reshape(-1, 3)


def _linear_colours(srgb: UInt8[np.ndarray, "v 3"]) -> np.ndarray:
    """16-bit linear light and alpha 1: 8 linear bits would band in the shadows; four channels keep rows aligned."""
    linear = np.rint(65535 * linear_from_srgb(srgb)).astype("<u2")
    return np.concatenate([linear, np.full((len(linear), 1), 65535, "<u2")], 1)


def vertex_normals(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> Float[np.ndarray, "v 3"]:
    """Return smooth unit normals, weighted by the faces' angles (Thürmer and Wüthrich 1998), float64.

    Vertices at one place share their normal, however often they occur. Where no face has an area it is +Z.
    """
    places, place = np.unique(vertices.astype(np.float64), axis=0, return_inverse=True)
    place = place.reshape(-1)
    triangles = places[place[faces]]  # [f, 3 corners, 3]
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-300)
    summed = np.zeros_like(places)
    for corner in range(3):
        a = triangles[:, (corner + 1) % 3] - triangles[:, corner]
        b = triangles[:, (corner + 2) % 3] - triangles[:, corner]
        angle = np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), np.sum(a * b, axis=-1))
        np.add.at(summed, place[faces[:, corner]], angle[:, None] * normals)
    length = np.linalg.norm(summed, axis=-1, keepdims=True)
    return np.where(length > 1e-12, summed / np.maximum(length, 1e-12), [0.0, 0.0, 1.0])[place]


def _png(texture: UInt8[np.ndarray, "h w 3"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(texture).save(buffer, "PNG")
    return buffer.getvalue()


def _check(mesh: MeshArrays, name: str) -> None:
    if not len(mesh.vertices) or not len(mesh.faces):
        raise FileFormatError(f"{name}: the mesh is empty ({len(mesh.vertices)} vertices, {len(mesh.faces)} faces)")
    with np.errstate(over="ignore"):
        bad = np.flatnonzero(~np.isfinite(mesh.vertices.astype(np.float32)).all(1))
    if len(bad):
        raise FileFormatError(f"{name}: vertex {bad[0]} is {mesh.vertices[bad[0]].tolist()}, expected finite numbers")
    low, high = int(mesh.faces.min()), int(mesh.faces.max())
    if low < 0 or high >= len(mesh.vertices):
        raise FileFormatError(
            f"{name}: faces must index vertices 0 to {len(mesh.vertices) - 1}, found {low if low < 0 else high}"
        )
    if mesh.uv is not None and (mesh.uv.shape[0] != len(mesh.faces) or not np.isfinite(mesh.uv).all()):
        raise FileFormatError(f"{name}: uv must be finite and one for each corner of {len(mesh.faces)} faces")
    if mesh.texture is not None and (mesh.uv is None or not mesh.texture.size):
        raise FileFormatError(f"{name}: a texture needs pixels and uv; unwrap the mesh first")
    if mesh.vertex_colours is not None and len(mesh.vertex_colours) != len(mesh.vertices):
        raise FileFormatError(
            f"{name}: vertex_colours must be one for each of {len(mesh.vertices)} vertices, "
            f"found {len(mesh.vertex_colours)}"
        )


class _Builder:
    """Collects buffer views and accessors."""

    def __init__(self) -> None:
        self.binary = bytearray()
        self.views: list[dict[str, int]] = []
        self.accessors: list[dict[str, Any]] = []

    def view(self, data: bytes, target: int | None = None) -> int:
        self.binary += b"\0" * (-len(self.binary) % 4)
        view = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)}
        self.views.append(view if target is None else {**view, "target": target})
        self.binary += data
        return len(self.views) - 1

    def accessor(self, values: np.ndarray, kind: str, target: int = ARRAY_BUFFER) -> int:
        component = {"f4": FLOAT, "u2": UINT16, "u4": UINT32}[values.dtype.str[1:]]
        accessor: dict[str, Any] = {
            "bufferView": self.view(values.tobytes(), target), "componentType": component, "count": len(values),
            "type": kind,
        }  # fmt: skip
        if kind == "VEC3":
            accessor |= {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
        if component == UINT16:
            accessor["normalized"] = True
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def glb(self, document: dict[str, Any]) -> bytes:
        self.binary += b"\0" * (-len(self.binary) % 4)
        document |= {
            "accessors": self.accessors, "bufferViews": self.views, "buffers": [{"byteLength": len(self.binary)}],
        }  # fmt: skip
        return pack_glb(document, bytes(self.binary))


def pack_glb(document: dict[str, Any], binary: bytes) -> bytes:
    """Return the GLB container (glTF 2.0 section 4.4) of a json document and a buffer padded to 4 bytes."""
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), JSON_CHUNK) + text
    if binary:
        chunks += struct.pack("<II", len(binary), BINARY_CHUNK) + binary
    return MAGIC + struct.pack("<II", 2, 12 + len(chunks)) + chunks
