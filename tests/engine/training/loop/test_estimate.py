"""What --dry-run says: counted by hand, and on the meta device as on a real one."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from engine.training.loop.estimate import estimate, told
from engine.training.loop.meta import cost_of_step, on_meta
from engine.training.loop.settings import LoopSettings
from engine.training.recipes import RECIPES, recipe_named
from engine.training.tasks.build import make_task
from tests.engine.training.loop.toys import SIDE, TOYS, VIEWS, ToyTask, toy_recipe

CPU = LoopSettings(device="cpu")
INSIDE = 3 * SIDE * SIDE
PARAMETERS = (INSIDE + 1) * 16 + (16 + 1) * INSIDE + 2 * INSIDE


def test_bytes_are_those_of_the_parameters():
    made = estimate(ToyTask, toy_recipe(), CPU)
    assert made.trained_parameters == PARAMETERS
    assert made.other_parameters == 2
    assert made.gradient_bytes == 4 * PARAMETERS
    assert made.optimizer_bytes == 8 * PARAMETERS
    assert made.average_bytes == 4 * PARAMETERS
    assert estimate(ToyTask, toy_recipe(ema_decay=None), CPU).average_bytes == 0


def test_arithmetic_is_that_of_the_matrices():
    """Two a multiply-add: in, out, and the camera's one number, for each view."""
    made = estimate(ToyTask, toy_recipe(), CPU)
    assert made.forward_flop == VIEWS * 2 * (INSIDE * 16 + 16 * INSIDE + INSIDE)


def test_adapters_are_less_than_the_network():
    made = estimate(ToyTask, toy_recipe(), replace(CPU, lora_rank=2))
    assert made.trained_parameters == 2 * (INSIDE + 16) * 2 + 2 * INSIDE
    assert made.other_parameters > PARAMETERS - 2 * INSIDE


def test_the_words_hold_the_figures():
    words = told(estimate(ToyTask, toy_recipe(), replace(CPU, micro_batch=2)))
    assert "a micro-batch of 2 on the meta device, float32" in words
    assert "the run      8 steps, 32 clips" in words
    assert "give --data to measure a step" in words
    assert "the run" not in told(estimate(ToyTask, toy_recipe(), replace(CPU, minutes=1.0)))


def test_a_step_is_measured_where_there_are_data():
    made = estimate(ToyTask, toy_recipe(), CPU, TOYS)
    assert made.step_seconds > 0
    assert "s a step" in told(made)


def test_more_clips_at_a_time_hold_more():
    one, four = (estimate(ToyTask, toy_recipe(), replace(CPU, micro_batch=n)).activation_bytes for n in (1, 4))
    assert 3 < four / one < 4.5


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, size in RECIPES if size == "mini"])
def test_every_small_recipe_is_counted_without_weights(name):
    asked = recipe_named(name, "mini")
    made = estimate(partial(make_task, asked, fresh=True), asked, replace(CPU, micro_batch=1))
    assert made.forward_flop > 0
    assert made.activation_bytes > 0


@pytest.mark.parametrize("recipe", ["vae", "depth"])
def test_meta_counts_what_a_real_device_counts(recipe):
    asked = recipe_named(recipe, "tiny")
    real = cost_of_step(make_task(asked, fresh=True), asked.data, 1, "no")
    imagined = cost_of_step(on_meta(lambda: make_task(asked, fresh=True)), asked.data, 1, "no")
    # torch's counter does not know the CPU's fused attention, one percent of these
    assert imagined.forward_flop == pytest.approx(real.forward_flop, rel=0.02)
    # on the CPU attention keeps its scores' sums, and convolutions some workspace
    assert imagined.activation_bytes == pytest.approx(real.activation_bytes, rel=0.1)


@pytest.mark.slow
def test_sixteen_bits_and_computing_twice_need_less():
    asked = recipe_named("hi3d-base", "tiny")
    twice = replace(asked, optimisation=replace(asked.optimisation, gradient_checkpointing=True))

    def bytes_of(recipe, precision):
        return cost_of_step(on_meta(lambda: make_task(recipe, fresh=True)), recipe.data, 1, precision).activation_bytes

    whole = bytes_of(asked, "no")
    assert bytes_of(asked, "bf16") < 0.8 * whole
    assert bytes_of(twice, "no") < 0.5 * whole


def test_torch_is_as_before():
    """Functions are replaced while a step is imagined."""
    before = (torch.autocast, torch.nn.functional.linear, torch.Tensor.__matmul__)
    estimate(ToyTask, toy_recipe(), CPU)
    assert (torch.autocast, torch.nn.functional.linear, torch.Tensor.__matmul__) == before
