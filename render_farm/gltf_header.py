"""glTF before Blender: is the file whole, are its buffers there, does it need what our Blenders cannot read?

glTF 2.0 section 4.4 (GLB container) and 3.12 (extensions).
"""

import base64
import json
import struct
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from jaxtyping import Float

from render_farm.errors import FarmError

GLB_MAGIC, JSON_CHUNK, BIN_CHUNK = b"glTF", b"JSON", b"BIN\x00"
FLOAT32 = 5126
READABLE = frozenset({
    "EXT_mesh_gpu_instancing", "EXT_texture_webp", "KHR_animation_pointer", "KHR_draco_mesh_compression",
    "KHR_lights_punctual", "KHR_materials_anisotropy", "KHR_materials_clearcoat", "KHR_materials_dispersion",
    "KHR_materials_emissive_strength", "KHR_materials_ior", "KHR_materials_iridescence",
    "KHR_materials_pbrSpecularGlossiness", "KHR_materials_sheen", "KHR_materials_specular",
    "KHR_materials_transmission", "KHR_materials_unlit", "KHR_materials_variants", "KHR_materials_volume",
    "KHR_mesh_quantization", "KHR_texture_transform",
})  # fmt: skip
"""Extensions that a file may require: Blender reads them, or loses no more than a material's finer points."""


def check_glb(path: Path, size_bytes: int) -> None:
    """Raise FarmError unless a GLB is whole and readable."""
    with path.open("rb") as file:
        header = file.read(12)
        if not header.startswith(GLB_MAGIC):
            raise FarmError("malformed", f"{path.name}: expected a GLB (first bytes b'glTF'), found {header[:4]!r}; is "
                            "the suffix right?")  # fmt: skip
        version, length = struct.unpack("<II", header[4:12].ljust(8, b"\x00"))
        if len(header) == 12 and version != 2:
            raise FarmError("unsupported-format", f"{path.name}: expected glTF version 2, found {version}; convert it")
        if len(header) < 12 or size_bytes < length:
            raise FarmError("truncated", f"{path.name}: truncated GLB: its header promises {length} bytes, the file "
                            f"holds {size_bytes}; fetch it again")  # fmt: skip
        chunks = _read_chunks(path.name, file.read(length - 12))
    if JSON_CHUNK not in chunks:
        raise FarmError("malformed", f"{path.name}: GLB without its JSON chunk; export it again")
    check_document(path, _parse(path.name, chunks[JSON_CHUNK]), chunks.get(BIN_CHUNK))


def check_gltf(path: Path) -> None:
    """Raise FarmError unless a .gltf is whole and readable."""
    check_document(path, _parse(path.name, path.read_bytes()), None)


def _read_chunks(name: str, body: bytes) -> dict[bytes, bytes]:
    chunks: dict[bytes, bytes] = {}
    position = 0
    while position + 8 <= len(body):
        length = int.from_bytes(body[position : position + 4], "little")
        kind = body[position + 4 : position + 8]
        if position + 8 + length > len(body):
            raise FarmError("truncated", f"{name}: truncated GLB: chunk {kind!r} promises {length} bytes, "
                            f"{len(body) - position - 8} are left; fetch it again")  # fmt: skip
        chunks.setdefault(kind, body[position + 8 : position + 8 + length])
        position += 8 + length
    return chunks


def _parse(name: str, text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise FarmError("malformed", f"{name}: its glTF JSON cannot be parsed ({error}); export it again") from error
    if not isinstance(document, dict) or "asset" not in document:
        raise FarmError("malformed", f"{name}: expected a glTF document with an 'asset' entry; export it again")
    return document


def check_document(path: Path, document: dict[str, Any], binary: bytes | None) -> None:
    """Raise FarmError for extensions we cannot read, buffers that are absent or short, and points that are no numbers."""
    unreadable = sorted(set(document.get("extensionsRequired", ())) - READABLE)
    if unreadable:
        raise FarmError("unsupported-extension", f"{path.name}: requires the glTF extension {', '.join(unreadable)}, "
                        "which Blender does not read; export it without")  # fmt: skip
    buffers = [_load_buffer(path, index, buffer, binary) for index, buffer in enumerate(document.get("buffers", ()))]
    try:
        _check_positions(path.name, document, buffers)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise FarmError("malformed", f"{path.name}: an accessor reaches outside its buffer ({error}); export it "
                        "again") from error  # fmt: skip


def _load_buffer(path: Path, index: int, buffer: dict[str, Any], binary: bytes | None) -> bytes:
    uri = buffer.get("uri")
    if uri is None:
        # a buffer that only an extension fills (meshopt's fallback) has neither
        data = binary if index == 0 and binary is not None else b"\x00" * int(buffer.get("byteLength", 0))
    elif uri.startswith("data:"):
        data = base64.b64decode(uri.partition(",")[2])
    else:
        place = path.parent / unquote(uri)
        if not place.is_file():
            raise FarmError("missing-file", f"{path.name}: its buffer {uri!r} is not beside it; copy it there")
        data = place.read_bytes()
    if len(data) < int(buffer.get("byteLength", 0)):
        raise FarmError("truncated", f"{path.name}: truncated glTF: buffer {index} promises {buffer['byteLength']} "
                        f"bytes, {len(data)} are there; fetch it again")  # fmt: skip
    return data


def _check_positions(name: str, document: dict[str, Any], buffers: list[bytes]) -> None:
    """Blender silently moves points that are no numbers to the origin, so they must be found here."""
    accessors = document.get("accessors", ())
    primitives = [p for mesh in document.get("meshes", ()) for p in mesh.get("primitives", ())]
    for index in sorted({p["attributes"]["POSITION"] for p in primitives if "POSITION" in p.get("attributes", {})}):
        accessor = accessors[index]
        if "bufferView" not in accessor or accessor["componentType"] != FLOAT32:
            continue  # compressed or quantised: integers are always finite
        points = _float_points(document["bufferViews"][accessor["bufferView"]], accessor, buffers)
        broken = np.flatnonzero(~np.isfinite(points).all(-1))
        if len(broken):
            raise FarmError("not-finite", f"{name}: {len(broken)} vertices are not finite numbers, the first is "
                            f"vertex {broken[0]} of accessor {index}; repair the mesh")  # fmt: skip


def _float_points(view: dict[str, Any], accessor: dict[str, Any], buffers: list[bytes]) -> Float[np.ndarray, "n 3"]:
    data = buffers[view["buffer"]]
    start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    stride = view.get("byteStride", 12)
    return np.ndarray((accessor["count"], 3), "<f4", data, start, (stride, 4))
