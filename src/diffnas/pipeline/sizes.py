"""How large a genotype's network is, in words."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from diffnas.core.count import RULE, count
from diffnas.core.genotype import Genotype
from diffnas.core.space import Shape, Words
from diffnas.data.texts import TEXTS
from diffnas.keys import space_of
from diffnas.pipeline.network import build
from diffnas.pipeline.source import load_source
from diffnas.recipe import Recipe, read_recipe
from diffnas.sections import ImageTrain, TextTrain


def size_lines(genotype: Genotype, recipe: str | Recipe | None = None) -> Iterator[str]:
    """Lines with parameters and multiply-adds at a recipe's size, or at the usual sizes of papers."""
    sizes = dict(_usual(genotype) if recipe is None else _of_recipe(genotype, recipe))
    for name, (params, macs, auxiliary) in sizes.items():
        head = f", auxiliary head {auxiliary:,} besides" if auxiliary else ""
        yield f"size ({name}): {params:,} parameters{head}, {macs / 1e6:.1f}M multiply-adds"
    yield f"counted: {RULE}"


def _usual(genotype: Genotype) -> Iterator[tuple[str, tuple[int, int, int]]]:
    space = space_of(genotype)
    for name, (shape, settings) in space.usual_sizes.items():
        with torch.device("meta"):
            network = space.network(genotype, shape, **settings)
        counts = count(network, shape)
        yield name, (counts.params, counts.macs, counts.auxiliary)


def _of_recipe(genotype: Genotype, recipe: str | Recipe) -> Iterator[tuple[str, tuple[int, int, int]]]:
    recipe = read_recipe(recipe) if isinstance(recipe, str) else recipe
    if recipe.train is None:
        yield from _usual(genotype)
        return
    shape = recipe.shape
    if isinstance(shape, Words) and TEXTS[recipe.data.name].words is None:
        shape = load_source(recipe).shape
    with torch.device("meta"):
        network = build(genotype, recipe, shape)
    counts = count(network, shape)
    train, size = recipe.train, f"recipe {recipe.name}"
    if isinstance(train, ImageTrain) and isinstance(shape, Shape):
        size += f", C={train.channels} L={train.layers}, {shape.side}x{shape.side}"
    elif isinstance(train, TextTrain) and isinstance(shape, Words):
        size += f", {shape.vocabulary:,} words, {train.units} units"
    yield size, (counts.params, counts.macs, counts.auxiliary)
