"""`test --weights`: weights that another program published, on the test data they are for; no run folder is needed.

The size of a program's networks, their heads and the statistics of its inputs are those of the packaged recipe that trains as
it does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from diffnas.core.count import RULE, count
from diffnas.core.genotype import Genotype
from diffnas.data.inputs import Inputs
from diffnas.errors import UserError, WeightsError
from diffnas.interop.checkpoint import read_weights
from diffnas.interop.weights import load_weights
from diffnas.pipeline.network import build
from diffnas.pipeline.processes import together
from diffnas.pipeline.sources.images import known_inputs
from diffnas.pipeline.sources.load import load_source, load_test_set
from diffnas.recipe.keys import nearest, one_of
from diffnas.recipe.recipe import Recipe, read_recipe
from diffnas.recipe.schema import Images
from diffnas.runtime.device import pick_device, place

_OF_CIFAR10 = ("data.mean=[0.49139968, 0.48215827, 0.44653124]", "data.std=[0.24703233, 0.24348505, 0.26158768]")
_NASBENCH201 = ("cifar10-train", "train.channels=16", "train.layers=5", "train.drop_path=0", "train.cutout=0")
_CELLS_OF_201 = {  # statistics as in AutoDL-Projects: of pixels from 0 to 255
    "cifar10": (
        *_NASBENCH201,
        f"data.mean={[x / 255 for x in (125.3, 123.0, 113.9)]}",
        f"data.std={[x / 255 for x in (63.0, 62.1, 66.7)]}",
    ),
    "cifar100": (
        *_NASBENCH201,
        "data.name=cifar100",
        f"data.mean={[x / 255 for x in (129.3, 124.1, 112.4)]}",
        f"data.std={[x / 255 for x in (68.2, 65.4, 70.4)]}",
    ),
    "imagenet16-120": (*_NASBENCH201, "data.name=imagenet16-120"),
}

PROGRAMS: dict[str, dict[str, tuple[str, ...]]] = {
    "darts": {
        "cifar10": ("cifar10-train",),
        "cifar100": ("cifar10-train", "data.name=cifar100"),
        "imagenet": ("imagenet-train-darts",),
    },
    "darts-rnn": {"ptb": ("ptb-train",), "wikitext-2": ("wt2-train",)},
    "pdarts": {
        "cifar10": ("cifar10-train-pdarts",),
        "cifar100": ("cifar100-train-pdarts",),
        "imagenet": ("imagenet-train-pdarts",),
    },
    "pcdarts": {
        "cifar10": ("cifar10-train-pcdarts",),
        "cifar100": ("cifar10-train-pcdarts", "data.name=cifar100", *_OF_CIFAR10),
        "imagenet": ("imagenet-train-pcdarts",),
    },
    "drnas": {
        "cifar10": ("cifar10-train-drnas",),
        "cifar100": ("cifar100-train-drnas",),
        "imagenet": ("imagenet-train-drnas",),
    },
    "drnas-nb201": _CELLS_OF_201,
    "nasbench201": _CELLS_OF_201,
    "snas": {
        "cifar10": ("cifar10-train", "train.pool_norm=affine"),
        "imagenet": ("imagenet-train-snas",),
    },
    "mmrazor": {"cifar10": ("cifar10-train-mmrazor",)},
}
"""By program and data set: the recipe whose networks and inputs are its own, and what to set on top."""

OUTPUTS = {10: "cifar10", 100: "cifar100", 120: "imagenet16-120", 1000: "imagenet", 10_000: "ptb", 33_278: "wikitext-2"}
"""The data set that weights with so many outputs are for."""
MOST_CLASSES = 200  # whose confusions are told
_LAST = re.compile(r"(?:^|\.)(?:(?<!auxiliary_head\.)classifier|head\.fc|encoder)\.weight$")


def test_weights(
    file: str | Path, source: str, genotype: Genotype, data: str | None = None, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Tests the weights in `file`, whose names are those of the program `source`, as the network of `genotype`.

    Returns what `test` does for a run.  `data` names the data set (None: as the number of outputs tells); `overrides` may set
    any key of the recipe: data.path, device, train.channels, ...  Raises `UserError` where the program is unknown or the data
    are missing, and `WeightsError` with every weight that has no place and every parameter that nothing fills.
    """
    with together():
        return _tested(file, source, genotype, data, overrides)


def _tested(
    file: str | Path, source: str, genotype: Genotype, data: str | None, overrides: Sequence[str]
) -> dict[str, Any]:
    sets = _program(source)
    weights = read_weights(file)
    chosen = _data(file, source, sets, weights, data)
    recipe = _recipe(sets[chosen], weights, overrides)
    inputs = _inputs(recipe)
    _require_outputs(file, weights, inputs)
    network = build(genotype, recipe, inputs.shape)
    _require_size(file, weights, recipe, genotype.space)
    try:
        load_weights(network, weights, source, f"{file}")
    except WeightsError as error:
        cell = genotype.provenance.get("name", "this cell")
        head = f"{file}: does not fit the network of {cell} by {source}; is --genotype or --source another one?"
        raise WeightsError(head, *error.lines) from None
    tested = load_test_set(recipe, inputs, elsewhere=True)
    tested.say()
    device = pick_device(recipe.device)
    sizes = count(network, inputs.shape)
    result = tested.evaluate(place(network, device), device)
    if len(result.get("classes", ())) > MOST_CLASSES:
        del result["confusion"]  # a million numbers for ImageNet, which are printed
    return result | {
        "weights": str(file),
        "source": source,
        "genotype": genotype.provenance.get("name"),
        "data": recipe.data.name,
        "recipe": recipe.name,
        "params": sizes.params,
        "macs": sizes.macs,
        "auxiliary_params": sizes.auxiliary,
        "counting_rule": RULE,
    }


def _program(source: str) -> Mapping[str, tuple[str, ...]]:
    if source not in PROGRAMS:
        raise UserError(f"--source {source}: is unknown{nearest(source, PROGRAMS)}; known: {', '.join(PROGRAMS)}")
    return PROGRAMS[source]


def _data(
    file: str | Path,
    source: str,
    sets: Mapping[str, tuple[str, ...]],
    weights: Mapping[str, Tensor],
    data: str | None,
) -> str:
    """The data set that the weights are for."""
    guessed = OUTPUTS.get(_outputs(weights)) if data is None else data
    if guessed in sets:
        return str(guessed)
    if data is not None:
        raise UserError(f"--data {data}: weights of {source} are for {one_of(sets)}")
    raise UserError(
        f"{file}: has {_outputs(weights):,} outputs, which does not tell the data; give --data {one_of(sets)}"
    )


def _outputs(weights: Mapping[str, Tensor]) -> int:
    """The classes or words that a network with these weights tells apart; 0 where its last layer is not found."""
    return next((len(tensor) for name, tensor in weights.items() if _LAST.search(name) and tensor.dim() == 2), 0)


def _recipe(base: tuple[str, ...], weights: Mapping[str, Tensor], overrides: Sequence[str]) -> Recipe:
    """The recipe of the network: with an auxiliary head where the weights have one."""
    name, *settings = base
    head = any(re.search(r"\baux(iliary_head|liary_module|_linear)\b|\bauxiliary\.", key) for key in weights)
    heads = [] if name in ("ptb-train", "wt2-train") else [f"train.auxiliary={str(head).lower()}"]
    return read_recipe(name, [*settings, *heads, *overrides])


def _inputs(recipe: Recipe) -> Inputs:
    """How the test data become inputs: a text's words are those of its training part, classes those of the test images."""
    return known_inputs(recipe) if isinstance(recipe.data, Images) else load_source(recipe).inputs


def _require_outputs(file: str | Path, weights: Mapping[str, Tensor], inputs: Inputs) -> None:
    found, wanted = _outputs(weights), len(inputs.names)
    if found not in (0, wanted):
        raise WeightsError(
            f"{file}: tells {found:,} classes or words apart, and the data have {wanted:,}; set data.path to data of the same"
            " kind"
        )


def _require_size(file: str | Path, weights: Mapping[str, Tensor], recipe: Recipe, space: str) -> None:
    """Raises `WeightsError` where the weights are of another width or depth than the recipe, with what to set."""
    assert recipe.train is not None
    train, found = asdict(recipe.train), _size(weights, space)
    if all(found.values()) and any(train[key] != value for key, value in found.items()):
        theirs, ours = (_in_words(values) for values in (found, {key: train[key] for key in found}))
        keys = " ".join(f"--set train.{key}={value}" for key, value in found.items())
        raise WeightsError(
            f"{file}: holds a network of {theirs}, and {recipe.name} has {ours}; if that is meant: {keys}"
        )


def _in_words(sizes: Mapping[str, int]) -> str:
    """`36 channels and 20 layers`."""
    return " and ".join(f"{value} {key}" for key, value in sizes.items())


def _size(weights: Mapping[str, Tensor], space: str) -> dict[str, int]:
    """The size of the network with these weights, as keys of a recipe; 0 where they do not tell."""
    first, third, words = (_shape(weights, layer) for layer in (r"stem\.0", r"stem0\.3", "encoder"))
    if space == "darts-rnn":
        return {"units": words[-1]}
    cells = len({found[1] for name in weights if (found := re.search(r"\bcells\.(\d+)\.", name))})
    if space == "nasbench201":
        return {"channels": first[0], "layers": max(0, cells - 2) // 3}  # of three stages, with two blocks between them
    return {"channels": third[0] or first[0] // 3, "layers": cells}


def _shape(weights: Mapping[str, Tensor], layer: str) -> tuple[int, ...]:
    return next((t.shape for name, t in weights.items() if t.dim() and re.search(rf"\b{layer}\.weight$", name)), (0,))
