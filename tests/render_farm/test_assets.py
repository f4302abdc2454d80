"""What the bytes of a model show before Blender is started; every message is compared whole."""

import base64
import hashlib
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from render_farm.assets import load_asset, uid_from_name
from render_farm.errors import FarmError
from render_farm.image_header import image_size
from render_farm.spec import AssetPolicy

FORMATS = ".glb .gltf .obj .fbx .ply .stl .usd .usda .usdc .usdz .dae .abc .blend"


def refusal(path: Path, uid: str | None = None) -> str:
    with pytest.raises(FarmError) as caught:
        load_asset(path, uid)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(f" [{caught.value.reason}]")
    return text


def test_good_asset(box_glb: Path) -> None:
    asset = load_asset(box_glb)
    assert asset.sha256 == hashlib.sha256(box_glb.read_bytes()).hexdigest()
    assert (asset.uid, asset.suffix, asset.size_bytes) == ("box", ".glb", box_glb.stat().st_size)
    assert asset.path.is_absolute()


def test_upper_case_suffix(box_glb: Path, tmp_path: Path) -> None:
    assert load_asset(box_glb.rename(tmp_path / "BOX.GLB")).suffix == ".glb"


@pytest.mark.parametrize(
    ("name", "uid"),
    [("chair.glb", "chair"), ("my chair (2).v1.obj", "my_chair_2_v1"), ("Стул.fbx", "object"), ("../a b.ply", "a_b")],
)
def test_uid_from_name(name: str, uid: str) -> None:
    assert uid_from_name(name) == uid


def test_bad_uid(box_glb: Path) -> None:
    expected = "uid must hold letters, digits, '_' and '-' only, got 'a/b.c'; try 'b_c' [malformed]"
    assert refusal(box_glb, "a/b.c") == expected


def test_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "no.glb"
    assert refusal(path) == f"{path}: there is no such file; check the path [missing-file]"


def test_folder(tmp_path: Path) -> None:
    expected = f"{tmp_path}: expected a model file, found a folder; name one file in it [not-a-file]"
    assert refusal(tmp_path) == expected


@pytest.mark.parametrize(("name", "found"), [("a.max", "'.max'"), ("a", "'no suffix'"), ("a.glb.zip", "'.zip'")])
def test_unknown_suffix(tmp_path: Path, name: str, found: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"x")
    assert refusal(path) == f"{name}: expected one of {FORMATS}, found {found}; convert it to .glb [unknown-format]"


@pytest.mark.parametrize("suffix", FORMATS.split())
def test_empty_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.touch()
    assert refusal(path) == f"a{suffix}: the file is empty; fetch it again [truncated]"


@pytest.mark.parametrize("suffix", [".usdc", ".usda", ".usdz", ".usd", ".ply", ".blend", ".fbx", ".abc"])
def test_other_content(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"solid cube and more")
    expected = f"a{suffix}: expected a {suffix[1:]} file, found one that begins with b'solid cu'; is the suffix right? [malformed]"
    assert refusal(path) == expected


def test_glb_of_other_content(tmp_path: Path) -> None:
    path = tmp_path / "a.glb"
    path.write_bytes(b"solid cube")
    assert refusal(path) == (
        "a.glb: expected a GLB (first bytes b'glTF'), found b'soli'; is the suffix right? [malformed]"
    )
    path.write_bytes(b'{"asset": {"version": "2.0"}}')
    assert refusal(path) == "a.glb: expected a GLB (first bytes b'glTF'), found a .gltf (JSON); rename it [malformed]"


@pytest.mark.parametrize("suffix", FORMATS.split())
@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"\xef\xbb\xbf\n <!DOCTYPE html>", "a web page; the download saved an error page: fetch it again"),
        (b"<HTML><body>404", "a web page; the download saved an error page: fetch it again"),
        (b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>NoSuchKey', "a server's error message; fetch it again"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "a Git LFS pointer; run 'git lfs pull' where it came from",
        ),
        (b"PK\x03\x04zip", "a ZIP archive; unpack it and name the model in it"),
        (b"\x1f\x8b\x08gzip", "a gzip archive; unpack it with gunzip or tar"),
        (b"Rar!\x1a\x07", "a RAR archive; unpack it and name the model in it"),
        (b"7z\xbc\xaf\x27\x1c\x00", "a 7z archive; unpack it and name the model in it"),
    ],
)
def test_disguises(tmp_path: Path, suffix: str, data: bytes, found: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(data)
    if (suffix, data[:2]) in ((".usdz", b"PK"), (".blend", b"\x1f\x8b")):
        assert load_asset(path).suffix == suffix
    else:
        assert refusal(path) == f"a{suffix}: expected a {suffix[1:]} file, found {found} [malformed]"


def test_glb_of_version_1(tmp_path: Path) -> None:
    path = tmp_path / "a.glb"
    path.write_bytes(struct.pack("<4sII", b"glTF", 1, 12))
    assert refusal(path) == "a.glb: expected glTF version 2, found 1; convert it [unsupported-format]"


@pytest.mark.parametrize(
    "document",
    [{"asset": {"version": "1.0"}, "meshes": {}}, {"meshes": {"a": {"primitives": []}}}, {"asset": {"version": "1.1"}}],
)
def test_gltf_of_version_1(tmp_path: Path, document: dict[str, Any]) -> None:
    path = tmp_path / "a.gltf"
    path.write_text(json.dumps(document))
    version = document.get("asset", {}).get("version", "1.0")
    assert refusal(path) == f"a.gltf: expected glTF version 2, found {version}; convert it [unsupported-format]"


def test_glb_truncated_anywhere(box_glb: Path) -> None:
    whole = box_glb.read_bytes()
    for kept in (4, 11, 12, 13, 20, len(whole) // 2, len(whole) - 1):
        box_glb.write_bytes(whole[:kept])
        text = refusal(box_glb)
        assert text.endswith(f" bytes, the file holds {kept}; fetch it again [truncated]")
        assert text.startswith("box.glb: truncated GLB: its header promises ")
    box_glb.write_bytes(whole[:200])
    assert refusal(box_glb) == (
        f"box.glb: truncated GLB: its header promises {len(whole)} bytes, the file holds 200; fetch it again [truncated]"
    )


def test_glb_with_a_chunk_longer_than_the_file(box_glb: Path) -> None:
    whole = bytearray(box_glb.read_bytes())
    whole[12:16] = struct.pack("<I", 10**6)
    box_glb.write_bytes(whole)
    assert refusal(box_glb) == (
        f"box.glb: truncated GLB: chunk b'JSON' promises 1000000 bytes, {len(whole) - 20} are left; fetch it again "
        "[truncated]"
    )


def test_required_extension(tmp_path: Path, make_glb: Callable[..., Path], make_box: Callable[..., Any]) -> None:
    extra = {"extensionsRequired": ["KHR_texture_basisu", "KHR_materials_unlit", "EXT_meshopt_compression"]}
    path = make_glb(tmp_path / "a.glb", make_box(), extra=extra)
    assert refusal(path) == (
        "a.glb: requires the glTF extension EXT_meshopt_compression, KHR_texture_basisu, which Blender does not read; "
        "export it without [unsupported-extension]"
    )


def test_draco_may_be_required(tmp_path: Path, make_glb: Callable[..., Path], make_box: Callable[..., Any]) -> None:
    """Some Blenders read it: only the worker knows."""
    extra = {"extensionsRequired": ["KHR_draco_mesh_compression"]}
    assert load_asset(make_glb(tmp_path / "a.glb", make_box(), extra=extra)).suffix == ".glb"


def test_too_many_bytes(box_glb: Path) -> None:
    size = box_glb.stat().st_size
    with pytest.raises(FarmError) as caught:
        load_asset(box_glb, policy=AssetPolicy(max_file_bytes=size - 1))
    assert str(caught.value) == f"box.glb: {size} bytes, more than the {size - 1} allowed (max_file_bytes) [too-large]"
    assert load_asset(box_glb, policy=AssetPolicy(max_file_bytes=size)).size_bytes == size


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
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR" + struct.pack(">II", width, height) + b"\x08\x06\x00\x00\x00"


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
    document["bufferViews"].append({"buffer": 0, "byteOffset": len(whole) - 28 - length, "byteLength": 29})
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
    assert image_size(file.getvalue()) == size
    for kept in (0, 3, 11, 20):
        assert image_size(file.getvalue()[:kept]) is None


def test_points_that_are_no_numbers(
    tmp_path: Path, make_glb: Callable[..., Path], make_part: Any, make_box: Callable[..., Any]
) -> None:
    part = make_box()
    part.vertices[5] = np.nan
    part.vertices[7, 2] = np.inf
    path = make_glb(tmp_path / "a.glb", part, check=False)
    assert refusal(path) == (
        "a.glb: 2 vertices are not finite numbers, the first is vertex 5 of accessor 0; repair the mesh [not-finite]"
    )


def test_accessor_outside_its_buffer(
    tmp_path: Path, make_glb: Callable[..., Path], make_box: Callable[..., Any]
) -> None:
    accessor = {"bufferView": 0, "componentType": 5126, "count": 10**6, "type": "VEC3"}
    indices = {"bufferView": 1, "componentType": 5125, "count": 36, "type": "SCALAR"}
    path = make_glb(tmp_path / "a.glb", make_box(), extra={"accessors": [accessor, indices]})
    text = refusal(path)
    assert text.startswith("a.glb: an accessor reaches outside its buffer (")
    assert text.endswith("); export it again [malformed]")


def test_gltf_without_its_buffer(tmp_path: Path) -> None:
    path = tmp_path / "a.gltf"
    path.write_text(json.dumps({"asset": {"version": "2.0"}, "buffers": [{"uri": "a%20b.bin", "byteLength": 4}]}))
    assert refusal(path) == "a.gltf: its buffer 'a%20b.bin' is not beside it; copy it there [missing-file]"
    (tmp_path / "a b.bin").write_bytes(b"123")
    assert refusal(path) == (
        "a.gltf: truncated glTF: buffer 0 promises 4 bytes, 3 are there; fetch it again [truncated]"
    )


def test_gltf_that_is_not_json(tmp_path: Path) -> None:
    path = tmp_path / "a.gltf"
    path.write_text("{")
    text = refusal(path)
    assert text.startswith("a.gltf: its glTF JSON cannot be parsed (")
    path.write_text("[]")
    assert refusal(path) == "a.gltf: expected a glTF document with an 'asset' entry; export it again [malformed]"


def test_stl_truncated(tmp_path: Path) -> None:
    path = tmp_path / "a.stl"
    path.write_bytes(b"\x00" * 80 + struct.pack("<I", 2) + b"\x00" * 50)
    assert refusal(path) == (
        "a.stl: truncated STL: its header promises 184 bytes, the file holds 134; fetch it again [truncated]"
    )
    path.write_bytes(b"\x00" * 80 + struct.pack("<I", 1) + b"\x00" * 50)
    assert load_asset(path).suffix == ".stl"
    path.write_bytes(b"\x00" * 80 + struct.pack("<I", 2) + b"\x00" * 100)
    with pytest.raises(FarmError) as caught:
        load_asset(path, policy=AssetPolicy(max_triangles=1))
    assert str(caught.value) == "a.stl: 2 triangles, more than the 1 allowed (max_triangles) [too-large]"


PLY_HEADER = (
    "ply\nformat {} 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\n"
    "element face 0\nproperty list uchar int vertex_indices\nend_header\n"
)


@pytest.mark.parametrize("order", ["little", "big"])
def test_ply_of_points_that_are_no_numbers(tmp_path: Path, order: str) -> None:
    path = tmp_path / "a.ply"
    header = PLY_HEADER.format(f"binary_{order}_endian").encode()
    points = np.array([[0, 0, 0], [0, np.inf, 0]], "<f4" if order == "little" else ">f4")
    path.write_bytes(header + points.tobytes())
    assert refusal(path) == "a.ply: some vertices are not finite numbers; repair the mesh [not-finite]"
    path.write_bytes(header + np.zeros((2, 3), "<f4").tobytes())
    assert load_asset(path).suffix == ".ply"


def test_ply_in_ascii(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    path.write_text(PLY_HEADER.format("ascii") + "0 0 0\n0 nan 0\n")
    assert refusal(path) == "a.ply: some vertices are not finite numbers; repair the mesh [not-finite]"
    path.write_text(
        "ply\nformat ascii 1.0\ncomment by Nancy, info\n" + PLY_HEADER.format("ascii")[23:] + "0 0 0\n0 1 0\n"
    )
    assert load_asset(path).suffix == ".ply"


def test_ply_of_too_many_faces(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    path.write_text(PLY_HEADER.format("ascii").replace("element face 0", "element face 7") + "0 0 0\n0 1 0\n")
    assert load_asset(path, policy=AssetPolicy(max_triangles=7))
    with pytest.raises(FarmError) as caught:
        load_asset(path, policy=AssetPolicy(max_triangles=6))
    assert str(caught.value) == "a.ply: 7 faces, more than the 6 triangles allowed (max_triangles) [too-large]"


def test_ply_truncated(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    header = PLY_HEADER.format("binary_little_endian").encode()
    path.write_bytes(header + bytes(23))
    assert refusal(path) == (
        f"a.ply: truncated PLY: its 2 vertices need {len(header) + 24} bytes, the file holds {len(header) + 23}; fetch it "
        "again [truncated]"
    )
    path.write_bytes(header[:60])
    assert refusal(path) == "a.ply: truncated PLY: its header has no end; fetch it again [truncated]"


def test_buffer_that_promises_more_memory_than_there_is(tmp_path: Path) -> None:
    """Nothing is allocated for a buffer that only an extension would fill, however large it says it is."""
    path = tmp_path / "a.gltf"
    path.write_text(json.dumps({"asset": {"version": "2.0"}, "buffers": [{"byteLength": 10**9}]}))
    assert load_asset(path).suffix == ".gltf"
    path.write_text(json.dumps({"asset": {"version": "2.0"}, "buffers": [{"byteLength": 10**15}]}))
    assert refusal(path) == (f"a.gltf: buffer 0 promises {10**15} bytes and has no data; export it again [malformed]")
