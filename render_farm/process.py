"""A child process on a leash: lines out, events in, its end guaranteed.

    parent                                   child (own session and process group)
      | -------> stdin: one line a job (or nothing at all)
      | <------- stdout: one JSON object a line: {"event": ...}
      | <------- stderr: anything; its end is kept, bounded in lines and bytes
      | killpg ->                            after a missed deadline, a limit, an error, Ctrl-C, or simply at the end

Every stage has a deadline, so that a hung import, a hung picture and a hung exit are all noticed; memory and temporary
files are measured while waiting.
"""

import json
import logging
import os
import queue
import secrets
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from engine.errors import TurntableError
from render_farm.errors import FarmError
from render_farm.process_group import MARK, ChildEnd, Limits, end_group, has_ended, resident_bytes
from render_farm.spawner import spawn

log = logging.getLogger(__name__)

TAIL_LINES, TAIL_BYTES = 60, 16_384
STDERR_LINE_BYTES, STDOUT_LINE_BYTES = 4096, 2**20
"""Longer lines are cut in pieces, so that a flood without newlines is bounded too."""
MOST_EVENTS, MOST_CHATTER = 10_000, 100
TICK_S, LIMITS_EVERY_S = 0.2, 0.4
"""How soon a stop is noticed, and how often memory and temporary files are measured."""
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
    """Until it has happened."""
    silence_s: float | None = None
    """Longest time without any event, heartbeats included; None where silence is no sign of trouble."""


class ChildTimeoutError(FarmError):
    """A deadline passed; the child and everything it started are gone."""


class StoppedError(TurntableError):
    """The caller's stop was set while it waited; the child is gone. Says nothing about the object."""


MALLOC_THRESHOLD = str(128 * 1024)


def python_path() -> str:
    """Return a PYTHONPATH for children: our packages first, then what our own says."""
    root = str(Path(__file__).parents[1])
    return os.pathsep.join([root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])


def child_environment(scratch: Path, threads: int, device: str = "cpu") -> dict[str, str]:
    """Return the environment of a worker: our packages found, its settings and temporary files in `scratch`."""
    return os.environ | {
        "PYTHONPATH": python_path(),
        "PYTHONUNBUFFERED": "1",
        "BLENDER_USER_RESOURCES": str(scratch / "blender"),
        "TMPDIR": str(scratch),
        "TURNTABLE_DEVICE": device,
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        # larger blocks than this go back to the system when they are freed, so that one heavy object does not make the
        # child heavy for good; glibc would raise the threshold by itself (mallopt(3))
        "MALLOC_MMAP_THRESHOLD_": MALLOC_THRESHOLD,
        "MALLOC_TRIM_THRESHOLD_": MALLOC_THRESHOLD,
    }


def run_child(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    first: Deadline,
    on_event: Callable[[Event], Deadline | None],
) -> ChildEnd:
    """Run a command without input to its end and return how it ended. No process of its group outlives this call.

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
    child = Child(command, env=env)
    child.close_input()
    try:
        following: Deadline | None = first
        while following is not None:
            child.expect(following)
            event = child.next_event()
            following = None if event is None else on_event(event)
        return child.end(EXIT_GRACE_S)
    finally:
        child.kill()


class Child:
    """One running child. Use from one thread; reading its attributes from others is safe."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], limits: Limits | None = None) -> None:
        """Start a command, absolute program and arguments, in a whole environment.

        Raises:
            FarmError: `no-blender`: it cannot be started.
        """
        self.limits = limits or Limits()
        """May be replaced between jobs."""
        self.stage = ""
        self.heartbeat: Event = {}
        """The latest one."""
        self._mark = f"{os.getpid()}.{secrets.token_hex(8)}"
        leashed = [sys.executable, "-S", str(LEASH), str(os.getpid()), *command]
        try:
            self._process = spawn(leashed, {**env, MARK: self._mark})
        except OSError as error:
            raise FarmError("no-blender", f"cannot start {leashed[0]}: {error.strerror}; is it installed?") from error
        self._end: ChildEnd | None = None
        self._deadline, self._until, self._measure_at = Deadline("", 0.0), 0.0, 0.0
        self._last_life = time.monotonic()
        self._events: queue.Queue[Event | None] = queue.Queue(MOST_EVENTS)
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._chatter: deque[str] = deque(maxlen=MOST_CHATTER)
        self._gone = threading.Event()
        self._readers = [
            threading.Thread(target=self._read_events, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._read_tail, args=(self._process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """Of the child; also the id of its process group and session."""
        return self._process.pid

    @property
    def tail(self) -> str:
        """The last lines of its stderr so far."""
        return "\n".join(self._tail.copy()).encode()[-TAIL_BYTES:].decode(errors="ignore")

    @property
    def rss_bytes(self) -> int:
        """Resident memory of it and all it started, now; 0 once it is gone."""
        return 0 if self._end else resident_bytes(self.pid)

    def send(self, line: str) -> None:
        """Send one line. A child that has died is not an error here: `next_event` tells."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            log.debug("child %d is gone and reads no more", self.pid)

    def close_input(self) -> None:
        """Tell it that no more lines will come."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:  # what was not read is lost with its reader
            log.debug("child %d was gone before its input was closed", self.pid)

    def expect(self, deadline: Deadline) -> None:
        """Begin a stage: its time counts from now."""
        self._deadline, self.stage = deadline, deadline.stage
        self._last_life = time.monotonic()
        self._until = self._last_life + deadline.seconds

    def next_event(self, stop: threading.Event | None = None) -> Event | None:
        """Wait for the next event but heartbeats. None: the child has ended, or closed its stdout.

        Raises:
            ChildTimeoutError: the stage's deadline passed, or it was silent for too long.
            FarmError: `memory` or `disk-full`: it is over its limits.
            StoppedError: `stop` was set.
            In all three cases the child is gone.
        """
        while True:
            if stop is not None and stop.is_set():
                self.kill()
                raise StoppedError(f"stopped while {self.stage}")
            now = time.monotonic()
            self._check_limits(now)
            try:
                return self._events.get(timeout=max(0.0, min(TICK_S, self._until - now)))
            except queue.Empty:
                self._check_time(time.monotonic())
            if has_ended(self._process):  # something that it started may hold its stdout open
                return self._last_event()

    def end(self, grace_s: float) -> ChildEnd:
        """Give it time to exit, kill what is left, and return how it ended."""
        until = time.monotonic() + grace_s
        while self._end is None and not has_ended(self._process) and time.monotonic() < until:
            time.sleep(0.01)
        if self._end is None and not has_ended(self._process):
            log.debug("child %d hung at its exit and is killed", self.pid)
        return self.kill()

    def kill(self) -> ChildEnd:
        """Kill and reap it and all it started; harmless when it is gone already. Returns how it ended."""
        if self._end is None:
            by_us = not has_ended(self._process)
            self._gone.set()
            returncode = end_group(self._process, self._mark)
            for reader in self._readers:
                reader.join(1.0)
            self.close_input()
            self._end = ChildEnd(returncode, self.stage, self.tail, tuple(self._chatter), by_us)
        return self._end

    # -------------------------------------------------------------------------------------------- while waiting
    def _check_time(self, now: float) -> None:
        deadline = self._deadline
        if now >= self._until:
            problem = f"not done within {deadline.seconds:g} s while {deadline.stage}: stopped"
        elif deadline.silence_s is not None and now - self._last_life > deadline.silence_s:
            problem = f"no sign of life for {deadline.silence_s:g} s while {deadline.stage}: stopped"
        else:
            return
        raise ChildTimeoutError("timeout", problem, self.kill().tail, deadline.stage)

    def _check_limits(self, now: float) -> None:
        if now < self._measure_at:
            return
        self._measure_at = now + LIMITS_EVERY_S
        excess = self.limits.excess(self.pid)
        if excess is not None:
            reason, what = excess
            raise FarmError(reason, f"{what} while {self.stage}: stopped", self.kill().tail, self.stage)

    def _last_event(self) -> Event | None:
        """It has ended: what it still said is in the pipe."""
        try:
            return self._events.get(timeout=TICK_S)
        except queue.Empty:
            return None

    # -------------------------------------------------------------------------------------------- the two readers
    def _read_events(self, pipe: IO[bytes]) -> None:
        with pipe:
            while line := pipe.readline(STDOUT_LINE_BYTES):
                event = _parse(line)
                if event is None:
                    self._chatter.append(line[:STDERR_LINE_BYTES].decode(errors="replace").rstrip())
                    continue
                self._last_life = time.monotonic()
                if event["event"] == "heartbeat":
                    self.heartbeat = event
                else:
                    self._put(event)
        self._put(None)

    def _put(self, event: Event | None) -> None:
        """Wait for room: a child that talks too much is held up, not believed to be dead."""
        while not self._gone.is_set():
            try:
                return self._events.put(event, timeout=TICK_S)
            except queue.Full:
                continue
        return None

    def _read_tail(self, pipe: IO[bytes]) -> None:
        with pipe:
            while line := pipe.readline(STDERR_LINE_BYTES):
                self._keep(line.decode(errors="replace").rstrip())

    def _keep(self, text: str) -> None:
        """Blender reports each step of each picture ('Fra:1 Mem:...'): only the latest of those is worth keeping."""
        if not text.startswith("Fra:"):
            log.debug("child: %s", text)
        elif self._tail and self._tail[-1].startswith("Fra:"):
            self._tail.pop()
        self._tail.append(text)


def _parse(line: bytes) -> Event | None:
    """An event, or None for chatter of libraries."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None
