"""Another try for failed objects: those of open shards go back to pending, those of sealed shards into a new batch."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from render_farm.catalogue.entry import Entry
from render_farm.catalogue.scan import scan
from render_farm.errors import TRANSIENT
from render_farm.records import ObjectRecord, Task
from render_farm.run.folder import Run
from render_farm.run.owner import hold
from render_farm.run.store import Store
from render_farm.shards import list_receipts, open_output, read_receipt


@dataclass(frozen=True)
class Retry:
    """What was put up for another try."""

    run: Run
    """As it now is."""
    reset: int
    """Objects of shards that were still open."""
    added: int
    """Objects of sealed shards, now in a batch of their own."""


def latest_fates(run: Run) -> dict[str, ObjectRecord | None]:
    """Return the newest record of each object of the sealed shards that failed, None for one that is done, by uid.

    Receipts are the truth, and of 800,000 objects take twelve minutes to read: of shards that this machine's scheduler
    knows to be sealed, it remembers as much.
    """
    output, known = open_output(run.out_url), dict[str, dict[str, ObjectRecord | None]]()
    if run.store_path.exists():
        store = Store(run.store_path, run.spec)
        try:
            known = store.sealed_fates()
        finally:
            store.close()
    found: dict[str, ObjectRecord | None] = {}
    for shard in list_receipts(output):  # in order: later batches overwrite
        found |= known.get(shard) or {
            record.uid: record if record.outcome == "failed" else None for record in read_receipt(output, shard).records
        }
    return found


def retry(run: Run, reasons: Collection[str] | None, *, workers: int = 4) -> Retry:
    """Put failed objects up for another try.

    Args:
        run: not at work.
        reasons: of their failures; None: those that another attempt may cure.
        workers: threads that look at the files again.

    Raises:
        RunError: a scheduler is at work on the run.
    """
    wanted = TRANSIENT if reasons is None else frozenset(reasons)
    reset = 0
    if run.store_path.exists():
        with hold(run.folder / "lock"):
            store = Store(run.store_path, run.spec)
            try:
                reset = store.retry(wanted)
            finally:
                store.close()
    failed = [
        uid
        for uid, record in latest_fates(run).items()
        if record is not None and record.refusal is not None and record.refusal.reason in wanted
    ]
    tasks = run.newest_tasks(failed)
    waiting = _in_open_shards(run, failed, tasks)
    again = [tasks[uid] for uid in sorted(set(failed) - waiting)]
    if not again:
        return Retry(run, reset, 0)
    entries = [Entry(task.uid, Path(task.path), task.provenance) for task in again]
    batch = scan(
        entries, run.spec, run.filters, run.next_batch, run.shard_objects, run.hashes(), retry=[task.uid for task in again],
        workers=workers,
    )  # fmt: skip
    return Retry(run.add_batch(batch), reset, len(batch))


def _in_open_shards(run: Run, uids: list[str], tasks: dict[str, Task]) -> set[str]:
    """Objects whose newest task is in a shard that is not sealed: a retry of them is under way already."""
    sealed = set(list_receipts(open_output(run.out_url)))
    return {uid for uid in uids if tasks[uid].shard not in sealed}
