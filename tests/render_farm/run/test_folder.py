"""A run's folder: what is frozen stays, what does not fit is named."""

import dataclasses
import json

import pytest

from render_farm.errors import RunError
from render_farm.records import Filters
from render_farm.run.folder import Run
from render_farm.run.owner import hold
from render_farm.spec import SPEC_VERSION, CameraSpec, Condition, LightSpec, RenderSpec
from tests.render_farm.run.farms import SPEC, fake_tasks

FULL = RenderSpec(
    CameraSpec("custom", places=((0.0, 10.0, 2.0), (90.0, 20.0, 2.5))), LightSpec("area"), Condition(), width=64, height=32, seed=5,
    passes=("normal", "depth"), quality=80,
)  # fmt: skip


@pytest.mark.parametrize("out", [None, "s3://bucket/prefix"])
def test_a_run_comes_back_as_it_was(tmp_path, out):
    filters = Filters(untextured="refuse", licences=("CC0-1.0", "CC-BY*"))
    run = Run.create(tmp_path / "run", FULL, filters, shard_objects=32, out=out)
    again = Run.open(tmp_path / "run")
    assert dataclasses.replace(again, spec=run.spec) == run
    assert again.spec.canonical_json() == FULL.canonical_json()
    assert again.spec.digest == FULL.digest
    assert again.out_url == (out or str(tmp_path / "run"))
    assert again.program is not None
    assert again.program["spec"] == str(SPEC_VERSION)


def test_a_run_may_be_moved(tmp_path):
    Run.create(tmp_path / "run", SPEC, Filters())
    (tmp_path / "run").rename(tmp_path / "moved")
    assert Run.open(tmp_path / "moved").out_url == str(tmp_path / "moved")


def test_batches_are_added_one_after_the_other(tmp_path):
    run = Run.create(tmp_path / "run", SPEC, Filters())
    assert run.tasks() == []
    first = fake_tasks(tmp_path / "assets", ["a", "b", "c"], shard_objects=2)
    run = run.add_batch(first)
    second = fake_tasks(tmp_path / "assets", ["d", "a"], batch=run.next_batch)
    run = run.add_batch(second)
    again = Run.open(tmp_path / "run")
    assert again == run
    assert (again.tasks(0), again.tasks(1), again.tasks()) == (first, second, first + second)
    assert [(b.name, b.objects, b.shards) for b in again.batches] == [("000", 3, 2), ("001", 2, 1)]
    assert again.shards() == {"000-000000": 2, "000-000001": 1, "001-000000": 2}
    assert list(again.tasks_of(["001-000000", "000-000001"])) == [first[2], *second]
    assert list(again.tasks_of([])) == []
    assert again.hashes() == {task.uid: task.sha256 for task in first + second}
    assert again.sizes() == {task.uid: task.size_bytes for task in first + second}
    assert again.newest_tasks([first[0].uid, "none"]).keys() == {first[0].uid}
    with pytest.raises(RunError, match="there is no batch 2; this run has 2"):
        run.tasks(2)


def test_a_batch_is_not_added_behind_anothers_back(tmp_path):
    run = Run.create(tmp_path / "run", SPEC, Filters())
    tasks = fake_tasks(tmp_path / "assets", ["a"])
    run.add_batch(tasks)
    with pytest.raises(RunError, match="objects were added to this run meanwhile; start again"):
        run.add_batch(tasks)
    with pytest.raises(ValueError, match=r"tasks of batch 1 must be in shards 001-\.\.\., got a in 000-000000"):
        Run.open(tmp_path / "run").add_batch(tasks)
    with pytest.raises(ValueError, match="got no tasks"):
        Run.open(tmp_path / "run").add_batch([])
    with hold(run.folder / "lock"), pytest.raises(RunError, match="is held by process"):
        Run.open(tmp_path / "run").add_batch(fake_tasks(tmp_path / "assets", ["b"], batch=1))
    assert len(Run.open(tmp_path / "run").batches) == 1


def test_a_batch_that_was_changed_is_refused(tmp_path):
    run = Run.create(tmp_path / "run", SPEC, Filters()).add_batch(fake_tasks(tmp_path / "assets", ["a"]))
    other = Run.create(tmp_path / "other", SPEC, Filters()).add_batch(fake_tasks(tmp_path / "assets", ["b"]))
    run.batch_path(0).write_bytes(other.batch_path(0).read_bytes())
    with pytest.raises(RunError, match=r"000\.parquet is not the batch that was added to this run"):
        run.tasks()
    run.batch_path(0).unlink()
    with pytest.raises(RunError, match="there is no such batch"):
        run.tasks()


def test_what_is_no_run_is_told(tmp_path):
    with pytest.raises(
        RunError, match=rf"{tmp_path} is not a run: there is no run\.json in it; plan or start one first"
    ):
        Run.open(tmp_path)
    run = Run.create(tmp_path / "run", SPEC, Filters())
    with pytest.raises(RunError, match="holds a run already: go on with it, or choose another folder"):
        Run.create(tmp_path / "run", SPEC, Filters())
    path = run.folder / "run.json"
    whole = path.read_text()
    for broken, message in (
        (whole[:100], "is no description of a run"),
        ("[]", "is no description of a run"),
        (whole.replace("farm-run/1", "farm-run/9"), r"is of format 'farm-run/9', this program reads 'farm-run/1'"),
        (whole.replace('"samples": 1', '"samples": 2'), "the spec was changed by hand"),
        (json.dumps(json.loads(whole) | {"filters": {"licences": [], "colour": "red"}}), "is no description of a run"),
    ):
        path.write_text(broken)
        with pytest.raises(RunError, match=message):
            Run.open(run.folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 4}, "this run has spec.samples = 1, asked for is 4; all of a run is made alike"),
        ({"cameras": CameraSpec(views=6, fov_deg=30.0)}, r"spec\.cameras\.fov_deg = null, asked for is 30\.0"),
        ({"condition": Condition()}, r"spec\.condition = null, asked for is {"),
    ],
)
def test_another_spec_is_refused_by_the_field_that_differs(tmp_path, change, message):
    run = Run.create(tmp_path / "run", SPEC, Filters())
    run.check(SPEC)
    run.check(RenderSpec(), default=RenderSpec())  # nothing is asked for
    with pytest.raises(RunError, match=message):
        run.check(dataclasses.replace(SPEC, **change))


def test_other_settings_are_refused_by_name(tmp_path):
    run = Run.create(tmp_path / "run", SPEC, Filters(licences=("CC0-1.0",)), shard_objects=10)
    run.check(SPEC, filters=Filters(licences=("CC0-1.0",)), shard_objects=10, out=str(tmp_path / "run"))
    with pytest.raises(RunError, match=r'filters\.licences = \["CC0-1\.0"\], asked for is \[\]'):
        run.check(SPEC, filters=Filters())
    run.check(SPEC, filters=Filters(), default=SPEC)  # nothing is asked for
    with pytest.raises(RunError, match=r'filters\.cropped = "flag", asked for is "refuse"'):
        run.check(SPEC, filters=Filters(cropped="refuse"), default=SPEC)
    with pytest.raises(RunError, match="shard_objects = 10, asked for is 11"):
        run.check(SPEC, shard_objects=11)
    with pytest.raises(RunError, match=r'out = ".*run", asked for is "s3://bucket"'):
        run.check(SPEC, out="s3://bucket")
    with pytest.raises(ValueError, match="shard_objects must be at least 1, got 0"):
        Run.create(tmp_path / "new", SPEC, Filters(), shard_objects=0)
    assert not (tmp_path / "new").exists()
