"""Whatever a child does, it is gone afterwards, and so is everything that it started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from render_farm.errors import FarmError
from render_farm.process import ChildTimeoutError, Deadline, Event, run_child

ROOT = Path(__file__).parents[2]


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Poll: the kernel reaps when it likes. Generous, because the machine may be busy."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def is_gone(pid: int) -> bool:
    """No such process, or only its zombie (whose parent, init, may be slow)."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def run(code: str, *, first_s: float = 30.0, on_event: Callable[[Event], Deadline | None] | None = None):  # type: ignore[no-untyped-def]
    return run_child(
        [sys.executable, "-c", code],
        env=dict(os.environ),
        first=Deadline("starting", first_s),
        on_event=on_event or (lambda event: Deadline("working", 30.0)),
    )


def test_events_chatter_and_exit_status() -> None:
    seen: list[Event] = []

    def take(event: Event) -> Deadline:
        seen.append(event)
        return Deadline(f"after {event['event']}", 30.0)

    code = (
        "import sys; print('hello'); print('{\"event\": \"one\", \"x\": 1}'); print('[1]'); "
        "print('bad', file=sys.stderr); sys.exit(3)"
    )
    end = run(code, on_event=take)
    assert seen == [{"event": "one", "x": 1}]
    assert end.stdout == ("hello", "[1]")
    assert (end.returncode, end.stage, end.tail, end.how) == (3, "after one", "bad", "exited with status 3")


def test_deadline_kills_child_and_grandchild(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = (
        "import os, subprocess, sys, time, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{c.pid}}'); "
        'print(\'{"event": "up"}\', flush=True); time.sleep(600)'
    )
    with pytest.raises(ChildTimeoutError) as caught:
        run(code, on_event=lambda event: Deadline("sleeping", 0.3))
    assert str(caught.value) == "no sign of life for 0.3 s while sleeping: stopped [timeout]"
    for pid in map(int, pids.read_text().split()):
        assert wait_until(lambda pid=pid: is_gone(pid))


def test_grandchild_left_by_a_child_that_ended_well(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    # the grandchild holds none of our pipes, so that stdout closes with the child
    code = (
        "import subprocess, sys; n = subprocess.DEVNULL; "
        "c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], stdout=n, stderr=n); "
        f"open({str(pid_file)!r}, 'w').write(str(c.pid))"
    )
    assert run(code).returncode == 0
    assert wait_until(lambda: is_gone(int(pid_file.read_text())))


def test_error_in_the_callback_kills_the_child(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = (
        f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); "
        'print(\'{"event": "up"}\', flush=True); time.sleep(600)'
    )

    def interrupt(event: Event) -> Deadline:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(code, on_event=interrupt)
    assert is_gone(int(pid_file.read_text()))


def test_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    """kill -9 leaves the parent no chance to clean up: the kernel has to."""
    pid_file = tmp_path / "pid"
    child = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    parent = (
        "import os, sys; from render_farm.process import *; "
        f"run_child([sys.executable, '-c', {child!r}], env=dict(os.environ), first=Deadline('x', 600), on_event=print)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=ROOT)
    assert wait_until(lambda: pid_file.exists() and pid_file.read_text() != "", 30.0)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert wait_until(lambda: is_gone(int(pid_file.read_text())))


def test_crash_by_signal_is_named() -> None:
    end = run("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert end.how == "was killed by SIGSEGV"


def test_flooded_stderr_does_not_block_and_is_bounded() -> None:
    end = run("import sys\nfor i in range(20000): print('line', i, file=sys.stderr)")
    assert end.returncode == 0
    assert end.tail.splitlines()[-1] == "line 19999"
    assert len(end.tail.splitlines()) == 60


def test_reasons_are_a_closed_list() -> None:
    with pytest.raises(ValueError, match="reason must be one of"):
        FarmError("because", "text")
