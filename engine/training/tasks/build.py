"""A recipe to its task; the modules are imported only when they are asked for."""

import importlib
from collections.abc import Mapping
from pathlib import Path

from engine.errors import TrainingError
from engine.training.plans import Recipe
from engine.training.tasks.components import Start
from engine.training.types import Task

MODULES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "videomv-text": ("videomv", ("cache",)),
    "videomv-image": ("videomv", ("cache",)),
    "videomv-2d-joint": ("videomv", ("cache",)),
    "reconstructor": ("reconstructor", ("cache", "perceptual")),
    "vae": ("vae", ("perceptual",)),
    "expectation-image": ("expectation", ("cache",)),
    "expectation-text": ("expectation", ("cache",)),
    "expectation-hi3d": ("expectation", ("cache",)),
    "hi3d-base": ("base", ("cache",)),
    "hi3d-refiner": ("refiner", ("cache",)),
    "depth": ("depth", ()),
}
"""Recipe's name -> module here whose `build(start)` makes its task, and those options that it has a use for."""


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
    module, uses = MODULES[recipe.name]
    for name, given in (("cache", cache), ("perceptual", perceptual)):
        if given is not None and name not in uses:
            raise TrainingError(f"{recipe.name} has no use for {name}: leave it out")
    start = Start(recipe, weights, parts, cache, perceptual, fresh, seed)
    task: Task = importlib.import_module(f"engine.training.tasks.{module}").build(start)
    return task
