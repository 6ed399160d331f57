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
    from diffnas import engine, interop, testing
    from diffnas.api import (
        best_cells,
        board,
        build_network,
        build_supernet,
        compare,
        convert,
        data_shrink,
        data_subset,
        doctor,
        estimate,
        load_genotype,
        load_network,
        lookup,
        new,
        predict,
        report,
        search,
        test,
        test_weights,
        train,
    )
    from diffnas.core.batch import Batch, Loss
    from diffnas.core.cell import Cell
    from diffnas.core.count import Counts, count
    from diffnas.core.genotype import Genotype
    from diffnas.core.mixture import Mix, Mixture
    from diffnas.core.modality import Modality
    from diffnas.core.settings import setting
    from diffnas.core.space import Shape, Size, Space, TensorShape, TextShape
    from diffnas.data.registered import ImageSet, TensorSet, TextSet
    from diffnas.engine.method import Method
    from diffnas.engine.search import Search
    from diffnas.engine.stage import Clock, Phase, Stage, Transition
    from diffnas.methods.wrapper import Wrapper
    from diffnas.pipeline import sources
    from diffnas.recipe import schema
    from diffnas.recipe.recipe import Recipe, read_recipe
    from diffnas.registry import Op, register
    from diffnas.runtime.progress import Progress
    from diffnas.runtime.run_folder import Run
    from diffnas.spaces.cells.space import CellSpace
    from diffnas.tasks.base import Task
    from diffnas.tasks.classification import Classification
    from diffnas.tasks.regression import Regression

__version__ = "0.1.0"

MODULES = ("engine", "interop", "schema", "sources", "testing")

_HOMES = {
    "Batch": "diffnas.core.batch",
    "Cell": "diffnas.core.cell",
    "CellSpace": "diffnas.spaces.cells.space",
    "Classification": "diffnas.tasks.classification",
    "Clock": "diffnas.engine.stage",
    "Counts": "diffnas.core.count",
    "Genotype": "diffnas.core.genotype",
    "ImageSet": "diffnas.data.registered",
    "Loss": "diffnas.core.batch",
    "Method": "diffnas.engine.method",
    "Mix": "diffnas.core.mixture",
    "Mixture": "diffnas.core.mixture",
    "Modality": "diffnas.core.modality",
    "Op": "diffnas.registry",
    "Phase": "diffnas.engine.stage",
    "Progress": "diffnas.runtime.progress",
    "Recipe": "diffnas.recipe.recipe",
    "Regression": "diffnas.tasks.regression",
    "Run": "diffnas.runtime.run_folder",
    "Search": "diffnas.engine.search",
    "Shape": "diffnas.core.space",
    "Size": "diffnas.core.space",
    "Space": "diffnas.core.space",
    "Stage": "diffnas.engine.stage",
    "Task": "diffnas.tasks.base",
    "TensorSet": "diffnas.data.registered",
    "TensorShape": "diffnas.core.space",
    "TextSet": "diffnas.data.registered",
    "TextShape": "diffnas.core.space",
    "Transition": "diffnas.engine.stage",
    "Wrapper": "diffnas.methods.wrapper",
    "best_cells": "diffnas.api",
    "board": "diffnas.api",
    "build_network": "diffnas.api",
    "build_supernet": "diffnas.api",
    "compare": "diffnas.api",
    "convert": "diffnas.api",
    "count": "diffnas.core.count",
    "data_shrink": "diffnas.api",
    "data_subset": "diffnas.api",
    "doctor": "diffnas.api",
    "engine": "diffnas.engine",
    "estimate": "diffnas.api",
    "interop": "diffnas.interop",
    "load_genotype": "diffnas.api",
    "load_network": "diffnas.api",
    "lookup": "diffnas.api",
    "new": "diffnas.api",
    "predict": "diffnas.api",
    "read_recipe": "diffnas.recipe.recipe",
    "register": "diffnas.registry",
    "report": "diffnas.api",
    "schema": "diffnas.recipe.schema",
    "search": "diffnas.api",
    "setting": "diffnas.core.settings",
    "sources": "diffnas.pipeline.sources",
    "test": "diffnas.api",
    "test_weights": "diffnas.api",
    "testing": "diffnas.testing",
    "train": "diffnas.api",
}

__all__ = [
    "Batch",
    "Cell",
    "CellSpace",
    "Classification",
    "Clock",
    "Counts",
    "Genotype",
    "ImageSet",
    "Loss",
    "Method",
    "Mix",
    "Mixture",
    "Modality",
    "Op",
    "Phase",
    "Progress",
    "Recipe",
    "Regression",
    "Run",
    "Search",
    "Shape",
    "Size",
    "Space",
    "Stage",
    "Task",
    "TensorSet",
    "TensorShape",
    "TextSet",
    "TextShape",
    "Transition",
    "Wrapper",
    "best_cells",
    "board",
    "build_network",
    "build_supernet",
    "compare",
    "convert",
    "count",
    "data_shrink",
    "data_subset",
    "doctor",
    "engine",
    "estimate",
    "interop",
    "load_genotype",
    "load_network",
    "lookup",
    "new",
    "predict",
    "read_recipe",
    "register",
    "report",
    "schema",
    "search",
    "setting",
    "sources",
    "test",
    "test_weights",
    "testing",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(_HOMES[name])
    return home if name in MODULES else getattr(home, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
