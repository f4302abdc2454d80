"""The estimate: its sample, its arithmetic, and a whole one with the fake worker."""

import logging
from pathlib import Path

import pytest

from render_farm.errors import RunError
from render_farm.records import Refusal
from render_farm.run.folder import Run
from render_farm.run.planning import choose_sample, object_seconds, plan, start_seconds
from render_farm.run.schema import AttemptCost
from render_farm.run.settings import FarmSettings
from render_farm.spec import Execution
from tests.render_farm.run.farms import FAKE_WORKER, fake_run, fake_tasks


def test_the_sample_has_one_object_of_each_stratum() -> None:
    sizes = {f"u{i:02d}": i for i in range(40)}
    assert [sizes[uid] // 4 for uid in choose_sample(sizes, 10)] == list(range(10))
    assert choose_sample(dict(reversed(sizes.items())), 10) == choose_sample(sizes, 10)
    assert len(choose_sample({"u1": 1, "u2": 1, "u3": 0}, 10)) == 3


def test_starts_are_told_from_objects() -> None:
    costs = [
        AttemptCost(0, "a", 6.0, 3.0), AttemptCost(1, "b", 7.0, 4.0),  # each with 2.5 s of start
        AttemptCost(0, "c", 3.5, 3.0), AttemptCost(1, "d", 4.5, 4.0),
        AttemptCost(0, "e", 2.5, 2.0), AttemptCost(1, "e", 2.5, 2.0),  # tried twice
    ]  # fmt: skip
    assert start_seconds(costs) == pytest.approx(2.5)
    assert object_seconds(costs, 2.5) == pytest.approx([3.5, 4.5, 3.5, 4.5, 5.0])
    assert start_seconds(costs[:2]) == 0.0  # nothing to tell it by


def test_a_whole_plan(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    uids = [f"u{i:02d}" for i in range(12)]
    refused = {"u03": Refusal("truncated", "u03.ply: truncated", "scanning")}
    run = fake_run(tmp_path, uids, refused=refused)
    settings = FarmSettings(slots=2, execution=Execution(threads=1), min_free_bytes=0)
    estimate = plan(run, settings, sample=4, price_per_h=2.0, worker=FAKE_WORKER)
    assert (estimate.objects, estimate.refused, estimate.sampled, estimate.sample_failed) == (11, 1, 4, 0)
    assert estimate.objects_per_h == pytest.approx(3600 * 2 / estimate.slot_s)
    assert estimate.hours >= 11 * estimate.slot_s / 2 / 3600
    assert estimate.cost == pytest.approx(2.0 * estimate.hours)
    assert estimate.bytes > 0
    assert "sealed shard" not in caplog.text  # the trial run's own: no news of this one
    assert not list(run.scratch.iterdir())  # the trial run is gone
    assert Run.open(run.folder) == run  # and the run untouched


def test_an_object_that_was_added_again_counts_once(tmp_path: Path) -> None:
    run = fake_run(tmp_path, ["a", "b"], refused={"b": Refusal("truncated", "b.ply: truncated", "scanning")})
    run = run.add_batch(fake_tasks(tmp_path / "mended", ["b"], batch=1))
    assert run.sizes() == {task.uid: task.size_bytes for task in (run.tasks(0)[0], run.tasks(1)[0])}
    estimate = plan(run, FarmSettings(min_free_bytes=0), sample=9, worker=FAKE_WORKER)
    assert (estimate.objects, estimate.refused, estimate.sampled, estimate.sample_failed) == (2, 0, 2, 0)


def test_nothing_to_plan(tmp_path: Path) -> None:
    run = fake_run(tmp_path, ["a"], refused={"a": Refusal("truncated", "a.ply: truncated", "scanning")})
    with pytest.raises(RunError, match="there is nothing to render: 1 objects, all refused before rendering"):
        plan(run, FarmSettings(), worker=FAKE_WORKER)
