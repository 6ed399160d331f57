"""Going on with a run: its recipe lies in the folder, and only limits may have changed."""

from __future__ import annotations

from diffnas.errors import RecipeError, RunError
from diffnas.recipe import Recipe, changed_keys, read_recipe
from diffnas.run import Part


def resumed_recipe(part: Part, recipe: Recipe | None, command: str) -> Recipe:
    """The recipe to resume `part` with; raises `UserError` where there is nothing to resume or a key has changed."""
    if not part.recipe.is_file():
        raise RunError(f"{part.path}: there is nothing to resume (no recipe.yaml); start with: diffnas {command} ...")
    earlier = read_recipe(part.recipe)
    if recipe is None:
        return earlier
    changed = changed_keys(earlier, recipe)
    if changed:
        remedy = "a resumed run may change limits (epochs, minutes), device and data.path only"
        raise RecipeError(*(f"{part.recipe}: {key} differs from the run's; {remedy}" for key in changed))
    return recipe
