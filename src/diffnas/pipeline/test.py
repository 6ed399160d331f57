"""`test`: one checkpoint, one number, its interval."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffnas.core.count import RULE, count, in_millions
from diffnas.pipeline.leave_report import leave_report
from diffnas.pipeline.processes import together
from diffnas.pipeline.sources.load import load_test_set
from diffnas.pipeline.weights import read_weights, require_names, trained_recipe
from diffnas.recipe.recipe import Recipe, read_recipe
from diffnas.runtime.device import pick_device, place
from diffnas.runtime.distributed import world
from diffnas.runtime.run_folder import Run, open_run


def test(run: str | Path | Run, name: str | None = None, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """Tests the training `name` of `run` (its only one by default) on the test data; writes and returns test.json.

    Accuracies are in percent; `interval` is the 95 % interval of the accuracy or perplexity.  `overrides` may move the data
    or the device ("data.path=..."): elsewhere a folder of classes alone is tested as a whole.  Raises `UserError` where the
    training has not finished or its files are damaged.
    """
    with together():
        return _tested(run, name, overrides)


def _tested(run: str | Path | Run, name: str | None, overrides: tuple[str, ...]) -> dict[str, Any]:
    opened = run if isinstance(run, Run) else open_run(run)
    part = opened.training(name)
    recipe = trained_recipe(part, overrides, "a test may change data.path and device only")
    part.warn_of_recipe()
    weights = read_weights(part, recipe)
    data = load_test_set(recipe, weights.inputs, not _same_place(read_recipe(part.recipe), recipe))
    require_names(part.weights, weights.inputs.names, data.names)
    network = weights.network(recipe)
    data.say()
    device = pick_device(recipe.device)
    sizes = count(network, weights.inputs.shape)
    result = data.evaluate(place(network, device), device, part) | {
        "data": recipe.data.name,
        "recipe": recipe.name,
        "seed": recipe.seed,
        "params": sizes.params,
        "macs": sizes.macs,
        "auxiliary_params": sizes.auxiliary,
        "counting_rule": RULE,
    }
    if world().first:
        part.write_json("test.json", result)
        leave_report(opened)
    return result


def described(result: dict[str, Any]) -> Iterator[str]:
    """Lines that say what `test` found."""
    low, high = result.get("interval") or (None, None)
    if "unigram_perplexity" in result:
        between = "too short a text for an interval" if low is None else f"95 % interval {low:.2f} to {high:.2f}"
        said = f"{result['perplexity']:.2f}  ({between}, {result['n']:,} tokens)"
        yield f"test perplexity: {said}"
        yield f"of word frequencies alone: {result['unigram_perplexity']:.2f}   weights: {result['weights']}"
    elif "top5" in result:
        said = f"{result['accuracy']:.2f} %  (95 % interval {low:.2f} to {high:.2f}, {result['n']} images)"
        yield f"test accuracy: {said}"
        yield f"test loss:     {result['loss']:.4f}   top-5 accuracy: {result['top5']:.2f} %   weights: {result['weights']}"
    else:
        yield from _of_task(result)
    trained_on = result.get("trained_on")
    if trained_on and trained_on["images"]:
        yield f"left out:      {trained_on['images']:,} images that it was trained on: {', '.join(trained_on['first'])}"
    if trained_on is None and "broken" in result and "source" not in result:  # streamed images of a run
        yield "not checked:   whether some of these images were trained on; trainings on streamed images keep no record"
    if "mean" in result:
        mean, std = (" ".join(f"{value:.4f}" for value in result[key]) for key in ("mean", "std"))
        yield f"inputs:        mean {mean}, deviation {std}"
    yield f"size:          {result['params']:,} parameters, {in_millions(result['macs'])} multiply-adds"


def _of_task(result: dict[str, Any]) -> Iterator[str]:
    """Yields lines with every metric of a task; what a modality of a plug-in leaves out is left out."""
    for key, value in result.items():
        if isinstance(value, float):
            interval = result.get("interval") if key == "accuracy" else None
            between = "  (95 % interval {:.2f} to {:.2f})".format(*interval) if interval else ""
            yield f"test {key}: {value:.4f}{between}"
    if "n" in result:
        yield f"samples:       {result['n']:,}"


def _same_place(own: Recipe, recipe: Recipe) -> bool:
    """Whether both recipes read their data from one place."""
    ours, theirs = (
        None if one.data.path is None else Path(one.data.path).expanduser().resolve() for one in (own, recipe)
    )
    return ours == theirs
