"""What the bytes of a model show before Blender is started; every message is compared whole."""

import contextlib
import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from render_farm.assets import load_asset, uid_from_name
from render_farm.errors import FarmError
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
    expected = "a uid must hold letters, digits, '_' and '-' only, got 'a/b.c'; try 'b_c' [malformed]"
    assert refusal(box_glb, "a/b.c") == expected
    assert refusal(box_glb, "a" * 121).startswith("a uid must have at most 120 characters, got 121: 'aaa")


def test_a_long_name_becomes_a_shorter_uid() -> None:
    """File names hold the uid, the orbit, the kind of picture and more: 255 bytes in all."""
    long, other = uid_from_name("a" * 200 + "b.glb"), uid_from_name("a" * 200 + "c.glb")
    assert len(long) == len(other) == 120
    assert long != other
    assert long[:107] == "a" * 107
    assert uid_from_name("a" * 120 + ".glb") == "a" * 120


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


def test_gltf_with_windows_separators(tmp_path: Path) -> None:
    """Blender's importer takes them as well."""
    path = tmp_path / "a.gltf"
    path.write_text(
        json.dumps({"asset": {"version": "2.0"}, "buffers": [{"uri": "parts\\a%20b.bin", "byteLength": 4}]})
    )
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a b.bin").write_bytes(b"1234")
    assert load_asset(path).suffix == ".gltf"


def test_gltf_whose_buffers_are_too_large(tmp_path: Path) -> None:
    path = tmp_path / "a.gltf"
    path.write_text(json.dumps({"asset": {"version": "2.0"}, "buffers": [{"uri": "a.bin"}, {"uri": "empty.bin"}]}))
    (tmp_path / "empty.bin").touch()
    (tmp_path / "a.bin").write_bytes(bytes(1000))
    assert load_asset(path, policy=AssetPolicy(max_file_bytes=1000))
    with pytest.raises(FarmError) as caught:
        load_asset(path, policy=AssetPolicy(max_file_bytes=999))
    assert str(caught.value) == (
        "a.gltf: its buffers hold 1000 bytes, more than the 999 allowed (max_file_bytes) [too-large]"
    )


def test_the_files_of_a_gltf_are_part_of_its_hash(tmp_path: Path) -> None:
    """Two colours of one car have the same .gltf; a mended texture makes another model of the same .gltf."""
    path = tmp_path / "a.gltf"
    document = {"asset": {"version": "2.0"}, "buffers": [{"uri": "a.bin"}], "images": [{"uri": "skin.png"}]}
    path.write_text(json.dumps(document))
    (tmp_path / "a.bin").write_bytes(b"1")
    hashes = [load_asset(path).sha256]
    (tmp_path / "skin.png").write_bytes(b"red")
    hashes += [load_asset(path).sha256]
    (tmp_path / "skin.png").write_bytes(b"blue")
    hashes += [load_asset(path).sha256]
    (tmp_path / "a.bin").write_bytes(b"2")
    hashes += [load_asset(path).sha256]
    assert len(set(hashes)) == 4
    path.write_text(json.dumps({"asset": {"version": "2.0"}}))
    assert load_asset(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["KHR_materials_iridescence", "KHR_materials_dispersion", "EXT_meshopt_compression"])
def test_extensions_that_blender_stops_at(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.gltf"
    path.write_text(json.dumps({"asset": {"version": "2.0"}, "extensionsRequired": [name], "extensionsUsed": [name]}))
    assert refusal(path) == (
        f"a.gltf: requires the glTF extension {name}, which Blender does not read; export it without "
        "[unsupported-extension]"
    )


@pytest.mark.parametrize(
    "fields",
    [{"extensionsRequired": 5}, {"extensionsRequired": [{}]}, {"images": 3}, {"images": [3]}, {"buffers": [[]]},
     {"accessors": [{"count": 1e400}], "meshes": [{"primitives": [{"indices": 0}]}]}],
)  # fmt: skip
def test_a_gltf_of_wrong_types_is_refused_or_left_to_blender(tmp_path: Path, fields: dict[str, Any]) -> None:
    """What comes of it matters less than that the scan of all others goes on."""
    path = tmp_path / "a.gltf"
    path.write_text(json.dumps({"asset": {"version": "2.0"}, **fields}))
    with contextlib.suppress(FarmError):
        assert load_asset(path).suffix == ".gltf"


def test_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    assert refusal(tmp_path / ("a" * 300 + ".glb")).endswith(
        "cannot be read: File name too long; check its permissions [not-a-file]"
    )
    assert refusal(tmp_path / "a\0.glb").endswith("there is no such file; check the path [missing-file]")


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


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [("vertex 2", "vertex -5", "malformed"), ("vertex 2", "vertex " + "9" * 5000, "malformed"),
     ("face 0", "face " + "9" * 5000, "truncated")],
)  # fmt: skip
def test_ply_of_impossible_counts(tmp_path: Path, old: str, new: str, reason: str) -> None:
    path = tmp_path / "a.ply"
    path.write_text(PLY_HEADER.format("binary_little_endian").replace(old, new))
    assert refusal(path).endswith(f"[{reason}]")


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
