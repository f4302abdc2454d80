"""The pool of finishers: rendered objects in, staged ones out, while the Blenders are at their next ones.

    slots -> bounded queue -> thread + process, thread + process, ... -> on_done(lease, Finished)

A full queue makes the slots wait, so that EXRs never pile up. A finisher that dies or hangs is replaced and its object
given to the new one; an object that ends two of them is failed.
"""

import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import Pipe

from render_farm.process import LEASH, python_path
from render_farm.records import Refusal
from render_farm.run.finisher import Finished, FinishJob, describe, failed
from render_farm.run.schema import Lease
from render_farm.run.staging import Staging

log = logging.getLogger(__name__)

FINISHER = ("-c", "import sys; from render_farm.run.finisher import main; main(sys.argv[1:])")
"""Not -m: what is pickled must come from a module of the same name on both sides."""
TRIES = 2
TIMEOUT_S = 600.0
"""For one object: 100 pictures of 1024 pixels take a minute."""
POLL_S, EXIT_GRACE_S = 0.5, 2.0


@dataclass(frozen=True)
class Ticket:
    """One object in the queue."""

    lease: Lease
    """The attempt it belongs to."""
    job: FinishJob
    """What to do."""


class FinisherPool:
    """Finishers, each a process with a thread that feeds it. The thread starts it: the leash hangs on the thread."""

    def __init__(
        self, count: int, staging: Staging, *, on_done: Callable[[Lease, Finished], None],
        on_broken: Callable[[Exception], None], timeout_s: float = TIMEOUT_S, command: tuple[str, ...] = FINISHER,
    ) -> None:  # fmt: skip
        """Start.

        Args:
            count: how many.
            staging: where what dead finishers left is cleared away.
            on_done: is told what came of each object, in the finishers' threads.
            on_broken: is told of a bug of ours that ends a thread.
            timeout_s: for one object.
            command: the process, without the interpreter and the pipe.
        """
        self._command = command
        self._on_broken = on_broken
        self._staging, self._on_done, self._timeout_s = staging, on_done, timeout_s
        self._queue: queue.Queue[Ticket | None] = queue.Queue(maxsize=2 * count)
        self._killed = threading.Event()
        self._children: dict[int, _Child] = {}
        self._threads = [threading.Thread(target=self._serve, args=(i,), name=f"finisher-{i}") for i in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, lease: Lease, job: FinishJob) -> float:
        """Queue an object; waits while the queue is full. Returns the seconds waited."""
        begun = time.monotonic()
        while not self._killed.is_set():
            try:
                self._queue.put(Ticket(lease, job), timeout=POLL_S)
                break
            except queue.Full:
                continue
        return time.monotonic() - begun

    @property
    def busy(self) -> int:
        """How many objects are queued or being finished."""
        return self._queue.unfinished_tasks

    def close(self) -> None:
        """Finish what is queued, then end the processes."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def kill(self) -> None:
        """End everything at once; what was queued is lost to this process and found again by `recover`."""
        self._killed.set()
        for child in list(self._children.values()):
            child.kill()
        for thread in self._threads:
            thread.join()

    def _serve(self, number: int) -> None:
        try:
            self._children[number] = _Child(self._command)  # it imports while the first Blender does
        except OSError as error:  # no more processes or files; the first object tries once more
            log.warning("a finisher cannot be started: %s", error)
        try:
            while not self._killed.is_set():
                try:
                    ticket = self._queue.get(timeout=POLL_S)
                except queue.Empty:
                    continue
                try:
                    if ticket is None:
                        return
                    self._handle(number, ticket)
                finally:
                    self._queue.task_done()
        finally:
            child = self._children.pop(number, None)
            if child is not None:
                child.close()

    def _handle(self, number: int, ticket: Ticket) -> None:
        """A bug of ours must neither end the thread, which the queue waits for, nor go unseen."""
        try:
            finished = self._finish(number, ticket.job)
            if not self._killed.is_set():
                self._on_done(ticket.lease, finished)
        except Exception as error:  # noqa: BLE001 - the worker loop: raised in the main thread
            self._on_broken(error)

    def _finish(self, number: int, job: FinishJob) -> Finished:
        """Ask this thread's process, or its successor."""
        refusal = Refusal("crash", "no finisher was tried", "finishing")
        for _ in range(TRIES):
            child = self._children.get(number)
            if child is None:
                child = self._children[number] = _Child(self._command)
            try:
                return child.ask(job, self._timeout_s)
            except TimeoutError:
                child.kill()
                refusal = Refusal("timeout", f"converting pictures took more than {self._timeout_s:g} s", "finishing")
            except (EOFError, OSError):
                refusal = Refusal("crash", f"the process that converts pictures {_ending(child.close())}", "finishing")
            del self._children[number]
            if self._killed.is_set():
                break
            log.warning("%s: %s; trying once more", job.task.uid, refusal.message)
            self._staging.clear_stale()
        shutil.rmtree(job.folder, ignore_errors=True)
        return Finished(failed(describe(job), refusal))


class _Child:
    """One finisher process."""

    def __init__(self, command: tuple[str, ...]) -> None:
        self._pipe, theirs = Pipe()
        with theirs:
            # Its own group: Ctrl-C in a terminal reaches us alone, and we decide.
            self._process = subprocess.Popen(
                [sys.executable, "-S", str(LEASH), str(os.getpid()), sys.executable, *command, str(theirs.fileno())],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                env=_environment(), start_new_session=True,
            )  # fmt: skip

    def ask(self, job: FinishJob, timeout_s: float) -> Finished:
        """Raises EOFError or OSError when it died, TimeoutError when it hangs."""
        self._pipe.send(job)
        if not self._pipe.poll(timeout_s):
            raise TimeoutError
        answer: Finished = self._pipe.recv()
        return answer

    def kill(self) -> int:
        """End it and return its exit status."""
        self._process.kill()
        return self._process.wait()

    def close(self) -> int:
        """Let it end by itself, for a moment; returns its exit status."""
        self._pipe.close()
        try:
            return self._process.wait(EXIT_GRACE_S)
        except subprocess.TimeoutExpired:
            return self.kill()


def _environment() -> dict[str, str]:
    """Ours, our packages found; one thread each, since there are as many finishers as it takes."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENEXR_NUM_THREADS"), "1")
    return os.environ | {"PYTHONPATH": python_path()} | threads


def _ending(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
