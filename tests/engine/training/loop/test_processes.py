"""How a step is dealt, and what the processes refuse."""

import pytest

from engine.errors import TrainingError
from engine.training.loop.processes import Shares, deal, join, precision_of
from engine.training.loop.settings import LoopSettings
from engine.training.loop.speed import Speed
from engine.training.loop.steps import Taken
from tests.engine.training.loop.toys import ToyTask, toy_recipe


@pytest.mark.parametrize(
    ("batch", "micro", "ranks", "expected"),
    [
        (8, None, 2, Shares(4, 1, 2)),
        (8, 1, 2, Shares(1, 4, 2)),
        (8, 4, 1, Shares(4, 2, 1)),
        (1, None, 1, Shares(1, 1, 1)),
    ],
)
def test_a_step_is_dealt_evenly(batch, micro, ranks, expected):
    assert deal(batch, micro, ranks) == expected
    assert expected.batch_size == batch


@pytest.mark.parametrize(("batch", "micro", "ranks"), [(4, None, 8), (8, 3, 1), (6, None, 4)])
def test_an_uneven_step_is_refused(batch, micro, ranks):
    with pytest.raises(TrainingError, match=f"--batch-size {batch} cannot be dealt to {ranks} processes"):
        deal(batch, micro, ranks)


def test_the_cpu_computes_in_float32_unless_told_otherwise():
    plan = toy_recipe(precision="bf16").optimisation
    assert precision_of(LoopSettings(device="cpu"), plan) == "no"
    assert precision_of(LoopSettings(device="cpu", precision="bf16"), plan) == "bf16"


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_sharding_that_would_not_happen_is_refused(monkeypatch, name):
    """accelerate would train without a word as if it had not been asked."""
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises((TrainingError, ImportError), match=f"asks for {name}|DeepSpeed is not installed|deepspeed"):
        join(ToyTask(), LoopSettings(device="cpu"), toy_recipe().optimisation)


def test_speed_is_clips_over_all_seconds_and_mfu_the_share_of_the_peak():
    speed = Speed(peak=1e12, forward_flop=10**11)
    for seconds in (0.5, 1.5):
        speed.add(Taken(1.0, 1.0, 1.0, seconds, 0.25, skipped=False, stop=False, clock=0.0))
    told = speed.told(clips=4)
    assert told["speed/clips_per_second"] == 4.0
    assert told["speed/share_waiting_for_data"] == 0.25
    assert told["speed/mfu"] == pytest.approx(3 * 1e11 * 2 / 2.0 / 1e12)  # three forward passes a step
    assert speed.told(clips=4) == {}
