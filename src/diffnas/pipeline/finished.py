"""Whether a search has come to its end.

The last thing that a search writes is search/finished.json, and the first thing that one does which goes on, as with more
epochs, is to take it away.  Runs that are older than that file, or lost it, have ended where the recipe's epochs are done.
torch is not loaded.
"""

from __future__ import annotations

import logging
from pathlib import Path
from shlex import quote
from typing import Any

from diffnas.core.genotype import read_genotype_file
from diffnas.errors import RecipeError, RunError
from diffnas.recipe.recipe import Recipe, read_recipe
from diffnas.runtime.files import is_folder
from diffnas.runtime.run_folder import Part, Run

log = logging.getLogger("diffnas")
NAME, FORMAT = "finished.json", "diffnas-finished-1"
PICTURES = ("cells.svg", "cells.png", "progress.png", "sizes.json")


def mark_finished(part: Part, recipe: Recipe, epochs: int, reason: str) -> None:
    """Records that the search of `part` has ended after `epochs`, with the `reason` if it ended early."""
    assert recipe.search is not None
    record = {"format": FORMAT, "epochs": epochs, "search.epochs": recipe.search.epochs, "reason": reason}
    part.write_json(NAME, record)


def unmark_finished(part: Part) -> None:
    """Removes that record and the pictures and sizes of the resulting cell."""
    for name in (NAME, *PICTURES):
        (part.path / name).unlink(missing_ok=True)


def has_finished(part: Part, recipe: Recipe) -> bool:
    """Whether the search of `part` has done all that `recipe` asks for, or has ended early by its own rule."""
    assert recipe.search is not None
    if not (part.path / NAME).exists():
        return epochs_done(part) >= epochs_asked(recipe)
    asked = _epochs_marked(part)
    if asked is None:
        text = "%s: damaged, so the search counts as not finished; `diffnas search --resume` writes it anew"
        log.warning(text, part.path / NAME)
    return bool(asked == recipe.search.epochs)


def _epochs_marked(part: Part) -> int | None:
    """The epochs that were asked for when the search of `part` ended, as its mark says; None where that is damaged."""
    try:
        read = part.read_json(NAME)
    except RunError:
        return None
    asked = read.get("search.epochs") if isinstance(read, dict) and read.get("format") == FORMAT else None
    return asked if type(asked) is int else None


def epochs_done(part: Part) -> int:
    """Returns the number of epochs that the search of `part` has finished, as its genotype says."""
    epoch = read_genotype_file(part.genotype).provenance.get("epoch") if part.genotype.is_file() else 0
    return epoch if type(epoch) is int else 0


def epochs_asked(recipe: Recipe) -> int:
    """The epochs of all stages of a search."""
    assert recipe.method is not None and recipe.search is not None and recipe.space is not None
    return sum(stage.epochs for stage in recipe.method.stages(recipe.search.epochs, recipe.space.size))


def unfinished(path: Path) -> tuple[int, int] | None:
    """Returns the epochs done and requested of an unfinished search in the run at `path`; None if it has finished.

    Raises `UserError` where that cannot be told.
    """
    part = Run(path).search
    if not is_folder(part.checkpoints) and not part.recipe.exists():  # a genotype that somebody put there
        return None
    recipe = read_recipe(part.recipe)
    if recipe.search is None:
        raise RecipeError(f"{part.recipe}: its section search is missing; put the file back as it was")
    return None if has_finished(part, recipe) else (epochs_done(part), epochs_asked(recipe))


def require_finished(path: Path, partial: bool) -> dict[str, Any]:
    """Raises `RunError` where the run at `path` holds a search that has not ended, unless a `partial` one will do.

    Returns what a training records of that: `{"partial": {epochs done and asked for}}`, or nothing.
    """
    epochs = unfinished(path)
    if epochs is None:
        return {}
    done, asked = epochs
    if not partial:
        go_on = f"diffnas search --resume {quote(str(path))}"
        said = f"its search has not finished ({done} of {asked} epochs); go on with: {go_on}"
        raise RunError(f"run {path}: {said}, or train the cell of now with --partial")
    return {"partial": {"run": str(path), "epochs": done, "of": asked}}
