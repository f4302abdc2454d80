"""Locks end with their process, and a process is told from one that has its id after it."""

import dataclasses
import errno
import os
import signal
import subprocess
import sys

import psutil
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


def test_a_disk_that_knows_no_locks_says_so(tmp_path, monkeypatch):
    """Once it was said to be held by another process."""

    def refuse(descriptor, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(RunError) as caught:
        hold(tmp_path / "lock").__enter__()
    assert str(caught.value) == (
        f"cannot lock {tmp_path / 'lock'}: No locks available; choose a folder on a disk of this machine"
    )


def test_a_lock_is_held_on_a_full_disk(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.pwrite", refuse)
    with hold(tmp_path / "lock") as owner:
        assert owner.pid == os.getpid()
        with pytest.raises(RunError, match="is held by another process: one process at a time"):
            hold(tmp_path / "lock").__enter__()


def test_labels():
    me = Owner.current()
    again = Owner.from_label(me.label)
    assert again is not None
    assert (again.host, again.pid) == (me.host, me.pid)
    assert again.is_alive()
    assert Owner.from_label("a.b") is None
    assert Owner.from_label(f"x.{me.label}") is None


def test_a_process_of_another_user_lives(monkeypatch):
    """Where /proc hides what it does: it is there all the same."""

    def hidden(pid):
        raise psutil.AccessDenied(pid)

    monkeypatch.setattr("psutil.Process", hidden)
    assert Owner(Owner.current().host, 1, 0.0).is_alive()


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
