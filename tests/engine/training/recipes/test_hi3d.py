"""Hi3D's recipes: published sizes, a source for every number, quick to read."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from engine.training.recipes.hi3d import FULL, RECIPES
from engine.training.tasks.build import make_task

PARAMETERS = {
    "hi3d-base": {"unet": 1524.6, "vae": 83.7, "image_encoder": 632.1, "aesthetic": 304.9},
    "hi3d-refiner": {"refiner": 1524.3, "vae": 83.7, "image_encoder": 632.1, "depth": 122.4},
    "depth": {"depth": 122.4},
}
"""Millions, counted in the released files."""


@pytest.mark.slow  # builds 4 GB of tensors that hold nothing
def test_full_networks_have_the_released_sizes() -> None:
    for recipe in FULL:
        with torch.device("meta"):
            task = make_task(recipe, fresh=True)
        parts: dict[str, nn.Module] = {**task.frozen, **task.components()}
        found = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in parts.items()}
        assert {name: round(count, 1) for name, count in found.items()} == PARAMETERS[recipe.name]


def test_published_numbers() -> None:
    """Paper 5.1 and the release's configurations."""
    base, refiner, _ = (recipe.optimisation for recipe in FULL)
    assert (base.steps, base.batch_size, base.learning_rate, base.weight_decay) == (80_000, 16, 1e-5, 0.01)
    assert (refiner.steps, refiner.batch_size, refiner.learning_rate) == (20_000, 8, 5e-5)
    assert [(recipe.data.size_px, recipe.data.views) for recipe in FULL[:2]] == [(512, 16), (1024, 16)]
    assert all(len(recipe.sources) > 5 for recipe in FULL)


def test_they_are_read_without_torch() -> None:
    code = "import sys, engine.training.recipes.hi3d as it; print(len(it.RECIPES), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(RECIPES)), "False"]
