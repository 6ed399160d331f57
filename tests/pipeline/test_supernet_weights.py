"""The learning rate of a supernet's weights: by epochs, by steps, over another length, from cosine to cosine."""

from __future__ import annotations

import math
from typing import Any

import pytest

from diffnas.core.space import Size
from diffnas.engine.stage import Clock, Stage
from diffnas.pipeline.supernet_weights import ConstantSGD, CosineSGD
from diffnas.recipe.recipe import read_recipe
from diffnas.recipe.schema import TextWeights, Weights

SIZE = Size(16, 8)


def at(epoch: int, epochs: int = 50) -> Clock:
    return Clock(epoch=epoch, epochs=epochs)


def weights_of(recipe: str) -> Any:
    search = read_recipe(recipe).search
    assert search is not None
    return search.weights


def test_by_epochs() -> None:
    weights = Weights(lr=0.1, lr_min=0.0, warmup=5)
    expected = [0.05 * (1 + math.cos(math.pi * e / 50)) * min(1, (e + 1) / 5) for e in range(50)]
    assert [CosineSGD(weights).rate(Stage(50, SIZE), at(e)) for e in range(50)] == pytest.approx(expected)
    assert CosineSGD(weights).rate(Stage(50, SIZE, rate=0.1), at(25), 0.7) == pytest.approx(0.005)
    assert ConstantSGD(TextWeights()).rate(Stage(50, SIZE), at(49)) == 20.0


@pytest.mark.parametrize("T", [0, 1, 999, 6254, 6255, 6256, 100_000, 106_334])
def test_dsnas_moves_by_steps(T: int) -> None:
    """Its LRScheduler: a line from 1e-4 to 0.5 over 5 epochs, then a cosine over the rest of 240; the search ends at 85."""
    steps, warm = 1251, 5 * 1251
    expected = 1e-4 + (0.5 - 1e-4) * T / warm
    if warm <= T:
        expected = 0.5 * (1 + math.cos(math.pi * (T - warm) / (240 * steps - warm))) / 2
    epoch, step = divmod(T, steps)
    found = CosineSGD(weights_of("dsnas-imagenet")).rate(Stage(85, SIZE), at(epoch, 85), step / steps)
    assert found == pytest.approx(expected, rel=1e-9)


def test_enas_begins_anew_after_10_30_and_70_epochs() -> None:
    weights = weights_of("enas-cifar10")
    found = [CosineSGD(weights).rate(Stage(150, SIZE), at(e, 150)) for e in range(150)]
    assert [e for e in range(150) if found[e] == pytest.approx(0.05)] == [0, 10, 30, 70]
    half = 0.0005 + 0.0495 / 2
    assert [found[e] for e in (5, 20, 50, 110)] == pytest.approx([half] * 4)
    assert min(found) == found[149] > 0.0005


def test_a_cosine_that_is_shorter_than_the_search_goes_up_again() -> None:
    """AutoDL-Projects' ENAS: T_max is 10."""
    weights = weights_of("nb201-enas")
    expected = [0.0005 + 0.0495 * (1 + math.cos(math.pi * e / 10)) / 2 for e in range(250)]
    assert [CosineSGD(weights).rate(Stage(250, SIZE), at(e, 250)) for e in range(250)] == pytest.approx(expected)


def test_a_stage_may_keep_its_first_rate() -> None:
    tuning = Stage(81, SIZE, rate=0.1, constant=True)
    assert [CosineSGD(Weights()).rate(tuning, at(e, 81)) for e in range(81)] == pytest.approx([0.0025] * 81)
