"""Render objects, one after the other: ``python -m render_farm.worker`` (protocol: render_farm/job.py).

    a line of stdin -> Job -> subject.py -> events on stdout -> the next line; the end of stdin ends the program

stdout carries events alone; everything else goes to stderr.
"""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from render_farm.job import Job
from render_farm.worker.events import Events, WorkerError, start_heartbeat
from render_farm.worker.stages import Stages


@contextmanager
def few_threads(count: int) -> Iterator[None]:
    """Let Blender come up as if the machine had `count` cores; afterwards it may run on all of them again.

    Cycles keeps to its number of threads, but the task scheduler that Blender and the denoiser share (TBB) makes one
    for each core that it sees when it starts, and those spin. A lone child of one thread so burns three times the CPU
    time that it needs, and a machine full of them is three times slower.
    """
    if not hasattr(os, "sched_setaffinity"):  # macOS, Windows
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def serve(events: Events, stages: Stages) -> int:
    """Say hello, then render until stdin ends."""
    try:
        with few_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))):
            from render_farm.worker import subject
    except ImportError as error:
        traceback.print_exc()
        message = f"Blender's Python module cannot be imported ({error}); install bpy (extra 'farm') and its libraries"
        events.send("error", key="", reason="no-blender", message=message, stage="starting")
        return 1
    version, device = subject.start(os.environ.get("TURNTABLE_DEVICE", "cpu"))
    events.send("hello", blender=version, device=device, pid=os.getpid())
    start_heartbeat(events, stages)
    for line in sys.stdin:
        if line.strip():
            _render(Path(line.strip()), events, stages)
            stages.now = "waiting"
    return 0


def _render(path: Path, events: Events, stages: Stages) -> None:
    """Render one job; every failure becomes an event."""
    from render_farm.worker import subject

    stages.restart()
    stages.now, key = "reading the job", ""
    try:
        job = Job.load(path)
        key = job.key
        events.send("begin", key=key)
        subject.render(job, events, stages)
    except WorkerError as error:
        reason, message = error.reason, str(error)
    except MemoryError:
        reason, message = "memory", "the memory is used up; give it more, or simplify the model"
    except Exception as error:  # noqa: BLE001 - the worker's loop: the parent has to hear of it, and it goes on
        traceback.print_exc()
        reason, message = "internal", f"the worker failed: {type(error).__name__}: {' '.join(str(error).split())}"
    else:
        return
    events.send("error", key=key, reason=reason, message=message, stage=stages.now, stages=stages.seconds)


if __name__ == "__main__":
    status = serve(Events(), Stages())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # bpy 4.2 crashes and 4.5 hangs in its own clean-up once an add-on has registered a handler
