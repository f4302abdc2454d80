"""Triangles as often as they show, and pictures by their headers: what a glTF holds before it is decoded."""

import base64
import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from render_farm.assets import load_asset
from render_farm.errors import FarmError
from render_farm.gltf_budget import LARGEST_WEBP, image_size
from render_farm.spec import AssetPolicy


def refusal(path: Path) -> str:
    with pytest.raises(FarmError) as caught:
        load_asset(path)
    return str(caught.value)


def too_many(path: Path, triangles: int) -> None:
    """The file holds exactly so many, as one more or fewer would be found."""
    assert load_asset(path, policy=AssetPolicy(max_triangles=triangles))
    with pytest.raises(FarmError) as caught:
        load_asset(path, policy=AssetPolicy(max_triangles=triangles - 1))
    assert str(caught.value) == (
        f"{path.name}: {triangles} triangles, instances counted, more than the {triangles - 1} allowed (max_triangles) "
        "[too-large]"
    )


def test_triangles_are_counted_as_often_as_they_show(
    tmp_path: Path, make_glb: Callable[..., Path], make_box: Callable[..., Any]
) -> None:
    path = tmp_path / "a.glb"
    too_many(make_glb(path, make_box(), make_box()), 24)
    # a node below another, twice; a node outside the scene; a circle
    nodes = [{"mesh": 0, "children": [1, 2]}, {"mesh": 0, "children": [0]}, {"children": [3]}, {"mesh": 0}, {"mesh": 0}]
    too_many(make_glb(path, make_box(), extra={"nodes": nodes, "scenes": [{"nodes": [0]}]}), 36)
    nodes = [{"mesh": 0, "extensions": {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": 0}}}}]
    too_many(make_glb(path, make_box(), extra={"nodes": nodes}), 96)  # eight corners are eight places


def test_strips_fans_lines_and_unindexed(tmp_path: Path, make_glb: Callable[..., Path], make_box: Any) -> None:
    def mesh(**primitive: Any) -> dict[str, Any]:
        return {"primitives": [{"attributes": {"POSITION": 0}} | primitive]}

    meshes = [mesh(mode=5), mesh(mode=6, indices=1), mesh(mode=1), mesh()]
    nodes = [{"mesh": index} for index in range(4)]
    extra = {"meshes": meshes, "nodes": nodes, "scenes": []}
    # a strip of 8 points: 6; a fan of 36: 34; lines: 0; 8 points: 2 triangles
    too_many(make_glb(tmp_path / "a.glb", make_box(), extra=extra), 42)


def test_nodes_that_name_what_is_not_there(tmp_path: Path, make_glb: Callable[..., Path], make_box: Any) -> None:
    path = make_glb(tmp_path / "a.glb", make_box(), extra={"nodes": [{"mesh": 7}]})
    assert refusal(path) == (
        "a.glb: its glTF nodes and meshes name what is not there (IndexError: list index out of range); export it again "
        "[malformed]"
    )


def png_header(width: int, height: int) -> bytes:
    """A PNG up to the first of its pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)), (b"IDAT", b"")]
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_too_many_pixels(tmp_path: Path) -> None:
    uri = "data:image/png;base64," + base64.b64encode(png_header(16384, 16384)).decode()
    (tmp_path / "b c.png").write_bytes(png_header(32768, 32768))
    path = tmp_path / "a.gltf"
    images = [{"uri": "b%20c.png"}, {"uri": "not-there.png"}]
    path.write_text(json.dumps({"asset": {"version": "2.0"}, "images": images}))
    assert load_asset(path)
    path.write_text(json.dumps({"asset": {"version": "2.0"}, "images": [*images, {"uri": uri}]}))
    assert refusal(path) == (
        "a.gltf: its 2 pictures hold 1342177280 pixels together (the largest is 32768 x 32768), more than the 1073741824 "
        "allowed; scale them down [too-large]"
    )


def test_pictures_inside_a_glb(tmp_path: Path, make_glb: Callable[..., Path], make_box: Callable[..., Any]) -> None:
    whole = make_glb(tmp_path / "a.glb", make_box()).read_bytes()
    length = int.from_bytes(whole[12:16], "little")
    document = json.loads(whole[20 : 20 + length])
    blob = whole[28 + length :] + png_header(40000, 40000)
    document["bufferViews"].append(
        {"buffer": 0, "byteOffset": len(whole) - 28 - length, "byteLength": len(png_header(1, 1))}
    )
    document |= {"images": [{"bufferView": 2, "mimeType": "image/png"}], "buffers": [{"byteLength": len(blob)}]}
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(blob), b"BIN\x00") + blob
    path = tmp_path / "b.glb"
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body)
    assert "its 1 pictures hold 1600000000 pixels together (the largest is 40000 x 40000)" in refusal(path)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True, "exif": b"Exif\x00\x00" + bytes(5000)}), ("WEBP", {}),
     ("WEBP", {"lossless": True}), ("WEBP", {"exif": b"Exif\x00\x00MM"})],
)  # fmt: skip
@pytest.mark.parametrize("size", [(1, 1), (300, 7), (1027, 513)])
def test_image_size(kind: str, options: dict[str, Any], size: tuple[int, int]) -> None:
    file = io.BytesIO()
    Image.new("RGB", size, (1, 2, 3)).save(file, kind, **options)
    assert image_size(io.BytesIO(file.getvalue())) == size
    for kept in (0, 3, 11, 20):
        assert image_size(io.BytesIO(file.getvalue()[:kept])) is None


@pytest.mark.filterwarnings("error")
def test_image_size_of_what_is_no_small_picture() -> None:
    """Pillow itself would warn of pictures above 0.09e9 pixels and refuse to open those above twice that."""
    assert image_size(io.BytesIO(png_header(16384, 16384))) == (16384, 16384)
    huge = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (16381).to_bytes(3, "little") * 2  # RFC 9649, section 2.7
    assert image_size(io.BytesIO(b"RIFF" + struct.pack("<I", 4 + len(huge)) + b"WEBP" + huge)) == LARGEST_WEBP
    assert image_size(io.BytesIO(b"\xabKTX 20\xbb\r\n\x1a\n" + bytes(100))) is None
    assert image_size(io.BytesIO(b"RIFF" + bytes(100))) is None
    assert image_size(io.BytesIO(b"\x89PNG" + bytes(100))) is None


def test_a_picture_that_cannot_be_had_counts_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.gltf"
    images = [{"uri": "data:image/png;base64,A"}, {"uri": "gone.png"}, {"uri": "folder"}, {}, {"uri": ""}]
    (tmp_path / "folder").mkdir()
    path.write_text(json.dumps({"asset": {"version": "2.0"}, "images": images}))
    assert load_asset(path).suffix == ".gltf"
