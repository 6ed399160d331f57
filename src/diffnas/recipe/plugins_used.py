"""The plug-ins that a recipe uses, as a run folder records them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from diffnas.errors import PluginError
from diffnas.recipe.modalities import modalities
from diffnas.recipe.recipe import Recipe
from diffnas.registry import OWNERS, REGISTRIES, Kind, Owner


def used_by(recipe: Recipe) -> dict[tuple[Kind, str], Owner]:
    """Returns everything that `recipe` names and plug-ins have registered, with its owner."""
    names: list[tuple[Kind, str]] = [("data", recipe.data.name), ("modality", recipe.modality)]
    task = recipe.task.name if recipe.task is not None else modalities()[recipe.modality].task(recipe.data)
    names.append(("task", task))
    if recipe.space is not None:
        names.append(("space", recipe.space.name))
        names += [("op", op) for cell in recipe.space.cells.values() for op in cell.ops]
    names += [("method", method.name) for method in _methods(recipe)]
    return {name: OWNERS[name] for name in dict.fromkeys(names) if name in OWNERS}


def record_of(recipe: Recipe) -> list[dict[str, Any]]:
    """Returns the record of these in a run folder: kind and name, and the owner's module, file and digest."""
    return [
        {"kind": kind, "name": name, **dataclasses.asdict(owner)} for (kind, name), owner in used_by(recipe).items()
    ]


def changed_since(recipe: Recipe, record: list[dict[str, Any]]) -> Iterator[str]:
    """Yields a line for each plug-in of `recipe` whose file has changed since the run's `record`."""
    before = {(entry.get("kind"), entry.get("name")): entry for entry in record if isinstance(entry, dict)}
    for (kind, name), owner in used_by(recipe).items():
        then = before.get((kind, name), {}).get("digest")
        if then is not None and then != owner.digest:
            yield f"{owner.label}: has changed since the run began, and {kind} {name} is defined there"


def require_named(recipe: Recipe) -> None:
    """Raises `PluginError` where the recipe holds a method, space or task that its name does not stand for.

    A run could not be resumed: the name is all that its folder holds.
    """
    things: list[tuple[str, Any]] = [("method", method) for method in _methods(recipe)]
    things += [(kind, getattr(recipe, kind)) for kind in ("space", "task") if getattr(recipe, kind) is not None]
    for kind, thing in things:
        known = REGISTRIES[kind].get(thing.name)
        home = f"{type(thing).__module__}:{type(thing).__qualname__}"
        if known is not type(thing) and known != home:
            raise PluginError(
                f"{kind} {thing.name!r}: {type(thing).__name__} is not registered under that name, so the run could not be"
                " resumed; call diffnas.register on the class, in a module, before the recipe is read"
            )


def _methods(recipe: Recipe) -> Iterator[Any]:
    """Yields the recipe's method, its base, and so on."""
    method: Any = recipe.method
    while method is not None:
        yield method
        method = getattr(method, "base", None)
