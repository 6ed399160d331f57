"""Resuming a run: its recipe is in the folder, and only limits may have changed since its checkpoint was written."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffnas.errors import CheckpointError, PluginError, RecipeError, RunError
from diffnas.pipeline.environment import changed_plugins, has_diverged
from diffnas.recipe.recipe import Recipe, flat_values, is_limit, leaves, read_recipe, said_origins
from diffnas.runtime.checkpoint import load_checkpoint
from diffnas.runtime.console import log
from diffnas.runtime.distributed import world
from diffnas.runtime.files import is_file
from diffnas.runtime.run_folder import Part, Run
from diffnas.runtime.yaml_text import parse_yaml

RATES = ("search.weights.lr", "search.weights.lr_min", "search.arch.lr", "train.lr", "train.lr_min")
"""What may fall, and only fall, when a run goes on that has diverged."""
ONLY = (
    "a resumed run may change limits (epochs, minutes), search.supernet, search.compile, search.graph,"
    " train.compile, train.graph, device and data.path only"
)

Values = Mapping[str, str]
"""The keys of a recipe and their values, as JSON."""


@dataclass(frozen=True)
class Resumed:
    """The state that a run resumes from: its `recipe`, its newest `checkpoint` (None: none was written yet), and the
    learning rates that were `lowered` after a divergence, as `{key: [before, now]}`."""

    recipe: Recipe
    checkpoint: dict[str, Any] | None
    lowered: dict[str, list[float]]


def require_run(path: str | Path | None) -> Run:
    """The run to resume; raises `RunError` where none is named."""
    if path is None:
        raise RunError("to resume, name the run folder")
    return Run(Path(path))


def require_recipe(part: Part, command: str) -> None:
    """Raises `RunError` where `part` was never begun."""
    if not is_file(part.recipe):
        raise RunError(f"{part.path}: there is nothing to resume (no recipe.yaml); start with: diffnas {command} ...")


def resumed(part: Part, recipe: Recipe | None) -> Resumed:
    """Returns the state that `part` resumes from, by `recipe` (None: the one in its folder); writes nothing.

    Raises `UserError` where a key has changed that is no limit, or no checkpoint is left.
    """
    earlier, diverged = read_recipe(part.recipe), has_diverged(part)
    recipe = recipe or earlier
    checkpoint = world().of_first(lambda: load_checkpoint(part.checkpoints))
    _require_same_plugins(part, recipe, checkpoint is not None)
    results = part.weights.is_file() or len(part.metrics()) > 1  # the first row comes just before the first checkpoint
    if checkpoint is None and results:
        raise RunError(f"{part.checkpoints}: no checkpoint is left to go on from; start anew in another folder")
    then, now = _values_then(part, checkpoint), flat_values(recipe)
    if then is None and part.recipe_is_changed():
        raise RecipeError(f"{part.recipe}: has changed since the run wrote it; put it back (--set can change limits)")
    written = flat_values(earlier)
    _require_of_run(part, then, written, diverged)
    then = {**now, **written} if then is None else then
    changed = sorted(key for key in then if now.get(key) != then[key])
    fell = [key for key in changed if diverged and key in RATES and _is_less(now.get(key), then[key])]
    lowered = {key: [json.loads(then[key]), json.loads(now[key])] for key in fell}
    refused = [key for key in changed if not is_limit(key) and key not in lowered]
    if refused:
        raise RecipeError(*_problem_lines(part, refused, then, now, diverged))
    _say_limits(part, changed, then, now)
    origins = _origins(part, earlier) | _new_origins(earlier, recipe)
    return Resumed(replace(recipe, origins=origins), checkpoint, lowered)


def _require_same_plugins(part: Part, recipe: Recipe, computed: bool) -> None:
    """Raises `PluginError` where a plug-in has changed since the first results; before them it may be corrected."""
    lines = changed_plugins(part, recipe)
    if computed and lines:
        raise PluginError(*(f"{line}; put it back" for line in lines))
    for line in lines:
        log.warning("%s; nothing was computed yet, so the run begins with it as it is now", line)


def _values_then(part: Part, checkpoint: Mapping[str, Any] | None) -> Values | None:
    """The recipe's values when the checkpoint was written; None where there is none, or it is too old to say."""
    values = (checkpoint or {}).get("recipe")
    if values is None or isinstance(values, dict) and all(isinstance(text, str) for text in values.values()):
        return values
    raise CheckpointError(f"{part.checkpoints}: does not say what recipe it is of; was a file exchanged?")


def _require_of_run(part: Part, then: Values | None, written: Values, diverged: bool) -> None:
    """Raises `CheckpointError` where checkpoint and recipe, which nobody has edited, are of two runs."""
    for key in sorted(then or {}):
        free = is_limit(key) or diverged and key in RATES
        if then and not free and written.get(key) != then[key] and part.recipe_is_sealed():
            said = f"{key} was {then[key]:.60}, and is {written.get(key, 'missing'):.60} in recipe.yaml"
            raise CheckpointError(
                f"{part.checkpoints}: does not fit the recipe beside it: {said}; was a file exchanged?"
            )


def _is_less(now: str | None, then: str) -> bool:
    """Whether a rate is lower now."""
    return now is not None and float(json.loads(now)) < float(json.loads(then))


def _problem_lines(part: Part, keys: list[str], then: Values, now: Values, diverged: bool) -> Iterator[str]:
    """A line per key, or per section where all of it is missing."""
    there = {key.partition(".")[0] for key in now}
    gone = {key.partition(".")[0] for key in keys} - there
    for section in sorted(gone):
        yield f"{part.recipe}: its section {section} is missing; put the file back as it was"
    for key in keys:
        if key.partition(".")[0] not in gone:
            rule = "a run that diverged may lower learning rates, not raise them" if diverged and key in RATES else ONLY
            yield f"{part.recipe}: {key} differs from the run's; {rule}; it was {then[key]}"


def _say_limits(part: Part, changed: list[str], then: Values, now: Values) -> None:
    """A line for every limit that has changed: a warning where the file was edited, or has lost it."""
    level = logging.WARNING if part.recipe_is_changed() else logging.INFO
    for key in changed:
        if is_limit(key) and not key.startswith("log.") and key in now:
            log.log(level, "%s is %s now, and was %s", key, now[key], then[key])


def _new_origins(earlier: Recipe, recipe: Recipe) -> dict[str, str]:
    """Returns the origins of the values that differ from the file's."""
    before = dict(leaves(earlier.values()))
    now = {key for key, value in leaves(recipe.values()) if value != before.get(key)}
    return {key: recipe.origins[key] for key in now if key in recipe.origins}


def _origins(part: Part, recipe: Recipe) -> dict[str, str]:
    """Reads the origin of each value from the comments of the run's recipe, one line per leaf."""
    written = part.recipe.read_text(encoding="utf-8")
    origins = said_origins(written, [key for key, _ in leaves(parse_yaml(written, "recipe"))])
    if origins is None:
        return dict(recipe.origins)
    came_later = [key for key, _ in leaves(recipe.values()) if key.startswith("method.") and key not in origins]
    return origins | dict.fromkeys(came_later, "as before there was this key")
