"""Real objects, real Blender, a scheduler that is killed again and again: the manifest is that of an undisturbed run."""

import signal
import time
from pathlib import Path

import numpy as np
import pytest

from render_farm.blender import WORKER
from render_farm.catalogue.entry import Entry
from render_farm.catalogue.scan import scan
from render_farm.records import Filters
from render_farm.run.folder import Run
from render_farm.shards import PIXEL_COLUMNS, RUN_COLUMNS, build_manifest, open_output, read_rows, verify
from render_farm.spec import CameraSpec, RenderSpec
from tests.render_farm.run.farms import FarmOrder, FarmProgram, assert_whole, wait_for_none

OBJECTS = 40
SMALLEST = 160
"""The objects are every fourth of so many: small files, so that time goes into the farm, not into importing."""
VIEWS = 16
KILLS, SEED = 20, 20240
LONGEST_SHARE = 0.6
"""Of the undisturbed run's time: the latest that a session is killed."""
MOST_DONE = 0.9
"""Of the objects, after all kills: a session that has done its share of them is killed soon, however fast the machine."""
SOON_S = 0.3
SPEC = RenderSpec(CameraSpec("hammersley", fit="sphere", views=VIEWS), width=64, height=64, samples=4, denoise="fast")


@pytest.fixture(scope="module")
def objects() -> list[Path]:
    """Models of the folder `shared` beside the repository."""
    folder = Path(__file__).parents[2] / ".." / "shared" / "data" / "objects"
    if not folder.is_dir():
        pytest.skip(f"no real objects: {folder} is not here")
    files = sorted(folder.resolve().glob("*.glb"), key=lambda path: (path.stat().st_size, path.name))[:SMALLEST]
    return files[:: SMALLEST // OBJECTS]


def make(folder: Path, objects: list[Path]) -> tuple[Run, FarmOrder]:
    run = Run.create(folder / "run", SPEC, Filters(), shard_objects=5)
    run = run.add_batch(scan([Entry(path.stem, path) for path in objects], SPEC, Filters(), 0, run.shard_objects, {}))
    settings = {"slots": 2, "min_free_bytes": 0}
    return run, FarmOrder(str(run.folder), settings, {"threads": 1}, worker=WORKER)


def tables(run: Run) -> dict[str, list[dict[str, object]]]:
    """The manifest's rows without what pixels and clocks decide."""
    output = open_output(run.out_url)
    build_manifest(output)
    left_out = {name: {*PIXEL_COLUMNS[name], *RUN_COLUMNS[name]} for name in PIXEL_COLUMNS}
    return {
        table: [{name: value for name, value in row.items() if name not in left_out[table]} for row in read_rows(output, table)]
        for table in left_out
    }  # fmt: skip


def kill_at_work(program: FarmProgram, run: Run, longest_s: float) -> int:
    """Kill sessions at random points, not later than at their share of the work; return how many were still at it."""
    rng, sizes = np.random.default_rng(SEED), run.shards()
    hit = 0
    for kill in range(KILLS):
        most = MOST_DONE * OBJECTS * (kill + 1) / KILLS
        program.start()
        until = time.monotonic() + float(rng.uniform(0.0, longest_s))
        while time.monotonic() < until and count_done(run, sizes) < most:
            time.sleep(0.02)
        time.sleep(float(rng.uniform(0.0, SOON_S)))
        hit += program.kill() == -signal.SIGKILL
    return hit


def count_done(run: Run, sizes: dict[str, int]) -> int:
    """Objects of sealed shards, and those that are staged."""
    sealed = sum(sizes[path.stem] for path in (run.folder / "receipts").glob("[0-9]*.json"))
    return sealed + sum(not path.name.startswith(".") for path in (run.folder / "staging").glob("*"))


@pytest.mark.blender
@pytest.mark.slow
def test_killed_at_twenty_points_it_is_the_same_run(tmp_path, objects):
    (run, order), (other, undisturbed) = make(tmp_path / "killed", objects), make(tmp_path / "undisturbed", objects)
    log = tmp_path / "log"
    program, reference = FarmProgram(order, log), FarmProgram(undisturbed, log)
    try:
        began = time.monotonic()
        assert reference.finish() == 0, log.read_text()[-3000:]
        whole_s = time.monotonic() - began
        hit = kill_at_work(program, run, LONGEST_SHARE * whole_s)
        left = wait_for_none(run.folder)
        assert program.finish() == 0, log.read_text()[-3000:]
    finally:
        program.close()
        reference.close()
    assert left == []
    assert hit >= KILLS * 3 // 4, f"only {hit} of {KILLS} kills met a session at work"
    assert_whole(run)
    found, expected = tables(run), tables(other)
    for table in expected:
        assert found[table] == expected[table]
    assert len(expected["objects"]) + len(expected["failures"]) == OBJECTS
    assert len(expected["views"]) == VIEWS * len(expected["objects"])
    assert len(expected["objects"]) > OBJECTS * 3 // 4
    assert verify(open_output(run.out_url), run.folder) == []
    assert wait_for_none(tmp_path) == []
