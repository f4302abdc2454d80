"""What became of each object: from receipts, and without them where this machine's scheduler remembers."""

from dataclasses import replace
from pathlib import Path

import pytest

from render_farm.cli.work.looking import failed_records, status
from render_farm.records import Filters, Refusal
from render_farm.run import retrying
from render_farm.run.folder import Run
from render_farm.run.retrying import latest_fates
from render_farm.run.store import Store
from render_farm.shards import open_output
from tests.render_farm.staged import SPEC, Ball, seal

TIMEOUT = Refusal("timeout", "no picture for 300 s", "rendering view 3", "...")
FIRST = (Ball("a"), Ball("b", refusal=TIMEOUT), Ball("c", refusal=TIMEOUT), Ball("d", shard="000-000001"))
AGAIN = (replace(Ball("b"), shard="001-000000"), Ball("e", shard="001-000001"))
"""b was tried again and is done; nothing of e is."""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run.create(tmp_path / "run", SPEC, Filters()).add_batch([ball.task for ball in FIRST])
    run = run.add_batch([ball.task for ball in AGAIN])
    seal(open_output(run.out_url), tmp_path / "staged", *FIRST, AGAIN[0])
    return run


def remember(run: Run, *balls: Ball) -> None:
    """As the scheduler of this machine does when it has sealed their shards."""
    store = Store(run.store_path, run.spec)
    store.register([ball.task for ball in balls])
    for shard in sorted({ball.shard for ball in balls}):
        store.seal(shard, [ball.record() for ball in balls if ball.shard == shard])
    store.close()


def test_the_newest_counts(run: Run) -> None:
    assert latest_fates(run) == {"a": None, "b": None, "c": FIRST[2].record(), "d": None}
    assert failed_records(run) == [FIRST[2].record()]


@pytest.mark.parametrize(
    ("known", "read"),
    [((), ["000-000000", "000-000001", "001-000000"]), (FIRST, ["001-000000"]), ((*FIRST, AGAIN[0]), [])],
)
def test_what_the_store_knows_is_not_read_again(run: Run, monkeypatch: pytest.MonkeyPatch, known, read) -> None:
    expected = latest_fates(run)
    if known:
        remember(run, *known)
    asked: list[str] = []
    read_receipt = retrying.read_receipt
    monkeypatch.setattr(retrying, "read_receipt", lambda out, shard: asked.append(shard) or read_receipt(out, shard))
    assert latest_fates(run) == expected
    assert asked == read
    found = status(run)
    assert {name: found[name] for name in ("objects", "batches", "shards", "sealed", "sealed_done", "sealed_failed")} == {
        "objects": 5, "batches": 2, "shards": 4, "sealed": 3, "sealed_done": 3, "sealed_failed": 1,
    }  # fmt: skip
    assert found["reasons"] == {"timeout": 1}


def test_a_receipt_that_was_removed_counts_no_more(run: Run) -> None:
    remember(run, *FIRST)
    (Path(run.out_url) / "receipts" / "000-000000.json").unlink()
    assert latest_fates(run) == {"d": None, "b": None}
