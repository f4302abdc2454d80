"""Shards whose last object is in become tars, one after the other, in the background.

    complete shard -> records and staged folders -> seal_shard -> receipt -> store -> staged folders removed

Killed between any two of these steps, the next scheduler goes on from what is there.
"""

import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.errors import OrbitError, TurntableError
from render_farm.records import ObjectRecord, Task
from render_farm.run.staging import Staging
from render_farm.run.store import Store
from render_farm.shards.outputs import Output
from render_farm.shards.seal import seal_shard

log = logging.getLogger(__name__)

RETRY_S = (1.0, 5.0, 20.0, 60.0)
"""Waits before a shard that could not be sealed (network, full disk) is tried again; then it is left to the next run."""


class Sealer:
    """One thread that seals shards in the order in which they are complete."""

    def __init__(
        self, store: Store, staging: Staging, output: Output, context: Mapping[str, Any], *,
        on_lost: Callable[[str, str], None], on_sealed: Callable[[str], None], give_up: threading.Event,
        news: int = logging.INFO,
    ) -> None:  # fmt: skip
        """Start.

        Args:
            store: is told.
            staging: where the objects are.
            output: where the shards go.
            context: of the run, for receipts.
            on_lost: is told shard and uid of an object whose staged folder is not whole: it is pending again.
            on_sealed: is told each shard.
            give_up: when set, what has failed is not tried again.
            news: level at which sealed shards are logged.
        """
        self.sealed: list[str] = []
        self.failed: dict[str, str] = {}
        """Shards that could not be sealed, and why."""
        self.crash: BaseException | None = None
        """A bug of ours, for the main thread to raise."""
        self._store, self._staging, self._output, self._context = store, staging, output, context
        self._on_lost, self._on_sealed, self._give_up, self._news = on_lost, on_sealed, give_up, news
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._serve, name="sealer", daemon=True)
        self._thread.start()

    def submit(self, shard: str) -> None:
        """Queue a shard that is complete."""
        self._queue.put(shard)

    @property
    def is_idle(self) -> bool:
        """Nothing is queued or being sealed."""
        return self._queue.unfinished_tasks == 0

    def close(self) -> None:
        """Seal what is queued, and end."""
        self._queue.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while (shard := self._queue.get()) is not None:
            try:
                if self.crash is None:
                    self._seal(shard)
            except Exception as error:  # noqa: BLE001 - handed to the main thread, which raises it
                self.crash = error
            finally:
                self._queue.task_done()

    def _seal(self, shard: str) -> None:
        for wait_s in (*RETRY_S, None):
            try:
                if self._seal_once(shard):
                    self._on_sealed(shard)
                return
            except (TurntableError, OSError) as error:
                if wait_s is None or self._give_up.is_set():
                    log.error("shard %s cannot be sealed: %s; what is staged stays, run again", shard, error)
                    self._store.note("unsealed", f"{shard}: {error}")
                    self.failed[shard] = str(error)
                    return
                log.warning("shard %s cannot be sealed: %s; trying again in %g s", shard, error, wait_s)
                self._give_up.wait(wait_s)

    def _seal_once(self, shard: str) -> bool:
        """Seal it, unless an object proves to be lost."""
        rows, records, staged, lost = self._store.rows(shard), [], {}, []
        for row in rows:
            record: ObjectRecord | None = row.record
            if row.state == "staged":
                record = self._staging.record(row.task, thorough=False)
                staged[row.task.uid] = self._staging.path(shard, row.task.uid)
            if record is None:
                lost.append(row.task.uid)
            else:
                records.append(record)
        if lost:
            self._lose(shard, lost)
            return False
        try:
            receipt = seal_shard(self._output, shard, records, staged, context=self._context)
        except OrbitError:  # a staged picture has rotted since: look for it, and have its object rendered again
            rotten = [row.task.uid for row in rows if row.task.uid in staged and self._is_rotten(row.task)]
            if not rotten:
                raise
            self._lose(shard, rotten)
            return False
        self._store.seal(shard, receipt.records)
        for uid in staged:
            self._staging.remove(shard, uid)
        self.sealed.append(shard)
        log.log(self._news, "sealed shard %s: %d objects, %d bytes", shard, len(receipt.records), receipt.bytes)
        return True

    def _lose(self, shard: str, uids: Sequence[str]) -> None:
        for uid in uids:
            self._staging.remove(shard, uid)
            self._store.lost(shard, uid)
            self._on_lost(shard, uid)

    def _is_rotten(self, task: Task) -> bool:
        return self._staging.record(task, thorough=True) is None
