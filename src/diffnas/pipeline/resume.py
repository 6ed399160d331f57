"""Going on with a run: its recipe lies in the folder, and only limits may have changed."""

from __future__ import annotations

from dataclasses import replace

from diffnas.errors import RecipeError, RunError
from diffnas.recipe import Recipe, changed_keys, leaves, read_recipe, said_origins
from diffnas.run import Part


def resumed_recipe(part: Part, recipe: Recipe | None, command: str) -> Recipe:
    """The recipe to resume `part` with, and where its values came from when the run began.

    Raises `UserError` where there is nothing to resume or a key has changed.
    """
    if not part.recipe.is_file():
        raise RunError(f"{part.path}: there is nothing to resume (no recipe.yaml); start with: diffnas {command} ...")
    earlier = read_recipe(part.recipe)
    recipe = recipe or earlier
    changed = changed_keys(earlier, recipe)
    if changed:
        remedy = "a resumed run may change limits (epochs, minutes), search.supernet, search.compile, device and data.path only"
        raise RecipeError(*(f"{part.recipe}: {key} differs from the run's; {remedy}" for key in changed))
    before = dict(leaves(earlier.values()))
    now = {key for key, value in leaves(recipe.values()) if value != before.get(key)}
    origins = {key: recipe.origins[key] for key in now if key in recipe.origins}
    return replace(recipe, origins=_origins(part, earlier) | origins)


def _origins(part: Part, recipe: Recipe) -> dict[str, str]:
    """Where each value came from, as the comments of the run's recipe say; they are a line per leaf."""
    found = said_origins(part.recipe.read_text(encoding="utf-8"))
    if found is None:
        return dict(recipe.origins)
    came_later = [key for key, _ in leaves(recipe.values()) if key.startswith("method.") and key not in found]
    return found | dict.fromkeys(came_later, "as before there was this key")
