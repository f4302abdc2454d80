"""A batch's tasks: the same whatever the order, every object in them, refusals named."""

import hashlib
import json
import random
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from render_farm.catalogue import read_batch, write_batch
from render_farm.catalogue import scan as scan_module
from render_farm.catalogue.entry import Entry
from render_farm.catalogue.scan import scan, shard_name
from render_farm.errors import RunError
from render_farm.records import Filters, Provenance, Refusal, Task
from render_farm.spec import AssetPolicy, RenderSpec, task_key

SPEC = RenderSpec()


def look(entries: list[Entry], known: dict[str, str] | None = None, **options: Any) -> dict[str, Task]:
    filters = options.pop("filters", Filters())
    spec = options.pop("spec", SPEC)
    return {task.uid: task for task in scan(entries, spec, filters, 0, 4, known or {}, **options)}


@pytest.fixture
def boxes(tmp_path: Path, make_glb: Callable[..., Path], make_box: Any) -> list[Entry]:
    """Twelve different models."""
    return [
        Entry(f"box{i:02d}", make_glb(tmp_path / f"{i}.glb", make_box(size=(1 + i, 1, 1))), Provenance(caption=str(i)))
        for i in range(12)
    ]


def test_tasks(boxes: list[Entry]) -> None:
    tasks = look(boxes)
    for entry in boxes:
        task = tasks[entry.uid]
        data = entry.path.read_bytes()
        assert (task.path, task.suffix, task.size_bytes) == (str(entry.path), ".glb", len(data))
        assert task.sha256 == hashlib.sha256(data).hexdigest()
        assert task.key == task_key(task.sha256, SPEC)
        assert (task.provenance, task.refusal) == (entry.provenance, None)


def test_order_and_threads_change_nothing(boxes: list[Entry], tmp_path: Path) -> None:
    boxes = [*boxes, replace(boxes[3], uid="again"), Entry("gone", tmp_path / "gone.glb")]
    expected = scan(boxes, SPEC, Filters(), 7, 4, {})
    assert expected == sorted(expected, key=lambda task: (task.shard, task.uid))
    for seed in range(3):
        random.Random(seed).shuffle(boxes)
        assert scan(boxes, SPEC, Filters(), 7, 4, {}, workers=1 + seed) == expected
    write_batch(tmp_path / "007.parquet", expected)
    assert read_batch(tmp_path / "007.parquet") == expected


def test_shards() -> None:
    """Membership is fixed by uid and number of shards; this value must never change."""
    assert shard_name("chair", 3, 100) == "003-000083"
    names = [shard_name(str(i), 0, 10) for i in range(10_000)]
    # binomial: 1000 +- 30 each; five standard deviations
    assert all(abs(names.count(name) - 1000) < 150 for name in set(names))
    assert len(set(names)) == 10


def test_number_of_shards(boxes: list[Entry]) -> None:
    assert {task.shard for task in scan(boxes, SPEC, Filters(), 12, 12, {})} == {"012-000000"}
    assert {task.shard for task in scan(boxes, SPEC, Filters(), 12, 11, {})} <= {"012-000000", "012-000001"}
    assert scan([], SPEC, Filters(), 0, 4, {}) == []


def test_refusals(tmp_path: Path, boxes: list[Entry], make_glb: Callable[..., Path], make_box: Any) -> None:
    cut = tmp_path / "cut.glb"
    cut.write_bytes(boxes[0].path.read_bytes()[:100])
    extra = {"extensionsRequired": ["KHR_texture_basisu"]}
    (tmp_path / "a.max").write_bytes(b"x")
    (tmp_path / "page.glb").write_bytes(b"<html>404</html>")
    entries = [
        Entry("missing", tmp_path / "no.glb"), Entry("cut", cut), Entry("odd", tmp_path / "a.max"),
        Entry("page", tmp_path / "page.glb"), Entry("folder", tmp_path),
        Entry("basisu", make_glb(tmp_path / "b.glb", make_box(), extra=extra)),
        Entry("fetch", boxes[1].path, problem=Refusal("fetch-failed", "HTTP 404", "fetching")),
        Entry("changed", boxes[2].path, sha256="0" * 64),
    ]  # fmt: skip
    tasks = look(entries)
    assert {uid: task.refusal.reason for uid, task in tasks.items() if task.refusal} == {
        "missing": "missing-file", "cut": "truncated", "odd": "unknown-format", "page": "malformed", "folder": "not-a-file",
        "basisu": "unsupported-extension", "fetch": "fetch-failed", "changed": "fetch-failed",
    }  # fmt: skip
    assert len({task.key for task in tasks.values()}) == len(entries)
    refusal = tasks["cut"].refusal
    assert refusal is not None
    assert refusal.stage == "scanning"
    assert refusal.message.endswith("the file holds 100; fetch it again")  # without [reason]: it is in its own field
    assert tasks["cut"].sha256 == hashlib.sha256(cut.read_bytes()).hexdigest()
    assert tasks["missing"].sha256 == tasks["folder"].sha256 == ""
    refusal = tasks["changed"].refusal
    assert refusal is not None
    assert refusal.message.startswith("2.glb: expected the sha256 that its source lists, ")


def test_budgets(boxes: list[Entry]) -> None:
    for policy in (AssetPolicy(max_file_bytes=100), AssetPolicy(max_triangles=11)):
        task = look(boxes[:1], spec=RenderSpec(assets=policy))["box00"]
        assert task.refusal is not None
        assert task.refusal.reason == "too-large"


def test_licences(boxes: list[Entry]) -> None:
    names = ["CC0-1.0", "CC-BY-4.0", "CC-BY-NC-4.0", ""]
    entries = [replace(e, provenance=Provenance(license=n)) for e, n in zip(boxes, names, strict=False)]
    tasks = look(entries, filters=Filters(licences=("CC0*", "CC-BY-4.0")))
    assert {task.uid for task in tasks.values() if task.refusal is None} == {"box00", "box01"}
    for uid, found in (("box02", "CC-BY-NC-4.0"), ("box03", "an unknown one")):
        message = f"{uid}: expected a licence of CC0* CC-BY-4.0, found {found}; leave it out, or allow that licence"
        assert tasks[uid].refusal == Refusal("licence", message, "scanning")
    assert look(entries, filters=Filters(licences=("?",)))["box03"].refusal is None


def twin_of(first: str, uid: str) -> Refusal:
    message = f"{uid}: expected each file once, found the bytes of {first}; leave one out, or set duplicates to keep"
    return Refusal("duplicate", message, "scanning")


def test_duplicates(boxes: list[Entry]) -> None:
    twins = [replace(boxes[0], uid=uid) for uid in ("c", "a", "b")]
    bad = replace(boxes[0], uid="A", problem=Refusal("licence", "no"))
    tasks = look([*twins, bad])
    # 'A' is the smallest, but it is not rendered: 'a' stays
    assert tasks["a"].refusal is None
    assert tasks["a"].key == task_key(tasks["a"].sha256, SPEC)
    for uid in "bc":
        assert tasks[uid].refusal == twin_of("a", uid)
    assert len({task.key for task in tasks.values()}) == 4
    kept = look(twins, filters=Filters(duplicates="keep"))
    assert all(task.refusal is None for task in kept.values())
    assert len({task.key for task in kept.values()}) == 3


def test_known_objects(boxes: list[Entry], caplog: pytest.LogCaptureFixture) -> None:
    first = look(boxes[:4])
    known = {uid: task.sha256 for uid, task in first.items()}
    caplog.set_level("INFO")
    later = look([*boxes[:6], replace(boxes[1], uid="copy")], known)
    assert sorted(later) == ["box04", "box05", "copy"]
    assert later["copy"].refusal == twin_of("box01", "copy")
    assert "4 objects are in this run already and are passed over" in caplog.messages


def test_retry_is_not_its_own_duplicate(boxes: list[Entry]) -> None:
    known = {uid: task.sha256 for uid, task in look(boxes[:4]).items()}
    again = look(boxes[:4], known, retry=["box01"])
    assert list(again) == ["box01"]
    assert again["box01"].refusal is None
    assert again["box01"].key == task_key(known["box01"], SPEC)


def test_uids(boxes: list[Entry]) -> None:
    with pytest.raises(RunError) as caught:
        look([boxes[0], replace(boxes[1], uid="box00")])
    assert str(caught.value) == (
        f"the uid 'box00' belongs to two objects, {boxes[0].path} and {boxes[1].path}; give every object its own"
    )
    with pytest.raises(RunError) as caught:
        look([replace(boxes[0], uid="a/b")])
    assert str(caught.value) == f"{boxes[0].path}: a uid must hold letters, digits, '_' and '-' only, got 'a/b'"


def test_cache(boxes: list[Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Path] = []
    load_asset = scan_module.load_asset
    monkeypatch.setattr(scan_module, "load_asset", lambda path, *rest: looked.append(path) or load_asset(path, *rest))
    cache = tmp_path / "run" / "files.sqlite"
    cut = tmp_path / "cut.glb"
    cut.write_bytes(b"glTF")
    entries = [*boxes, Entry("cut", cut)]
    expected = look(entries, cache=cache)
    assert len(looked) == 13
    assert look(entries, cache=cache) == expected
    assert len(looked) == 13
    boxes[3].path.write_bytes(boxes[4].path.read_bytes())
    changed = look(entries, cache=cache)
    assert looked[13:] == [boxes[3].path]
    assert changed["box03"].sha256 == expected["box04"].sha256
    # another limit asks anew
    look(entries, cache=cache, spec=RenderSpec(assets=AssetPolicy(max_triangles=3)))
    assert len(looked) == 27
    for name in ("files.sqlite-wal", "files.sqlite-shm"):
        (cache.parent / name).unlink(missing_ok=True)
    cache.write_bytes(b"no database at all, for longer than its header would be" * 10)
    assert look(entries, cache=cache) == changed


def test_names_that_no_file_can_have(boxes: list[Entry], tmp_path: Path) -> None:
    entries = [*boxes, Entry("nul", tmp_path / "a\0.glb"), Entry("long", tmp_path / ("a" * 300 + ".glb"))]
    tasks = look(entries)
    assert [task.refusal.reason for task in (tasks["nul"], tasks["long"]) if task.refusal] == [
        "missing-file",
        "not-a-file",
    ]
    assert len(tasks) == 14


def test_half_an_emoji_is_stored_as_a_mark(boxes: list[Entry], tmp_path: Path) -> None:
    """One caption out of 800,000 must not keep the others out of the batch."""
    broken = Entry("b", boxes[0].path, Provenance(caption="nice \ud83e", label="\udc00"))
    refused = Entry("c", boxes[1].path, problem=Refusal("fetch-failed", "gone: \ud83e", "fetching"))
    wrong = tmp_path / "w.gltf"
    wrong.write_text('{"asset": {"version": "2.0"}, "extensionsRequired": ["\\ud83e"]}')
    tasks = look([broken, refused, Entry("w", wrong)], cache=tmp_path / "cache.sqlite")
    assert tasks["b"].provenance == Provenance(caption="nice \ufffd", label="\ufffd")
    write_batch(tmp_path / "000.parquet", list(tasks.values()))
    assert read_batch(tmp_path / "000.parquet") == list(tasks.values())


def test_two_paints_of_one_gltf_are_two_models(tmp_path: Path) -> None:
    document = json.dumps({"asset": {"version": "2.0"}, "images": [{"uri": "skin.png"}]})
    entries = []
    for colour in ("red", "blue", "also-blue"):
        (tmp_path / colour).mkdir()
        (tmp_path / colour / "car.gltf").write_text(document)
        (tmp_path / colour / "skin.png").write_text(colour.removeprefix("also-"))
        own = hashlib.sha256(document.encode()).hexdigest()  # what a source lists is of the .gltf alone
        entries.append(Entry(colour, tmp_path / colour / "car.gltf", sha256=own))
    tasks = look(entries)
    assert {uid: task.refusal and task.refusal.reason for uid, task in tasks.items()} == {
        "also-blue": None, "blue": "duplicate", "red": None,
    }  # fmt: skip
    assert tasks["red"].key != tasks["also-blue"].key


def test_a_cache_that_breaks_costs_time_only(
    boxes: list[Entry], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "files.sqlite"
    expected = look(boxes, cache=cache)
    with sqlite3.connect(cache) as database:
        database.execute("ALTER TABLE files RENAME COLUMN sha256 TO hash")
        database.execute("CREATE TRIGGER full BEFORE INSERT ON files BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    assert look(boxes, cache=cache) == expected
    assert caplog.messages == ["what was found out about files is not kept: disk is full"]


def test_progress(boxes: list[Entry]) -> None:
    calls: list[tuple[int, int]] = []
    look(boxes, progress=lambda done, of: calls.append((done, of)), workers=1)
    assert calls[-1] == (12, 12)
