"""Which process works on something, and whether it still lives; and the lock that lets one at a time hold a folder."""

import fcntl
import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import psutil

from render_farm.errors import RunError

LABEL = re.compile(r"(?P<host>[A-Za-z0-9-]+)\.(?P<pid>\d+)\.(?P<started>\d+)")
START_TOLERANCE_S = 2.0
"""Start times are computed from the boot time, which moves a little when the clock is set; ids come round far later."""


@dataclass(frozen=True)
class Owner:
    """One process among all that ever were."""

    host: str
    """Where it runs."""
    pid: int
    """Its id, which another process may get after it."""
    started: float
    """When it started, seconds since 1970: tells it from that other process."""

    @staticmethod
    def current() -> "Owner":
        """Return the process that calls."""
        return Owner(_host(), os.getpid(), _start_of(os.getpid()))

    @staticmethod
    def from_label(label: str) -> "Owner | None":
        """Return the process that a label names; its start is rounded to seconds."""
        match = LABEL.fullmatch(label)
        return None if match is None else Owner(match["host"], int(match["pid"]), float(match["started"]))

    @property
    def label(self) -> str:
        """HOST.PID.START, for file names."""
        return f"{self.host}.{self.pid}.{round(self.started)}"

    def is_alive(self) -> bool:
        """Whether it still runs. A process of another machine is taken for dead: the caller holds the lock."""
        if self.host != _host():
            return False
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.started) < START_TOLERANCE_S and process.status() != "zombie"
        except psutil.AccessDenied:  # it is there, but another user's
            return True
        except psutil.Error:
            return False


@cache
def _start_of(pid: int) -> float:
    return float(psutil.Process(pid).create_time())


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())


@contextmanager
def hold(lock: Path) -> Iterator[Owner]:
    """Hold a lock file while the block runs. The kernel lets go of it when we die, however we die.

    Raises:
        RunError: another process holds it, or the file cannot be made.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunError(f"cannot make {lock}: {error.strerror}; choose a folder that can be written to") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"{lock.parent} is held by {_holder(lock)}: one process at a time may change a run; wait for it "
                           "or stop it") from error  # fmt: skip
        except OSError as error:  # a network disk that knows no locks
            raise RunError(
                f"cannot lock {lock}: {error.strerror}; choose a folder on a disk of this machine"
            ) from error
        owner = Owner.current()
        with suppress(OSError):  # a full disk: we hold the lock, and only others would like to know who we are
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(asdict(owner)).encode(), 0)
        yield owner
    finally:
        os.close(descriptor)  # and with it the lock


def _holder(lock: Path) -> str:
    """In words: who wrote itself into the lock file."""
    try:
        owner = Owner(**json.loads(lock.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # it is just being written
        return "another process"
    return f"process {owner.pid} of {owner.host}"
