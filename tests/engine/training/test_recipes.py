"""The table of recipes."""

import subprocess
import sys
from typing import get_args

import pytest

from engine.errors import TrainingError
from engine.training.plans import RecipeName
from engine.training.recipes import RECIPES, recipe_named
from engine.training.tasks.build import MODULES, make_task
from engine.training.types import Task


@pytest.mark.parametrize("name", get_args(RecipeName))
def test_every_recipe_is_there_as_published_and_tiny(name):
    sizes = ("mini", "tiny") if name.startswith("expectation-") else ("full", "tiny")  # no release has such a part
    for size in sizes:
        recipe = recipe_named(name, size)
        assert (recipe.name, recipe.size) == (name, size)
        assert recipe.sources
        assert recipe.task is not None
    assert name in MODULES
    assert recipe_named(name, sizes[0]) is RECIPES[name, sizes[0]]


@pytest.mark.parametrize(
    "name",
    [
        "videomv-text",
        "videomv-image",
        "videomv-2d-joint",
        "reconstructor",
        "vae",
        "expectation-image",
        "expectation-text",
        "expectation-hi3d",
    ],
)
def test_a_tiny_recipe_makes_its_task(name):
    task = make_task(recipe_named(name, "tiny"))
    assert isinstance(task, Task)
    again = make_task(recipe_named(name, "tiny"))
    for one, other in zip(task.student.parameters(), again.student.parameters(), strict=True):
        assert one.equal(other)  # the same seed, the same weights
    other = make_task(recipe_named(name, "tiny"), seed=1)
    assert any(not a.equal(b) for a, b in zip(task.student.parameters(), other.student.parameters(), strict=True))


def test_what_is_not_there_is_said_with_what_is():
    with pytest.raises(TrainingError, match=r"recipe videomv: there is none of that name; take one of videomv-text \("):
        recipe_named("videomv")
    with pytest.raises(TrainingError, match=r"--size huge: vae has none of that size; take one of full, "):
        recipe_named("vae", "huge")


def test_what_the_paper_says():
    """VideoMV section 8 for all of its recipes; section 3.3 and 7 for the reconstructor."""
    for name in ("videomv-text", "videomv-image", "videomv-2d-joint", "reconstructor"):
        plan = recipe_named(name).optimisation
        assert (plan.learning_rate, plan.batch_size, plan.weight_decay, plan.precision) == (3e-5, 32, 0.0, "fp16")
    reconstructor = recipe_named("reconstructor").task
    assert (reconstructor.last_time, reconstructor.supervised, reconstructor.source) == (700, None, "generated")


def test_the_table_needs_no_torch():
    code = "import sys, engine.training.recipes; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
