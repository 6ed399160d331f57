"""`test`: one checkpoint, one number, its interval."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from diffnas.core.count import RULE, count
from diffnas.errors import RecipeError, RunError, WeightsError
from diffnas.pipeline.network import build
from diffnas.pipeline.source import Source, load_source
from diffnas.pipeline.train import read_genotype
from diffnas.recipe import changed_keys, read_recipe
from diffnas.run import Part, Run, open_run
from diffnas.runtime.device import pick_device, place


def test(run: str | Path | Run, name: str | None = None, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """Tests the training `name` of `run` (its only one by default) on the test data; writes and returns test.json.

    Accuracies are in percent; `interval` is the 95 % interval of the accuracy or perplexity.  `overrides` may move the data
    or the device ("data.path=...").  Raises `UserError` where the training has not finished or its files are damaged.
    """
    part = (run if isinstance(run, Run) else open_run(run)).training(name)
    if not part.weights.is_file():
        raise RunError(
            f"{part.weights}: is missing; finish the training with: diffnas train --resume {quote(str(part.path.parents[1]))}"
        )
    recipe = read_recipe(part.recipe, overrides)
    part.warn_of_recipe()
    if recipe.train is None:
        raise RecipeError(f"{part.recipe}: its section train is missing; put the file back as it was")
    changed = changed_keys(read_recipe(part.recipe), recipe)
    if changed:
        raise RecipeError(*(f"--set {key}: a test may change data.path and device only" for key in changed))
    genotype = read_genotype(part)
    source = load_source(recipe)
    network = build(genotype, recipe, source.shape)
    _load(part, network, source)
    device = pick_device(recipe.device)
    sizes = count(network, source.shape)
    result = source.test(place(network, device), device) | {
        "data": recipe.data.name,
        "recipe": recipe.name,
        "seed": recipe.seed,
        "params": sizes.params,
        "macs": sizes.macs,
        "auxiliary_params": sizes.auxiliary,
        "counting_rule": RULE,
    }
    part.write_json("test.json", result)
    return result


def described(result: dict[str, Any]) -> Iterator[str]:
    """Lines that say what `test` found."""
    low, high = result["interval"] or (None, None)
    if "perplexity" in result:
        between = "too short a text for an interval" if low is None else f"95 % interval {low:.2f} to {high:.2f}"
        said = f"{result['perplexity']:.2f}  ({between}, {result['n']:,} tokens)"
        yield f"test perplexity: {said}"
        yield f"of word frequencies alone: {result['unigram_perplexity']:.2f}   weights: {result['weights']}"
    else:
        said = f"{result['accuracy']:.2f} %  (95 % interval {low:.2f} to {high:.2f}, {result['n']} images)"
        yield f"test accuracy: {said}"
        yield f"test loss:     {result['loss']:.4f}   top-5 accuracy: {result['top5']:.2f} %   weights: {result['weights']}"
    yield f"size:          {result['params']:,} parameters, {result['macs'] / 1e6:.1f}M multiply-adds"


def _load(part: Part, network: Any, source: Source) -> None:
    try:
        with safe_open(part.weights, "pt") as file:
            inside = json.loads((file.metadata() or {}).get("diffnas", "{}"))
        names = inside.get("words", inside.get("classes"))
        if names is not None and list(names) != list(source.names):
            raise WeightsError(
                f"{part.weights}: was trained on other classes or words, or in another order, than the data have; set"
                " data.path to data of the same kind"
            )
        network.load_state_dict(load_file(part.weights))
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{part.weights}: cannot be read: {error}") from None
    except RuntimeError:
        raise WeightsError(
            f"{part.weights}: does not fit the genotype and recipe beside it; was a file exchanged?"
        ) from None
