"""From a recipe's data section to batches."""

from __future__ import annotations

import pytest
import torch

import diffnas
from diffnas.core.space import Shape
from diffnas.pipeline.sources import images
from diffnas.pipeline.sources.images import augmentation, load_data, search_feeds, shape_of, train_feed

CPU = torch.device("cpu")


def recipe(*overrides: str) -> diffnas.Recipe:
    return diffnas.read_recipe("darts-digits", overrides)


def test_halves_share_no_image() -> None:
    chosen = recipe("data.split=0.25", "search.batch=16")
    data = load_data(chosen)
    feeds = search_feeds(chosen, data, CPU)
    train, valid = (set(feeds[name].indices.tolist()) for name in ("train", "valid"))
    assert not train & valid and len(train | valid) == len(data.train) == 1297 and len(train) == 324
    assert feeds["valid"].steps == feeds["train"].steps and feeds["score"].augment == feeds["train"].augment
    assert feeds["score"].epoch(0).draws is None  # scored as they are
    assert shape_of(data) == Shape(10, 1, 8)


def test_the_recipe_sets_the_augmentation() -> None:
    chosen = recipe("data.crop=2", "data.flip=true", "train.cutout=4")
    augment = augmentation(chosen, load_data(chosen), chosen.train.cutout)
    assert (augment.crop, augment.flip, augment.cutout) == (2, True, 4)
    usual = augmentation(recipe(), load_data(recipe()), 0)
    assert (usual.crop, usual.flip, usual.cutout) == (1, False, 0)


@pytest.mark.parametrize(("limit", "sizes"), [(129, [64, 64]), (130, [64, 64, 2]), (128, [64, 64])])
def test_a_last_batch_of_one_is_left_out(limit: int, sizes: list[int]) -> None:
    chosen = recipe(f"data.train_limit={limit}")
    epoch = train_feed(chosen, load_data(chosen), CPU).epoch(0)
    assert [len(batch.targets) for batch in epoch] == sizes


def test_every_test_image_is_seen_once_in_order() -> None:
    data = load_data(recipe())
    labels = torch.cat([batch.targets for batch in images.test_feed(recipe(), data, CPU).epoch(0)])
    assert torch.equal(labels, data.test.labels)
