"""What a scheduler finds when it starts, put right: the files are the truth, the store follows them.

receipt there                     -> sealed, staged folders of the shard removed
leased by a dead process          -> pending
staged folder there, not marked   -> checked picture by picture, marked; not whole: removed
marked, but no whole folder       -> pending
temporary folders of the dead     -> removed
"""

import logging
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from render_farm.run.owner import Owner
from render_farm.run.staging import Staging
from render_farm.run.store import Store
from render_farm.shards.outputs import Output
from render_farm.shards.receipts import list_receipts, read_receipt

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recovery:
    """What was put right."""

    sealed: tuple[str, ...]
    """Shards whose receipt was there."""
    reopened: tuple[str, ...]
    """Shards that were sealed, and whose receipt is gone: somebody removed it to have them made anew."""
    returned: tuple[str, ...]
    """Uids that a dead process had leased."""
    adopted: tuple[str, ...]
    """Uids that were staged, and are marked now."""
    lost: tuple[str, ...]
    """Uids that were marked, and are pending now."""


def recover(store: Store, staging: Staging, output: Output, shards: Collection[str], owner: Owner) -> Recovery:
    """Make the store agree with the files, for some shards. Call it with the lock held and nothing running.

    Raises:
        RunError: a receipt is damaged.
    """
    staging.clear_stale()
    sealed, reopened = _compare_receipts(store, output, shards)
    returned = store.take_back(owner)
    adopted, lost = _compare_staging(store, staging, shards)
    found = Recovery(sealed, reopened, tuple(returned), tuple(adopted), tuple(lost))
    counts = Counter(
        {name: len(getattr(found, name)) for name in ("sealed", "reopened", "returned", "adopted", "lost")}
    )
    if counts.total():
        log.info("put right: %s", ", ".join(f"{count} {name}" for name, count in counts.items() if count))
        store.note("recovered", str(dict(counts)))
    return found


def _compare_receipts(store: Store, output: Output, shards: Collection[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    known, there = store.sealed_shards() & set(shards), set(list_receipts(output)) & set(shards)
    new, gone = tuple(sorted(there - known)), tuple(sorted(known - there))
    for shard in new:
        store.seal(shard, read_receipt(output, shard).records)
    for shard in gone:
        log.warning("shard %s has no receipt any more: its objects are rendered again", shard)
        store.reopen(shard)
    return new, gone


def _compare_staging(store: Store, staging: Staging, shards: Collection[str]) -> tuple[list[str], list[str]]:
    adopted: list[str] = []
    lost: list[str] = []
    found: dict[str, set[str]] = {shard: set() for shard in store.staged_shards()}
    for shard, uid in staging.find_staged():
        found.setdefault(shard, set()).add(uid)
    sealed = store.sealed_shards()
    for shard in sorted(found.keys() & set(shards)):
        present = found[shard]
        if shard in sealed:
            for uid in present:
                staging.remove(shard, uid)
            continue
        for row in store.rows(shard):
            uid, is_marked = row.task.uid, row.state == "staged"
            if not is_marked and uid not in present:
                continue
            record = staging.record(row.task, thorough=not is_marked)
            if record is None:
                staging.remove(shard, uid)
                if is_marked:
                    store.lost(shard, uid)
                    lost.append(uid)
            elif not is_marked:
                store.adopt(record, staging.size_bytes(shard, uid))
                adopted.append(uid)
    return adopted, lost
