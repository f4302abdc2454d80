"""A child process on a leash: its events in, its end guaranteed.

    parent                                   child (own session and process group)
      | <------- stdout: one JSON object a line: {"event": ...}
      | <------- stderr: anything; the last lines are kept
      | killpg ->                            after a missed deadline, an error, Ctrl-C, or simply at the end

Every event sets the deadline of the next one, so that a hung import, a hung picture and a hung exit are all noticed.
"""

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from render_farm.errors import FarmError

log = logging.getLogger(__name__)

TAIL_LINES = 60
EXIT_GRACE_S = 5.0
"""Blender may hang on its way out; nothing is lost by killing it then."""
LEASH = Path(__file__).with_name("leash.py")

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Deadline:
    """What must happen next, and how soon."""

    stage: str
    """In words, for the message: 'importing'."""
    seconds: float
    """Until the next event."""


@dataclass(frozen=True)
class ChildEnd:
    """How a child ended."""

    returncode: int
    """Exit status; negative: the signal."""
    stage: str
    """What it was doing last."""
    tail: str
    """The last lines of its stderr."""
    stdout: tuple[str, ...]
    """Lines on stdout that were no events."""

    @property
    def how(self) -> str:
        """In words: 'was killed by SIGSEGV' or 'exited with status 3'."""
        if self.returncode < 0:
            return f"was killed by {signal.Signals(-self.returncode).name}"
        return f"exited with status {self.returncode}"


class ChildTimeoutError(FarmError):
    """A deadline passed; the child and everything it started are gone."""


def child_environment(scratch: Path, threads: int) -> dict[str, str]:
    """Return the environment of a worker: our packages found, its settings and temporary files in `scratch`."""
    root = str(Path(__file__).parents[1])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "BLENDER_USER_RESOURCES": str(scratch / "blender"),
        "TMPDIR": str(scratch),
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
    }


def run_child(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    first: Deadline,
    on_event: Callable[[Event], Deadline | None],
) -> ChildEnd:
    """Run a command to its end and return how it ended. No process of its group outlives this call.

    Args:
        command: absolute program and its arguments.
        env: the whole environment.
        first: deadline of the first event.
        on_event: is told each event and returns the next deadline, or None when only the exit is left.

    Raises:
        ChildTimeoutError: a deadline passed.
        FarmError: the program cannot be started.
        Whatever on_event raises; the child is gone by then.
    """
    leashed = [sys.executable, "-S", str(LEASH), str(os.getpid()), *command]
    try:
        child = subprocess.Popen(
            leashed, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(env),
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise FarmError("no-blender", f"cannot start {command[0]}: {error.strerror}; is it installed?") from error
    try:
        return _Watch(child).until_end(first, on_event)
    finally:
        end_group(child)


def end_group(child: "subprocess.Popen[bytes]") -> None:
    """Kill a child, whatever it started in its group, and reap it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


class _Watch:
    """The two pipes of one child, each read by a thread, so that neither can fill up and stop it."""

    def __init__(self, child: "subprocess.Popen[bytes]") -> None:
        self.child = child
        self.lines: queue.Queue[bytes | None] = queue.Queue()
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.stdout: list[str] = []
        assert child.stdout is not None
        assert child.stderr is not None
        self.readers = [
            threading.Thread(target=self._read_events, args=(child.stdout,), daemon=True),
            threading.Thread(target=self._read_tail, args=(child.stderr,), daemon=True),
        ]
        for reader in self.readers:
            reader.start()

    def _read_events(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                self.lines.put(line)
        self.lines.put(None)

    def _read_tail(self, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                self._keep(line.decode(errors="replace").rstrip())

    def _keep(self, text: str) -> None:
        """Blender reports each step of each picture ('Fra:1 Mem:...'): only the latest of those is worth keeping."""
        if not text.startswith("Fra:"):
            log.debug("child: %s", text)
        elif self.tail and self.tail[-1].startswith("Fra:"):
            self.tail.pop()
        self.tail.append(text)

    def until_end(self, first: Deadline, on_event: Callable[[Event], Deadline | None]) -> ChildEnd:
        """Pass on events until stdout closes, then wait for the exit."""
        deadline, stage = first, first.stage
        until = time.monotonic() + deadline.seconds
        while True:
            try:
                line = self.lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise self._late(deadline) from None
            if line is None:
                break
            event = _parse(line)
            if event is None:
                self.stdout.append(line.decode(errors="replace").rstrip())
                continue
            following = on_event(event)
            if following is None:
                break
            deadline, stage = following, following.stage
            until = time.monotonic() + deadline.seconds
        return ChildEnd(self._wait(), stage, self._text(), tuple(self.stdout))

    def _wait(self) -> int:
        try:
            return self.child.wait(EXIT_GRACE_S)
        except subprocess.TimeoutExpired:
            log.debug("the child hung at its exit and was killed")
            end_group(self.child)
            return self.child.returncode

    def _late(self, deadline: Deadline) -> ChildTimeoutError:
        end_group(self.child)
        message = f"no sign of life for {deadline.seconds:g} s while {deadline.stage}: stopped"
        return ChildTimeoutError("timeout", message, self._text())

    def _text(self) -> str:
        self.readers[1].join(1.0)
        return "\n".join(self.tail)


def _parse(line: bytes) -> Event | None:
    """An event, or None for chatter of libraries."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None
