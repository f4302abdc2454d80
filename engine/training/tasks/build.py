"""A recipe to its task; the modules are imported only when they are asked for."""

import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path

from engine.errors import TrainingError
from engine.training.plans import Recipe
from engine.training.types import Task

MODULES: Mapping[str, str] = {
    "videomv-text": "text",
    "videomv-image": "image",
    "videomv-2d-joint": "joint",
    "reconstructor": "reconstructor",
    "vae": "vae",
    "hi3d-base": "base",
    "hi3d-refiner": "refiner",
    "depth": "depth",
}
"""Recipe's name -> module here whose `build` makes its task."""


def make_task(
    recipe: Recipe,
    *,
    weights: Path | None = None,
    parts: Mapping[str, Path] | None = None,
    cache: Path | None = None,
    perceptual: Path | None = None,
    fresh: bool = False,
    seed: int = 0,
) -> Task:
    """Build what a recipe learns.

    Args:
        recipe: its `task` holds the task's settings.
        weights: a folder of weights (turntable-weights/1) to start from; what it does not hold starts from random
            numbers, unless the recipe wants it pretrained.
        parts: component's name -> another folder of weights that this one component is taken from.
        cache: folder for latents that come again; None keeps them in memory.
        perceptual: file of a backbone for LPIPS, see `engine.evaluation.perceptual`; None leaves that term out.
        fresh: random numbers even for what should be pretrained: to measure speed and memory.
        seed: of random weights.

    Raises:
        TrainingError: weights that the recipe needs are not given, or are another recipe's; an option that it has no
            use for.
        CheckpointError: weights that do not load.
    """
    module = importlib.import_module(f"engine.training.tasks.{MODULES[recipe.name]}")
    options = {"parts": parts, "cache": cache, "perceptual": perceptual, "fresh": fresh}
    given = {name: value for name, value in options.items() if value}
    unknown = sorted(set(given) - set(inspect.signature(module.build).parameters))
    if unknown:
        raise TrainingError(f"{recipe.name} has no use for {unknown[0]}: leave it out")
    task: Task = module.build(recipe, weights, **given, seed=seed)
    return task
