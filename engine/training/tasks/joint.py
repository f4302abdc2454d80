"""videomv-2d-joint: videomv-text with 2D pictures among the orbits, as orbits of one view without cameras (section 3.2)."""

from collections.abc import Mapping
from pathlib import Path

from engine.training.plans import Recipe
from engine.training.tasks import text
from engine.training.tasks.diffusion import OrbitDiffusion


def build(
    recipe: Recipe,
    weights: Path | None = None,
    *,
    parts: Mapping[str, Path] | None = None,
    cache: Path | None = None,
    fresh: bool = False,
    seed: int = 0,
) -> OrbitDiffusion:
    """Build the task as videomv-text's; a step of 2D pictures leaves the cameras' layers without gradients."""
    task = text.build(recipe, weights, parts=parts, cache=cache, fresh=fresh, seed=seed)
    task.unused_parameters = True
    return task
