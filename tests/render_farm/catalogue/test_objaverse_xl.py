"""Objaverse-XL's package with its annotations on disk and its downloads replaced: nothing here reaches the network."""

import gzip
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import objaverse.xl
import pandas as pd
import pytest

from render_farm.catalogue.objaverse_xl import XlChoice, objaverse_xl_entries
from render_farm.catalogue.scan import scan
from render_farm.errors import RunError
from render_farm.records import Filters, Provenance, Refusal
from render_farm.spec import RenderSpec

DATA = {name: f"model {name}".encode() for name in "abcdef"}
SHA = {name: hashlib.sha256(data).hexdigest() for name, data in DATA.items()}
SKETCHFAB_UID = "0" * 31 + "1"
THING = "https://www.thingiverse.com/thing:12/files?fileId=34"


def row(identifier: str, source: str, kind: str, name: str, licence: str | None = "MIT License") -> dict[str, Any]:
    return {"fileIdentifier": identifier, "source": source, "license": licence, "fileType": kind, "sha256": SHA[name],
            "metadata": "{}"}  # fmt: skip


def repository(name: str) -> str:
    return f"https://github.com/org/repo/blob/c0ffee/models/{name}"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Annotations of all sources; GitHub's repository and Sketchfab's object are there already, one thing is."""
    tables = {
        "github/github": [
            row(repository("a.obj"), "github", "obj", "a"), row(repository("gone.fbx"), "github", "fbx", "b", None),
            row(repository("copy of a.obj"), "github", "obj", "a"), row(repository("x.zip"), "github", "zip", "f"),
        ],
        "github/alignment": [row(repository("a.obj"), "github", "obj", "a")],
        "thingiverse/thingiverse": [row(THING, "thingiverse", "stl", "c", "Creative Commons - Attribution")],
        "smithsonian/smithsonian": [row("https://3d-api.si.edu/x/y-z.glb", "smithsonian", "glb", "d", "CC0")],
        "sketchfab/sketchfab": [
            row(f"https://sketchfab.com/3d-models/{SKETCHFAB_UID}", "sketchfab", "glb", "e", "by")
        ],
        "sketchfab/alignment": [
            row(f"https://sketchfab.com/3d-models/{SKETCHFAB_UID}", "sketchfab", "glb", "e", "by")
        ],
    }  # fmt: skip
    for name, rows in tables.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pd.DataFrame(rows).to_parquet(tmp_path / f"{name}.parquet")
    models = tmp_path / "github" / "repos" / "org" / "repo" / "models"
    models.mkdir(parents=True)
    for name in ("a.obj", "copy of a.obj"):
        (models / name).write_bytes(DATA["a"])
    (tmp_path / "thingiverse" / "thing-12-file-34.stl").write_bytes(DATA["c"])
    root = tmp_path / "hf-objaverse-v1"
    (root / "glbs" / "000-000").mkdir(parents=True)
    (root / "glbs" / "000-000" / f"{SKETCHFAB_UID}.glb").write_bytes(b"other bytes than listed")
    paths = {SKETCHFAB_UID: f"glbs/000-000/{SKETCHFAB_UID}.glb"}
    (root / "object-paths.json.gz").write_bytes(gzip.compress(json.dumps(paths).encode()))
    return tmp_path


def test_objects_on_disk(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    choice = XlChoice(("github", "thingiverse", "sketchfab"), file_types=("obj", ".STL", "glb"))
    entries = {entry.uid: entry for entry in objaverse_xl_entries(choice, home=home, processes=1)}
    assert capfd.readouterr().out == ""
    copies = sorted(uid for uid in entries if uid.startswith(SHA["a"]))
    assert len(copies) == 2
    assert set(entries) == {*copies, SHA["c"], SKETCHFAB_UID}
    assert {entries[uid].path.name for uid in copies} == {"a.obj", "copy of a.obj"}
    assert entries[copies[0]].provenance.attribution == "org"
    assert entries[SHA["c"]].provenance == Provenance("", "", "CC-BY-4.0", "", THING)
    assert entries[SHA["c"]].path.read_bytes() == DATA["c"]
    assert all(entry.problem is None for entry in entries.values())
    tasks = {task.uid: task for task in scan(entries.values(), RenderSpec(), Filters(), 0, 9, {})}
    refusal = tasks[SKETCHFAB_UID].refusal
    assert refusal is not None
    # a file that is no GLB is said to be that first
    assert refusal.reason == "malformed"


def test_alignment(home: Path) -> None:
    entries = objaverse_xl_entries(XlChoice(alignment=True, limit=1), home=home, processes=1)
    assert [entry.sha256 for entry in entries] == [min(SHA["a"], SHA["e"])]


def test_sha256_file(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "wanted.txt"
    file.write_text(SHA["c"].upper())
    assert [entry.uid for entry in objaverse_xl_entries(XlChoice(sha256_file=file), home=home)] == [SHA["c"]]
    file.write_text("abc")
    with pytest.raises(RunError) as caught:
        objaverse_xl_entries(XlChoice(sha256_file=file), home=home)
    assert str(caught.value) == "no object of Objaverse-XL is of these sources, file types and sha256; choose others"


def test_a_download_that_raises_takes_no_other_with_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def download(rows: Any, **options: Any) -> dict[str, str]:
        identifiers = rows["fileIdentifier"].tolist()
        asked.append(identifiers)
        if any("si.edu" in identifier for identifier in identifiers):
            raise ConnectionError("server said\nno")
        return {THING: str(home / "thingiverse" / "thing-12-file-34.stl")} if THING in identifiers else {}

    monkeypatch.setattr(objaverse.xl, "download_objects", download)
    choice = XlChoice(("github", "thingiverse", "smithsonian"))
    entries = {entry.uid: entry for entry in objaverse_xl_entries(choice, home=home)}
    assert [len(identifiers) for identifiers in asked] == [
        3,
        1,
        1,
        1,
    ]  # GitHub's files that are there are not asked for
    assert entries[SHA["c"]].problem is None
    assert entries[SHA["d"]].problem == Refusal(
        "fetch-failed", "cannot be fetched from smithsonian: ConnectionError: server said", "fetching"
    )
    assert entries[SHA["b"]].problem == Refusal(
        "fetch-failed", "cannot be fetched from github: it is no longer at its address", "fetching"
    )


def test_files_that_come_with_a_repository(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package asserts one commit a repository, and never names the files of one that is there already."""
    shutil.rmtree(home / "github" / "repos")
    asked: list[int] = []

    def download(rows: Any, **options: Any) -> dict[str, str]:
        asked.append(len(rows))
        assert len(rows) == 1, "More than 1 commit hash per repoId!"
        for name in ("a.obj", "copy of a.obj"):
            path = home / "github" / "repos" / "org" / "repo" / "models" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(DATA["a"])
        return {}

    monkeypatch.setattr(objaverse.xl, "download_objects", download)
    entries = objaverse_xl_entries(XlChoice(("github",), file_types=("obj",)), home=home)
    assert asked == [2, 1]
    assert [entry.problem for entry in entries] == [None, None]


def test_licences_are_not_fetched(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objaverse.xl, "download_objects", lambda *_, **__: pytest.fail("nothing is to be fetched"))
    (entry,) = objaverse_xl_entries(XlChoice(("smithsonian",), licences=("MIT",)), home=home)
    assert entry.problem == Refusal("licence", "its licence CC0-1.0 is none of those wanted")


def test_wrong_annotations(home: Path) -> None:
    def message(*sources: Any, **choice: Any) -> str:
        with pytest.raises(RunError) as caught:
            objaverse_xl_entries(XlChoice(sources, **choice), home=home)
        return str(caught.value)

    place = home / "github" / "github.parquet"
    pd.DataFrame([{"fileIdentifier": "x"}]).to_parquet(place)
    assert message("github").startswith(
        "Objaverse-XL: the annotations of github lack the column 'source'; found fileIdentifier; remove that file"
    )
    place.write_bytes(b"x")
    assert message("github").startswith("Objaverse-XL: the annotations of github cannot be had (ArrowInvalid: ")
    assert message("thingiverse", alignment=True) == (
        "the alignment subset holds objects of github and sketchfab only; choose one of them"
    )
