"""glTF before Blender: is the file whole, are its buffers there, does it need what our Blenders cannot read, is it huge?

glTF 2.0 section 4.4 (GLB container) and 3.12 (extensions). Files are mapped, not read: only what is looked at costs.
"""

import base64
import binascii
import json
import mmap
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from render_farm.errors import FarmError
from render_farm.gltf_budget import count_triangles, image_pixels, place_of
from render_farm.spec import AssetPolicy

GLB_MAGIC, JSON_CHUNK, BIN_CHUNK = b"glTF", b"JSON", b"BIN\x00"
FLOAT32 = 5126
INDICES = {5121: "u1", 5123: "<u2", 5125: "<u4"}
"""Types of numbers, glTF 2.0 section 3.6.2.2."""
MAX_TEXTURE_PIXELS = 1 << 30
"""Of all pictures of a file together, as they are stored: 64 of 4096 x 4096, 4 GiB once decoded."""
MAX_BUFFER_BYTES = 1 << 32
"""A GLB holds no more."""
READABLE = frozenset({
    "EXT_mesh_gpu_instancing", "EXT_texture_webp", "KHR_animation_pointer", "KHR_draco_mesh_compression",
    "KHR_lights_punctual", "KHR_materials_anisotropy", "KHR_materials_clearcoat", "KHR_materials_emissive_strength",
    "KHR_materials_ior", "KHR_materials_pbrSpecularGlossiness", "KHR_materials_sheen", "KHR_materials_specular",
    "KHR_materials_transmission", "KHR_materials_unlit", "KHR_materials_variants", "KHR_materials_volume",
    "KHR_mesh_quantization", "KHR_texture_transform",
})  # fmt: skip
"""Extensions that a file may require: `extensions_managed` of Blender 4.5's importer, which stops at all others. Draco
depends on the build (some bpy wheels lack its library): the worker says so where it is missing."""

Data = bytes | memoryview


def check_glb(path: Path, size_bytes: int, policy: AssetPolicy) -> None:
    """Raise FarmError unless a GLB is whole, readable and within the budgets."""
    with path.open("rb") as file:
        header = file.read(12)
        if not header.startswith(GLB_MAGIC):
            what = (
                "a .gltf (JSON); rename it"
                if header.lstrip().startswith(b"{")
                else f"{header[:4]!r}; is the suffix right?"
            )
            raise FarmError("malformed", f"{path.name}: expected a GLB (first bytes b'glTF'), found {what}")
        version, length = struct.unpack("<II", header[4:12].ljust(8, b"\x00"))
        if len(header) == 12 and version != 2:
            raise FarmError("unsupported-format", f"{path.name}: expected glTF version 2, found {version}; convert it")
        if len(header) < 12 or size_bytes < length:
            raise FarmError("truncated", f"{path.name}: truncated GLB: its header promises {length} bytes, the file "
                            f"holds {size_bytes}; fetch it again")  # fmt: skip
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as whole:
            chunks = _read_chunks(path.name, whole[12:length])
            try:
                if JSON_CHUNK not in chunks:
                    raise FarmError("malformed", f"{path.name}: GLB without its JSON chunk; export it again")
                document = _parse(path.name, bytes(chunks[JSON_CHUNK]))
                problem = _problem(path, document, chunks.get(BIN_CHUNK), policy)
            finally:
                for chunk in chunks.values():
                    chunk.release()
    if problem is not None:
        raise problem


def check_gltf(path: Path, policy: AssetPolicy) -> None:
    """Raise FarmError unless a .gltf is whole, readable and within the budgets."""
    problem = _problem(path, _parse(path.name, path.read_bytes()), None, policy)
    if problem is not None:
        raise problem


def _problem(path: Path, document: dict[str, Any], binary: Data | None, policy: AssetPolicy) -> FarmError | None:
    """What is wrong, without a traceback: its frames would keep views of a mapped file that is to be closed."""
    try:
        check_document(path, document, binary, policy)
    except FarmError as error:
        return FarmError(error.reason, error.args[0])
    return None


def _read_chunks(name: str, body: memoryview) -> dict[bytes, memoryview]:
    chunks: dict[bytes, memoryview] = {}
    position = 0
    while position + 8 <= len(body):
        length = int.from_bytes(body[position : position + 4], "little")
        kind = bytes(body[position + 4 : position + 8])
        if position + 8 + length > len(body):
            left = len(body) - position - 8
            for chunk in chunks.values():
                chunk.release()
            body.release()
            raise FarmError("truncated", f"{name}: truncated GLB: chunk {kind!r} promises {length} bytes, "
                            f"{left} are left; fetch it again")  # fmt: skip
        chunks.setdefault(kind, body[position + 8 : position + 8 + length])
        position += 8 + length
    body.release()
    return chunks


def _parse(name: str, text: bytes) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FarmError("malformed", f"{name}: its glTF JSON cannot be parsed ({error}); export it again") from error
    if not isinstance(document, dict) or not isinstance(document.get("asset", {}), dict):
        document = {}
    version = str(document.get("asset", {}).get("version", ""))
    # glTF 1.0 kept its lists as dictionaries, and could do without 'asset'
    if version.startswith("1") or isinstance(document.get("meshes"), dict):
        raise FarmError("unsupported-format", f"{name}: expected glTF version 2, found {version or '1.0'}; convert it")
    if "asset" not in document:
        raise FarmError("malformed", f"{name}: expected a glTF document with an 'asset' entry; export it again")
    return document


def check_document(path: Path, document: dict[str, Any], binary: Data | None, policy: AssetPolicy) -> None:
    """Raise FarmError for what Blender cannot read, what is not there, what is no number, and what is too much."""
    required = document.get("extensionsRequired", [])
    unreadable = sorted({str(name) for name in required} - READABLE) if isinstance(required, list) else []
    if unreadable:
        raise FarmError("unsupported-extension", f"{path.name}: requires the glTF extension {', '.join(unreadable)}, "
                        "which Blender does not read; export it without")  # fmt: skip
    try:
        triangles = count_triangles(document)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise FarmError("malformed", f"{path.name}: its glTF nodes and meshes name what is not there "
                        f"({type(error).__name__}: {error}); export it again") from error  # fmt: skip
    if triangles > policy.max_triangles:
        raise FarmError("too-large", f"{path.name}: {triangles} triangles, instances counted, more than the "
                        f"{policy.max_triangles} allowed (max_triangles)")  # fmt: skip
    try:
        buffers = [
            _load_buffer(path, index, buffer, binary) for index, buffer in enumerate(document.get("buffers", ()))
        ]
        size_bytes = sum(len(buffer) for buffer in buffers)
        if size_bytes > policy.max_file_bytes:
            raise FarmError("too-large", f"{path.name}: its buffers hold {size_bytes} bytes, more than the "
                            f"{policy.max_file_bytes} allowed (max_file_bytes)")  # fmt: skip
        _check_pictures(path, document, buffers)
        _check_positions(path.name, document, buffers)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise FarmError("malformed", f"{path.name}: an accessor reaches outside its buffer ({error}); export it "
                        "again") from error  # fmt: skip


def _check_pictures(path: Path, document: dict[str, Any], buffers: list[Data]) -> None:
    sizes = image_pixels(path, document, buffers)
    total = sum(width * height for width, height in sizes)
    if total > MAX_TEXTURE_PIXELS:
        width, height = max(sizes, key=lambda size: size[0] * size[1])
        raise FarmError("too-large", f"{path.name}: its {len(sizes)} pictures hold {total} pixels together (the largest is "
                        f"{width} x {height}), more than the {MAX_TEXTURE_PIXELS} allowed; scale them down")  # fmt: skip


def _load_buffer(path: Path, index: int, buffer: dict[str, Any], binary: Data | None) -> Data:
    uri = buffer.get("uri")
    if uri is None:
        # a buffer that only an extension fills (meshopt's fallback) has neither
        data: Data = binary if index == 0 and binary is not None else _empty(path, index, int(buffer["byteLength"]))
    elif uri.startswith("data:"):
        try:
            data = base64.b64decode(uri.partition(",")[2])
        except binascii.Error as error:
            raise FarmError(
                "malformed", f"{path.name}: buffer {index} is no base64 ({error}); export it again"
            ) from error
    else:
        place = place_of(path, uri)
        if not place.is_file():
            raise FarmError("missing-file", f"{path.name}: its buffer {uri!r} is not beside it; copy it there")
        data = np.memmap(place, np.uint8, "r").data if place.stat().st_size else b""
    if len(data) < int(buffer.get("byteLength", 0)):
        raise FarmError("truncated", f"{path.name}: truncated glTF: buffer {index} promises {buffer['byteLength']} "
                        f"bytes, {len(data)} are there; fetch it again")  # fmt: skip
    return data


def _empty(path: Path, index: int, size_bytes: int) -> memoryview:
    """Zeros that cost nothing until they are read."""
    if size_bytes > MAX_BUFFER_BYTES:
        raise FarmError("malformed", f"{path.name}: buffer {index} promises {size_bytes} bytes and has no data; export it "
                        "again")  # fmt: skip
    return np.zeros(size_bytes, np.uint8).data


def _check_positions(name: str, document: dict[str, Any], buffers: list[Data]) -> None:
    """Blender silently moves points that are no numbers to the origin, so they must be found here."""
    accessors = document.get("accessors", ())
    primitives = [p for mesh in document.get("meshes", ()) for p in mesh.get("primitives", ())]
    for index in sorted({p["attributes"]["POSITION"] for p in primitives if "POSITION" in p.get("attributes", {})}):
        accessor = accessors[index]
        if accessor["componentType"] != FLOAT32:
            continue  # quantised: integers are always finite
        broken = _broken_vertices(accessor, document.get("bufferViews", ()), buffers)
        if broken:
            raise FarmError("not-finite", f"{name}: {len(broken)} vertices are not finite numbers, the first is "
                            f"vertex {broken[0]} of accessor {index}; repair the mesh")  # fmt: skip


def _broken_vertices(accessor: dict[str, Any], views: Sequence[dict[str, Any]], buffers: list[Data]) -> list[int]:
    """Vertices that are no numbers, in order. Without a view they are zeros, or compressed."""
    broken: set[int] = set()
    if "bufferView" in accessor:
        broken = _not_finite(_elements(accessor, "<f4", 3, accessor["count"], views, buffers))
    if "sparse" in accessor:  # glTF 2.0 section 3.6.2.3: some of them, given by their indices, are elsewhere
        sparse = accessor["sparse"]
        kind = INDICES[sparse["indices"]["componentType"]]
        places = _elements(sparse["indices"], kind, 1, sparse["count"], views, buffers)[:, 0].tolist()
        replaced = _not_finite(_elements(sparse["values"], "<f4", 3, sparse["count"], views, buffers))
        broken = broken - set(places) | {places[index] for index in replaced}
    return sorted(broken)


def _not_finite(points: Float[np.ndarray, "n 3"]) -> set[int]:
    return set(np.flatnonzero(~np.isfinite(points).all(-1)).tolist())


def _elements(
    place: dict[str, Any], kind: str, width: int, count: int, views: Sequence[dict[str, Any]], buffers: list[Data]
) -> Shaped[np.ndarray, "n width"]:
    """What a part of a buffer holds: an accessor's elements, or a sparse accessor's indices or values."""
    view, size_bytes = views[place["bufferView"]], np.dtype(kind).itemsize
    start = view.get("byteOffset", 0) + place.get("byteOffset", 0)
    stride = view.get("byteStride", width * size_bytes)
    return np.ndarray((count, width), kind, buffers[view["buffer"]], start, (stride, size_bytes))
