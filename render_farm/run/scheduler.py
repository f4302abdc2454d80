"""A farm on one machine: tasks in, sealed shards out, whatever the objects do, and whenever it is killed.

            store (SQLite)                                        +-> finisher --+
    tasks ---> slot: Blender, Blender, ... --> bounded queue -----+-> finisher --+--> staging/ --> sealer --> shards/
                 |  (threads; children)                           (processes)        (fsync, rename)      receipts/
                 +--> refusal -> another attempt, or failed

Shards are worked on in order, so that they seal early and what is staged stays little.
"""

import hashlib
import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from render_farm.blender import WORKER
from render_farm.errors import TRANSIENT, RunError
from render_farm.records import ObjectRecord, Refusal
from render_farm.run.finisher import Finished, FinishJob
from render_farm.run.finishing import FinisherPool
from render_farm.run.folder import Run
from render_farm.run.orphans import end_orphans
from render_farm.run.owner import Owner, hold
from render_farm.run.progress import Rate, Snapshot, Summary
from render_farm.run.recovery import recover
from render_farm.run.room import Room
from render_farm.run.schema import Costs, Lease
from render_farm.run.sealing import Sealer
from render_farm.run.settings import FarmSettings
from render_farm.run.slots import Slot, SlotSettings, Times
from render_farm.run.staging import Staging
from render_farm.run.store import Store, refused
from render_farm.shards.outputs import check_writable, open_output
from render_farm.shards.seal import run_context

__all__ = ["FarmSettings", "run_shards"]

log = logging.getLogger(__name__)

MACHINE = frozenset({"no-gpu", "no-blender"})
"""Reasons that no object is to blame for: the run stops."""
DISK = frozenset({"disk-full", "write-failed"})
TICK_S, PROGRESS_S, DISK_S, SESSION_S = 0.2, 1.0, 1.0, 5.0


def run_shards(
    run: Run,
    shards: Sequence[str] | None,
    settings: FarmSettings,
    *,
    scratch: Path | None = None,
    store_path: Path | None = None,
    worker: tuple[str, ...] = WORKER,
    progress: Callable[[Snapshot], None] | None = None,
    stop: threading.Event | None = None,
    is_trial: bool = False,
) -> Summary:
    """Work on some shards until each of their objects is done or failed and they are sealed. Goes on where it was left.

    Args:
        run: what to render.
        shards: which; None: all.
        settings: how.
        scratch: for temporary files; the run's by default. Only a folder of our own in it is cleared.
        store_path: state; the run's by default. Lock and staging folder lie beside it: a worker of a cluster names one
            on a disk of its own.
        worker: command of the Blender children.
        progress: is told every second, in this thread.
        stop: when set, what is being rendered is left, what is rendered is staged, and the summary returned.
        is_trial: the run is thrown away after it, so that its sealed shards are no news.

    Raises:
        RunError: the folder is held, a shard is not known, the machine cannot render, or shards cannot be sealed.
        KeyboardInterrupt: everything is killed first; nothing that was staged is lost.
    """
    store_path = store_path or run.store_path
    sizes = run.shards()
    names = list(sizes)
    unknown = sorted(set(shards or ()) - set(names))
    if unknown:
        raise RunError(f"{run.folder}: there is no shard {unknown[0]}; this run has {len(names)}"
                       + (f", {names[0]} to {names[-1]}" if names else ": add objects first"))  # fmt: skip
    chosen = names if shards is None else sorted(set(shards))
    with hold(store_path.parent / "lock") as owner:
        output = open_output(run.out_url)
        check_writable(output)
        store = Store(store_path, run.spec)
        try:
            known = store.shard_sizes()
            store.register(run.tasks_of([shard for shard in chosen if known.get(shard) != sizes[shard]]))
            staging = Staging(store_path.parent / "staging")
            recover(store, staging, output, chosen, owner)
            place = (scratch or run.scratch).resolve() / f"farm-{_name_of(store_path)}"
            farm = _Farm(run, chosen, settings, store, staging, place, worker, owner, is_trial=is_trial)
            return farm.work(progress, stop or threading.Event())
        finally:
            store.close()


def _name_of(store_path: Path) -> str:
    """Two farms with one scratch folder have folders of their own in it."""
    return hashlib.blake2b(str(store_path.resolve()).encode(), digest_size=6).hexdigest()


class _Farm:
    """One session: the desk that slots, finishers and sealer come to. All that changes is under one lock."""

    def __init__(
        self, run: Run, shards: list[str], settings: FarmSettings, store: Store, staging: Staging, scratch: Path,
        worker: tuple[str, ...], owner: Owner, *, is_trial: bool,
    ) -> None:  # fmt: skip
        self._run, self._settings, self._store, self._staging, self._owner = run, settings, store, staging, owner
        self._scratch, self._output = scratch, open_output(run.out_url)
        out = [] if "://" in run.out_url else [Path(run.out_url)]
        self._room = Room((scratch, staging.folder.parent, *out), settings.min_free_bytes)
        self._changed = threading.Condition()
        self._halt, self._over, self._paused = threading.Event(), False, ""
        self._fault: Exception | None = None
        sealed = store.sealed_shards()
        self._shards = shards
        self._open_shards = [shard for shard in shards if shard not in sealed]
        self._pending = Counter(store.pending())
        counts = store.counts(set(shards))
        self._open, self._done, self._failed = counts.pending + counts.busy, counts.done, counts.failed
        self._total, self._bytes = counts.total, counts.bytes
        self._rendered, self._attempts, self._reasons = 0, 0, Counter[str]()
        self._begun, self._rate = time.monotonic(), Rate()
        self._worker, self._is_trial = worker, is_trial

    # -------------------------------------------------------------------------------------------- main thread
    def work(self, progress: Callable[[Snapshot], None] | None, stop: threading.Event) -> Summary:
        """Do everything, in threads, and watch over them."""
        end_orphans(self._scratch)
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(parents=True)
        session = self._store.begin_session(self._owner, self._settings.slots)
        self._store.note("started", f"{self._open} of {self._total} objects to do in {len(self._open_shards)} shards")
        self._pool = FinisherPool(
            self._settings.finishers, self._staging, on_done=self._finished, on_broken=self.broken
        )
        context = run_context(self._run.spec, self._run.program or {})
        self._sealer = Sealer(
            self._store, self._staging, self._output, context, on_lost=self._lost, on_sealed=self._sealed,
            give_up=self._halt, news=logging.DEBUG if self._is_trial else logging.INFO,
        )  # fmt: skip
        for shard in [shard for shard in self._open_shards if self._store.is_complete(shard)]:
            self._sealer.submit(shard)
        self._slots = [Slot(i, self._slot_settings(i), self, self._halt) for i in range(self._settings.slots)]
        try:
            self._check_room()
            for slot in self._slots:
                slot.start()
            self._watch(progress, stop, session)
            self._end()
        except BaseException:
            self._kill()
            raise
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)
        summary = self._summary(stopped=stop.is_set() and bool(self._open))
        self._update_session(session)
        self._store.note("stopped" if summary.stopped else "ended", f"{summary.done} done, {summary.failed} failed")
        if progress is not None:
            progress(self._snapshot())
        self._raise_problems(summary)
        return summary

    def _slot_settings(self, slot: int) -> SlotSettings:
        settings = self._settings
        return SlotSettings(
            self._run.spec, self._run.filters, settings.execution, self._scratch, self._staging.folder,
            settings.command(slot, self._worker), settings.recycle_objects, settings.recycle_bytes,
        )  # fmt: skip

    def _watch(self, progress: Callable[[Snapshot], None] | None, stop: threading.Event, session: int) -> None:
        """Until everything is done, or must stop."""
        at = dict.fromkeys(("progress", "disk", "session"), 0.0)
        while not stop.is_set():
            now = time.monotonic()
            if now >= at["disk"]:
                self._check_room()
                at["disk"] = now + DISK_S
            if progress is not None and now >= at["progress"]:
                progress(self._snapshot())
                at["progress"] = now + PROGRESS_S
            if now >= at["session"]:
                self._update_session(session)
                at["session"] = now + SESSION_S
            with self._changed:
                if self._fault or self._sealer.crash or (self._open == 0 and self._sealer.is_idle):
                    return
                self._changed.wait(TICK_S)

    def _end(self) -> None:
        """Let slots go, finishers and sealer finish what they have."""
        self._over = True
        self._halt.set()
        with self._changed:
            self._changed.notify_all()
        for slot in self._slots:
            slot.join()
        self._pool.close()
        self._sealer.close()

    def _kill(self) -> None:
        """At once: the sealer is left behind, whose work can be cut off anywhere."""
        self._over = True
        self._halt.set()
        self._pool.kill()
        for slot in self._slots:
            slot.join()

    def _raise_problems(self, summary: Summary) -> None:
        problem = self._fault or self._sealer.crash
        if problem is not None:
            raise problem
        if self._sealer.failed:
            shard, why = next(iter(self._sealer.failed.items()))
            raise RunError(f"{len(self._sealer.failed)} shards could not be sealed ({shard}: {why}); all that is rendered is "
                           "staged: mend that and run again")  # fmt: skip

    def _check_room(self) -> None:
        short = self._room.shortage()
        with self._changed:
            if short and not self._paused:
                log.warning("paused: %s; the farm then goes on by itself", short)
                self._store.note("paused", short)
            elif self._paused and not short:
                log.warning("there is room again: going on")
                self._store.note("resumed", "")
                self._rate = Rate()
            self._paused = short
            self._changed.notify_all()

    def _snapshot(self) -> Snapshot:
        now = time.monotonic()
        views = tuple(slot.view() for slot in self._slots)
        with self._changed:
            rate = self._rate.per_h(now)
            return Snapshot(
                self._done, self._failed, self._total, rate, 3600 * self._open / rate if rate else None, self._bytes,
                self._pool.busy, len(self._shards) - len(self._open_shards), len(self._shards), self._paused, views,
            )  # fmt: skip

    def _times(self) -> Times:
        times = [slot.times for slot in self._slots]
        return Times(
            sum(each.wall_s for each in times), sum(each.render_s for each in times),
            sum(each.handover_s for each in times), sum(each.idle_s for each in times),
        )  # fmt: skip

    def _update_session(self, session: int) -> None:
        times = self._times()
        self._store.update_session(session, times.wall_s, times.render_s, self._rendered, self._reasons.total())

    def _summary(self, *, stopped: bool) -> Summary:
        times = self._times()
        return Summary(
            self._done, self._failed, self._total, self._rendered, self._attempts, dict(self._reasons),
            len(self._sealer.sealed), tuple(self._open_shards), time.monotonic() - self._begun, times.wall_s,
            times.render_s, times.handover_s, times.idle_s, stopped,
        )  # fmt: skip

    # -------------------------------------------------------------------------------------------- for slots
    def take(self, slot: int, times: Times) -> Lease | None:
        """See Desk."""
        with self._changed:
            while not (self._over or self._halt.is_set() or self._fault):
                if not self._paused and (lease := self._next(slot)) is not None:
                    return lease
                counts, begun = self._open > 0 and not self._paused, time.monotonic()
                self._changed.wait(TICK_S)
                if counts:
                    times.idle_s += time.monotonic() - begun
                    times.wall_s += time.monotonic() - begun
        return None

    def _next(self, slot: int) -> Lease | None:
        shard = next((shard for shard in self._open_shards if self._pending[shard] > 0), None)
        if shard is None:
            return None
        lease = self._store.lease(shard, self._owner, slot)
        assert lease is not None, f"shard {shard} must have {self._pending[shard]} pending tasks, has none"
        self._pending[shard] -= 1
        return lease

    def hand_over(self, lease: Lease, job: FinishJob) -> float:
        """See Desk."""
        self._store.finishing(lease)
        return self._pool.submit(lease, job)

    def release(self, lease: Lease, why: str) -> None:
        """See Desk."""
        with self._changed:
            self._store.release(lease, why)
            self._put_back(lease.task.shard)

    def account(self, lease: Lease, costs: Costs) -> None:
        """See Desk."""
        self._store.costs(lease, costs)

    def broken(self, error: Exception) -> None:
        """See Desk."""
        with self._changed:
            self._fault = self._fault or error
            self._changed.notify_all()

    def refuse(self, lease: Lease, refusal: Refusal, record: ObjectRecord | None = None) -> None:
        """See Desk. `record` holds more than the reason where the object got as far as a finisher."""
        task, attempts = lease.task, lease.attempts + 1
        short = self._room.shortage() if refusal.reason in DISK else ""
        if refusal.reason in MACHINE or short:
            self.release(lease, short or refusal.message)
            if not short:
                self.broken(RunError(f"this machine cannot render: {refusal.message} [{refusal.reason}]"))
            return
        may_pass = refusal.reason in TRANSIENT and lease.attempts < self._settings.retries
        log.info(
            "%s: %s [%s]%s", task.uid, refusal.message, refusal.reason, "; will be tried again" if may_pass else ""
        )
        with self._changed:
            self._attempts += 1
            if may_pass:
                self._store.again(lease, refusal)
                self._put_back(task.shard)
            else:
                self._store.failed(lease, record or refused(task, self._run.spec, refusal, attempts))
                self._failed += 1
                self._reasons[refusal.reason] += 1
                self._settle(task.shard)

    # -------------------------------------------------------------------------------------------- for the others
    def _finished(self, lease: Lease, finished: Finished) -> None:
        record = finished.record
        if record.refusal is not None:
            self.refuse(lease, record.refusal, record)
            return
        with self._changed:
            self._attempts += 1
            self._store.staged(lease, finished.size_bytes)
            self._done += 1
            self._rendered += 1
            self._bytes += finished.size_bytes
            self._settle(lease.task.shard)

    def _settle(self, shard: str) -> None:
        """One more task of a shard is over; with the lock held."""
        self._rate.count(time.monotonic())
        if self._store.is_complete(shard):
            self._sealer.submit(shard)
        self._open -= 1
        self._changed.notify_all()

    def _put_back(self, shard: str) -> None:
        self._pending[shard] += 1
        self._changed.notify_all()

    def _lost(self, shard: str, uid: str) -> None:
        log.warning("%s: its staged folder is gone or damaged; it is rendered again", uid)
        with self._changed:
            self._open += 1
            self._done -= 1
            self._put_back(shard)

    def _sealed(self, shard: str) -> None:
        with self._changed:
            self._open_shards.remove(shard)
            self._store.note("sealed", shard)
            self._changed.notify_all()
