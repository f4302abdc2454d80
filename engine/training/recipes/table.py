"""The table of recipes. Modules beside this one make them."""

from collections.abc import Mapping

from engine.errors import TrainingError
from engine.training.plans import Recipe, RecipeName, Size
from engine.training.recipes import hi3d, mini, videomv

RECIPES: Mapping[tuple[RecipeName, Size], Recipe] = {
    (recipe.name, recipe.size): recipe for recipe in (*videomv.RECIPES, *hi3d.RECIPES, *mini.RECIPES)
}
"""By name and size."""


def recipe_named(name: str, size: str = "full") -> Recipe:
    """Return a recipe. Raises TrainingError, saying what there is, for a name or a size of it that there is not."""
    sizes = {recipe.size: recipe for recipe in RECIPES.values() if recipe.name == name}
    if not sizes:
        known: dict[str, str] = {}
        for recipe in RECIPES.values():
            known.setdefault(recipe.name, recipe.summary)  # the full size comes first, where there is one
        names = "; ".join(f"{known_name} ({summary})" for known_name, summary in known.items())
        raise TrainingError(f"recipe {name}: there is none of that name; take one of {names}")
    if size not in sizes:
        raise TrainingError(f"--size {size}: {name} has none of that size; take one of {', '.join(sizes)}")
    return sizes[size]
