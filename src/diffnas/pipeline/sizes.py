"""The size of a genotype's network, in words and as data, by our rule and by OpenMMLab's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffnas.core.count import MMRAZOR_RULE, RULE, count, in_millions, mmrazor_flops
from diffnas.core.genotype import Genotype
from diffnas.core.space import AnyShape, Shape, TensorShape, TextShape
from diffnas.errors import WeightsError
from diffnas.pipeline.network import build, require_reads
from diffnas.pipeline.session import checkpoint_mismatch, stored_inputs
from diffnas.pipeline.sources.load import read_shape
from diffnas.pipeline.weights import own_shape
from diffnas.recipe.recipe import Recipe, read_recipe
from diffnas.recipe.schema import ImageTrain, SampleTrain, TextTrain
from diffnas.registry import space_of
from diffnas.runtime.checkpoint import load_checkpoint
from diffnas.runtime.console import log
from diffnas.runtime.run_folder import Part, Run, open_run


def size_lines(genotype: Genotype, recipe: str | Recipe | None = None, shape: AnyShape | None = None) -> Iterator[str]:
    """Lines with parameters and multiply-adds at a recipe's size, or at the usual sizes of papers.

    `shape` is what the recipe's networks read, where that is known without a look at the data.
    """
    rows = _sizes(genotype, recipe, shape)
    for row in rows:
        head = f", auxiliary head {row['auxiliary_params']:,} besides" if row["auxiliary_params"] else ""
        yield f"size ({row['size']}): {row['params']:,} parameters{head}, {in_millions(row['macs'])} multiply-adds"
        if "openmmlab" in row:
            params, flops = row["openmmlab"]["params"], row["openmmlab"]["flops"]
            yield f"  as OpenMMLab counts: {params / 1e6:.2f}M parameters, {flops / 1e9:.2f}G FLOPs"
    yield f"counted: {RULE}"
    if any("openmmlab" in row for row in rows):
        yield f"OpenMMLab: {MMRAZOR_RULE}"


def size_facts(genotype: Genotype, recipe: str | Recipe | None = None, shape: AnyShape | None = None) -> dict[str, Any]:
    """Returns the same as data: `params`, `macs`, `auxiliary_params` of every size; `openmmlab` with an auxiliary head."""
    rows = _sizes(genotype, recipe, shape)
    return {"sizes": rows, "counting_rule": RULE, "openmmlab_rule": MMRAZOR_RULE}


def _sizes(genotype: Genotype, recipe: str | Recipe | None, shape: AnyShape | None) -> list[dict[str, Any]]:
    return list(_usual(genotype) if recipe is None else _of_recipe(genotype, recipe, shape))


def run_size(run: str | Path) -> tuple[Recipe, AnyShape]:
    """The recipe of what a run searched (or trained, where it has no search), and what its networks read.

    That is taken from what the run has stored; where that is nothing (an earlier version wrote it), from the data.
    """
    opened = open_run(run)
    part = opened.main()
    recipe = read_recipe(part.recipe)
    part.warn_of_recipe()
    return recipe, _stored_shape(opened, part, recipe) or read_shape(recipe)


def _stored_shape(run: Run, part: Part, recipe: Recipe) -> AnyShape | None:
    """Returns the shape stored with the weights of a training on the same data, or in the checkpoints of `part`; else None.

    Weights that cannot be trusted are passed over with a warning.
    """
    for training in map(run.train, run.trainings()):
        trained = read_recipe(training.recipe)
        if training.weights.is_file() and trained.data == recipe.data:
            try:
                return own_shape(training, trained)
            except WeightsError as error:
                log.warning("%s; what networks read is taken from elsewhere in the run", "; ".join(error.lines))
    checkpoint = load_checkpoint(part.checkpoints)
    stored = None if checkpoint is None else stored_inputs(part, checkpoint)
    if stored is not None and stored.data != recipe.data.name:
        raise checkpoint_mismatch(part)
    return None if stored is None else stored.shape


def _usual(genotype: Genotype) -> Iterator[dict[str, Any]]:
    space = space_of(genotype)
    for name, (shape, settings) in space.usual_sizes.items():
        with torch.device("meta"):
            network = space.network(genotype, shape, **settings)
        yield _row(name, network, shape)


def _of_recipe(genotype: Genotype, recipe: str | Recipe, shape: AnyShape | None) -> Iterator[dict[str, Any]]:
    recipe = read_recipe(recipe) if isinstance(recipe, str) else recipe
    if recipe.train is None:
        yield from _usual(genotype)
        return
    require_reads(genotype, recipe)
    shape = shape or read_shape(recipe)
    with torch.device("meta"):
        network = build(genotype, recipe, shape)
    train, size = recipe.train, f"recipe {recipe.name}"
    if isinstance(train, ImageTrain) and isinstance(shape, Shape):
        size += f", C={train.channels} L={train.layers}, {shape.side}x{shape.side}, {shape.classes:,} classes"
    elif isinstance(train, TextTrain) and isinstance(shape, TextShape):
        size += f", {shape.vocabulary:,} words, {train.units} units"
    elif isinstance(train, SampleTrain) and isinstance(shape, TensorShape):
        size += f", C={train.channels} L={train.layers}, {list(shape.sizes)}, {shape.outputs:,} outputs"
    yield _row(size, network, shape)


def _row(name: str, network: nn.Module, shape: AnyShape) -> dict[str, Any]:
    counts = count(network, shape)
    row = {"size": name, "params": counts.params, "macs": counts.macs, "auxiliary_params": counts.auxiliary}
    if counts.auxiliary and isinstance(shape, Shape):
        row["openmmlab"] = {"params": counts.params + counts.auxiliary, "flops": mmrazor_flops(network, shape)}
    return row
