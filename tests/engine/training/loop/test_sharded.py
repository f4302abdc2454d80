"""Weights that are spread over processes (FSDP): the same losses, resume, and whole weights in the end."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.training.loop.run import train
from engine.training.loop.settings import LoopSettings
from tests.engine.training.loop.toys import TOYS, ToyTask, toy_recipe

REPOSITORY = Path(__file__).parents[4]


def spread(run: Path, stop_at: int) -> int:
    """Run the toys in two processes; the launcher's exit status."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    child = ["-m", "tests.engine.training.loop.sharded_child", str(run), str(stop_at)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *launcher, *child], cwd=REPOSITORY, env=environment, capture_output=True,
                          check=False, timeout=300)  # fmt: skip
    return done.returncode


def losses(run: Path) -> list[float]:
    """By step."""
    lines = [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9))
    return [line["loss"] for line in lines]


@pytest.mark.slow
def test_spread_weights_learn_resume_and_come_together(tmp_path):
    """Against one process: slowed gradients, clipping and averages work on parts as they do on the whole."""
    assert spread(tmp_path / "two", 4) != 0
    assert spread(tmp_path / "two", -1) == 0
    task = ToyTask()
    task.pretrained_parameters = ["unet.to_q.weight"]
    settings = LoopSettings(device="cpu", checkpoint_every=3, validate_every=4, log_every=2, seed=7)
    train(task, TOYS, toy_recipe(slowed=0.5), tmp_path / "one", settings)
    # sums in other order, single precision
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    for name in ("weights", "best"):
        one, two = (load_file(tmp_path / run / name / "unet" / "toy.safetensors") for run in ("one", "two"))
        assert set(one) == set(two)
        for key in one:
            torch.testing.assert_close(two[key], one[key], rtol=1e-3, atol=1e-5)  # as above, after 8 steps of Adam
