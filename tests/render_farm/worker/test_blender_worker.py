"""The long-lived child: its protocol, and that one object leaves nothing behind for the next."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.blender

STAGES = {"reset_s", "import_s", "measure_s", "materials_s", "setup_s", "render_s", "write_s"}
OBJECTS = Path(__file__).parents[3] / ".." / "shared" / "data" / "objects"


def test_protocol(worker: Any, make_cameras: Any, box_glb: Path) -> None:
    assert worker.hello["event"] == "hello"
    assert worker.hello["device"] == "CPU"
    assert worker.hello["pid"] == worker.child.pid
    assert worker.hello["blender"].split(".")[0].isdigit()
    outcome = worker.run(box_glb, make_cameras((0.0, 90.0), name="one"), make_cameras((45.0,), name="two"))
    kinds = [event["event"] for event in outcome.events if event["event"] != "heartbeat"]
    assert kinds == ["begin", "imported", "view", "view", "view", "done"]
    assert len({event["key"] for event in outcome.events if "key" in event}) == 1
    views = [event for event in outcome.events if event["event"] == "view"]
    assert [(view["orbit"], view["index"]) for view in views] == [("one", 0), ("one", 1), ("two", 0)]
    assert all(Path(view["path"]).stat().st_size > 0 for view in views)
    done = outcome.only("done")
    assert set(done["stages"]) == STAGES
    for name in ("render_s", "write_s"):
        assert done["stages"][name] == pytest.approx(sum(view[name] for view in views))
    assert done["peak_bytes"] >= done["rss_bytes"] > 50e6
    assert done["cpu_s"] > 0
    assert outcome.facts["device"] == "CPU"


def test_it_goes_on_after_errors(worker: Any, box_glb: Path, tmp_path: Path) -> None:
    broken = tmp_path / "job.json"
    broken.write_text("{")
    error = worker.send(broken).error
    assert (error["reason"], error["stage"], error["key"]) == ("internal", "reading the job", "")
    points = tmp_path / "points.obj"
    points.write_text("v 0 0 0\nv 1 0 0\n")
    error = worker.run(points).error
    assert (error["reason"], error["stage"]) == ("no-triangles", "posing and measuring")
    nonsense = tmp_path / "nonsense.glb"
    nonsense.write_bytes(b"glTF" + bytes(40))
    error = worker.run(nonsense).error
    assert (error["reason"], error["stage"]) == ("import-failed", "importing")
    job = worker.job(box_glb)
    folder = Path(job.orbits[0].views[0].path).parent
    folder.rmdir()
    folder.write_text("a file where a folder should be")
    path = worker.folder / "gone.json"
    job.save(path)
    error = worker.send(path).error
    assert error["reason"] == "write-failed"
    assert error["stage"] == "writing test view 0"
    assert worker.run(box_glb).only("done")


def test_heartbeats_tell_stage_and_memory(worker: Any, box_glb: Path) -> None:
    for samples in (512, 2048, 8192, 32768):  # until a picture takes longer than two beats
        outcome = worker.run(box_glb, width=2048, height=2048, samples=samples)
        if outcome.only("done")["stages"]["render_s"] > 4.5:
            break
    beats = [event for event in outcome.events if event["event"] == "heartbeat"]
    assert len(beats) >= 2  # also while Cycles renders
    assert {beat["stage"] for beat in beats} <= {"rendering test view 0", "writing test view 0", "waiting", "importing"}
    assert all(beat["rss_bytes"] > 50e6 for beat in beats)


def test_threads_are_as_many_as_asked_for(worker: Any, box_glb: Path) -> None:
    """Two, as OMP_NUM_THREADS says; idle ones that spin would show as CPU time."""
    if (os.cpu_count() or 1) < 4:
        pytest.skip("needs four cores to tell")
    done = worker.run(box_glb, width=256, height=256, samples=64, denoise="fast").only("done")
    wall_s = sum(done["stages"].values())
    assert done["cpu_s"] < 2.3 * wall_s  # as many as there are cores otherwise


def test_it_ends_with_stdin(start_worker: Callable[[], Any], box_glb: Path) -> None:
    child = start_worker()
    assert child.run(box_glb).only("done")
    assert child.close() == 0


def test_nothing_leaks_into_the_next_object(
    start_worker: Callable[[], Any], worker: Any, moving: Path, box_glb: Path, make_cameras: Any
) -> None:
    """What a fresh child renders, and one that has seen scenes, lamps, skies and node groups, are the same bytes."""
    fresh = start_worker().run(box_glb)
    area = {"kind": "area", "strength": 1.0, "sky": 0.2, "lamps": [
        {"azimuth_deg": 0.0, "elevation_deg": 30.0, "distance_m": 3.0, "size_m": 1.0, "power_w": 200.0,
         "temperature_k": 3000.0}]}  # fmt: skip
    for name in ("instancer", "shaders", "skinned", "nla"):
        assert worker.run(moving / f"{name}.blend", lights=[area]).only("done")
    used = worker.run(box_glb)
    ignored = {"key"}
    assert {k: v for k, v in used.facts.items() if k not in ignored} == {
        k: v for k, v in fresh.facts.items() if k not in ignored
    }
    one, two = fresh.channels()[0], used.channels()[0]
    assert set(one) == set(two)
    for name, pixels in one.items():
        np.testing.assert_array_equal(pixels, two[name], err_msg=name)


@pytest.mark.slow
def test_memory_stays_flat(start_worker: Callable[[], Any]) -> None:
    objects = sorted(OBJECTS.glob("*.glb"))[:6]
    if not objects:
        pytest.skip(f"no real objects in {OBJECTS}")
    child = start_worker()
    rss = [child.run(objects[index % 6]).only("done")["rss_bytes"] for index in range(60)]
    # the same six objects ten times: what is left over from one would add up
    assert rss[-1] < 1.05 * rss[9], [value >> 20 for value in rss]


def test_job_file_holds_plain_json(worker: Any, box_glb: Path, tmp_path: Path) -> None:
    job = worker.job(box_glb)
    job.save(tmp_path / "job.json")
    assert type(job).load(tmp_path / "job.json") == job
    assert json.loads((tmp_path / "job.json").read_text())["policy"]["frame"] == "first"
