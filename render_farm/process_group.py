"""What belongs to a child: its process group and session, their memory, its temporary files, and how all of it ends."""

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

log = logging.getLogger(__name__)

KILL_AGAIN_S, KILL_FOR_S = 0.02, 2.0
MARK = "TURNTABLE_CHILD"
"""Environment variable by which everything that a child started is found again."""


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
    """Last lines on stdout that were no events."""
    by_us: bool = False
    """It was still running, and killed by its parent."""

    @property
    def how(self) -> str:
        """In words: 'was killed by SIGSEGV' or 'exited with status 3'."""
        if self.by_us:
            return "closed its output and hung"
        if self.returncode < 0:
            return f"was killed by {signal.Signals(-self.returncode).name}"
        return f"exited with status {self.returncode}"


@dataclass(frozen=True)
class Limits:
    """What a child may use."""

    memory_bytes: int = 0
    """Resident memory of it and all it started; 0: no limit."""
    scratch_bytes: int = 0
    """In `folders` together; 0: no limit."""
    folders: tuple[Path, ...] = ()
    """Where its temporary files lie; none inside another."""

    def excess(self, pid: int) -> tuple[str, str] | None:
        """Return (reason, what) if the child is over a limit: ('memory', 'Blender used 3.2 GB of memory, ...')."""
        if self.memory_bytes:
            used = resident_bytes(pid)
            if used > self.memory_bytes:
                return "memory", f"Blender used {_gb(used)} of memory, more than its {_gb(self.memory_bytes)},"
        if self.scratch_bytes:
            used = sum(folder_bytes(folder) for folder in self.folders)
            if used > self.scratch_bytes:
                return "disk-full", f"Blender wrote {_gb(used)} of files, more than its {_gb(self.scratch_bytes)},"
        return None


def _gb(count: int) -> str:
    return f"{count / 1e9:.3g} GB"


def folder_bytes(folder: Path) -> int:
    """Return the size of all files below a folder; files that vanish meanwhile count nothing."""
    return sum(_file_sizes(folder))


def _file_sizes(folder: Path) -> Iterator[int]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        with contextlib.suppress(OSError):
            if entry.is_dir(follow_symlinks=False):
                yield from _file_sizes(Path(entry.path))
            else:
                yield entry.stat(follow_symlinks=False).st_size


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a session's processes; pages that they share count for each."""
    total = 0
    for member in _session(pid):
        with contextlib.suppress(psutil.Error):
            total += psutil.Process(member).memory_info().rss
    return total


def has_ended(process: "subprocess.Popen[bytes]") -> bool:
    """Whether it has exited. It is not reaped where that can be told without: its pid, the group's name, stays ours."""
    if process.returncode is not None:
        return True
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return process.poll() is not None
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def end_group(process: "subprocess.Popen[bytes]", mark: str) -> int:
    """Kill a child, its group and all that carries its mark, reap it, and return its status.

    A process that hangs inside the kernel (a dead network disk, a GPU driver) cannot be killed: after a moment it is
    left behind, and said so, rather than waited for.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    until = time.monotonic() + KILL_FOR_S
    while (others := _others(process.pid, mark)) and time.monotonic() < until:
        for other in others:
            with contextlib.suppress(psutil.Error):
                other.kill()
        time.sleep(KILL_AGAIN_S)
    try:
        return process.wait(KILL_FOR_S)
    except subprocess.TimeoutExpired:
        log.error("process %d was killed but hangs in the kernel: it is left behind", process.pid)
        return -signal.SIGKILL


def _others(pid: int, mark: str) -> list[psutil.Process]:
    """What a child started and that still lives: of its session, or marked by the environment that it inherited.

    A daemon leaves group, session and parents behind; its environment stays.
    """
    session = set(_session(pid))

    def belongs(process: psutil.Process) -> bool:
        try:
            ours = process.pid != pid and (process.pid in session or process.environ().get(MARK) == mark)
            return ours and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):  # gone, or another user's
            return False

    return [process for process in psutil.process_iter() if belongs(process)]


def _session(pid: int) -> list[int]:
    """Pids of a session: also those whose parent has died, and those in groups of their own."""
    members = []
    for other in psutil.pids():
        with contextlib.suppress(OSError):
            if os.getsid(other) == pid:
                members.append(other)
    return members
