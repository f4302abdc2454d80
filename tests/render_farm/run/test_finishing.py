"""Finishers: EXRs in, staged objects out; one that dies or hangs is replaced and its object given to the next."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.files import read_orbit
from render_farm.blender import Blender
from render_farm.cameras import plan_orbits
from render_farm.gather import make_job
from render_farm.records import Filters, read_record
from render_farm.run.finisher import Finished, FinishJob, finish
from render_farm.run.finishing import FINISHER, FinisherPool
from render_farm.run.schema import Lease
from render_farm.run.staging import Staging
from render_farm.spec import Execution, task_seed
from tests.render_farm.run.farms import FAKE_WORKER, SPEC, fake_task

DIE_ONCE = """
import os, signal, sys
from multiprocessing.connection import Connection
from pathlib import Path
from render_farm.run.finisher import serve
mark, pipe = Path(sys.argv[1]), Connection(int(sys.argv[-1]))
times = int(sys.argv[2])
died = len(mark.read_text()) if mark.exists() else 0
if died < times:
    pipe.recv()
    mark.write_text("." * (died + 1))
    if sys.argv[3] == "hang":
        signal.pause()
    os.kill(os.getpid(), signal.SIGSEGV)
serve(pipe)
"""


@pytest.fixture
def render(tmp_path: Path, staging: Staging) -> Callable[..., FinishJob]:
    """Photograph balls; the EXRs are ready to be finished."""

    def work(uid: str, behaviour: str = "well", filters: Filters | None = None) -> FinishJob:
        task = fake_task(tmp_path / "assets", uid, "000-000000")
        seed = task_seed(task.sha256, SPEC)
        planned, folder = plan_orbits(seed, SPEC), tmp_path / f"object-{uid}"
        folder.mkdir()
        execution = Execution(threads=1)
        job = make_job(
            task.key, Path(task.path), ".ply", planned=planned, seed=seed, spec=SPEC, execution=execution, folder=folder
        )
        with Blender(execution, tmp_path / "blender", command=(*FAKE_WORKER, behaviour)) as blender:
            result = blender.run(job)
        return FinishJob(task, SPEC, filters or Filters(), planned, seed, result, staging.folder, folder, 1)

    return work


class Pool:
    """A pool, and what it told."""

    def __init__(self, staging: Staging, count: int = 1, **more: Any) -> None:
        self.done: list[tuple[Lease, Finished]] = []
        self.broken: list[Exception] = []
        self.pool = FinisherPool(
            count, staging, on_done=lambda lease, finished: self.done.append((lease, finished)),
            on_broken=self.broken.append, **more,
        )  # fmt: skip

    def finish(self, *jobs: FinishJob) -> list[Finished]:
        for job in jobs:
            self.pool.submit(Lease(job.task, 1, 0), job)
        self.pool.close()
        assert self.broken == []
        return [finished for _, finished in self.done]


def test_a_finisher_that_cannot_be_started_at_once_is_started_later(render, staging, monkeypatch):
    """Once its thread died of it, and whoever queued an object waited for ever."""
    popen, calls = subprocess.Popen, []

    def start(*arguments, **more):
        calls.append(arguments)
        if len(calls) == 1:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return popen(*arguments, **more)

    job = render("apple")
    monkeypatch.setattr("render_farm.run.finishing.subprocess.Popen", start)
    (finished,) = Pool(staging).finish(job)
    assert finished.record.outcome == "done"
    assert len(calls) == 2


def test_pictures_become_a_staged_object(render, staging):
    job = render("apple")
    finished = finish(job)
    folder = staging.path("000-000000", "apple")
    assert finished.record.outcome == "done"
    assert finished.size_bytes == staging.size_bytes("000-000000", "apple")
    record = read_record(folder)
    assert record.stages["store_s"] > 0
    assert (record.key, record.seed, record.attempts, record.orbits) == (job.task.key, job.seed, 1, ("ring24",))
    images = read_orbit(folder / "apple.ring24.json")
    assert (images.orbit.T_world_camera == job.planned[0].orbit.T_world_camera).all()
    assert images.renderer["task_key"] == job.task.key
    assert not job.folder.exists()


@pytest.mark.parametrize(
    ("behaviour", "reason", "stage"), [("blank", "blank", "checking"), ("wrong-size", "bad-output", "finishing")]
)
def test_what_is_refused_is_not_staged_and_says_why(render, staging, behaviour, reason, stage):
    job = render("apple", behaviour)
    record = finish(job).record
    assert (record.outcome, record.orbits) == ("failed", ())
    assert (record.refusal.reason, record.refusal.stage) == (reason, stage)
    assert str(job.folder) not in record.refusal.message, "the same words on every machine"
    assert record.facts["triangles"] == 12
    assert staging.find_staged() == []
    assert not job.folder.exists()


def test_a_full_disk_while_staging_is_that_and_a_bug_is_internal(render, staging, monkeypatch):
    staging.folder.write_text("a file where the folder should be")
    assert finish(render("apple")).record.refusal.reason == "write-failed"

    def bug(*arguments: object) -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr("render_farm.run.finisher.examine", bug)
    refusal = finish(render("pear")).record.refusal
    assert (refusal.reason, refusal.stage) == ("internal", "finishing")
    assert refusal.message == "finishing failed: RuntimeError: no such thing; please report this"
    assert "in bug" in refusal.detail


def test_a_finisher_that_dies_is_replaced_and_its_object_finished(render, staging, tmp_path):
    pool = Pool(staging, command=("-c", DIE_ONCE, str(tmp_path / "mark"), "1", "die"))
    finished = pool.finish(render("apple"), render("pear"))
    assert [(each.record.uid, each.record.outcome) for each in finished] == [("apple", "done"), ("pear", "done")]
    assert len(staging.find_staged()) == 2


@pytest.mark.parametrize(
    ("how", "reason", "message"),
    [
        ("die", "crash", "the process that converts pictures was killed by SIGSEGV"),
        ("hang", "timeout", "converting pictures took more than 4 s"),
    ],
)
@pytest.mark.slow
def test_an_object_that_ends_two_finishers_is_failed_and_the_next_one_is_not(
    render, staging, tmp_path, how, reason, message
):
    # 4 s: a finisher has imported its libraries by then, on a busy machine too
    pool = Pool(staging, command=("-c", DIE_ONCE, str(tmp_path / "mark"), "2", how), timeout_s=4.0)
    job = render("apple")
    first, second = pool.finish(job, render("pear"))
    assert (first.record.refusal.reason, first.record.refusal.message) == (reason, message)
    assert first.record.refusal.stage == "finishing"
    assert not job.folder.exists()
    assert (second.record.uid, second.record.outcome) == ("pear", "done")


def test_killing_the_pool_leaves_no_process(staging):
    pool = Pool(staging, count=2)
    until = time.monotonic() + 10
    while len(_finishers()) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    assert len(_finishers()) == 2
    pool.pool.kill()
    assert _finishers() == []


def _finishers() -> list[int]:
    return [child.pid for child in psutil.Process().children() if FINISHER[1] in child.cmdline()]


PARENT = """
import sys, time
from pathlib import Path
from render_farm.run.finishing import FinisherPool
from render_farm.run.staging import Staging
pool = FinisherPool(1, Staging(Path(sys.argv[1])), on_done=print, on_broken=print)
time.sleep(1.0)
print(pool._children[0]._process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_finishers_end_with_a_parent_that_is_killed(tmp_path, repository):
    import subprocess

    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    parent = subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, start_new_session=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    until = time.monotonic() + 5
    while psutil.pid_exists(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid)


def test_slots_wait_while_the_finishers_are_behind(render, staging, tmp_path):
    gate = threading.Event()
    pool = FinisherPool(1, staging, on_done=lambda lease, finished: gate.wait(20), on_broken=lambda error: None)
    jobs = [render(f"object_{index}") for index in range(4)]
    waited = [pool.submit(Lease(job.task, 1, 0), job) for job in jobs[:3]]  # one is taken out, two fit
    assert pool.busy == 3
    late: list[float] = []
    slot = threading.Thread(target=lambda: late.append(pool.submit(Lease(jobs[3].task, 1, 0), jobs[3])))
    slot.start()
    slot.join(1.0)
    assert slot.is_alive(), "the queue took more than it holds"
    gate.set()
    slot.join(20)
    pool.close()
    assert late[0] >= 1.0 > max(waited)
    assert len(staging.find_staged()) == 4


@pytest.mark.parametrize("cut", ["closed", "reset"])
def test_a_finisher_whose_scheduler_is_killed_ends_without_a_word(cut, capfd):
    """Unread answers in its pipe make the kernel say `reset` where it says `end of file` otherwise."""
    ours, theirs = Pipe()
    with theirs:
        code = "import sys; from render_farm.run.finisher import main; main(sys.argv[1:])"
        child = subprocess.Popen([sys.executable, "-c", code, str(theirs.fileno())], pass_fds=[theirs.fileno()])
        if cut == "reset":
            theirs.send("never read by the scheduler")
    ours.close()
    assert child.wait(60) == 0
    assert capfd.readouterr().err == ""
