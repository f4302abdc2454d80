"""Processes that a killed scheduler could not take with it: what a Blender had started, in a session of its own."""

import contextlib
import logging
from pathlib import Path

import psutil

log = logging.getLogger(__name__)


def end_orphans(scratch: Path) -> int:
    """Kill every process of ours whose temporary folder lies in a scratch folder, and return how many there were.

    Children get TMPDIR there, and whatever they start inherits it. Call it with the lock held and nothing running.
    """
    ended, inside = 0, f"{scratch}/"
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # gone meanwhile, or not ours to look at
            if f"{process.environ().get('TMPDIR', '')}/".startswith(inside):
                log.info("ending process %d, left by a farm that was killed", process.pid)
                process.kill()
                ended += 1
    return ended
