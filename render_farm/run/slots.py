"""A slot: one thread that drives one long-lived Blender, task after task, and hands what is rendered to a finisher.

take -> plan_orbits, make_job -> Blender.run -> hand over -> take ...
                                     |
                                     +-> FarmError -> refuse (the desk decides about another attempt)
"""

import logging
import shutil
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from render_farm.blender import Blender, StoppedError
from render_farm.cameras import plan_orbits
from render_farm.errors import FarmError
from render_farm.gather import make_job
from render_farm.process import Event
from render_farm.records import Filters, Refusal
from render_farm.run.finisher import FinishJob
from render_farm.run.progress import SlotView
from render_farm.run.schema import Costs, Lease
from render_farm.spec import Execution, RenderSpec, task_seed

log = logging.getLogger(__name__)

SECOND_FACTOR = 2.0
"""On all deadlines, from the second attempt on."""


@dataclass
class Times:
    """Where a slot's time went, seconds so far."""

    wall_s: float = 0.0
    """With a task, or waiting for one while others still had theirs."""
    render_s: float = 0.0
    """Inside Cycles."""
    handover_s: float = 0.0
    """Waiting for a finisher."""
    idle_s: float = 0.0
    """Without a task."""


@runtime_checkable
class Desk(Protocol):
    """Where slots get their tasks and bring what came of them."""

    def take(self, slot: int, times: Times) -> Lease | None:
        """Wait for a task; None ends the slot. Time without one goes to `times`."""

    def hand_over(self, lease: Lease, job: FinishJob) -> float:
        """Bring rendered pictures; returns the seconds waited for a finisher."""

    def refuse(self, lease: Lease, refusal: Refusal) -> None:
        """Say that an attempt failed."""

    def release(self, lease: Lease, why: str) -> None:
        """Bring a task back that was left through no fault of its own."""

    def account(self, lease: Lease, costs: Costs) -> None:
        """Note what the attempt took."""

    def broken(self, error: Exception) -> None:
        """Say that a bug of ours ended the slot."""


@dataclass(frozen=True)
class SlotSettings:
    """What all slots share."""

    spec: RenderSpec
    """What to render."""
    filters: Filters
    """For the finishers."""
    execution: Execution
    """How."""
    scratch: Path
    """For temporary files; exists."""
    staging: Path
    """For the finishers."""
    worker: tuple[str, ...]
    """Command of the child."""
    recycle_objects: int
    """A Blender that has done so many is replaced."""
    recycle_bytes: int
    """A Blender whose resident memory is above this after an object is replaced; 0: none is."""


class Slot:
    """One thread and its Blender."""

    def __init__(self, number: int, settings: SlotSettings, desk: Desk, halt: threading.Event) -> None:
        """Make it; `start` begins."""
        self.number, self.times = number, Times()
        self._settings, self._desk, self._halt = settings, desk, halt
        self._blender = Blender(settings.execution, settings.scratch / f"slot-{number}", command=settings.worker)
        self._uid, self._seen, self._since = "", ("", ""), time.monotonic()
        self._render_s = self._peak_bytes = 0.0
        self._thread = threading.Thread(target=self._serve, name=f"slot-{number}")

    def start(self) -> None:
        """Begin to take tasks."""
        self._thread.start()

    def join(self) -> None:
        """Wait for its end; its Blender is gone then."""
        self._thread.join()

    def view(self) -> SlotView:
        """Return what it does now. For one thread: it remembers what it saw last."""
        uid = self._uid
        seen, now = (uid, self._blender.stage if uid else "idle"), time.monotonic()
        if seen != self._seen:
            self._seen, self._since = seen, now
        return SlotView(uid, seen[1], now - self._since, self._blender.rss_bytes)

    def _serve(self) -> None:
        try:
            with self._blender:
                while (lease := self._desk.take(self.number, self.times)) is not None:
                    self._attempt(lease)
                    self._recycle()
        except Exception as error:  # noqa: BLE001 - the worker loop: the desk raises it in the main thread
            self._desk.broken(error)

    def _attempt(self, lease: Lease) -> None:
        begun, handover_s = time.monotonic(), 0.0
        self._uid, self._render_s, self._peak_bytes = lease.task.uid, 0.0, 0.0
        # of this attempt alone: once it is given back, another slot may take the task before this folder is gone
        folder = self._settings.scratch / f"object-{lease.attempt}.{lease.task.uid}"
        try:
            job = self._render(lease, folder)
        except StoppedError as error:
            self._desk.release(lease, str(error))
        except FarmError as error:
            self._desk.refuse(lease, Refusal(error.reason, str(error.args[0]), error.stage, error.detail))
        except OSError as error:
            message = f"cannot write to {self._settings.scratch}: {error.strerror}; make room or choose another folder"
            self._desk.refuse(lease, Refusal("write-failed", message, "handing over the job"))
        except Exception as error:  # noqa: BLE001 - the worker loop: an object must not end the farm
            message = f"{type(error).__name__}: {error}; please report this"
            self._desk.refuse(lease, Refusal("internal", message, "planning", traceback.format_exc()))
        else:
            folder = Path()  # the finisher's now
            self._uid = ""
            handover_s = self._desk.hand_over(lease, job)
        finally:
            self._uid = ""
            if folder != Path():
                shutil.rmtree(folder, ignore_errors=True)
        wall_s = time.monotonic() - begun
        self.times.wall_s += wall_s
        self.times.handover_s += handover_s
        self._desk.account(lease, Costs(wall_s, self._render_s, handover_s, int(self._peak_bytes)))

    def _render(self, lease: Lease, folder: Path) -> FinishJob:
        task, settings = lease.task, self._settings
        seed = task_seed(task.sha256, settings.spec)
        planned = plan_orbits(seed, settings.spec)
        folder.mkdir(parents=True, exist_ok=True)
        job = make_job(
            task.key, Path(task.path), task.suffix, planned=planned, seed=seed, spec=settings.spec,
            execution=settings.execution, folder=folder,
        )  # fmt: skip
        result = self._blender.run(
            job, deadline_factor=SECOND_FACTOR if lease.attempts else 1.0, on_event=self._note, stop=self._halt
        )
        return FinishJob(
            task, settings.spec, settings.filters, planned, seed, result, settings.staging, folder, lease.attempts + 1
        )

    def _note(self, event: Event) -> None:
        if event["event"] == "view":
            self._render_s += float(event["render_s"])
            self.times.render_s += float(event["render_s"])
        elif event["event"] == "done":
            self._peak_bytes = float(event["peak_bytes"])

    def _recycle(self) -> None:
        """Blender's memory grows with every import, slowly: a fresh one from time to time keeps it flat."""
        settings, begun = self._settings, time.monotonic()
        is_old = self._blender.jobs_done >= settings.recycle_objects
        if is_old or (settings.recycle_bytes and self._blender.rss_bytes > settings.recycle_bytes):
            log.debug("slot %d: a fresh Blender after %d objects", self.number, self._blender.jobs_done)
            self._blender.close()
        self.times.wall_s += time.monotonic() - begun
