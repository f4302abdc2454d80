"""The objaverse package with its files on disk and its downloads replaced: nothing here reaches the network."""

import gzip
import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any

import objaverse
import pytest

from render_farm.catalogue.objaverse import ObjaverseChoice, objaverse_entries
from render_farm.catalogue.scan import scan
from render_farm.errors import RunError
from render_farm.records import Filters, Provenance, Refusal
from render_farm.spec import RenderSpec

UIDS = [f"{i:032x}" for i in range(6)]


def dump(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(content).encode()))


def annotation(index: int) -> dict[str, Any]:
    return {
        "uid": UIDS[index], "name": f"Thing {index}", "description": "A thing,\n of wood" if index == 0 else "",
        "license": ["by", "by-nc-sa", "cc0", None, "by", "by"][index], "viewerUrl": f"https://sketchfab.com/{index}",
        "user": {"username": "u", "displayName": "U U"}, "categories": [{"name": "furniture-home"}],
    }  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six objects in two folders; those with odd numbers are not there yet."""
    root = tmp_path / ".objaverse" / "hf-objaverse-v1"
    paths = {uid: f"glbs/000-00{index // 3}/{uid}.glb" for index, uid in enumerate(UIDS)}
    dump(root / "object-paths.json.gz", paths)
    dump(root / "lvis-annotations.json.gz", {"chair": [UIDS[0], UIDS[1]], "armchair": [UIDS[1], UIDS[4]]})
    for part in range(2):
        dump(root / f"metadata/000-00{part}.json.gz", {UIDS[i]: annotation(i) for i in range(3 * part, 3 * part + 3)})
    for uid in UIDS[::2]:
        (root / paths[uid]).parent.mkdir(parents=True, exist_ok=True)
        (root / paths[uid]).write_bytes(b"glb " + uid.encode())
    monkeypatch.setattr(urllib.request, "urlretrieve", lambda url, path: pytest.fail(f"reached for {url}"))
    return tmp_path / ".objaverse"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Serve downloads; `broken` maps a part of the address to the error that it raises."""

    def start(**broken: Exception) -> list[str]:
        asked: list[str] = []

        def retrieve(url: str, path: str) -> None:
            asked.append(url.rsplit("/", 1)[-1])
            assert socket.getdefaulttimeout() == 60
            for part, error in broken.items():
                if part.removeprefix("_") in url:
                    raise error
            Path(path).write_bytes(b"glb fetched")

        monkeypatch.setattr(urllib.request, "urlretrieve", retrieve)
        return asked

    return start


def test_what_is_known(home: Path, tmp_path: Path) -> None:
    uids = tmp_path / "uids.txt"
    uids.write_text(f"{UIDS[2]}\n{UIDS[0]}\n")
    before = objaverse._VERSIONED_PATH
    first, second = objaverse_entries(ObjaverseChoice(uids), home=home)
    assert before == objaverse._VERSIONED_PATH
    assert (first.uid, second.uid) == (UIDS[0], UIDS[2])
    assert first.provenance == Provenance("A thing, of wood", "chair", "CC-BY-4.0", "U U", "https://sketchfab.com/0")
    assert second.provenance == Provenance("Thing 2", "furniture-home", "CC0-1.0", "U U", "https://sketchfab.com/2")
    assert first.path.read_bytes() == b"glb " + UIDS[0].encode()
    assert first.problem is None


def test_fetching_goes_on_after_failures(
    home: Path, server: Callable[..., list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    gone = urllib.error.HTTPError("u", 404, "Not Found", Message(), None)
    asked = server(**{UIDS[1]: gone})
    calls: list[tuple[int, int]] = []
    entries = objaverse_entries(
        ObjaverseChoice(), home=home, processes=2, progress=lambda done, of: calls.append((done, of))
    )
    assert [entry.uid for entry in entries] == UIDS
    assert calls == [(6, 6)]
    assert sorted(asked) == [f"{UIDS[i]}.glb" for i in (1, 3, 5)]
    assert [entry.uid for entry in entries if entry.problem] == [UIDS[1]]
    assert entries[1].problem == Refusal(
        "fetch-failed", "cannot be fetched from Objaverse: HTTPError: HTTP Error 404: Not Found", "fetching"
    )
    assert entries[3].path.read_bytes() == b"glb fetched"
    assert socket.getdefaulttimeout() is None
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "Downloaded" in captured.err  # the package prints that
    # a second run asks for what is missing only
    asked = server()
    assert all(entry.problem is None for entry in objaverse_entries(ObjaverseChoice(), home=home))
    assert asked == [f"{UIDS[1]}.glb"]


def test_full_disk_stops(home: Path, server: Callable[..., list[str]]) -> None:
    server(glbs=OSError(28, "No space left on device", "/x"))
    with pytest.raises(RunError, match="cannot store what is fetched: No space left on device: /x; make room"):
        objaverse_entries(ObjaverseChoice(), home=home)


def test_licences_are_not_fetched(home: Path, server: Callable[..., list[str]]) -> None:
    asked = server()
    entries = objaverse_entries(ObjaverseChoice(licences=("CC-BY-4.0", "?")), home=home)
    assert sorted(asked) == [f"{UIDS[3]}.glb", f"{UIDS[5]}.glb"]
    assert {entry.uid: entry.problem.message for entry in entries if entry.problem} == {
        UIDS[1]: "its licence CC-BY-NC-SA-4.0 is none of those wanted",
        UIDS[2]: "its licence CC0-1.0 is none of those wanted",
    }


def test_choice(home: Path, tmp_path: Path, server: Callable[..., list[str]]) -> None:
    server()

    def chosen(**choice: Any) -> list[str]:
        return [entry.uid for entry in objaverse_entries(ObjaverseChoice(**choice), home=home)]

    assert chosen(lvis=("chair", "armchair")) == [UIDS[0], UIDS[1], UIDS[4]]
    assert chosen(limit=2) == UIDS[:2]
    uids = tmp_path / "u.json"
    uids.write_text(json.dumps([UIDS[1], UIDS[5]]))
    assert chosen(uids_file=uids, lvis=("chair",)) == [UIDS[1]]


def test_wrong_choices(home: Path, tmp_path: Path) -> None:
    def message(**choice: Any) -> str:
        with pytest.raises(RunError) as caught:
            objaverse_entries(ObjaverseChoice(**choice), home=home)
        return str(caught.value)

    assert message(lvis=("Chair",)) == "Objaverse has no LVIS category 'Chair'; near: armchair, chair"
    uids = tmp_path / "u.txt"
    uids.write_text(f"{UIDS[0]}\nabc\n")
    assert message(uids_file=uids) == "u.txt: 1 of 2 uids are not in Objaverse, the first is 'abc'; remove them"
    uids.write_text("a/b")
    assert message(uids_file=uids).startswith("u.txt: item 1: a uid must hold letters")
    assert message(uids_file=tmp_path / "no.txt").startswith(
        f"{tmp_path / 'no.txt'}: the list of uids cannot be read ("
    )


def test_lists_that_cannot_be_had(home: Path, server: Callable[..., list[str]]) -> None:
    lists = home / "hf-objaverse-v1" / "object-paths.json.gz"
    lists.write_bytes(lists.read_bytes()[:30])
    with pytest.raises(
        RunError, match=r"the list of objects in .* is damaged \(EOFError.*remove that file, it is fetched"
    ):
        objaverse_entries(ObjaverseChoice(), home=home)
    lists.unlink()
    server(paths=urllib.error.URLError("no route"))
    with pytest.raises(RunError, match=r"the list of objects cannot be fetched .*check the network"):
        objaverse_entries(ObjaverseChoice(), home=home)


SHARED = Path(__file__).parents[3] / ".." / "shared"
LAYOUT = SHARED / "tools" / "objaverse-layout"


@pytest.mark.skipif(not LAYOUT.exists(), reason="the shared objects are not beside this repository")
def test_real_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All shared objects, laid out as Objaverse: nothing fetched, nothing refused, the hashes as listed."""
    objects = SHARED / "data" / "objects"
    command = [sys.executable, str(LAYOUT), "--out", str(tmp_path), "--mode", "symlink", str(objects)]
    subprocess.run(command, check=True, capture_output=True)
    monkeypatch.setattr(urllib.request, "urlretrieve", lambda url, path: pytest.fail(f"reached for {url}"))
    listed = {row["uid"]: row for row in json.loads((objects / "manifest.json").read_text())}
    tasks = scan(objaverse_entries(ObjaverseChoice(), home=tmp_path / ".objaverse"), RenderSpec(), Filters(), 0, 64, {})
    assert {task.uid: task.sha256 for task in tasks} == {uid: row["sha256"] for uid, row in listed.items()}
    assert not [task for task in tasks if task.refusal]
    assert all(task.provenance.label == listed[task.uid]["label"] for task in tasks)
    assert all(task.provenance.caption == listed[task.uid]["caption"] for task in tasks)
