"""Every packaged recipe of a search runs from beginning to end in a tiny form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import diffnas
from diffnas.recipe.recipe import Recipe, read_recipe, recipe_names
from diffnas.recipe.schema import Images

SEARCHES = [name for name in recipe_names() if read_recipe(name).search is not None and "digits" not in name]
TINY = {
    "darts-cnn": ["space.channels=4", "space.layers=2", "space.nodes=2", "space.edge_ops=null", "space.stem=cifar"],
    "nasbench201": ["space.channels=4", "space.layers=1"],
    "shufflenet-blocks": [
        "space.widths=[8]",
        "space.depths=[2]",
        "space.last=8",
        "space.stem=cifar",
        "space.channels=4",
    ],
}
TINY_TEXT = [
    "data.name=embedded",
    "data.train_limit=600",
    "data.test_limit=200",
    "space.units=8",
    "space.steps=2",
    "search.epochs=2",
    "search.batch=4",
    "search.bptt=8",
    "train.epochs=1",
    "train.batch=4",
    "train.units=8",
]
QUICKER: dict[str, list[str]] = {
    "pdarts": ["search.epochs=3", "method.warmup=0", "method.added_layers=[0, 1]"],
    "drnas": ["method.warmup=0"],
    "pcdarts": ["method.warmup=1"],
    "rsws": ["method.candidates=3", "method.finalists=2", "method.rounds=2"],
    "lambda-darts": ["space.layers=4"],
    "enas": ["method.controller_steps=2", "method.aggregate=2", "method.candidates=3", "data.side=32"],
    "darts-pt": ["method.tuning=6", "method.interval=1"],
}


def shrunk(name: str) -> Recipe:
    """The recipe on a few digits: its method, ops and rates, but few channels, cells and epochs."""
    recipe = read_recipe(name)
    assert recipe.method is not None and recipe.space is not None
    if not isinstance(recipe.data, Images):
        return read_recipe(name, TINY_TEXT)
    overrides = [
        "data.name=digits",
        f"data.split={min(recipe.data.split, 0.5) if recipe.data.split < 1 else 1}",
        "data.path=null",
        "data.side=null",
        "data.crop=null",
        "data.train_limit=64",
    ]
    overrides += ["data.mean=null", "data.std=null", "data.test_limit=32", "search.epochs=2", "search.batch=16"]
    overrides += ["search.cutout=2"]
    overrides += TINY[recipe.space.name] + QUICKER.get(recipe.method.name, [])
    values: dict[str, Any] = recipe.values()["space"]
    overrides += [f"space.{key}=2" for key in ("partial",) if values.get(key, 1) > 1]
    overrides += ["method.partial_late=1"] if getattr(recipe.method, "partial_late", 1) > 1 else []
    if recipe.train is not None:
        overrides += ["train.epochs=1", "train.batch=16", "train.channels=4", "train.layers=2", "train.auxiliary=false"]
        overrides += ["train.cutout=2", "train.stem=cifar"]
    return read_recipe(name, overrides)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_recipe_runs_in_a_tiny_form(name: str, tmp_path: Path) -> None:
    recipe = shrunk(name)
    run = diffnas.search(recipe, tmp_path / "run")
    rows = run.search.metrics()
    assert rows and all(row["train_loss"] < 20 for row in rows if "train_loss" in row)
    genotype = diffnas.load_genotype(run)
    assert recipe.space is not None and genotype.space == recipe.space.name
    if genotype.space == "nasbench201":
        assert 1 <= rows[-1]["table"]["cifar10"]["rank"] <= 15_625 and len(rows[-1]["sampled"]["cifar100"]) == 100
        assert (run.search.path / "progress.png").read_bytes().startswith(b"\x89PNG")


def test_every_search_names_its_source_and_every_published_method_has_one() -> None:
    assert all(read_recipe(name).source for name in SEARCHES if not name.endswith(("-tiny", "-demo", "-small")))
