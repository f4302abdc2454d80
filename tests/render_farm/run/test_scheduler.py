"""A farm with a fake Blender: objects that hang, leak, crash, flood and fill the disk, and what becomes of them."""

import dataclasses
import json
import logging
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from render_farm.errors import RunError
from render_farm.records import Refusal
from render_farm.run import room, sealing, slots
from render_farm.run.folder import Run
from render_farm.run.owner import hold
from render_farm.run.progress import Snapshot, Summary
from render_farm.run.scheduler import FarmSettings, run_shards
from render_farm.run.schema import Row
from render_farm.run.store import Store
from render_farm.spec import Execution
from tests.render_farm.run.farms import (
    FAKE_WORKER,
    assert_same,
    assert_whole,
    fake_run,
    fake_tasks,
    receipts,
    records,
    wait_for_none,
)

MIB = 2**20
EXECUTION = Execution(threads=1, max_memory_bytes=250 * MIB, max_scratch_bytes=24 * MIB)
SETTINGS = FarmSettings(slots=2, execution=EXECUTION, retries=1, finishers=1, min_free_bytes=0)
WELL = ("one", "two", "three", "four", "five")
MANY = tuple(f"object_{i:02d}" for i in range(16))

ENDS = {
    "hang-in-import": "timeout", "hang-in-view": "timeout", "silent": "timeout", "grandchildren": "timeout",
    "segfault": "crash", "segfault-in-import": "crash", "leave": "crash", "out-of-memory": "memory", "leak": "memory",
    "fill-disk": "disk-full", "refuse": "no-triangles", "refuse:animated": "animated", "blank": "blank",
    "cut-picture": "bad-output", "wrong-size": "bad-output", "wrong-key": "bad-output", "flood": "done",
    "flood-without-newlines": "done", "garbage": "done", "segfault,well": "done", "die-between-jobs": "done",
    "leave-grandchildren": "done",
}  # fmt: skip
"""What becomes of an object with each behaviour."""
ONCE = {"no-triangles", "animated", "blank", "done"}
"""Ends that another attempt would not change."""
BEHAVIOURS = {behaviour.translate(str.maketrans(":,", "__")): behaviour for behaviour in ENDS}
"""By uid."""


def go_on(run: Run, settings: FarmSettings = SETTINGS, **more: Any) -> Summary:
    return run_shards(run, None, settings, worker=FAKE_WORKER, **more)


@pytest.fixture
def misbehave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Say what the fake worker does with each uid."""

    def say(behaviours: dict[str, str]) -> None:
        (tmp_path / "attempts").mkdir(exist_ok=True)
        monkeypatch.setenv("FAKE_WORKER_TABLE", json.dumps({f"{uid}.ply": each for uid, each in behaviours.items()}))
        monkeypatch.setenv("FAKE_WORKER_ATTEMPTS", str(tmp_path / "attempts"))

    return say


@pytest.mark.slow
def test_every_object_ends_with_its_own_reason_and_no_process_is_left(tmp_path, misbehave, started_pids):
    misbehave(BEHAVIOURS)
    uids = [uid for pair in zip(BEHAVIOURS, [f"well_{i}" for i in range(len(BEHAVIOURS))], strict=True) for uid in pair]
    run = fake_run(tmp_path, uids, refused={"well_3": Refusal("licence", "CC-BY-NC-4.0 is not allowed")})
    # deadlines far above what the fake needs on a busy machine, and still short
    execution = dataclasses.replace(
        EXECUTION, import_timeout_s=2.0, first_view_timeout_s=2.5, view_timeout_s=2.5, heartbeat_timeout_s=1.5
    )
    summary = go_on(run, dataclasses.replace(SETTINGS, execution=execution, slots=3))
    found = records(run)
    ends = {uid: "done" if r.refusal is None else r.refusal.reason for (_, uid), r in found.items()}
    expected = {uid: ENDS[behaviour] for uid, behaviour in BEHAVIOURS.items()}
    assert {uid: ends[uid] for uid in expected} == expected
    assert {uid: end for uid, end in ends.items() if uid not in expected} == {
        uid: "licence" if uid == "well_3" else "done" for uid in uids if uid not in expected
    }
    assert_whole(run)
    attempts = {uid: r.attempts for (_, uid), r in found.items() if uid in BEHAVIOURS}
    assert {uid for uid, count in attempts.items() if count == 2} == {
        uid for uid, end in expected.items() if end not in ONCE
    } | {"segfault_well"}
    assert wait_for_none(tmp_path) == []
    assert summary.done == sum(end == "done" for end in ends.values())
    assert (summary.total, summary.failed, summary.unsealed) == (len(uids), len(uids) - summary.done, ())
    assert sum(summary.reasons.values()) == summary.failed - 1  # the licence was refused before the farm began


def test_a_failure_says_what_was_done_and_ends_with_the_childs_last_words(tmp_path, misbehave):
    misbehave({"one": "leave"})
    run = fake_run(tmp_path, ["one"])
    go_on(run, dataclasses.replace(SETTINGS, retries=0))
    (record,) = records(run).values()
    assert record.refusal is not None
    assert (record.refusal.reason, record.refusal.stage, record.attempts) == ("crash", "importing", 1)
    assert "last words" in record.refusal.detail
    assert "one.ply" in record.refusal.message
    store = Store(run.store_path, run.spec)
    assert store.failures() == [("crash", "importing", 1)]
    store.close()


def test_what_is_sealed_is_what_was_rendered(tmp_path):
    run = fake_run(tmp_path, WELL, shard_objects=3)
    snapshots: list[Snapshot] = []
    summary = go_on(run, progress=snapshots.append)
    assert_whole(run)
    assert [receipt.shard for receipt in receipts(run)] == ["000-000000", "000-000001"]
    for record in records(run).values():
        assert (record.outcome, record.attempts, record.orbits) == ("done", 1, ("ring24",))
        assert record.worker == "Blender 0.0 fake CPU"
        assert record.facts["mesh_hash"] == record.sha256
        assert {"import_s", "render_s", "convert_s", "check_s", "store_s"} <= record.stages.keys()
        assert record.quality["ring24"]["coverage"]["mean"] > 0.05
    assert (summary.done, summary.failed, summary.total, summary.rendered, summary.sealed) == (5, 0, 5, 5, 2)
    assert summary.render_s == pytest.approx(5 * 6 * 0.001)  # the fake claims a millisecond for each view
    assert 0 < summary.render_share < 1
    last = snapshots[-1]
    assert (last.done, last.failed, last.total, last.shards_sealed, last.shards, last.finishing) == (5, 0, 5, 2, 2, 0)
    assert last.bytes > 0
    assert last.rate_per_h > 0


def test_a_second_session_does_nothing(tmp_path):
    run = fake_run(tmp_path, WELL[:2])
    go_on(run)
    before = {path: path.stat().st_mtime_ns for path in (run.folder / "shards").iterdir()}
    summary = go_on(run, dataclasses.replace(SETTINGS, slots=1))
    assert (summary.rendered, summary.done, summary.sealed, summary.unsealed) == (0, 2, 0, ())
    assert {path: path.stat().st_mtime_ns for path in (run.folder / "shards").iterdir()} == before


@pytest.mark.slow
def test_a_batch_added_later_is_rendered_and_the_first_left_alone(tmp_path, misbehave):
    misbehave({"two": "segfault"})
    run = fake_run(tmp_path, WELL[:2])
    go_on(run, dataclasses.replace(SETTINGS, retries=0))
    first = (run.folder / "shards" / "000-000000.tar").read_bytes()
    misbehave({})
    run = run.add_batch(fake_tasks(tmp_path / "assets", ["two", "three"], batch=1))
    summary = go_on(run)
    assert (summary.rendered, summary.done, summary.failed, summary.total) == (2, 3, 1, 4)
    assert (run.folder / "shards" / "000-000000.tar").read_bytes() == first
    found = records(run)
    assert found["000-000000", "two"].outcome == "failed"
    assert found["001-000000", "two"].outcome == "done"
    assert_whole(run)


@pytest.mark.slow
def test_only_the_shards_that_were_asked_for_are_worked_on(tmp_path):
    run = fake_run(tmp_path, WELL, shard_objects=2)
    elsewhere = tmp_path / "node" / "state.sqlite"
    summary = run_shards(
        run, ["000-000001"], SETTINGS, worker=FAKE_WORKER, store_path=elsewhere, scratch=tmp_path / "tmp"
    )
    assert (summary.total, summary.done) == (2, 2)
    assert [receipt.shard for receipt in receipts(run)] == ["000-000001"]
    assert not run.store_path.exists()
    assert list((tmp_path / "tmp").iterdir()) == []
    summary = go_on(run)  # what another scheduler sealed is known by its receipt
    assert (summary.rendered, summary.done) == (3, 5)
    assert_whole(run)
    with pytest.raises(RunError, match=r"there is no shard 000-000007; this run has 3, 000-000000 to 000-000002"):
        run_shards(run, ["000-000007"], SETTINGS, worker=FAKE_WORKER)


def test_two_schedulers_never_share_a_folder(tmp_path):
    run = fake_run(tmp_path, WELL[:1])
    with (
        hold(run.folder / "lock"),
        pytest.raises(RunError, match=r"run is held by process \d+ of .*: one process at a time may change a run"),
    ):
        go_on(run)
    assert not run.store_path.exists()


@pytest.mark.slow
def test_stopped_and_resumed_it_is_the_same_run(tmp_path, monkeypatch, started_pids):
    run, other = (fake_run(tmp_path / name, MANY, shard_objects=3) for name in ("stopped", "undisturbed"))
    monkeypatch.setenv("FAKE_WORKER_VIEW_S", "0.1")
    stop = threading.Event()
    summary = go_on(run, progress=lambda snapshot: stop.set() if snapshot.done else None, stop=stop)
    assert summary.stopped
    assert 0 < summary.done < len(MANY)
    assert wait_for_none(tmp_path) == []
    assert list(run.scratch.iterdir()) == []
    store = Store(run.store_path, run.spec)
    counts = store.counts()
    assert (counts.busy, counts.done, counts.pending) == (0, summary.done, len(MANY) - summary.done)
    store.close()
    monkeypatch.setenv("FAKE_WORKER_VIEW_S", "0")
    summary = go_on(run)
    assert (summary.stopped, summary.done) == (False, len(MANY))
    assert {record.attempts for record in records(run).values()} == {1}  # an attempt that was left does not count
    assert_whole(run)
    go_on(other)
    assert_same(run, other)


def test_another_attempt_begins_before_the_last_one_has_cleared_up(tmp_path, misbehave, monkeypatch):
    def late(folder: Path, **more: Any) -> None:
        time.sleep(0.3)  # the other slot starts a worker meanwhile, and begins to write
        shutil.rmtree(folder, **more)

    monkeypatch.setattr(slots, "shutil", SimpleNamespace(rmtree=late))
    monkeypatch.setenv("FAKE_WORKER_VIEW_S", "0.1")
    misbehave({"one": "segfault,well"})
    run = fake_run(tmp_path, ["one"])
    assert go_on(run).done == 1
    assert records(run)["000-000000", "one"].attempts == 2


def test_with_a_disk_nearly_full_it_waits(tmp_path, monkeypatch, caplog):
    free = [10 * MIB]
    monkeypatch.setattr(room, "free_bytes", lambda folder: free[0])
    run = fake_run(tmp_path, WELL[:2])
    seen: list[Snapshot] = []

    def watch(snapshot: Snapshot) -> None:
        seen.append(snapshot)
        if snapshot.paused and len(seen) > 1:
            free[0] = 1000 * MIB

    with caplog.at_level(logging.WARNING):
        summary = go_on(run, dataclasses.replace(SETTINGS, min_free_bytes=100 * MIB), progress=watch)
    short = (
        rf"0\.01 GB are free in {run.scratch}/farm-\w+, fewer than the 0\.10 GB that must stay free: make room there"
    )
    assert re.fullmatch(short, seen[0].paused)
    assert all(not slot.uid for snapshot in seen if snapshot.paused for slot in snapshot.slots)
    assert (summary.done, summary.failed) == (2, 0)
    assert f"paused: {seen[0].paused}; the farm then goes on by itself" in caplog.text
    assert "there is room again: going on" in caplog.text


@pytest.mark.slow
def test_a_machine_without_the_device_stops_the_run_and_fails_no_object(tmp_path, misbehave):
    misbehave(dict.fromkeys(WELL, "refuse:no-gpu"))
    run = fake_run(tmp_path, WELL)
    with pytest.raises(RunError, match=r"this machine cannot render: .*refused as no-gpu \[no-gpu\]"):
        go_on(run)
    store = Store(run.store_path, run.spec)
    counts = store.counts()
    assert (counts.pending, counts.failed, counts.done) == (5, 0, 0)
    store.close()
    misbehave({})
    assert go_on(run).done == 5


@pytest.mark.slow
def test_a_blender_is_replaced_after_its_share_of_objects(tmp_path, started_pids):
    run = fake_run(tmp_path, WELL)
    go_on(run, dataclasses.replace(SETTINGS, slots=1, recycle_objects=2))
    assert len(started_pids()) == 3
    again = fake_run(tmp_path / "again", WELL)
    go_on(again, dataclasses.replace(SETTINGS, slots=1, recycle_bytes=1))  # none can be as small as that
    assert len(started_pids()) == 3 + 5


@pytest.mark.parametrize("name", ["record.json", "two.ring24.rgba_02.webp"])
def test_a_staged_object_that_is_damaged_before_its_shard_is_sealed_is_rendered_again(tmp_path, monkeypatch, name):
    run = fake_run(tmp_path, WELL[:3])
    damaged: list[str] = []

    def damage(store: Store, shard: str) -> list[Row]:
        found = rows(store, shard)
        if not damaged:
            damaged.append(found[1].task.uid)
            (run.folder / "staging" / f"{shard}.{damaged[0]}" / name).write_text("{}")
        return found

    rows = Store.rows
    monkeypatch.setattr(sealing.Store, "rows", damage)
    summary = go_on(run)
    assert damaged == ["two"]
    assert (summary.done, summary.rendered, summary.sealed) == (3, 4, 1)
    assert {uid: record.attempts for (_, uid), record in records(run).items()} == {"one": 1, "two": 2, "three": 1}
    assert_whole(run)


@pytest.mark.slow
def test_sealing_that_fails_is_told_and_made_good_by_the_next_session(tmp_path, monkeypatch):
    run = fake_run(tmp_path, WELL[:2])
    monkeypatch.setattr("render_farm.run.sealing.RETRY_S", (0.01,))
    (run.folder / "shards").write_text("a file where the folder should be")
    with pytest.raises(RunError, match=r"1 shards could not be sealed \(000-000000: .*mend that and run again"):
        go_on(run)
    assert receipts(run) == []
    (run.folder / "shards").unlink()
    summary = go_on(run)
    assert (summary.rendered, summary.sealed) == (0, 1)
    assert_whole(run)


NOTE_DEVICE = """
import os, sys
with open(sys.argv[1], "a") as file:
    file.write(os.environ["CUDA_VISIBLE_DEVICES"] + "\\n")
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_each_slot_sees_one_gpu_of_those_named(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_WORKER_VIEW_S", "0.1")  # so that no slot has done all before the others have begun
    run = fake_run(tmp_path, WELL)
    seen = tmp_path / "devices"
    settings = dataclasses.replace(SETTINGS, slots=3, gpus=("GPU-4f2a", "7"))
    run_shards(run, None, settings, worker=(sys.executable, "-S", "-c", NOTE_DEVICE, str(seen), *FAKE_WORKER))
    assert sorted(seen.read_text().split()) == ["7", "GPU-4f2a", "GPU-4f2a"]


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="slots must be at least 1, got 0"):
        FarmSettings(slots=0)
    with pytest.raises(ValueError, match="retries must be at least 0, got -1"):
        FarmSettings(retries=-1)


def test_a_summary_knows_what_the_session_cost(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_WORKER_VIEW_S", "0.02")
    run = fake_run(tmp_path, WELL)
    begun = time.monotonic()
    summary = go_on(run)
    wall_s = time.monotonic() - begun
    assert summary.slot_wall_s <= 2 * wall_s
    assert summary.render_s + summary.handover_s + summary.idle_s <= summary.slot_wall_s
    store = Store(run.store_path, run.spec)
    (session,) = store.sessions()
    assert (session.slots, session.done, session.failed) == (2, 5, 0)
    assert session.slot_wall_s == pytest.approx(summary.slot_wall_s)
    assert session.render_s == pytest.approx(summary.render_s)
    store.close()


def test_a_start_reads_only_tasks_that_are_not_known(tmp_path, monkeypatch):
    """A million tasks are taken in once, not at every start; a worker reads its own shards' only."""
    run = fake_run(tmp_path, ["a", "b", "c", "d"], 2)
    asked: list[list[str]] = []
    read = Run.tasks_of
    monkeypatch.setattr(Run, "tasks_of", lambda self, shards: asked.append(list(shards)) or read(self, shards))
    monkeypatch.setattr(Run, "tasks", lambda self, batch=None: pytest.fail("all tasks are read"))
    run_shards(run, ["000-000001"], SETTINGS, worker=FAKE_WORKER)
    go_on(run)
    go_on(run)
    assert asked == [["000-000001"], ["000-000000"], []]
