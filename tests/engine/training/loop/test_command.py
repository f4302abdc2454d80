"""`turntable train`: how what is typed becomes a recipe and a run."""

from pathlib import Path

import pytest
import tyro

from engine.cli.train import Train
from engine.cli.train_mini import TrainMini
from engine.command_line import PLAIN_FLAGS


def typed(*words: str) -> Train:
    """The command that these words are."""
    return tyro.cli(Train, args=["vae", "--size", "tiny", "--out", "run", *words], config=PLAIN_FLAGS)


def test_what_is_not_given_is_the_recipes_own():
    from engine.training.recipes import recipe_named

    assert typed()._recipe() == recipe_named("vae", "tiny")


def test_what_is_given_changes_the_recipe_and_the_run():
    command = typed(
        "--steps", "7", "--batch-size", "6", "--learning-rate", "0.5", "--ema-decay", "0.9", "--clip-norm", "2",
        "--gradient-checkpointing", "--size-px", "32", "--micro-batch", "3", "--precision", "bf16", "--lora", "8",
        "--keep", "5", "--seed", "4", "--data", "a.tar", "b-{000..003}.tar@2.5",
    )  # fmt: skip
    recipe, settings = command._recipe(), command._settings()
    plan = recipe.optimisation
    assert (plan.steps, plan.batch_size, plan.learning_rate, plan.ema_decay, plan.clip_norm) == (7, 6, 0.5, 0.9, 2.0)
    assert plan.gradient_checkpointing
    assert recipe.data.size_px == 32
    assert (settings.micro_batch, settings.precision, settings.lora_rank) == (3, "bf16", 8)
    assert (settings.keep, settings.seed) == (5, 4)
    assert command.shards.data == ("a.tar", "b-{000..003}.tar@2.5")
    assert command.out == Path("run")


def test_nought_keeps_no_average_and_clips_nothing():
    plan = typed("--ema-decay", "0", "--clip-norm", "0")._recipe().optimisation
    assert (plan.ema_decay, plan.clip_norm) == (None, None)


def test_steps_and_minutes_exclude_each_other():
    with pytest.raises(ValueError, match="--steps and --minutes: give one of them"):
        typed("--steps", "7", "--minutes", "1")._recipe()
    with pytest.raises(ValueError, match="--steps must be at least 1, got 0"):
        typed("--steps", "0")._recipe()


@pytest.mark.parametrize("flag", ["processes", "threads"])
@pytest.mark.parametrize(
    "command", [typed, lambda *words: tyro.cli(TrainMini, args=["vae", "--data", "shards", *words])]
)
def test_less_than_one_of_what_computes_is_refused(command, flag):
    with pytest.raises(ValueError, match=f"--{flag} must be at least 1, got 0"):
        command(f"--{flag}", "0").perform()


def test_data_are_wanted():
    command = typed()
    with pytest.raises(ValueError, match="--data: say which shards to learn from"):
        command._feed(command._recipe(), command._settings())


def test_a_part_is_a_name_and_a_folder():
    command = typed("--part", "vae")
    with pytest.raises(ValueError, match="--part must be NAME=FOLDER, got vae"):
        command._task(command._recipe())
