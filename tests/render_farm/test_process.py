"""Whatever a child does, it is gone afterwards, and so is everything that it started."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from render_farm.errors import FarmError
from render_farm.process import TAIL_BYTES, Child, ChildTimeoutError, Deadline, Event, StoppedError, run_child
from render_farm.process_group import ChildEnd, Limits, folder_bytes

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


def run(code: str, *, first_s: float = 30.0, on_event: Callable[[Event], Deadline | None] | None = None) -> ChildEnd:
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
    assert str(caught.value) == "not done within 0.3 s while sleeping: stopped [timeout]"
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


# ------------------------------------------------------------------------------------------------ long-lived children
UP = "import json, os, subprocess, sys, time\nsay = lambda **e: print(json.dumps(e), flush=True)\nsay(event='up')\n"
ECHO = UP + "for line in sys.stdin: say(event='line', text=line.strip())\nsay(event='bye')"
PATIENT = Deadline("waiting", 30.0)
MIB = 2**20


@contextmanager
def child(code: str, limits: Limits | None = None, **env: str) -> Iterator[Child]:
    started = Child([sys.executable, "-c", code], env=os.environ | env, limits=limits)
    started.expect(PATIENT)
    try:
        yield started
    finally:
        started.kill()


def test_lines_in_events_out_and_a_polite_end() -> None:
    with child(ECHO) as echo:
        assert echo.next_event() == {"event": "up"}
        for text in ("one", "two"):
            echo.send(text)
            assert echo.next_event() == {"event": "line", "text": text}
        assert echo.rss_bytes > MIB  # an interpreter
        echo.close_input()
        assert echo.next_event() == {"event": "bye"}
        assert echo.next_event() is None
        end = echo.end(10.0)
        assert (end.returncode, end.by_us, echo.rss_bytes) == (0, False, 0)
        assert echo.kill() is end  # harmless


def test_a_dead_child_is_no_error_until_it_is_listened_to() -> None:
    with child(UP) as short:
        assert short.next_event() == {"event": "up"}
        assert short.next_event() is None
        short.end(10.0)
        short.send("anybody there?")
        assert short.next_event() is None


def test_silence_counts_heartbeats() -> None:
    beats = UP + "for i in range(8): time.sleep(0.1); say(event='heartbeat', i=i)\ntime.sleep(600)"
    with child(beats) as alive:
        alive.next_event()
        alive.expect(Deadline("rendering", 60.0, silence_s=1.0))
        with pytest.raises(ChildTimeoutError, match=r"^no sign of life for 1 s while rendering: stopped \[timeout\]$"):
            alive.next_event()
        # at 0.1 s a beat the silence limit was not what ended it before the last of them
        assert alive.heartbeat == {"event": "heartbeat", "i": 7}
        assert is_gone(alive.pid)


def test_heartbeats_do_not_move_the_stage_deadline() -> None:
    with child(UP + "while True: time.sleep(0.05); say(event='heartbeat')") as alive:
        alive.next_event()
        alive.expect(Deadline("importing", 0.6, silence_s=30.0))
        with pytest.raises(ChildTimeoutError, match=r"^not done within 0\.6 s while importing: stopped"):
            alive.next_event()


def test_stop_ends_the_wait() -> None:
    stop = threading.Event()
    with child(UP + "time.sleep(600)") as sleeper:
        sleeper.next_event(stop)
        sleeper.expect(Deadline("sleeping", 600.0))
        threading.Timer(0.2, stop.set).start()
        with pytest.raises(StoppedError, match=r"^stopped while sleeping$"):
            sleeper.next_event(stop)
        assert is_gone(sleeper.pid)


def test_memory_of_the_whole_group_is_capped() -> None:
    eat = "import time; kept = b'1' * (200 << 20); time.sleep(600)"
    code = UP + f"c = subprocess.Popen([sys.executable, '-c', {eat!r}])\nsay(event='fed', pid=c.pid)\ntime.sleep(600)"
    with child(code, Limits(memory_bytes=150 * MIB)) as greedy:
        greedy.next_event()
        event = greedy.next_event()
        assert event is not None
        greedy.expect(Deadline("eating", 60.0))
        with pytest.raises(
            FarmError, match=r"^Blender used .* GB of memory, more than its 0\.157 GB, while eating"
        ) as caught:
            greedy.next_event()
        assert (caught.value.reason, caught.value.stage) == ("memory", "eating")
        assert is_gone(event["pid"])


def test_temporary_files_are_capped(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    code = UP + f"open({str(tmp_path / 'deep' / 'a')!r}, 'wb').write(b'1' * 3_000_000)\ntime.sleep(600)"
    with child(code, Limits(scratch_bytes=2_000_000, folders=(tmp_path,))) as writer:
        writer.next_event()
        with pytest.raises(
            FarmError, match=r"^Blender wrote 0\.003 GB of files, more than its 0\.002 GB, while waiting"
        ):
            writer.next_event()
    assert folder_bytes(tmp_path) == 3_000_000
    assert folder_bytes(tmp_path / "nowhere") == 0


def test_a_flood_without_newlines_is_bounded() -> None:
    flood = UP + "for _ in range(2000): os.write(2, b'x' * 4096); os.write(1, b'y' * 4096)\nsay(event='through')"
    with child(flood) as loud:
        loud.next_event()
        while loud.next_event() is not None:
            pass
        end = loud.end(10.0)
    assert end.returncode == 0
    assert 0 < len(end.tail) <= TAIL_BYTES
    assert len(end.stdout) <= 100
    assert max(map(len, end.stdout)) <= 4096


def test_daemons_of_a_child_do_not_outlive_it(tmp_path: Path) -> None:
    """Neither its group nor its session nor its parent leads to a daemon: the environment that it inherited does."""
    daemon = "import os, time; os.setsid(); os.fork() and os._exit(0); "
    daemon += f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    code = UP + f"subprocess.Popen([sys.executable, '-c', {daemon!r}]).wait()\nsay(event='made')"
    with child(code) as parent:
        parent.next_event()
        assert parent.next_event() == {"event": "made"}
        assert wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
        # it holds stdout open, and yet the child's end is noticed
        assert parent.next_event() is None
        parent.end(10.0)
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_a_child_outlives_the_thread_that_started_it() -> None:
    """The kernel's leash is tied to a thread, not to a process; schedulers start children from threads of their own."""
    made: list[Child] = []
    thread = threading.Thread(target=lambda: made.append(Child([sys.executable, "-c", ECHO], env=os.environ)))
    thread.start()
    thread.join()
    time.sleep(0.3)  # a wrong leash would strike now
    (echo,) = made
    try:
        echo.expect(PATIENT)
        assert echo.next_event() == {"event": "up"}
        echo.send("still here")
        assert echo.next_event() == {"event": "line", "text": "still here"}
    finally:
        echo.kill()


def test_children_end_with_an_interpreter_that_waits_for_its_threads(tmp_path: Path) -> None:
    """A main thread that has ended must not take children from threads that still work with them."""
    code = (
        "import os, sys, threading, time; from render_farm.process import Child, Deadline\n"
        "def work():\n"
        "    time.sleep(0.5)\n"  # the main thread is through by then
        f"    child = Child([sys.executable, '-c', {ECHO!r}], env=os.environ)\n"
        "    child.expect(Deadline('x', 30.0)); child.next_event(); time.sleep(0.3); child.send('alive')\n"
        "    sys.stdout.write(str(child.next_event())); child.kill()\n"
        "threading.Thread(target=work).start()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "{'event': 'line', 'text': 'alive'}", done.stderr


def test_a_program_that_is_not_there() -> None:
    # the leash is Python's and starts; what it cannot become ends it at once
    lost = Child(["/nowhere/python"], env=os.environ)
    lost.expect(PATIENT)
    assert lost.next_event() is None
    assert "No such file" in lost.end(10.0).tail


def test_reasons_are_a_closed_list() -> None:
    with pytest.raises(ValueError, match="reason must be one of"):
        FarmError("because", "text")
