"""Folders, lists and captions: what they yield, and how they name what is wrong."""

import csv
import errno
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from render_farm.catalogue.captions import read_captions, with_captions
from render_farm.catalogue.entry import Entry
from render_farm.catalogue.folder import folder_entries
from render_farm.catalogue.table import table_entries
from render_farm.errors import RunError
from render_farm.records import Provenance


def put(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def message(function: Any, *arguments: Any) -> str:
    with pytest.raises(RunError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_folder(tmp_path: Path) -> None:
    document = {"buffers": [{"uri": "../parts/mesh%20a.ply"}], "images": [{"uri": "skin.png"}, {"bufferView": 0}]}
    put(tmp_path / "one" / "scene.gltf", json.dumps(document).encode())
    put(tmp_path / "parts" / "mesh a.ply")
    put(tmp_path / "one" / "skin.png")
    put(tmp_path / "b.GLB")
    put(tmp_path / ".hidden" / "a.glb")
    put(tmp_path / "__MACOSX" / "._b.glb")
    put(tmp_path / "._b.glb")
    put(tmp_path / "readme.txt")
    (tmp_path / "link.obj").symlink_to(tmp_path / "b.GLB")
    entries = folder_entries(tmp_path)
    assert [(e.uid, e.path, e.provenance.source) for e in entries] == [
        ("b", tmp_path / "b.GLB", "b.GLB"),
        ("link", tmp_path / "link.obj", "link.obj"),
        ("one_scene", tmp_path / "one" / "scene.gltf", "one/scene.gltf"),
    ]


def test_folder_of_a_name_that_is_no_unicode(tmp_path: Path) -> None:
    try:
        put(tmp_path / os.fsdecode(b"a\xff.glb"))
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    (entry,) = folder_entries(tmp_path)
    assert entry.uid == "a"
    assert entry.provenance.source == "a\N{REPLACEMENT CHARACTER}.glb"


def test_folder_of_a_gltf_made_on_windows(tmp_path: Path) -> None:
    put(tmp_path / "a" / "a.gltf", json.dumps({"buffers": [{"uri": "parts\\a.ply"}]}).encode())
    put(tmp_path / "a" / "parts" / "a.ply")
    assert [entry.uid for entry in folder_entries(tmp_path)] == ["a_a"]


def test_folder_of_broken_gltfs(tmp_path: Path) -> None:
    """Each is refused later; none ends the search."""
    for index, data in enumerate(
        (b"[" * 100_000, b"{", b"3", b'{"buffers": 3}', b'{"images": [[], {"uri": 3}, {"uri": ""}]}')
    ):
        put(tmp_path / f"{index}.gltf", data)
    assert len(folder_entries(tmp_path)) == 5


def test_folder_that_cannot_be_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Root may look anywhere, so the refusal is played."""
    put(tmp_path / "a.glb")
    put(tmp_path / "locked" / "b.glb")
    scandir = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert [entry.uid for entry in folder_entries(tmp_path)] == ["a"]
    assert caplog.messages == [
        f"{tmp_path / 'locked'} cannot be looked into (Permission denied): what is in it is left out"
    ]


def test_no_folder(tmp_path: Path) -> None:
    assert message(folder_entries, tmp_path / "x") == (
        f"{tmp_path / 'x'}: expected a folder of assets, found nothing; check the path"
    )
    file = put(tmp_path / "x")
    assert message(folder_entries, file) == f"{file}: expected a folder of assets, found a file; check the path"
    file.unlink()
    assert message(folder_entries, tmp_path).startswith(
        f"{tmp_path}: found no model in it; expected files ending in .glb "
    )


ROWS: list[dict[str, Any]] = [
    {"path": "a/x.glb", "uid": "first", "caption": "a, b\nand c", "label": "chair", "license": "by", "attribution": "Me",
     "source": "https://x.y", "sha256": "AB"},
    {"path": "/abs/y.obj", "uid": "", "caption": "", "label": "", "license": "", "attribution": "", "source": "", "sha256": ""},
]  # fmt: skip


def write_list(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".json"])
def test_list(tmp_path: Path, suffix: str) -> None:
    expected = [
        Entry(
            "first",
            tmp_path / "a/x.glb",
            Provenance("a, b and c", "chair", "CC-BY-4.0", "Me", "https://x.y"),
            sha256="ab",
        ),
        Entry("abs_y", Path("/abs/y.obj")),
    ]
    assert table_entries(write_list(tmp_path / f"l{suffix}", ROWS)) == expected


def test_list_made_on_windows(tmp_path: Path) -> None:
    """A byte order mark, lines that end with CR LF, folders parted by backslashes."""
    put(tmp_path / "models" / "a b.glb")
    put(tmp_path / "odd\\name.glb")
    path = put(tmp_path / "l.csv", "\ufeffpath,caption\r\nmodels\\a b.glb,Стул\r\nodd\\name.glb,\r\n".encode())
    assert [(entry.path, entry.provenance.caption) for entry in table_entries(path)] == [
        (tmp_path / "models" / "a b.glb", "Стул"), (tmp_path / "odd\\name.glb", "")
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json"])
def test_list_of_few_columns(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"file": "x.glb", "source_url": "u", "licence": "cc0", "triangles": "3"},
        {"file": "y/x.glb", "licence": "?"},
    ]
    rows[1] |= {"source_url": "", "triangles": ""}
    entries = table_entries(write_list(tmp_path / f"l{suffix}", rows))
    assert [(e.uid, e.path, e.provenance.license, e.provenance.source) for e in entries] == [
        ("x", tmp_path / "x.glb", "CC0-1.0", "u"), ("y_x", tmp_path / "y/x.glb", "?", "")
    ]  # fmt: skip


@pytest.mark.parametrize(("suffix", "first"), [(".csv", "line 2"), (".parquet", "row 1"), (".json", "item 1")])
def test_wrong_rows(tmp_path: Path, suffix: str, first: str) -> None:
    path = tmp_path / f"l{suffix}"
    row = {"path": "a.glb", "uid": "a"}
    assert message(table_entries, write_list(path, [row | {"path": ""}])) == (
        f"l{suffix}: {first}: column 'path' is empty; name the model's file there"
    )
    assert message(table_entries, write_list(path, [row | {"path": "s3://b/a.glb"}])) == (
        f"l{suffix}: {first}: column 'path' holds the address 's3://b/a.glb'; fetch the file and name it"
    )
    assert message(table_entries, write_list(path, [row | {"uid": "a.b"}])) == (
        f"l{suffix}: {first}: column 'uid': a uid must hold letters, digits, '_' and '-' only, got 'a.b'"
    )
    second = {"line 2": "line 3", "row 1": "row 2", "item 1": "item 2"}[first]
    assert message(table_entries, write_list(path, [row, row])) == (
        f"l{suffix}: {second}: the uid 'a' stands in {first} as well; give every object its own"
    )


def test_wrong_lists(tmp_path: Path) -> None:
    path = put(tmp_path / "l.csv", b"uid,model\na,b\n")
    assert message(table_entries, path) == (
        "l.csv: expected a column 'path', found 'uid', 'model'; name the models' files there"
    )
    put(path, b"path,uid\na.glb,a\n\nb.glb\n")
    assert message(table_entries, path) == (
        "l.csv: line 4: expected 2 columns as in line 1, found 1; put texts with commas in quotes"
    )
    put(path, b"path\n")
    assert message(table_entries, path) == "l.csv: the list is empty; expected one row an object"
    put(path, b"path\n\xff\n")
    assert message(table_entries, path) == "l.csv: expected UTF-8, found the byte 0xff at 5; save it as UTF-8"
    assert message(table_entries, tmp_path / "l.txt").startswith(
        "l.txt: expected a list of assets ending in .csv .tsv "
    )
    path = tmp_path / "l.parquet"
    assert message(table_entries, path).startswith(f"{path}: the list cannot be read: ")
    put(path)
    assert message(table_entries, path).startswith(f"{path}: the list cannot be read: ")
    path = put(tmp_path / "l.json", b'{"path": 1}')
    assert message(table_entries, path) == "l.json: expected a JSON list of objects, one an asset; found dict"
    put(path, b'[{"path": 1}]')
    assert message(table_entries, path) == "l.json: item 1: column 'path' must hold text, found 1"
    put(path, b'[{"uid": "a"}]')
    assert message(table_entries, path) == "l.json: item 1: column 'path' is missing; name the model's file there"


def test_captions(tmp_path: Path) -> None:
    path = put(tmp_path / "c.csv", 'a,"one, two\nthree ""four"""\n\nb,Stühle\n'.encode())
    captions = read_captions(path)
    assert captions == {"a": 'one, two three "four"', "b": "Stühle"}
    entries = [Entry("a", Path("a")), Entry("c", Path("c"), Provenance("own"))]
    assert [e.provenance.caption for e in with_captions(entries, captions)] == ['one, two three "four"', "own"]
    put(path, b"\xef\xbb\xbfuid,caption\na,b\n")
    assert read_captions(path) == {"a": "b"}


def test_wrong_captions(tmp_path: Path) -> None:
    path = put(tmp_path / "c.csv", b"a,b\nc,d,e\n")
    assert message(read_captions, path) == (
        "c.csv: line 2: expected two columns, uid and caption, found 3; put captions with commas in quotes"
    )
    put(path, b'a,"b\n')
    assert message(read_captions, path).startswith("c.csv: line 1: this is no CSV (unexpected end of data)")
    assert message(read_captions, tmp_path / "x") == (
        f"{tmp_path / 'x'}: cannot be read: No such file or directory; check the path"
    )


SHARED = Path(__file__).parents[3] / ".." / "shared" / "data" / "objects" / "manifest.json"


@pytest.mark.skipif(not SHARED.exists(), reason="the shared objects are not beside this repository")
def test_manifest_of_the_shared_objects() -> None:
    entries = table_entries(SHARED)
    rows = json.loads(SHARED.read_text())
    assert [e.uid for e in entries] == [row["uid"] for row in rows]
    assert all(e.path.is_file() and e.provenance.caption and e.provenance.license and e.sha256 for e in entries)
