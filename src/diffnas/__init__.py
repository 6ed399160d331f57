"""diffnas: differentiable neural architecture search.

    recipe = diffnas.read_recipe("darts-digits", ["search.epochs=5"])
    run = diffnas.search(recipe)
    run = diffnas.train(run, recipe, run)
    print(diffnas.test(run)["accuracy"])

The names below are stable.  They are loaded on first use, so that `import diffnas` is immediate and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffnas import interop
    from diffnas.api import (
        best_cells,
        build_network,
        build_supernet,
        doctor,
        load_genotype,
        load_network,
        lookup,
        predict,
        search,
        test,
        train,
    )
    from diffnas.core.count import Counts, count
    from diffnas.core.genotype import Genotype
    from diffnas.recipe import Recipe, read_recipe
    from diffnas.run import Run

__version__ = "0.1.0"

_HOMES = {
    "Counts": "diffnas.core.count",
    "Genotype": "diffnas.core.genotype",
    "Recipe": "diffnas.recipe",
    "Run": "diffnas.run",
    "Words": "diffnas.core.space",
    "best_cells": "diffnas.api",
    "build_network": "diffnas.api",
    "build_supernet": "diffnas.api",
    "count": "diffnas.core.count",
    "doctor": "diffnas.api",
    "interop": "diffnas.interop",
    "load_genotype": "diffnas.api",
    "load_network": "diffnas.api",
    "lookup": "diffnas.api",
    "predict": "diffnas.api",
    "read_recipe": "diffnas.recipe",
    "search": "diffnas.api",
    "test": "diffnas.api",
    "train": "diffnas.api",
}

__all__ = [
    "Counts",
    "Genotype",
    "Recipe",
    "Run",
    "Words",
    "best_cells",
    "build_network",
    "build_supernet",
    "count",
    "doctor",
    "interop",
    "load_genotype",
    "load_network",
    "lookup",
    "predict",
    "read_recipe",
    "search",
    "test",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(_HOMES[name])
    return home if name == "interop" else getattr(home, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
