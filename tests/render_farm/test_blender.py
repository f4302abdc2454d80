"""One child for many jobs: whatever a fake Blender does is named, ended, cleared away, and the next job is done."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from render_farm.blender import Blender, JobResult, StoppedError
from render_farm.cameras import plan_orbits
from render_farm.errors import FarmError
from render_farm.gather import make_job
from render_farm.job import Job
from render_farm.process import Event
from render_farm.spec import CameraSpec, Condition, Execution, RenderSpec

SPEC = RenderSpec(cameras=CameraSpec("ring16", views=5), width=16, height=16, samples=1, seed=5)
PATIENT = Execution(threads=1)
MIB = 2**20
Fake = Callable[[str], tuple[str, ...]]
Pids = Callable[[], list[int]]


def make(folder: Path, name: str, write_ply: Callable[[Path], Path], spec: RenderSpec = SPEC) -> Job:
    views = folder / f"{name}.views"
    views.mkdir()
    planned = plan_orbits(5, spec)
    return make_job(
        name,
        write_ply(folder / f"{name}.ply"),
        ".ply",
        planned=planned,
        seed=5,
        spec=spec,
        execution=PATIENT,
        folder=views,
    )


@pytest.fixture
def job(tmp_path: Path, write_ply: Callable[[Path], Path]) -> Job:
    return make(tmp_path, "first", write_ply)


@pytest.fixture
def next_job(tmp_path: Path, write_ply: Callable[[Path], Path]) -> Job:
    return make(tmp_path, "second", write_ply)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Say what the fake does with which object."""

    def choose(**behaviours: str) -> None:
        (tmp_path / "attempts").mkdir()
        monkeypatch.setenv("FAKE_WORKER_ATTEMPTS", str(tmp_path / "attempts"))
        entries = ", ".join(f'"{name}.ply": "{behaviour}"' for name, behaviour in behaviours.items())
        monkeypatch.setenv("FAKE_WORKER_TABLE", f"{{{entries}}}")

    return choose


def all_gone(pids: list[int], seconds: float = 10.0) -> bool:
    """Zombies count as gone; the kernel may take a moment on a busy machine."""

    def runs(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    until = time.monotonic() + seconds
    while any(map(runs, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(runs, pids))


def is_whole(result: JobResult, job: Job) -> bool:
    paths = {orbit.name: tuple(Path(view.path) for view in orbit.views) for orbit in job.orbits}
    return result.views == paths and all(path.stat().st_size > 0 for group in paths.values() for path in group)


def test_one_child_does_many_jobs(
    tmp_path: Path, job: Job, next_job: Job, fake_worker: Fake, started_pids: Pids, write_ply: Any
) -> None:
    seen: list[Event] = []
    scratch = tmp_path / "scratch"
    with Blender(PATIENT, scratch, command=fake_worker("well")) as blender:
        assert (blender.pid, blender.rss_bytes, blender.stage, blender.jobs_done) == (None, 0, "", 0)
        result = blender.run(job, on_event=seen.append)
        pid = blender.pid
        assert is_whole(result, job)
        assert [event["event"] for event in seen] == ["begin", "imported", *["view"] * 5, "done"]
        assert {event["key"] for event in seen} == {"first"}
        assert (result.hello["blender"], result.done["cpu_s"]) == ("0.0 fake", 1.5)
        assert result.imported["centre"] == [1.0, 2.0, 3.0]
        # five views of 1 ms each, as the fake says
        assert (result.render_s, result.write_s) == (pytest.approx(0.005), pytest.approx(0.005))
        assert result.wall_s > 0
        spec = RenderSpec(cameras=SPEC.cameras, condition=Condition(), width=16, height=16)
        double = make(tmp_path, "double", write_ply, spec)
        again = blender.run(double)
        assert list(again.views) == ["ring16", "condition"]
        assert is_whole(again, double)
        assert (blender.pid, blender.jobs_done, blender.stage) == (pid, 2, "waiting")
        assert blender.rss_bytes > MIB
        assert len(list(scratch.iterdir())) == 1
    assert blender.pid is None
    assert list(scratch.iterdir()) == []
    assert started_pids() == [pid]
    assert all_gone(started_pids())


def test_close_recycles(tmp_path: Path, job: Job, next_job: Job, fake_worker: Fake, started_pids: Pids) -> None:
    with Blender(PATIENT, tmp_path / "scratch", command=fake_worker("well")) as blender:
        blender.run(job)
        blender.close()
        assert (blender.pid, blender.jobs_done) == (None, 0)
        assert is_whole(blender.run(next_job), next_job)
        assert blender.jobs_done == 1
    assert len(set(started_pids())) == 2


CRASH = "; see its last words with -v; the model may be broken [crash]"
RAISE = ": stopped; raise the time limit or simplify the model [timeout]"
VIEW = "rendering ring16 view 3"
SHORT = {"start_timeout_s": 30.0, "import_timeout_s": 30.0, "view_timeout_s": 30.0, "heartbeat_timeout_s": 30.0}


@pytest.mark.parametrize(
    ("behaviour", "limits", "stage", "message"),
    [
        ("hang-in-import", {"import_timeout_s": 0.5}, "importing", f"not done within 0.5 s while importing{RAISE}"),
        ("hang-in-view", {"view_timeout_s": 1.2, "heartbeat_timeout_s": 20.0}, VIEW,
         f"not done within 1.2 s while {VIEW}{RAISE}"),
        ("silent", {"heartbeat_timeout_s": 1.2}, VIEW, f"no sign of life for 1.2 s while {VIEW}{RAISE}"),
        ("grandchildren", {"view_timeout_s": 1.2}, VIEW, f"not done within 1.2 s while {VIEW}{RAISE}"),
        ("segfault-in-import", {}, "importing", f"Blender was killed by SIGSEGV while importing{CRASH}"),
        ("segfault", {}, VIEW, f"Blender was killed by SIGSEGV while {VIEW}{CRASH}"),
        ("leave", {}, "importing", f"Blender exited with status 3 while importing{CRASH}"),
        ("out-of-memory", {}, VIEW, f"Blender was killed by SIGKILL while {VIEW}, as happens when memory runs out; give it "
                                    "more, or simplify the model [memory]"),
        ("leak", {"max_memory_bytes": 150 * MIB}, "importing", "Blender used * GB of memory, more than its 0.157 GB, while "
         "importing: stopped; give it more, or simplify the model [memory]"),
        ("fill-disk", {"max_scratch_bytes": 2 * MIB}, "importing", "Blender wrote * GB of files, more than its 0.0021 GB, "
         "while importing: stopped; make room, raise the limit or choose another folder [disk-full]"),
        ("wrong-key", {}, "taking the job", "Blender's child is out of step: it sent 'begin' of job 'another', expected "
         "'first' while taking the job [bad-output]"),
        ("unknown-event", {}, "importing", "Blender's child is out of step: it sent 'surprise' while importing [bad-output]"),
        ("extra-view", {}, "rendering ring16 view 1", "Blender's child is out of step: it sent a view that was not asked "
         "for while rendering ring16 view 1 [bad-output]"),
    ],
)  # fmt: skip
def test_failures_end_the_child_and_the_next_job_is_done(
    tmp_path: Path, job: Job, next_job: Job, fake_worker: Fake, started_pids: Pids, table: Callable[..., None],
    behaviour: str, limits: dict[str, Any], stage: str, message: str,
) -> None:  # fmt: skip
    table(first=behaviour)
    scratch = tmp_path / "scratch"
    with Blender(Execution(threads=1, **(SHORT | limits)), scratch, command=fake_worker("well")) as blender:
        with pytest.raises(FarmError) as caught:
            blender.run(job)
        before, after = f"first.ply: {message}".partition("*")[::2]
        assert str(caught.value).startswith(before)
        assert str(caught.value).endswith(after)
        assert caught.value.stage == stage
        if behaviour == "leave":
            assert caught.value.detail == "last words"
        assert (blender.pid, blender.stage, blender.jobs_done) == (None, "", 0)
        assert all_gone(started_pids())
        assert list(scratch.iterdir()) == []
        assert is_whole(blender.run(next_job), next_job)
    assert all_gone(started_pids())


@pytest.mark.parametrize("behaviour", ["flood", "flood-without-newlines", "garbage", "leave-grandchildren"])
def test_nuisances_are_borne(
    tmp_path: Path, job: Job, next_job: Job, fake_worker: Fake, started_pids: Pids, behaviour: str
) -> None:
    with Blender(PATIENT, tmp_path / "scratch", command=fake_worker(behaviour)) as blender:
        assert is_whole(blender.run(job), job)
        assert is_whole(blender.run(next_job), next_job)
        assert blender.jobs_done == 2
    assert len(started_pids()) == (5 if behaviour == "leave-grandchildren" else 1)
    assert all_gone(started_pids())


def test_a_refusal_keeps_the_child(
    tmp_path: Path, job: Job, next_job: Job, fake_worker: Fake, started_pids: Pids, table: Callable[..., None]
) -> None:
    table(first="refuse:animated")
    seen: list[Event] = []
    with Blender(PATIENT, tmp_path / "scratch", command=fake_worker("well")) as blender:
        with pytest.raises(FarmError, match=r"^first\.ply: refused as animated \[animated\]$") as caught:
            blender.run(job, on_event=seen.append)
        assert (caught.value.reason, caught.value.stage) == ("animated", "importing")
        assert seen[-1]["event"] == "error"
        assert blender.jobs_done == 1
        assert is_whole(blender.run(next_job), next_job)
        assert blender.jobs_done == 2
    assert len(started_pids()) == 1


@pytest.mark.parametrize("behaviour", ["die-between-jobs", pytest.param("hang-between-jobs", marks=pytest.mark.slow)])
def test_a_child_lost_between_jobs_is_replaced(
    tmp_path: Path, job: Job, next_job: Job, fake_worker: Fake, started_pids: Pids, table: Callable[..., None],
    behaviour: str, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    table(first=behaviour)
    with Blender(
        Execution(threads=1, start_timeout_s=3.0), tmp_path / "scratch", command=fake_worker("well")
    ) as blender:
        blender.run(job)
        assert is_whole(blender.run(next_job), next_job)
        assert blender.jobs_done == 1
    assert "a child was lost between two jobs and is replaced" in caplog.text
    assert len(set(started_pids())) == 2
    assert all_gone(started_pids())


@pytest.mark.parametrize(
    ("behaviour", "reason", "message"),
    [
        ("hang-at-start", "timeout", f"first.ply: not done within 1.5 s while starting Blender{RAISE}"),
        ("leave-at-start", "crash", f"first.ply: Blender exited with status 3 while starting Blender{CRASH}"),
    ],
)
def test_a_child_that_does_not_come_up_is_not_replaced(
    tmp_path: Path, job: Job, fake_worker: Fake, started_pids: Pids, behaviour: str, reason: str, message: str
) -> None:
    execution = Execution(threads=1, start_timeout_s=1.5)
    with Blender(execution, tmp_path / "scratch", command=fake_worker(behaviour)) as blender:
        with pytest.raises(FarmError) as caught:
            blender.run(job)
        assert (caught.value.reason, str(caught.value)) == (reason, message)
    assert all_gone(started_pids())
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_second_attempt_may_fare_better(
    tmp_path: Path, job: Job, fake_worker: Fake, table: Callable[..., None]
) -> None:
    table(first="segfault,well")
    with Blender(PATIENT, tmp_path / "scratch", command=fake_worker("well")) as blender:
        with pytest.raises(FarmError, match="SIGSEGV"):
            blender.run(job)
        assert is_whole(blender.run(job), job)


def test_deadline_factor_is_on_every_deadline(tmp_path: Path, job: Job, fake_worker: Fake) -> None:
    with (
        Blender(
            Execution(threads=1, import_timeout_s=5.0), tmp_path / "s", command=fake_worker("hang-in-import")
        ) as blender,
        pytest.raises(FarmError, match=r"not done within 0\.5 s while importing"),
    ):
        blender.run(job, deadline_factor=0.1)


def test_stop_ends_the_job(tmp_path: Path, job: Job, fake_worker: Fake, started_pids: Pids) -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    with Blender(PATIENT, tmp_path / "scratch", command=fake_worker("hang-in-import")) as blender:
        with pytest.raises(StoppedError, match=r"^stopped while "):
            blender.run(job, stop=stop)
        assert blender.pid is None
    assert all_gone(started_pids())


def test_what_the_callback_raises_ends_the_child(
    tmp_path: Path, job: Job, fake_worker: Fake, started_pids: Pids
) -> None:
    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    blender = Blender(PATIENT, tmp_path / "scratch", command=fake_worker("well"))
    with pytest.raises(KeyboardInterrupt):
        blender.run(job, on_event=interrupt)
    assert blender.pid is None
    assert all_gone(started_pids())
    assert list((tmp_path / "scratch").iterdir()) == []


def test_hang_at_exit_is_ended(
    tmp_path: Path, job: Job, fake_worker: Fake, started_pids: Pids, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("render_farm.blender.EXIT_GRACE_S", 0.2)
    with Blender(PATIENT, tmp_path / "scratch", command=fake_worker("hang-at-exit")) as blender:
        assert is_whole(blender.run(job), job)
    assert all_gone(started_pids())


def test_a_full_disk_is_named(tmp_path: Path, job: Job, fake_worker: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blender says only that it could not write; how much is free says why."""
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("render_farm.blender.shutil.disk_usage", lambda folder: usage)
    with (
        Blender(PATIENT, tmp_path / "scratch", command=fake_worker("refuse:write-failed")) as blender,
        pytest.raises(FarmError) as caught,
    ):
        blender.run(job)
    assert str(caught.value) == (
        f"first.ply: disk full: 1000 bytes are free in {tmp_path / 'scratch'} (refused as write-failed); make room, raise "
        "the limit or choose another folder [disk-full]"
    )


def test_environment_reaches_the_child(tmp_path: Path, job: Job, fake_worker: Fake) -> None:
    with Blender(
        PATIENT, tmp_path / "scratch", command=fake_worker("well"),
        environment={"FAKE_WORKER_TABLE": '{"first.ply": "refuse:too-large"}'},
    ) as blender, pytest.raises(FarmError, match="too-large"):  # fmt: skip
        blender.run(job)


def test_scratch_that_cannot_be_made(tmp_path: Path, job: Job, fake_worker: Fake) -> None:
    (tmp_path / "taken").write_text("mine")
    blender = Blender(PATIENT, tmp_path / "taken", command=fake_worker("well"))
    with pytest.raises(FarmError, match=r"^first\.ply: cannot write to .*taken: File exists; .* \[write-failed\]$"):
        blender.run(job)


@pytest.mark.blender
def test_real_blender_does_job_after_job(
    tmp_path: Path, make_glb: Callable[..., Path], make_box: Callable[..., Any], write_ply: Callable[[Path], Path]
) -> None:
    """Three objects, the middle one refused, one process; then one that misses its deadline, and a fresh process."""
    good, flat = make_glb(tmp_path / "good.glb", make_box()), make_glb(tmp_path / "flat.glb", make_box((0, 0, 0)))
    planned = plan_orbits(5, SPEC)

    def job(name: str, asset: Path) -> Job:
        folder = tmp_path / name
        folder.mkdir()
        return make_job(name, asset, ".glb", planned=planned, seed=5, spec=SPEC, execution=PATIENT, folder=folder)

    with Blender(PATIENT, tmp_path / "scratch") as blender:
        first = job("first", good)
        result = blender.run(first)
        assert is_whole(result, first)
        assert result.imported["triangles"] == 12
        assert 0 < result.render_s < result.wall_s
        pid = blender.pid
        with pytest.raises(FarmError) as caught:
            blender.run(job("second", flat))
        assert caught.value.reason == "zero-size"
        third = job("third", good)
        assert is_whole(blender.run(third), third)
        assert (blender.pid, blender.jobs_done) == (pid, 3)
        blender.execution = replace(PATIENT, import_timeout_s=0.001)
        with pytest.raises(FarmError, match=r"not done within 0.001 s while importing: stopped"):
            blender.run(job("fourth", good))
        assert pid is not None
        assert all_gone([pid])
        blender.execution = PATIENT
        fifth = job("fifth", good)
        assert is_whole(blender.run(fifth), fifth)
        assert blender.jobs_done == 1
