"""One long-lived Blender child: a `Job` in, a `JobResult` out, or a `FarmError` that says why not.

    run(job) -> job.json -> its path on the child's stdin
        hello          start_timeout_s       (a fresh child only)
        begin          start_timeout_s
        imported       import_timeout_s
        view 0         first_view_timeout_s  + heartbeat_timeout_s
        view, view...  view_timeout_s each   + heartbeat_timeout_s
        done | error -> the child waits for the next job

Importers hold Python's lock, so that a child cannot give signs of life while it imports; while it renders it must.
"""

import errno
import logging
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from render_farm.conversation import Conversation
from render_farm.errors import FarmError
from render_farm.job import Job
from render_farm.process import EXIT_GRACE_S, Child, Event, StoppedError, child_environment
from render_farm.process_group import ChildEnd, Limits
from render_farm.spec import Execution

__all__ = ["WORKER", "Blender", "JobResult", "StoppedError"]

log = logging.getLogger(__name__)

WORKER = (sys.executable, "-m", "render_farm.worker")
"""The child's command."""
CHANNEL_BYTES, MOST_CHANNELS, PICTURES = 4, 24, 4
"""Of Blender's EXR; a disk that does not hold a few pictures is called full."""
HINTS = {
    "timeout": "raise the time limit or simplify the model",
    "memory": "give it more, or simplify the model",
    "disk-full": "make room, raise the limit or choose another folder",
}


@dataclass(frozen=True)
class JobResult:
    """What a child made of one job. Plain values: may be sent to another process."""

    hello: Event
    """Blender's version, device."""
    imported: Event
    """Facts about the object."""
    done: Event
    """Stage times, memory."""
    views: Mapping[str, tuple[Path, ...]]
    """The EXRs of each orbit, in order, by the orbit's name."""
    render_s: float
    """Seconds inside Cycles, all views."""
    write_s: float
    """Seconds of writing EXRs."""
    wall_s: float
    """From handing over the job, a start of Blender included, until `done`."""


class Blender:
    """A child that is started when it is needed and replaced when it is gone. For one thread at a time."""

    def __init__(
        self,
        execution: Execution,
        scratch: Path,
        *,
        command: tuple[str, ...] = WORKER,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Remember how to start a child; none is started yet.

        Args:
            execution: threads, deadlines, limits.
            scratch: where each child gets a folder of its own for temporary files, gone with it.
            command: the child.
            environment: more variables for it, such as CUDA_VISIBLE_DEVICES.
        """
        self.execution, self.scratch, self.command = execution, scratch, command
        self.environment = dict(environment or {})
        self.jobs_done = 0
        """Jobs that the present child has answered, refusals included."""
        self._child: Child | None = None
        self._folder: Path | None = None
        self._hello: Event = {}

    @property
    def pid(self) -> int | None:
        """Of the child; None while there is none."""
        return None if self._child is None else self._child.pid

    @property
    def rss_bytes(self) -> int:
        """Resident memory of the child and all it started, now."""
        child = self._child
        return 0 if child is None else child.rss_bytes

    @property
    def stage(self) -> str:
        """What the child is doing; '' while there is none, 'waiting' between jobs."""
        child = self._child
        return "" if child is None else child.stage

    def run(
        self,
        job: Job,
        *,
        deadline_factor: float = 1.0,
        on_event: Callable[[Event], None] | None = None,
        stop: threading.Event | None = None,
    ) -> JobResult:
        """Have one job done.

        Args:
            job: what to do; the folders of its EXRs must be there.
            deadline_factor: on all deadlines, for a second attempt or a busy machine.
            on_event: is told begin, imported, view and done; what it raises ends the child.
            stop: when set, the child is ended and StoppedError raised within half a second.

        Raises:
            FarmError: with reason, stage and the end of stderr. After an answer (an `error` event) the child lives on;
                after anything else it is gone, and the next run starts another.
            StoppedError: `stop` was set.
        """
        started = time.monotonic()
        try:
            talk = self._converse(job, deadline_factor, on_event, stop)
        except FarmError as error:
            raise self._explain(error, job) from error
        return JobResult(
            self._hello, talk.imported, talk.done, talk.paths(), talk.render_s, talk.write_s,
            time.monotonic() - started,
        )  # fmt: skip

    def close(self) -> None:
        """End the child, politely first; harmless without one. The next run starts another."""
        if self._child is not None:
            self._child.close_input()
            self._child.end(EXIT_GRACE_S)
        self._discard()

    def __enter__(self) -> "Blender":
        return self

    def __exit__(self, *exception: object) -> None:
        if exception[0] is not None:
            self._discard()
        self.close()

    # -------------------------------------------------------------------------------------------- one job
    def _converse(
        self, job: Job, factor: float, on_event: Callable[[Event], None] | None, stop: threading.Event | None
    ) -> Conversation:
        """Talk about a job; a child that proves dead or deaf before it begins is replaced once, if it was not new."""
        reused = self._child is not None
        talk = Conversation(job, self.execution, factor, self._hello)
        try:
            self._talk(talk, on_event, stop)
        except FarmError as error:
            if not reused or talk.begun or talk.refusal is not None:
                raise
            log.warning("a child was lost between two jobs and is replaced: %s", error)
            talk = Conversation(job, self.execution, factor, {})
            self._talk(talk, on_event, stop)
        return talk

    def _talk(self, talk: Conversation, on_event: Callable[[Event], None] | None, stop: threading.Event | None) -> None:
        try:
            child = self._hand_over(talk.job)
            while not talk.ended:
                child.expect(talk.deadline)
                event = child.next_event(stop)
                if event is None:
                    raise _crash(child.end(EXIT_GRACE_S))
                talk.take(event)
                if event["event"] == "hello":
                    self._hello = event
                elif on_event is not None:
                    on_event(event)
        except BaseException as error:  # Ctrl-C and whatever on_event raises, too: the child is out of step then
            if isinstance(error, FarmError) and not error.detail and self._child is not None:
                error.detail = self._child.kill().tail
            self._discard()
            raise
        child.stage = "waiting"
        self.jobs_done += 1
        if talk.refusal is not None:
            talk.refusal.detail = child.tail
            raise talk.refusal

    def _hand_over(self, job: Job) -> Child:
        """Start a child where there is none, and send it the job."""
        try:
            child = self._child or self._start()
            assert self._folder is not None
            path = self._folder / "job.json"
            job.save(path)
        except OSError as error:
            reason = "disk-full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "write-failed"
            raise FarmError(reason, f"cannot write to {self.scratch}: {error.strerror}; make room or choose another "
                            "folder", stage="handing over the job") from error  # fmt: skip
        child.limits = Limits(
            self.execution.max_memory_bytes, self.execution.max_scratch_bytes, _apart(self._folder, _folders(job))
        )
        child.send(str(path))
        return child

    def _start(self) -> Child:
        self.scratch.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="blender.", dir=self.scratch)).resolve()
        self.jobs_done, self._hello = 0, {}
        env = child_environment(self._folder, self.execution.threads, self.execution.device)
        self._child = Child(self.command, env=env | self.environment)
        return self._child

    def _discard(self) -> None:
        """No child, no temporary files."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        self.jobs_done, self._hello = 0, {}

    # -------------------------------------------------------------------------------------------- what went wrong
    def _explain(self, error: FarmError, job: Job) -> FarmError:
        """Name the object, and the disk where it is full: Blender itself only says that it could not write."""
        reason, message = error.reason, str(error.args[0])
        if reason in ("write-failed", "bad-output", "crash", "internal"):
            full = full_disk((self.scratch, *_folders(job)), job.width, job.height)
            reason, message = ("disk-full", f"{full} ({message})") if full else (reason, message)
        hint = f"; {HINTS[reason]}" if reason in HINTS else ""
        return FarmError(reason, f"{Path(job.asset).name}: {message}{hint}", error.detail, error.stage)


def full_disk(folders: tuple[Path, ...], width: int, height: int) -> str | None:
    """Return 'disk full: ...' if one of the folders that are there has no room for a few pictures of this size."""
    short = PICTURES * CHANNEL_BYTES * MOST_CHANNELS * width * height
    for folder in folders:
        if folder.is_dir() and (free := shutil.disk_usage(folder).free) < short:
            return f"disk full: {free} bytes are free in {folder}"
    return None


def _folders(job: Job) -> tuple[Path, ...]:
    return tuple(sorted({Path(view.path).parent for orbit in job.orbits for view in orbit.views}))


def _apart(*groups: Path | tuple[Path, ...]) -> tuple[Path, ...]:
    """Folders of which none lies inside another, so that no file counts twice."""
    folders = {path.resolve() for group in groups for path in (group if isinstance(group, tuple) else (group,))}
    return tuple(sorted(folder for folder in folders if folders.isdisjoint(folder.parents)))


def _crash(end: ChildEnd) -> FarmError:
    """SIGKILL that we did not send is the kernel's, out of memory."""
    if end.returncode == -signal.SIGKILL and not end.by_us:
        return FarmError(
            "memory", f"Blender {end.how} while {end.stage}, as happens when memory runs out", end.tail, end.stage
        )
    message = f"Blender {end.how} while {end.stage}; see its last words with -v; the model may be broken"
    return FarmError("crash", message, end.tail, end.stage)
