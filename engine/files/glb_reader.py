"""Meshes from any tool's .glb, as one MeshArrays in our +Z-up world. trimesh reads accessors and the scene graph.

bytes -> json, buffer -> (attributes that trimesh would round are renamed) -> trimesh -> parts -> one mesh
"""

import io
import json
import logging
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from scipy.ndimage import map_coordinates

from engine.errors import FileFormatError
from engine.files.colour import linear_from_srgb, srgb_from_linear
from engine.files.glb import BINARY_CHUNK, JSON_CHUNK, MAGIC, pack_glb
from engine.files.types import MeshArrays
from engine.geometry.frames import points_from_gltf

if TYPE_CHECKING:
    import trimesh

logger = logging.getLogger(__name__)

BROKEN = (ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError, OSError, struct.error)
"""What trimesh raises on a document whose parts contradict each other; it has no error class of its own."""
COMPRESSED = {"KHR_draco_mesh_compression", "EXT_meshopt_compression", "KHR_meshopt_compression"}
RAW_COLOUR, RAW_UV = "_RAW_COLOR", "_RAW_UV"
"""Second names for COLOR_0 and the base colour's TEXCOORD: trimesh makes the first 8-bit and flips the second, but
hands on attributes whose names begin with an underscore as they are."""


@dataclass(frozen=True)
class _Part:
    """One primitive, placed in the world."""

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    colour: Float[np.ndarray, "v 3"] | None
    """Linear: material factor times COLOR_0; None where neither is given."""
    factor: Float[np.ndarray, "3"]
    """Linear base colour factor."""
    uv: Float[np.ndarray, "v 2"] | None
    """Origin at the texture's top left."""
    texture: UInt8[np.ndarray, "h w 3"] | None
    image: int | None
    """Which image of the file the texture is."""


def read_mesh(path: Path) -> MeshArrays:
    """Read every triangle of a .glb, placed by its scene graph; float32.

    Vertices at bit-identical places are merged. One base colour image for the whole file stays a texture (times the
    material's factor); otherwise colours go to the vertices (material factor, COLOR_0, textures sampled at the
    vertices), and vertices of different colour stay apart. Skins, morphs and other maps are ignored.

    Raises:
        FileFormatError: not a GLB, truncated, compressed, without triangles, or with values that are not finite.
    """
    name = str(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileFormatError(f"{name}: cannot be read: {error.strerror}") from error
    document, binary = unpack_glb(data, name)
    parts = _parts(document, binary, name)
    if not any(len(part.faces) for part in parts):
        raise FileFormatError(f"{name}: holds no triangles")
    mesh = _joined(parts)
    if not np.isfinite(mesh.vertices).all():
        raise FileFormatError(f"{name}: holds vertices that are not finite")
    return mesh


def unpack_glb(data: bytes, name: str) -> tuple[dict[str, Any], bytes]:
    """Return a GLB's json document and its buffer (empty where it has none). Raises FileFormatError."""
    if data[:4] != MAGIC or len(data) < 20:
        raise FileFormatError(f"{name}: is not a GLB: it must begin with 'glTF', found {data[:4]!r}")
    version, length = struct.unpack_from("<II", data, 4)
    if version != 2:
        raise FileFormatError(f"{name}: must be glTF version 2, found {version}; export it again")
    if length > len(data):
        raise FileFormatError(f"{name}: is truncated: {len(data)} of {length} bytes are there; write it again")
    chunks: dict[int, bytes] = {}
    offset = 12
    while offset + 8 <= length:
        size, kind = struct.unpack_from("<II", data, offset)
        if offset + 8 + size > length:
            raise FileFormatError(f"{name}: a chunk of {size} bytes runs past the end at {length}; write it again")
        chunks.setdefault(kind, data[offset + 8 : offset + 8 + size])
        offset += 8 + size
    try:
        document = json.loads(chunks.get(JSON_CHUNK, b""))
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{name}: its json chunk is broken: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("asset"), dict):
        raise FileFormatError(f"{name}: its json chunk is not a glTF document")
    return document, chunks.get(BINARY_CHUNK, b"")


def _parts(document: dict[str, Any], binary: bytes, name: str) -> list[_Part]:
    """Load with trimesh and place every primitive. Raises FileFormatError for whatever does not hang together."""
    compressed = COMPRESSED & set(document.get("extensionsRequired") or ())
    if compressed:
        raise FileFormatError(
            f"{name}: is compressed with {sorted(compressed)[0]}; export it again without compression"
        )
    import trimesh  # here: it takes half a second, and this room is imported by commands and workers that read no mesh

    try:
        _keep_raw(document)
        loaded = trimesh.load_scene(io.BytesIO(pack_glb(document, binary)), file_type="glb", process=False)
        nodes = [loaded.graph[node] for node in loaded.graph.nodes_geometry]
        parts = [
            _part(loaded.geometry[geometry], np.asarray(matrix, np.float64), document)
            for matrix, geometry in nodes
            if isinstance(loaded.geometry[geometry], trimesh.Trimesh)
        ]
    except BROKEN as error:
        raise FileFormatError(f"{name}: its parts do not fit together: {type(error).__name__}: {error}") from error
    return parts


def _keep_raw(document: dict[str, Any]) -> None:
    """Name materials by their number and attributes a second time, so that their exact values can be looked up."""
    materials = document.get("materials", [])
    for index, material in enumerate(materials):
        material["name"] = str(index)
    for primitive in (p for mesh in document.get("meshes", []) for p in mesh["primitives"]):
        attributes = primitive["attributes"]
        if "COLOR_0" in attributes:
            attributes[RAW_COLOUR] = attributes.pop("COLOR_0")
        look = materials[primitive["material"]].get("pbrMetallicRoughness", {}) if "material" in primitive else {}
        uv = f"TEXCOORD_{look.get('baseColorTexture', {}).get('texCoord', 0)}"
        if uv in attributes:
            attributes[RAW_UV] = attributes[uv]


def _part(geometry: "trimesh.Trimesh", matrix: Float[np.ndarray, "4 4"], document: Mapping[str, Any]) -> _Part:
    faces = np.asarray(geometry.faces, np.int64)
    vertices = np.asarray(geometry.vertices)
    if faces.size and not 0 <= faces.min() <= faces.max() < len(vertices):
        raise ValueError(f"faces index vertex {faces.max()} of {len(vertices)}")
    if not np.array_equal(matrix, np.eye(4)):
        vertices = vertices @ matrix[:3, :3].T + matrix[:3, 3]
    if np.linalg.det(matrix[:3, :3]) < 0:  # a mirroring node turns faces inside out (glTF 2.0 section 3.7.4)
        faces = faces[:, ::-1]
    material = getattr(geometry.visual, "material", None)
    index = getattr(material, "name", None)
    facts = document["materials"][int(index)] if index is not None and index.isdecimal() else {}
    look = facts.get("pbrMetallicRoughness", {})
    factor = np.asarray(look.get("baseColorFactor", [1.0, 1.0, 1.0])[:3], np.float64)
    raw_colour, raw_uv = (geometry.vertex_attributes.get(key) for key in (RAW_COLOUR, RAW_UV))
    colour = None
    if raw_colour is not None or "baseColorFactor" in look:
        given = np.ones((len(vertices), 3)) if raw_colour is None else _unit(np.asarray(raw_colour))[:, :3]
        colour = given * factor
    picture = getattr(material, "baseColorTexture", None)
    uv = None if raw_uv is None or picture is None else _unit(np.asarray(raw_uv))
    return _Part(
        points_from_gltf(vertices.astype(np.float32)) + np.float32(0), faces, colour, factor, uv,
        None if uv is None or picture is None else np.asarray(picture.convert("RGB")),
        None if uv is None else _image_of(look["baseColorTexture"], document),
    )  # fmt: skip


def _image_of(reference: Mapping[str, Any], document: Mapping[str, Any]) -> int:
    if "KHR_texture_transform" in reference.get("extensions", {}):
        logger.warning("KHR_texture_transform is not applied: the texture may sit wrongly")
    texture = document["textures"][reference["index"]]
    sources = [texture, *texture.get("extensions", {}).values()]
    return next(int(source["source"]) for source in sources if "source" in source)


def _unit(values: np.ndarray) -> Float[np.ndarray, "v c"]:
    """Normalised integers (glTF 2.0 section 3.6.2.2) as floats; floats stay as they are."""
    if values.dtype.kind == "u":
        return values / np.float64(np.iinfo(values.dtype).max)
    return np.asarray(values)


def _joined(parts: Sequence[_Part]) -> MeshArrays:
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    vertices = np.concatenate([part.vertices for part in parts])
    faces = np.concatenate([part.faces + start for part, start in zip(parts, starts[:-1], strict=True)])
    one_texture = len({part.image for part in parts}) == 1 and parts[0].texture is not None
    if one_texture and len({tuple(part.factor) for part in parts}) == 1:
        uv = np.concatenate([part.uv for part in parts if part.uv is not None])
        merged = _merge(vertices, None)
        return MeshArrays(
            vertices[merged.kept], merged.index[faces], uv[faces].astype(np.float32), _tinted(parts[0]), None
        )
    if all(part.colour is None and part.texture is None for part in parts):
        merged = _merge(vertices, None)
        return MeshArrays(vertices[merged.kept], merged.index[faces])
    colours = np.concatenate([_vertex_colours(part) for part in parts])
    merged = _merge(vertices, colours)
    return MeshArrays(vertices[merged.kept], merged.index[faces], vertex_colours=colours[merged.kept])


def _tinted(part: _Part) -> UInt8[np.ndarray, "h w 3"]:
    assert part.texture is not None
    if np.array_equal(part.factor, np.ones(3)):
        return part.texture
    return srgb_from_linear(linear_from_srgb(part.texture) * part.factor)


def _vertex_colours(part: _Part) -> UInt8[np.ndarray, "v 3"]:
    linear = np.ones((len(part.vertices), 3)) if part.colour is None else part.colour
    if part.texture is not None and part.uv is not None:
        height, width = part.texture.shape[:2]
        where = np.stack([part.uv[:, 1] * height - 0.5, part.uv[:, 0] * width - 0.5])  # pixel centres at +0.5
        texture = linear_from_srgb(part.texture)
        sampled = [map_coordinates(texture[..., c], where, order=1, mode="grid-wrap") for c in range(3)]
        linear = linear * np.stack(sampled, -1)
    return srgb_from_linear(linear)


@dataclass(frozen=True)
class _Merged:
    kept: Int[np.ndarray, " m"]
    """Rows that stay, in their first order."""
    index: Int[np.ndarray, " v"]
    """Old row to new row."""


def _merge(vertices: Float[np.ndarray, "v 3"], colours: UInt8[np.ndarray, "v 3"] | None) -> _Merged:
    keys = np.ascontiguousarray(vertices).view(np.int32)
    if colours is not None:
        keys = np.concatenate([keys, colours.astype(np.int32)], 1)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)  # np.unique sorts by value; keep the file's order
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return _Merged(first[order], rank[inverse.reshape(-1)])
