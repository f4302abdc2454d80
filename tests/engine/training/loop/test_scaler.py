"""fp16's scaler: a few refused updates are usual, many in a row are an error. On the CPU, which accelerate does not
offer fp16 for but torch does: so accelerate is told otherwise."""

import json
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch

from engine.errors import TrainingError
from engine.training.loop import processes
from engine.training.loop.run import train
from engine.training.loop.settings import LoopSettings
from engine.training.loop.steps import MOST_SKIPPED
from engine.training.types import Batch, Losses
from tests.engine.training.loop.toys import TOYS, ToyTask, toy_recipe

CPU = LoopSettings(device="cpu", checkpoint_every=3, seed=7)


class Accelerator(accelerate.Accelerator):
    """Trains in fp16 on the CPU."""

    mixed_precision = property(lambda self: "fp16")

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.scaler = torch.amp.GradScaler("cpu")
        self.native_amp = True


class Overflowing(ToyTask):
    """Has gradients beyond fp16 at some steps."""

    def __init__(self, steps: range, factor: float = 1e38) -> None:
        super().__init__()
        self._steps, self._factor = steps, factor

    def loss(self, student: torch.nn.Module, batch: Batch, *, share: float) -> Losses:
        found = super().loss(student, batch, share=share)
        return Losses(found.total * (self._factor if len(self.shares) in self._steps else 1.0))


def lines(run: Path) -> list[dict[str, Any]]:
    """What was written down."""
    return [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def _scaler(monkeypatch):
    monkeypatch.setattr(processes, "Accelerator", Accelerator)


def test_refused_updates_are_written_down_and_the_run_goes_on(tmp_path):
    train(Overflowing(range(2, 4)), TOYS, toy_recipe(steps=12), tmp_path, CPU)
    assert [line["step"] for line in lines(tmp_path) if line.get("skipped")] == [2, 3]
    assert lines(tmp_path)[-1]["loss"] < lines(tmp_path)[0]["loss"]


def test_the_scaler_is_part_of_a_checkpoint(tmp_path):
    """Its factor was halved twice; a run that goes on with another factor would clip and round otherwise."""
    undisturbed, stopped = tmp_path / "undisturbed", tmp_path / "stopped"
    train(Overflowing(range(2, 4)), TOYS, toy_recipe(schedule="constant", steps=12), undisturbed, CPU)
    train(Overflowing(range(2, 4)), TOYS, toy_recipe(schedule="constant", steps=6), stopped, CPU)
    train(ToyTask(), TOYS, toy_recipe(schedule="constant", steps=12), stopped, CPU)
    assert [line["loss"] for line in lines(stopped)] == [line["loss"] for line in lines(undisturbed)]
    assert [line["gradient_norm"] for line in lines(stopped)] == [line["gradient_norm"] for line in lines(undisturbed)]


def test_too_many_refused_updates_are_an_error(tmp_path):
    with pytest.raises(TrainingError, match=f"step 25: .* is not a finite number {MOST_SKIPPED + 1} times in a row"):
        train(Overflowing(range(5, 100), float("inf")), TOYS, toy_recipe(steps=60), tmp_path, CPU)
    assert sum(line.get("skipped", False) for line in lines(tmp_path)) == MOST_SKIPPED


def test_a_run_without_a_scaler_does_not_take_up_one_with(tmp_path, monkeypatch):
    train(ToyTask(), TOYS, toy_recipe(), tmp_path, CPU)
    monkeypatch.setattr(processes, "Accelerator", accelerate.Accelerator)
    with pytest.raises(TrainingError, match="whether --precision is fp16 was True, asked for is False"):
        train(ToyTask(), TOYS, toy_recipe(), tmp_path, CPU)
