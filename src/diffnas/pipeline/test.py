"""`test`: one checkpoint, one number, its interval."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from diffnas.core.count import RULE, count
from diffnas.errors import RecipeError, RunError, WeightsError
from diffnas.pipeline.evaluate import evaluate
from diffnas.pipeline.images import load_data, shape_of, test_feed
from diffnas.pipeline.network import build
from diffnas.pipeline.train import read_genotype
from diffnas.recipe import changed_keys, read_recipe
from diffnas.run import Part, Run, open_run
from diffnas.runtime.device import PRECISIONS, pick_device, place
from diffnas.tasks.images import ImageTask


def test(run: str | Path | Run, name: str | None = None, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """Tests the training `name` of `run` (its only one by default) on the test images; writes and returns test.json.

    Accuracies are in percent; `interval` is the 95 % interval of the accuracy.  `overrides` may move the data or the device
    ("data.path=...").  Raises `UserError` where the training has not finished or its files are damaged.
    """
    part = (run if isinstance(run, Run) else open_run(run)).training(name)
    if not part.weights.is_file():
        raise RunError(
            f"{part.weights}: is missing; finish the training with: diffnas train --resume {quote(str(part.path.parents[1]))}"
        )
    recipe = read_recipe(part.recipe, overrides)
    changed = changed_keys(read_recipe(part.recipe), recipe)
    if changed:
        raise RecipeError(*(f"--set {key}: a test may change data.path and device only" for key in changed))
    genotype = read_genotype(part)
    data = load_data(recipe)
    shape = shape_of(data)
    network = build(genotype, recipe, shape)
    _load(part, network)
    device = pick_device(recipe.device)
    sizes = count(network, (shape.channels, shape.side, shape.side))
    found = evaluate(place(network, device), ImageTask(), test_feed(recipe, data, device), PRECISIONS[recipe.precision])
    low, high = found.interval()
    result: dict[str, Any] = {
        "accuracy": 100.0 * found.accuracy,
        "interval": [100.0 * low, 100.0 * high],
        "error": 100.0 * (1.0 - found.accuracy),
        "top5": 100.0 * found.top5,
        "loss": found.loss,
        "n": found.n,
        "weights": "last epoch",
        "data": data.name,
        "recipe": recipe.name,
        "seed": recipe.seed,
        "params": sizes.params,
        "macs": sizes.macs,
        "auxiliary_params": sizes.auxiliary,
        "counting_rule": RULE,
    }
    part.write_json("test.json", result)
    return result


def _load(part: Part, network: Any) -> None:
    try:
        network.load_state_dict(load_file(part.weights))
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{part.weights}: cannot be read: {error}") from None
    except RuntimeError:
        raise WeightsError(
            f"{part.weights}: does not fit the genotype and recipe beside it; was a file exchanged?"
        ) from None
