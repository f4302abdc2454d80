"""`turntable train` as it is typed: real shards, real tasks at tiny size, processes that are killed and multiplied."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from engine.checkpoints.layout import read_index
from engine.files import write_shard
from engine.training.loop import state
from tests.engine.training.small_orbits import small_orbit, small_shards

REPOSITORY = Path(__file__).parents[4]
SIZE = 64
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """Two shards of five and four objects to learn from, two held-out objects."""
    folder = tmp_path_factory.mktemp("shards")
    (folder / "train").mkdir()
    small_shards(folder / "train", (5, 4), views=24, size=SIZE, orbit="ring24")
    held_out = [small_orbit(90 + i, views=24, size=SIZE, orbit="ring24") for i in range(2)]
    write_shard(folder / "val.tar", held_out)
    return folder


def command(recipe: str, shards: Path, run: Path, *more: str, workers: int = 2) -> list[str]:
    """The command line of a tiny run on the CPU."""
    return [
        "-m", "engine.cli", "train", recipe, "--size", "tiny", "--data", str(shards / "train"), "--out", str(run),
        "--fresh", "--device", "cpu", "--threads", "1", "--workers", str(workers), "--log-every", "2", "--seed", "3",
        *more,
    ]  # fmt: skip


def environment() -> dict[str, str]:
    """One thread: sums in one order."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}


def run_to_its_end(arguments: list[str]) -> str:
    """Run, and return what it said on stderr."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=REPOSITORY, env=environment(), capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


def until(run: Path, lines: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until so many steps are written down."""
    for _ in range(2400):
        path = run / "losses.jsonl"
        if path.is_file() and path.read_text().count("\n") >= lines:
            return
        assert process.poll() is None, "it ended before it could be disturbed"
        time.sleep(0.05)
    raise AssertionError(f"{run}: no {lines} steps in two minutes")


def losses(run: Path) -> list[float]:
    """Losses by step; fails where a step is missing or there twice."""
    lines = [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [line["loss"] for line in lines]


def disturbed(arguments: list[str], run: Path, lines: int, number: signal.Signals) -> int:
    """Start a run, send it a signal after so many steps, and return its exit status."""
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=REPOSITORY, env=environment(), stderr=subprocess.DEVNULL
    )
    until(run, lines, process)
    process.send_signal(number)
    return process.wait(timeout=120)


def test_a_killed_run_goes_on_with_the_same_losses(shards, tmp_path):
    """Killed twice, with two workers that read ahead, micro-batches of one and validation in between."""
    more = ("--steps", "14", "--checkpoint-every", "3", "--val", str(shards / "val.tar"), "--validate-every", "5",
            "--micro-batch", "1", "--ema-decay", "0.9")  # fmt: skip
    run_to_its_end(command("vae", shards, tmp_path / "undisturbed", *more))
    arguments = command("vae", shards, tmp_path / "killed", *more)
    for lines in (4, 8):
        assert disturbed(arguments, tmp_path / "killed", lines, signal.SIGKILL) == -signal.SIGKILL
    said = run_to_its_end(arguments)
    assert "going on after step" in said
    expected, found = losses(tmp_path / "undisturbed"), losses(tmp_path / "killed")
    assert len(found) == 14
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)  # the promise; on one machine they are equal
    for name in ("weights", "best"):
        one, other = (load_file(next((tmp_path / run / name / "vae").glob("*.safetensors"))) for run in
                      ("undisturbed", "killed"))  # fmt: skip
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_terminated_run_stores_its_step_and_goes_on(shards, tmp_path):
    """SIGTERM, as SLURM and torchrun send it: status 130, a checkpoint of the last step, no step lost."""
    arguments = command("vae", shards, tmp_path / "run", "--steps", "30", "--checkpoint-every", "1000")
    assert disturbed(arguments, tmp_path / "run", 4, signal.SIGTERM) == 130
    done = len(losses(tmp_path / "run"))
    assert [state.step_of(path) for path in state.checkpoints(tmp_path / "run")] == [done]
    run_to_its_end(arguments)
    assert len(losses(tmp_path / "run")) == 30


def test_two_processes_learn_what_one_does(shards, tmp_path):
    """DDP over gloo: two processes of one clip each against one of two; means over both are written down. One shard,
    fewer than readers: so all see the same order."""
    more = ("--steps", "6", "--val", str(shards / "val.tar"), "--batch-size", "2", "--ema-decay", "0.9",
            "--data", str(shards / "train" / "orbits-000.tar"))  # fmt: skip
    run_to_its_end(command("vae", shards, tmp_path / "one", *more))
    run_to_its_end(command("vae", shards, tmp_path / "two", *more, "--processes", "2"))
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    # a mean of two clips against the mean of two means; what rounding does to a gradient, Adam's first steps magnify
    np.testing.assert_allclose(two, one, rtol=1e-4)
    said = json.loads((tmp_path / "two" / "run.json").read_text())
    assert (said["processes"], said["distributed"]) == (2, "MULTI_CPU")
    measured = [json.loads((tmp_path / run / "measures.jsonl").read_text())["loss"] for run in ("one", "two")]
    assert measured[1] == pytest.approx(measured[0], rel=1e-3)  # as above, and averaged weights


def test_processes_are_stopped_together_and_go_on(shards, tmp_path):
    arguments = command("vae", shards, tmp_path / "run", "--steps", "40", "--processes", "2", "--batch-size", "2",
                        "--data", str(shards / "train" / "orbits-000.tar"), workers=0)  # fmt: skip
    assert disturbed(arguments, tmp_path / "run", 4, signal.SIGTERM) == 130
    done = len(losses(tmp_path / "run"))
    assert done < 40
    assert [state.step_of(path) for path in state.checkpoints(tmp_path / "run")] == [done]
    run_to_its_end(arguments)
    assert len(losses(tmp_path / "run")) == 40


def test_what_goes_wrong_in_one_of_several_processes_is_said(shards, tmp_path):
    arguments = command("vae", tmp_path / "nowhere", tmp_path / "run", "--processes", "2")
    done = subprocess.run(
        [sys.executable, *arguments], cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert "this is a bug" not in done.stderr


def test_adapters_of_a_video_network_are_trained_and_merged(shards, tmp_path):
    """What comes out is a folder of weights that starts the next run."""
    run_to_its_end(command("videomv-image", shards, tmp_path / "base", "--steps", "1"))
    base = tmp_path / "base" / "weights"
    run_to_its_end(
        command("videomv-image", shards, tmp_path / "lora", "--steps", "2", "--lora", "4", "--weights", str(base))
    )
    merged = tmp_path / "lora" / "weights"
    assert read_index(merged) == read_index(base)
    assert (merged / "adapters" / "adapter_config.json").is_file()
    before, after = (load_file(next((folder / "unet").glob("*.safetensors"))) for folder in (base, merged))
    assert set(before) == set(after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".to_" in name or "camera_embedding" in name for name in changed)


def test_a_checkpoint_of_another_recipe_is_refused(shards, tmp_path):
    run_to_its_end(command("vae", shards, tmp_path / "run", "--steps", "1", workers=0))
    done = subprocess.run(
        [sys.executable, *command("depth", shards, tmp_path / "run", "--steps", "1", workers=0)], cwd=REPOSITORY,
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "is a checkpoint of another run: the recipe was vae, asked for is depth" in done.stderr


def test_a_dry_run_measures_a_step_and_writes_nothing(shards, tmp_path):
    done = subprocess.run(
        [sys.executable, *command("vae", shards, tmp_path / "run", "--dry-run", workers=0)], cwd=REPOSITORY,
        env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "a micro-batch of 2 on the meta device" in done.stdout
    assert "s a step" in done.stdout
    assert not (tmp_path / "run").exists()
