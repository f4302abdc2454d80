"""SIGKILL at twenty random points: nothing lost, doubled or mislabelled, no process left."""

import json
from pathlib import Path

import pytest

from render_farm.records import Refusal
from render_farm.run.folder import Run
from tests.render_farm.run.farms import (
    FarmOrder,
    FarmProgram,
    assert_same,
    assert_whole,
    fake_run,
    kill_often,
    records,
    wait_for,
    wait_for_none,
)

KILLS, SEED, LONGEST_S = 20, 20240, 3.0
BEHAVIOURS = {
    "bad_0": "segfault", "bad_1": "refuse", "bad_2": "leak", "bad_3": "hang-in-view", "bad_4": "blank",
    "bad_5": "cut-picture", "bad_6": "flood", "bad_7": "leave-grandchildren", "bad_8": "fill-disk", "bad_9": "garbage",
}  # fmt: skip
UIDS = [uid for i in range(10) for uid in (f"a_{i}", f"b_{i}", f"bad_{i}")]


def order(run: Run, folder: Path, view_s: float) -> FarmOrder:
    (folder / "attempts").mkdir()
    return FarmOrder(
        str(run.folder), {"slots": 2, "retries": 1, "min_free_bytes": 0},
        {"threads": 1, "max_memory_bytes": 250 * 2**20, "max_scratch_bytes": 24 * 2**20, "view_timeout_s": 2.0,
         "first_view_timeout_s": 2.0},
        environment={
            "FAKE_WORKER_TABLE": json.dumps({f"{uid}.ply": each for uid, each in BEHAVIOURS.items()}),
            "FAKE_WORKER_ATTEMPTS": str(folder / "attempts"), "FAKE_WORKER_PIDS": str(folder / "started.pids"),
            "FAKE_WORKER_VIEW_S": str(view_s),
        },
    )  # fmt: skip


def make(folder: Path) -> Run:
    return fake_run(folder, UIDS, shard_objects=4, refused={"a_5": Refusal("licence", "CC-BY-NC-4.0 is not allowed")})


@pytest.mark.slow
def test_killed_at_twenty_points_it_is_the_same_run(tmp_path):
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    run, other = make(killed), make(undisturbed)
    program = FarmProgram(order(run, killed, 0.05), tmp_path / "killed.log")
    reference = FarmProgram(order(other, undisturbed, 0.0), tmp_path / "undisturbed.log")
    try:
        hit = kill_often(program, KILLS, SEED, LONGEST_S)
        assert program.finish() == 0, (tmp_path / "killed.log").read_text()[-3000:]
        assert reference.finish() == 0, (tmp_path / "undisturbed.log").read_text()[-3000:]
    finally:
        program.close()
        reference.close()
    assert hit >= KILLS * 3 // 4, f"only {hit} of {KILLS} kills met a session at work: make the farm slower"
    assert_whole(run)
    assert_whole(other)
    assert_same(run, other)
    assert {record.outcome for record in records(run).values()} == {"done", "failed"}
    assert wait_for_none(tmp_path) == []


@pytest.mark.slow
def test_one_ctrl_c_stops_cleanly_and_two_end_it_at_once(tmp_path):
    run = make(tmp_path)
    program = FarmProgram(order(run, tmp_path, 0.1), tmp_path / "log")
    try:
        program.start()
        wait_for(run, 1)
        program.interrupt()
        assert program.wait() == 3
        assert wait_for_none(tmp_path) == []
        program.start()
        wait_for(run, 4)
        program.interrupt()
        program.interrupt()
        assert program.wait() in (1, 3)  # 3: it had stopped before the second came
        assert wait_for_none(tmp_path) == []
        assert program.finish() == 0
    finally:
        program.close()
    assert_whole(run)
