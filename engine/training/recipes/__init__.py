"""What `turntable train` can train: recipes by name and size. Plain data, quick to import: no torch here."""

from engine.training.recipes.table import RECIPES, recipe_named

__all__ = ["RECIPES", "recipe_named"]
