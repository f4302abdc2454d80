"""What the child tells its parent: one JSON object a line, on what was stdout when it started."""

import ctypes
import json
import os
import resource
import sys
import threading
from pathlib import Path
from typing import Any

from render_farm.worker.stages import Stages

HEARTBEAT_S = 2.0
PEAK_UNIT = 1 if sys.platform == "darwin" else 1024
"""getrusage counts bytes on macOS, KiB elsewhere."""
STATM = Path("/proc/self/statm")


class WorkerError(Exception):
    """The object cannot be rendered; `reason` is one of render_farm.errors.Reason."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Events:
    """Takes stdout for itself and points descriptor 1 to stderr, since Blender's C code prints to it as it likes."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self._stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._lock = threading.Lock()

    def send(self, event: str, **fields: Any) -> None:
        """Send one event; any thread may."""
        line = json.dumps({"event": event, **fields}) + "\n"
        with self._lock:
            self._stream.write(line)
            self._stream.flush()


def start_heartbeat(events: Events, stages: Stages) -> None:
    """Send stage and memory every two seconds from a thread of its own.

    Cycles and Python code let other threads run; an importer written in C (OBJ, PLY, STL, USD, Collada) does not, and
    the pulse pauses for as long as it reads.
    """

    def beat() -> None:
        pause = threading.Event()
        while not pause.wait(HEARTBEAT_S):
            try:
                events.send("heartbeat", stage=stages.now, rss_bytes=rss_bytes())
            except OSError:  # the parent is gone
                return

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()


def rss_bytes() -> int:
    """Resident memory now; where the system does not tell, the peak."""
    if STATM.exists():
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return peak_bytes()


def peak_bytes() -> int:
    """Peak resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT


def trim_memory() -> None:
    """Give freed memory back to the system, where the C library can (glibc): a large object leaves little behind."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
