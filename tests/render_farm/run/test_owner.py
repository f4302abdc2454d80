"""Locks end with their process, and a process is told from one that has its id after it."""

import dataclasses
import os
import signal
import subprocess
import sys

import pytest

from render_farm.errors import RunError
from render_farm.run.owner import Owner, hold

HOLD = """
import sys, time
from pathlib import Path
from render_farm.run.owner import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_is_held_by_one_process_and_ends_with_it(tmp_path, repository):
    lock = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], cwd=repository, stdout=subprocess.PIPE, start_new_session=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(RunError, match=rf"{tmp_path} is held by process {holder.pid} of .*; wait for it or stop it"):
        hold(lock).__enter__()
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with hold(lock) as owner:
        assert owner.pid == os.getpid()
    with hold(lock):  # and again: it was let go of
        pass


def test_a_lock_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot make .*lock: .*; choose a folder that can be written to"):
        hold(tmp_path / "file" / "lock").__enter__()


def test_who_lives_and_who_does_not():
    me = Owner.current()
    assert me.is_alive()
    assert not dataclasses.replace(me, started=me.started - 60).is_alive(), "another process had this id before us"
    assert not dataclasses.replace(me, host="elsewhere").is_alive()
    child = subprocess.Popen([sys.executable, "-S", "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    zombie = Owner(me.host, child.pid, me.started)
    assert not zombie.is_alive()
    child.wait()
    assert not zombie.is_alive()
