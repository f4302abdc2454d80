"""The life of a run: planned, begun, interrupted, gone on with, refused other settings, repaired, enlarged."""

import json
import re
import signal
import time
from pathlib import Path

import pytest

from render_farm.run.folder import Run
from render_farm.shards import open_output, read_rows
from tests.render_farm.broken_assets import cut_off, pillar
from tests.render_farm.cli.commands import SPEC_FLAGS, VIEWS, WORK_FLAGS, Ended, call, start
from tests.render_farm.run.farms import wait_for, wait_for_none

pytestmark = [pytest.mark.blender, pytest.mark.slow]


def uids(run: Path, table: str) -> list[str]:
    return sorted(row["uid"] for row in read_rows(open_output(str(run)), table))


def test_running_again_finds_nothing_to_do(farmed):
    before = {path: path.read_bytes() for path in (farmed.folder / "receipts").iterdir()}
    for more in ((), ("--assets", farmed.models), (*SPEC_FLAGS, "--assets", farmed.models)):
        ended = call("run", farmed.folder, *more, *WORK_FLAGS)
        assert (ended.status, ended.out) == (0, farmed.first.out)
        assert "info: 2 of 3 objects done, 1 failed; none was finished in this session\n" in ended.err
        assert ("info: 3 objects are in this run already and are passed over\n" in ended.err) == bool(more)
    assert {path: path.read_bytes() for path in (farmed.folder / "receipts").iterdir()} == before
    assert Run.open(farmed.folder).next_batch == 1


@pytest.mark.parametrize(
    ("flags", "difference"),
    [
        ((*SPEC_FLAGS[:-1], "2"), "spec.samples = 1, asked for is 2"),
        (("--samples", "2"), "spec.samples = 1, asked for is 2"),
        ((*SPEC_FLAGS, "--light", "area"), 'spec.light.kind = "uniform", asked for is "area"'),
        ((*SPEC_FLAGS, "--fov-deg", "40"), "spec.cameras.fov_deg = null, asked for is 40.0"),
        (("--tiny-coverage", "0.1"), "filters.tiny_coverage = 0.005, asked for is 0.1"),
        (("--shard-objects", "9"), "shard_objects = 256, asked for is 9"),
        (("--out", "/elsewhere"), 'out = "{run}", asked for is "/elsewhere"'),
    ],
)
def test_other_settings_are_refused_by_name(farmed, flags, difference):
    message = (
        f"{farmed.folder}: this run has {difference.format(run=farmed.folder)}; all of a run is made alike: leave that"
    )
    ended = call("run", farmed.folder, *flags)
    assert ended == Ended(1, "", f"error: {message} setting as it was, or choose another folder\n")


def test_plan_then_failures_are_repaired_and_objects_added(tmp_path):
    models, more, run = tmp_path / "models", tmp_path / "more", tmp_path / "run"
    models.mkdir()
    more.mkdir()
    pillar(models / "red.glb")
    cut = cut_off(models)
    named = ("run", run, "--assets", models, *SPEC_FLAGS, *WORK_FLAGS)
    planned = call("plan", *named[1:], "--sample", "1", "--price-per-hour", "2", "--json", "-q")
    estimate = json.loads(planned.out)
    assert (estimate["objects"], estimate["refused"], estimate["sampled"], estimate["sample_failed"]) == (1, 1, 1, 0)
    assert estimate["slots"] == 1
    assert estimate["cost"] == pytest.approx(2 * estimate["hours"])
    assert estimate["objects_per_h"] == pytest.approx(3600 / estimate["slot_s"])
    assert estimate["bytes"] > 0
    assert not list((run / "scratch").iterdir())
    assert not (run / "shards").exists()

    assert call("run", run, *WORK_FLAGS, "-q").status == 0
    assert (uids(run, "objects"), uids(run, "failures")) == (["red"], ["cut_off"])
    sealed = {path: path.read_bytes() for path in (run / "receipts").iterdir()}
    nothing = "nothing to try again: no object failed with "  # what is cut off cannot pass by itself
    assert call("retry", run, "-q").out.startswith(nothing)

    pillar(cut, [0.9, 0.5, 0.1, 1.0])
    ended = call("retry", run, "--reason", "truncated")
    assert ended.out == f"1 object to try again: turntable-farm run {run}\n"
    assert ended.err == "info: 0 objects of open shards, 1 of sealed ones in a new batch\n"
    assert call("retry", run, "--reason", "truncated").out == f"{nothing}truncated; --reason names others\n"
    pillar(more / "blue.glb", [0.1, 0.2, 0.8, 1.0])
    ended = call("run", run, "--assets", more, *WORK_FLAGS)
    assert "info: 1 object added in 1 shard; 0 of them refused before rendering\n" in ended.err
    assert f"info: manifest: 3 objects, {3 * VIEWS} views, 0 failures, 3 shards\n" in ended.err
    assert (uids(run, "objects"), uids(run, "failures")) == (["blue", "cut_off", "red"], [])
    assert call("failures", run) == Ended(0, "no failures\n", "")
    assert {path: path.read_bytes() for path in sealed} == sealed
    assert call("verify", run, "-q") == Ended(0, "all is as it was sealed\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_goes_on(tmp_path, number):
    models, run = tmp_path / "models", tmp_path / "run"
    models.mkdir()
    for index in range(3):
        pillar(models / f"pillar_{index}.glb", [index / 3, 0.5, 0.2, 1.0])
    # a while an object, so that one is finished and others are not when the signal comes
    process = start("run", run, "--assets", models, "--views", "8", "--elevation-deg", "20", "--size", "64", "--samples",
                    "32", *WORK_FLAGS)  # fmt: skip
    while not Run.exists(run) or not Run.open(run).batches:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    wait_for(Run.open(run), 1)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    lines = err.splitlines()
    assert "warning: stopping: what is rendered is kept; once more to end at once" in lines
    assert lines[-1] == "error: stopped: nothing unfinished was left behind; the same command goes on"
    assert wait_for_none(run) == []
    state = json.loads(call("status", run, "--json").out)
    assert 1 <= state["done"] < 3
    assert state["busy"] == 0

    ended = call("run", run, *WORK_FLAGS)
    assert (ended.status, ended.out) == (0, f"{run}/report/index.html\n")
    assert re.search(rf"info: 3 of 3 objects done, 0 failed; {3 - state['done']} in this session", ended.err)
    assert call("verify", run, "-q").status == 0
