"""One object of a run again: with the run's own spec and filters."""

from collections.abc import Callable
from pathlib import Path

import pytest

from render_farm.catalogue.entry import Entry
from render_farm.catalogue.scan import scan
from render_farm.errors import FarmError
from render_farm.records import Filters, Provenance
from render_farm.run.folder import Run
from render_farm.run.replaying import replay
from render_farm.spec import Execution
from tests.render_farm.run.farms import FAKE_WORKER, SPEC

AT_ONCE = Execution(threads=1)


def run_with(folder: Path, model: Path, filters: Filters) -> Run:
    tasks = scan([Entry("ball", model, Provenance())], SPEC, filters, 0, 256, {})
    return Run.create(folder, SPEC, filters).add_batch(tasks)


def test_filters_are_the_runs(tmp_path: Path, write_ply: Callable[[Path], Path]) -> None:
    """The fake's ball fills no picture: it covers too little for the one run, enough for the other."""
    model = write_ply(tmp_path / "ball.ply")
    strict = run_with(tmp_path / "strict", model, Filters(tiny_coverage=0.9))
    with pytest.raises(FarmError) as caught:
        replay(strict, "ball", tmp_path / "out", execution=AT_ONCE, worker=FAKE_WORKER)
    assert caught.value.reason == "tiny"
    assert not (tmp_path / "out").exists()
    lax = run_with(tmp_path / "lax", model, Filters(tiny_coverage=0.01))
    done = replay(lax, "ball", tmp_path / "out", execution=AT_ONCE, worker=FAKE_WORKER)
    assert [path.name for path in done.paths] == ["ball.ring24.json"]
    assert done.likeness == {}
