"""One scheduler, three workers that know nothing of each other, a Ray cluster: the same shards, cameras and manifest."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from engine.files import write_bytes
from render_farm.engines.places import claim_place, leave_claim, run_name, worker_place
from render_farm.engines.slurm import all_shards, chosen_shards
from render_farm.run.folder import Run
from render_farm.run.owner import hold
from render_farm.run.scheduler import run_shards
from render_farm.shards import PIXEL_COLUMNS, RUN_COLUMNS, build_manifest, open_output
from render_farm.shards.manifest import table_name
from tests.render_farm.engines.objects import SETTINGS, make, started, wait_until, worker
from tests.render_farm.run.farms import assert_same, assert_whole, receipts, records, wait_for_none

FAILED = {"b_1": "no-triangles", "b_4": "crash", "a_2": "blank", "a_5": "bad-output", "b_3": "licence"}
ROOT = str(Path(__file__).parents[3])


def alone(folder: Path) -> Run:
    run = make(folder)
    run_shards(run, None, SETTINGS, worker=worker(folder))
    return run


def in_shares(folder: Path, parts: int = 3) -> Run:
    run = make(folder)
    for index in range(parts):
        place = folder / "disks" / str(index)
        share = chosen_shards(run, f"{index}/{parts}")
        run_shards(run, share, SETTINGS, scratch=place, store_path=place / "state.sqlite", worker=worker(folder))
    return run


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return alone(tmp_path_factory.mktemp("alone"))


def tables(run: Run) -> dict[str, list[dict[str, Any]]]:
    """The manifest's rows without what may differ, in the order in which they lie there."""
    build_manifest(open_output(run.out_url))
    return {
        name: pq.read_table(Path(run.out_url) / table_name(name))
        .drop_columns(sorted({*PIXEL_COLUMNS[name], *RUN_COLUMNS[name]}))
        .to_pylist()
        for name in PIXEL_COLUMNS
    }


def assert_equal_runs(run: Run, reference: Run) -> None:
    assert_same(run, reference)
    for name in ("shards", "receipts"):
        found = [sorted(path.name for path in (Path(each.out_url) / name).iterdir()) for each in (run, reference)]
        assert found[0] == found[1]
    assert camera_bytes(run) == camera_bytes(reference)
    mine, theirs = tables(run), tables(reference)
    for name in theirs:
        assert mine[name] == theirs[name], name
    assert {row["uid"] for row in mine["failures"]} == FAILED.keys()
    assert len(mine["views"]) == 6 * len(mine["objects"]) == 6 * (12 - len(FAILED))


def camera_bytes(run: Run) -> dict[str, bytes]:
    """Every orbit's json as it lies in its tar."""
    found = {}
    for receipt in receipts(run):
        for sample in receipt.samples:
            member = next(member for member in sample.members if member.name == f"{sample.name}.json")
            assert receipt.tar is not None
            found[f"{receipt.shard}/{member.name}"] = open_output(run.out_url).get_range(
                receipt.tar, member.offset, member.size
            )
    return found


def test_the_reference_has_done_and_failed_objects(reference: Run) -> None:
    assert_whole(reference)
    found = {uid: record.refusal for (_, uid), record in records(reference).items() if record.refusal is not None}
    assert {uid: refusal.reason for uid, refusal in found.items()} == FAILED


def test_three_workers_with_disks_of_their_own(reference: Run, tmp_path: Path) -> None:
    run = in_shares(tmp_path)
    assert started(tmp_path)
    assert wait_for_none(tmp_path) == []
    assert_whole(run)
    assert_equal_runs(run, reference)


@pytest.mark.slow
def test_a_ray_cluster(reference: Run, tmp_path: Path, cluster: Any) -> None:
    from render_farm.engines.ray_cluster import run_on_ray

    run = make(tmp_path)
    reports = run_on_ray(run, SETTINGS, scratch=tmp_path / "disk", worker=worker(tmp_path))
    assert sorted(report.shard for report in reports) == all_shards(run)
    assert sum(report.done for report in reports) == 12 - len(FAILED)
    assert sum(report.failed for report in reports) == len(FAILED)
    assert_whole(run)
    assert_equal_runs(run, reference)
    assert list((tmp_path / "disk").iterdir()) == []
    assert wait_for_none(tmp_path) == []


# ------------------------------------------------------------------------------------------------ a killed worker
PROGRAM = """\
import sys
from pathlib import Path
from render_farm.engines.places import leave_place, worker_place
from render_farm.engines.slurm import chosen_shards
from render_farm.run.folder import Run
from render_farm.run.scheduler import run_shards
from tests.render_farm.engines.objects import SETTINGS, worker

folder, base, view_s = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
run = Run.open(folder / "run")
place = worker_place(run, base, "0/1")
run_shards(run, chosen_shards(run, "0/1"), SETTINGS, scratch=place, store_path=place / "state.sqlite",
           worker=worker(folder, view_s=view_s))
leave_place(place)
"""


def start(folder: Path, base: Path, view_s: float) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder), str(base), str(view_s)], cwd=ROOT)


@pytest.mark.slow
def test_a_killed_worker_goes_on(reference: Run, tmp_path: Path) -> None:
    run, base = make(tmp_path), tmp_path / "disk"
    process = start(tmp_path, base, 0.1)
    place = worker_place(run, base, "0/1")
    wait_until(lambda: len(staged(place)) + len(records(run)) >= 5)
    process.kill()
    assert process.wait(10) == -signal.SIGKILL
    assert wait_for_none(tmp_path) == []
    assert len(records(run)) < 12
    before = {path.name: path.read_bytes() for path in (run.folder / "receipts").iterdir()}
    assert start(tmp_path, base, 0.0).wait(120) == 0
    assert_whole(run)
    assert_equal_runs(run, reference)
    assert before.items() <= {path.name: path.read_bytes() for path in (run.folder / "receipts").iterdir()}.items()
    assert list(base.iterdir()) == []


def staged(place: Path) -> list[Path]:
    return [path for path in (place / "staging").glob("*") if not path.name.startswith(".")]


# ------------------------------------------------------------------------------------------------ places
def test_runs_do_not_share_places(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one"), make(tmp_path / "two")
    assert one.spec == two.spec
    assert worker_place(one, tmp_path, "0/3") != worker_place(two, tmp_path, "0/3")
    assert worker_place(one, tmp_path, "0/3") != worker_place(one, tmp_path, "1/3")
    assert worker_place(Run.open(one.folder), tmp_path, "0/3") == worker_place(one, tmp_path, "0/3")


def test_an_attempt_takes_over_what_a_dead_one_left(tmp_path: Path) -> None:
    run, base = make(tmp_path), tmp_path / "disk"
    dead, foreign, starting = (claim_place(run, base, shard) for shard in ("000-000001", "000-000002", "000-000001"))
    for place in (dead, foreign):
        with hold(place / "lock"):
            write_bytes(place / "staged", place.name.encode())
    write_bytes(starting / "staged", b"by one that has no lock yet")
    with hold(claim_place(run, base, "000-000003") / "lock"):  # it sweeps: foreign and dead are nobody's
        assert not foreign.exists()
        assert not dead.exists()
    assert (starting / "staged").exists()


def test_staged_objects_move_to_the_next_attempt_only(tmp_path: Path) -> None:
    run, base = make(tmp_path), tmp_path / "disk"
    dead = claim_place(run, base, "000-000001")
    with hold(dead / "lock"):
        write_bytes(dead / "staged", b"objects")
        living = claim_place(run, base, "000-000001")
        assert list(living.iterdir()) == []  # its holder lives
    heir = claim_place(run, base, "000-000001")
    assert (heir / "staged").read_bytes() == b"objects"
    assert not (heir / "lock").exists()
    assert sorted((base / run_name(run)).iterdir()) == sorted([living, heir])
    leave_claim(heir)
    assert (base / run_name(run)).exists()
    leave_claim(living)
    assert list(base.iterdir()) == []
