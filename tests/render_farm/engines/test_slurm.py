"""The script of a job array, run by bash with a `turntable-farm` that records what it is told; and who gets which shard."""

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from render_farm.cli.farming import Worker
from render_farm.engines import slurm
from render_farm.engines.array_job import ArrayJob
from render_farm.engines.slurm import all_shards, array_script, chosen_shards
from render_farm.errors import RunError
from render_farm.run.folder import Run
from tests.render_farm.run.farms import fake_run

STUB = """\
#!/bin/bash
printf '%s\\n' "$@" > "$RECORD/$SLURM_ARRAY_TASK_ID"
trap 'trap "" TERM; echo term >> "$RECORD/signals"; exit 130' TERM
touch "$RECORD/ready"
for i in $(seq ${SLEEPS:-0}); do sleep 0.05; done
exit ${STATUS:-0}
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return fake_run(tmp_path / "a run's $HOME", [f"o{i}" for i in range(7)], shard_objects=1)


class Bash:
    """Runs scripts as sbatch would, and tells what the worker was given."""

    def __init__(self, folder: Path) -> None:
        self.record = folder / "record"
        self.record.mkdir(parents=True)
        stub = folder / "bin" / "turntable-farm"
        stub.parent.mkdir()
        stub.write_text(STUB)
        stub.chmod(0o755)
        self._environment = os.environ | {"PATH": f"{stub.parent}:{os.environ['PATH']}", "RECORD": str(self.record)}
        for name in ("SLURM_TMPDIR", "TMPDIR", "CUDA_VISIBLE_DEVICES"):
            self._environment.pop(name, None)

    def start(self, script: Path, index: int, **environment: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            ["bash", str(script)], env=self._environment | {"SLURM_ARRAY_TASK_ID": str(index)} | environment,
            stderr=subprocess.PIPE,
        )  # fmt: skip

    def finish(self, script: Path, index: int = 0, **environment: str) -> tuple[int, str]:
        process = self.start(script, index, **environment)
        stderr = process.communicate(timeout=30)[1]
        return process.returncode, stderr.decode()

    def told(self, index: int = 0) -> list[str]:
        return (self.record / str(index)).read_text().splitlines()

    def wait_until_ready(self) -> None:
        until = time.monotonic() + 30
        while not (self.record / "ready").exists():
            assert time.monotonic() < until, "the stub was not started"
            time.sleep(0.01)


@pytest.fixture
def bash(tmp_path: Path) -> Bash:
    return Bash(tmp_path / "bash")


def write(run: Run, folder: Path, **fields: Any) -> Path:
    path = folder / "jobs" / "array.sh"
    array_script(run, ArrayJob(**({"array": 3} | fields)), path)
    subprocess.run(["bash", "-n", str(path)], check=True)
    return path


def options(script: Path) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in script.read_text().splitlines() if line.startswith("#SBATCH")]


def test_each_job_gets_its_share(run: Run, bash: Bash, tmp_path: Path) -> None:
    script = write(run, tmp_path)
    for index in range(3):
        assert bash.finish(script, index) == (0, "")
        assert bash.told(index) == [
            "worker", str(run.folder), "--shards", f"{index}/3", "--scratch", "/tmp", "--workers", "16", "--threads", "1",
        ]  # fmt: skip
    shares = [chosen_shards(Run.open(Path(bash.told(i)[1])), bash.told(i)[3]) for i in range(3)]
    assert sorted(name for share in shares for name in share) == all_shards(run)


@pytest.mark.parametrize(
    ("environment", "scratch"),
    [({"SLURM_TMPDIR": "/local/job 7", "TMPDIR": "/else"}, "/local/job 7"), ({"TMPDIR": "/else"}, "/else")],
)
def test_scratch_is_the_nodes_own(run: Run, bash: Bash, tmp_path: Path, environment: dict, scratch: str) -> None:
    assert bash.finish(write(run, tmp_path), **environment) == (0, "")
    assert bash.told()[5] == scratch


def test_gpus_are_those_that_slurm_gave(run: Run, bash: Bash, tmp_path: Path) -> None:
    script = write(run, tmp_path, cpus=24, gpus=3)
    assert "--gpus-per-task=3" in options(script)
    assert bash.finish(script, CUDA_VISIBLE_DEVICES="0,GPU-1b,2")[0] == 0
    assert bash.told()[6:] == ["--device", "gpu", "--gpus", "0", "GPU-1b", "2", "--threads", "8"]
    status, stderr = bash.finish(script, 1)
    assert status != 0
    assert "CUDA_VISIBLE_DEVICES: unbound variable" in stderr


def test_the_worker_understands_what_it_is_given(run: Run, bash: Bash, tmp_path: Path) -> None:
    import tyro

    bash.finish(write(run, tmp_path, cpus=24, gpus=2), CUDA_VISIBLE_DEVICES="0,1")
    worker = tyro.cli(Worker, args=bash.told()[1:])
    assert (worker.folder, worker.shards, worker.farm.gpus) == (run.folder, "0/3", ("0", "1"))
    settings = worker.farm.settings(None)
    assert (settings.slots, settings.execution.threads, settings.execution.device) == (2, 12, "gpu")


@pytest.mark.parametrize("status", [0, 1, 130])
def test_the_jobs_status_is_the_workers(run: Run, bash: Bash, tmp_path: Path, status: int) -> None:
    assert bash.finish(write(run, tmp_path), STATUS=str(status)) == (status, "")


def test_setup_comes_first_and_may_be_careless(run: Run, bash: Bash, tmp_path: Path) -> None:
    script = write(run, tmp_path, setup='export STATUS=$UNSET_BY_ALL; STATUS=5; echo "ok" > "$RECORD/setup"')
    assert bash.finish(script) == (5, "")
    assert (bash.record / "setup").read_text() == "ok\n"
    failing = write(run, tmp_path, setup="false")
    (bash.record / "0").unlink()
    assert bash.finish(failing) == (1, "")
    assert not (bash.record / "0").exists()


@pytest.mark.parametrize("signals", [1, 2])
def test_sigterm_reaches_the_worker_and_is_waited_for(run: Run, bash: Bash, tmp_path: Path, signals: int) -> None:
    # the stub sleeps in short steps: bash runs its trap between them
    with bash.start(write(run, tmp_path), 0, SLEEPS="1200") as process:
        bash.wait_until_ready()
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 130
    assert set((bash.record / "signals").read_text().split()) == {"term"}


def test_a_worker_that_takes_its_time_to_stop_is_waited_for(run: Run, bash: Bash, tmp_path: Path) -> None:
    stub = tmp_path / "bash" / "bin" / "turntable-farm"
    stub.write_text(STUB.replace("exit 130", "sleep 0.5; touch $RECORD/staged; exit 3"))
    with bash.start(write(run, tmp_path), 0, SLEEPS="1200") as process:
        bash.wait_until_ready()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 3
    assert (bash.record / "staged").exists()


def test_options(run: Run, tmp_path: Path) -> None:
    found = options(write(run, tmp_path, at_a_time=2, partition="long", memory_gb=7, time="01:02:03", cpus=5))
    assert found == [
        "--job-name=turntable-run", "--array=0-2%2", "--cpus-per-task=5", "--mem=7G", "--time=01:02:03",
        "--signal=B:TERM@120", "--requeue", f"--output={shlex.quote(str(run.folder))[:-1]}/slurm-%A_%a.log'",
        "--partition=long",
    ]  # fmt: skip


def test_job_names_and_logs_bear_any_folder(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "100% of it", ["one"])
    pairs = (option.removeprefix("--").partition("=") for option in options(write(run, tmp_path, array=1)))
    found = {name: value for name, _, value in pairs}
    assert shlex.split(found["output"]) == [f"{tmp_path}/100%% of it/run/slurm-%A_%a.log"]
    assert re.fullmatch(r"turntable-[\w.-]+", found["job-name"])


def test_more_jobs_than_shards(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        array_script(run, ArrayJob(8), tmp_path / "array.sh")
    assert str(caught.value) == (
        "an array of 8 jobs is more than this run's 7 shards: ask for --array 7 or fewer, or make the run with a smaller "
        "--shard-objects"
    )
    assert not (tmp_path / "array.sh").exists()


@pytest.mark.parametrize(
    ("name", "least"), [("array", 1), ("at_a_time", 0), ("cpus", 1), ("gpus", 0), ("memory_gb", 1)]
)
def test_settings_out_of_range(run: Run, tmp_path: Path, name: str, least: int) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be at least {least}, got {least - 1}$"):
        array_script(run, ArrayJob(**({"array": 1} | {name: least - 1})), tmp_path / "array.sh")
    assert not (tmp_path / "array.sh").exists()


# ------------------------------------------------------------------------------------------------ shares
@given(shards=st.integers(0, 40), parts=st.integers(1, 60))
def test_every_shard_is_in_one_share(shards: int, parts: int) -> None:
    names = [f"000-{i:06d}" for i in range(shards)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slurm, "all_shards", lambda run: names)
        shares = [chosen_shards(a_run(), f"{index}/{parts}") for index in range(parts)]
    assert sorted(name for share in shares for name in share) == names
    sizes = {len(share) for share in shares}
    assert max(sizes) - min(sizes) <= 1


def a_run() -> Run:
    from render_farm.records import Filters
    from tests.render_farm.run.farms import SPEC

    return Run(Path("/nowhere"), SPEC, Filters(), 1, None)


@pytest.mark.parametrize(
    "text", ["", "1", "3/3", "4/3", "-1/3", "0/0", "a/b", "1/3 ", "1/3/5", "1.0/3", "1\\3", "\u0663/\u0664"]
)
def test_what_is_no_share(run: Run, text: str) -> None:
    with pytest.raises(RunError) as caught:
        chosen_shards(run, text)
    assert str(caught.value) == f"--shards must be I/N with I from 0 to N - 1, such as 3/16, got {text!r}"
