"""The packaged recipes hold the published numbers."""

from __future__ import annotations

import pytest
import torch

from diffnas.core.published_genotypes import published
from diffnas.core.schedules import cosine
from diffnas.core.space import Shape, Size
from diffnas.engine.stage import Clock, Stage
from diffnas.pipeline.network import build
from diffnas.pipeline.sources.cosine import rate
from diffnas.pipeline.supernet_weights import CosineSGD
from diffnas.recipe.recipe import read_recipe
from diffnas.recipe.schema import ImageTrain, TextSearch, TextTrain, TextWeights, Weights
from diffnas.spaces.darts_rnn.space import DartsRNN

# recipe: epochs, batch, first and last learning rate of the weights, their decay; rate and first beta of the architecture
SEARCHES = {
    "darts-cifar10": (50, 64, 0.025, 0.001, 3e-4, 3e-4, 0.5),
    "pdarts-cifar10": (75, 96, 0.025, 0.0, 3e-4, 6e-4, 0.5),
    "pcdarts-cifar10": (50, 256, 0.1, 0.0, 3e-4, 6e-4, 0.5),
    "drnas-cifar10": (50, 64, 0.1, 0.0, 3e-4, 6e-4, 0.5),
    "snas-cifar10-moderate": (150, 64, 0.025, 0.001, 3e-4, 3e-4, 0.5),
    "gdas-cifar10": (250, 256, 0.025, 0.001, 5e-4, 3e-4, 0.5),
    "enas-cifar10": (150, 160, 0.05, 0.0005, 2e-4, 0.0035, 0.0),
    "sdarts-adv-cifar10": (50, 64, 0.025, 0.001, 3e-4, 3e-4, 0.5),
    "fairdarts-cifar10": (50, 128, 0.005, 0.001, 3e-4, 3e-3, 0.9),
    "mmrazor-darts-cifar10": (50, 64, 0.025, 0.001, 3e-4, 3e-4, 0.9),
    "darts-ptb": (50, 256, 20.0, 20.0, 5e-7, 3e-3, 0.9),
    "nb201-darts": (50, 64, 0.025, 0.001, 5e-4, 3e-4, 0.5),
    "nb201-gdas": (250, 64, 0.025, 0.001, 5e-4, 3e-4, 0.5),
    "nb201-enas": (250, 128, 0.05, 0.0005, 2.5e-4, 1e-3, 0.0),
    "nb201-drnas": (100, 64, 0.025, 0.001, 3e-4, 3e-4, 0.5),
    "nb201-drnas-progressive": (100, 64, 0.025, 0.001, 3e-4, 3e-4, 0.5),
    "dsnas-imagenet": (85, 1024, 0.5, 0.0, 4e-5, 1e-3, 0.5),
    "pcdarts-imagenet": (50, 1024, 0.5, 0.0, 3e-4, 6e-3, 0.5),
    "drnas-imagenet": (50, 512, 0.5, 0.0, 3e-4, 6e-3, 0.5),
}
# recipe: batch, channels, drop path, normalisation after pools
TRAININGS = {
    "cifar10-train": (96, 36, 0.2, "none"),
    "cifar10-train-pdarts": (128, 36, 0.3, "none"),
    "cifar10-train-pdarts-large": (128, 64, 0.3, "none"),
    "cifar10-train-pcdarts": (96, 36, 0.3, "none"),
    "cifar10-train-drnas": (64, 36, 0.3, "plain"),
    "cifar10-train-mmrazor": (96, 36, 0.2, "affine"),
    "cifar100-train-pdarts": (128, 36, 0.3, "none"),
    "cifar100-train-drnas": (64, 36, 0.3, "plain"),
}
# recipe: batch, normalisation of the head and after pools, rates of the epochs 1, 2, 5, 6 and 245
IMAGENET = {
    "imagenet-train-darts": (128, None, "none", (0.1, 0.097, 0.1 * 0.97**4, 0.1 * 0.97**5, 0.1 * 0.97**244)),
    "imagenet-train-pdarts": (256, True, "none", (0.1, 24.4 / 245, 24.1 / 245, 24 / 245, 0.1 / 245)),
    "imagenet-train-pdarts-paper": (1024, True, "none", (0.1, 0.2 * 244 / 245, 0.5 * 241 / 245, 120 / 245, 0.5 / 245)),
    "imagenet-train-pcdarts": (1024, None, "none", (0.1, 0.2, 0.5, 120 / 245, 0.5 / 245)),
    "imagenet-train-drnas": (768, None, "plain", (0.1, 0.2, 0.5, 120 / 245, 0.5 / 245)),
}


@pytest.mark.parametrize("name", IMAGENET)
def test_a_training_on_imagenet(name: str) -> None:
    recipe = read_recipe(name)
    train = recipe.train
    assert isinstance(train, ImageTrain) and (train.epochs, train.channels, train.layers) == (250, 48, 14)
    assert (train.smoothing, train.decay, train.jitter, train.drop_path) == (0.1, 3e-5, (0.4, 0.4, 0.4, 0.2), 0)
    rates = [rate(train, epoch) for epoch in (0, 1, 4, 5, 244)]
    assert rates == pytest.approx(IMAGENET[name][3])
    assert (train.batch, train.auxiliary_norm, train.pool_norm) == IMAGENET[name][:3]
    with torch.device("meta"):
        head = build(published("pdarts"), recipe, Shape(1000, 3, 224)).auxiliary
    norms = sum(isinstance(layer, torch.nn.BatchNorm2d) for layer in head.features)  # type: ignore[union-attr]
    assert norms == (2 if train.auxiliary_norm else 1)


def test_a_warm_up_of_a_search_grows_to_the_first_rate() -> None:
    search = read_recipe("pcdarts-imagenet").search
    assert search is not None and isinstance(search.weights, Weights)
    weights, stage = CosineSGD(search.weights), Stage(50, Size(16, 8))
    rates = [weights.rate(stage, Clock(epoch=epoch, epochs=50)) for epoch in (0, 4, 5)]
    assert rates == pytest.approx([0.1, 0.5, cosine(5, 50, 0.5)])


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search(name: str) -> None:
    search = read_recipe(name).search
    assert search is not None
    weights, arch = search.weights, search.arch
    last = weights.lr if isinstance(weights, TextWeights) else weights.lr_min  # on text the rate is constant
    values = (search.epochs, search.batch, weights.lr, last, weights.decay, arch.lr, arch.betas[0])
    assert values == SEARCHES[name]


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training(name: str) -> None:
    train = read_recipe(name).train
    assert isinstance(train, ImageTrain) and train.epochs == 600 and train.layers == 20
    assert (train.batch, train.channels, train.drop_path, train.pool_norm) == TRAININGS[name]


# recipe: seed, units, weight decay, dropout of what nodes read
LANGUAGE = {"ptb-train": (1267, 850, 8e-7, 0.25), "wt2-train": (1267, 700, 5e-7, 0.15)}


@pytest.mark.parametrize("name", LANGUAGE)
def test_a_language_model(name: str) -> None:
    recipe = read_recipe(name)
    train = recipe.train
    assert isinstance(train, TextTrain)
    assert (recipe.seed, train.units, train.decay, train.dropouth) == LANGUAGE[name]
    assert (train.epochs, train.batch, train.bptt, train.lr, train.clip) == (1600, 64, 35, 20.0, 0.25)
    assert (train.dropout, train.dropoutx, train.dropouti, train.dropoute) == (0.75, 0.75, 0.2, 0.1)
    assert (train.activation_penalty, train.temporal_penalty, train.patience) == (0.0, 1e-3, 5)


def test_the_recurrent_search() -> None:
    recipe = read_recipe("darts-ptb")
    search, space = recipe.search, recipe.space
    assert isinstance(search, TextSearch) and isinstance(space, DartsRNN) and recipe.seed == 3
    assert (search.bptt, search.weights.clip, search.temporal_penalty) == (35, 0.25, 1e-3)
    assert (
        space.units,
        space.steps,
        space.dropout,
        space.dropouth,
        space.dropoutx,
        space.dropouti,
        space.dropoute,
    ) == (
        300,
        8,
        0.75,
        0.25,
        0.75,
        0.2,
        0.0,
    )


def test_the_edges_of_s1() -> None:
    space = read_recipe("darts-s1").space
    assert space is not None
    normal, reduce = (space.cells[kind] for kind in ("normal", "reduce"))
    assert all(sum(row) == 2 for cell in (normal, reduce) for row in cell.allowed)
    names = [{op for op, ok in zip(normal.ops, row, strict=True) if ok} for row in normal.allowed]
    assert names[5] == {"max_pool_3x3", "skip_connect"} and names[13] == {"dil_conv_3x3", "dil_conv_5x5"}
    assert [sum(row[reduce.ops.index("skip_connect")] for row in reduce.allowed)] == [6]


@pytest.mark.parametrize(
    "order", [("method.warmup=3", "method.name=pcdarts"), ("method.name=pcdarts", "method.warmup=3")]
)
def test_another_method_drops_the_settings_of_the_recipe_only(order: tuple[str, str]) -> None:
    recipe = read_recipe("drnas-cifar10", [*order, "space.partial=4"])
    assert getattr(recipe.method, "warmup", None) == 3
