"""How large a genotype's network is, in words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from diffnas.core.count import RULE, count
from diffnas.core.genotype import Genotype
from diffnas.core.space import Shape, Words
from diffnas.keys import space_of
from diffnas.pipeline.network import build, require_reads
from diffnas.pipeline.session import stored_inputs
from diffnas.pipeline.source import read_shape
from diffnas.pipeline.weights import known_shape
from diffnas.recipe import Recipe, read_recipe
from diffnas.run import Part, Run, open_run
from diffnas.runtime.checkpoint import load_checkpoint
from diffnas.sections import ImageTrain, TextTrain


def size_lines(
    genotype: Genotype, recipe: str | Recipe | None = None, shape: Shape | Words | None = None
) -> Iterator[str]:
    """Lines with parameters and multiply-adds at a recipe's size, or at the usual sizes of papers.

    `shape` is what the recipe's networks read, where that is known without a look at the data.
    """
    sizes = dict(_usual(genotype) if recipe is None else _of_recipe(genotype, recipe, shape))
    for name, (params, macs, auxiliary) in sizes.items():
        head = f", auxiliary head {auxiliary:,} besides" if auxiliary else ""
        yield f"size ({name}): {params:,} parameters{head}, {macs / 1e6:.1f}M multiply-adds"
    yield f"counted: {RULE}"


def run_size(run: str | Path) -> tuple[Recipe, Shape | Words]:
    """The recipe of what a run searched (or trained, where it has no search), and what its networks read.

    That is taken from what the run has stored; where that is nothing (an earlier version wrote it), from the data.
    """
    opened = open_run(run)
    part = opened.search if opened.search.recipe.is_file() else opened.training()
    recipe = read_recipe(part.recipe)
    return recipe, _stored_shape(opened, part, recipe) or read_shape(recipe)


def _stored_shape(run: Run, part: Part, recipe: Recipe) -> Shape | Words | None:
    """What the weights of a training on the same data say, or the checkpoints of `part`; None where both say nothing."""
    for training in map(run.train, run.trainings()):
        if training.weights.is_file() and read_recipe(training.recipe).data == recipe.data:
            return known_shape(training.weights)
    checkpoint = load_checkpoint(part.checkpoints)
    stored = None if checkpoint is None else stored_inputs(part, checkpoint)
    return None if stored is None else stored.shape


def _usual(genotype: Genotype) -> Iterator[tuple[str, tuple[int, int, int]]]:
    space = space_of(genotype)
    for name, (shape, settings) in space.usual_sizes.items():
        with torch.device("meta"):
            network = space.network(genotype, shape, **settings)
        counts = count(network, shape)
        yield name, (counts.params, counts.macs, counts.auxiliary)


def _of_recipe(
    genotype: Genotype, recipe: str | Recipe, shape: Shape | Words | None
) -> Iterator[tuple[str, tuple[int, int, int]]]:
    recipe = read_recipe(recipe) if isinstance(recipe, str) else recipe
    if recipe.train is None:
        yield from _usual(genotype)
        return
    require_reads(genotype, recipe)
    shape = shape or read_shape(recipe)
    with torch.device("meta"):
        network = build(genotype, recipe, shape)
    counts = count(network, shape)
    train, size = recipe.train, f"recipe {recipe.name}"
    if isinstance(train, ImageTrain) and isinstance(shape, Shape):
        size += f", C={train.channels} L={train.layers}, {shape.side}x{shape.side}, {shape.classes:,} classes"
    elif isinstance(train, TextTrain) and isinstance(shape, Words):
        size += f", {shape.vocabulary:,} words, {train.units} units"
    yield size, (counts.params, counts.macs, counts.auxiliary)
