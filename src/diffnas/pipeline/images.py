"""From a recipe's data section to images on the device, and to the batches a search or a training reads."""

from __future__ import annotations

import torch

from diffnas.core.space import Shape
from diffnas.data import DATA
from diffnas.data.augment import Augment
from diffnas.data.feeds import Feed
from diffnas.data.images import ImageData, load_images, split_train
from diffnas.recipe import Recipe


def load_data(recipe: Recipe) -> ImageData:
    """The images a recipe names; raises `DataError` where they are missing, damaged or do not fit."""
    data = recipe.data
    return load_images(
        data.name,
        data.path,
        side=data.side,
        train_limit=data.train_limit,
        test_limit=data.test_limit,
        mean=data.mean,
        std=data.std,
    )


def shape_of(data: ImageData) -> Shape:
    """What a network for `data` reads and answers."""
    return Shape(data.classes, data.channels, data.side)


def augmentation(recipe: Recipe, data: ImageData, cutout: int) -> Augment:
    """Crop and flip as the recipe says or the data set usually has, and the cutout of the section at hand."""
    info = DATA[recipe.data.name]
    crop = info.crop if recipe.data.crop is None else recipe.data.crop
    flip = info.flip if recipe.data.flip is None else recipe.data.flip
    return Augment(crop=crop, flip=flip, cutout=cutout, mean=data.mean, std=data.std)


def search_feeds(recipe: Recipe, data: ImageData, device: torch.device) -> dict[str, Feed]:
    """`train` and `valid`: augmented batches of the two halves; `score`: the architecture half as it is, in order.

    Where all images train the weights (a split of 1) there is `train` alone.
    """
    search = recipe.search
    assert search is not None
    images, augment = data.train.to(device), augmentation(recipe, data, search.cutout)
    if recipe.data.split == 1.0:
        every, steps = torch.arange(len(images)), _steps(len(images), search.batch)
        return {"train": Feed(images, every, search.batch, augment, seed=recipe.seed, name="train", steps=steps)}
    weights, arch = split_train(data.train, recipe.data.split, search.batch)
    steps = _steps(len(weights), search.batch)
    train = Feed(images, weights, search.batch, augment, seed=recipe.seed, name="train", steps=steps)
    return {
        "train": train,
        "valid": Feed(
            images,
            arch,
            search.batch,
            augment,
            seed=recipe.seed,
            name="valid",
            order=search.sampling,
            steps=train.steps,
        ),
        "score": Feed(images, arch, 4 * search.batch, augment, seed=recipe.seed, name="score", order="sequential"),
    }


def train_feed(recipe: Recipe, data: ImageData, device: torch.device) -> Feed:
    """All training images, augmented, in a new order every epoch."""
    train = recipe.train
    assert train is not None
    augment = augmentation(recipe, data, train.cutout)
    steps = _steps(len(data.train), train.batch)
    return Feed(data.train.to(device), None, train.batch, augment, seed=recipe.seed, name="train", steps=steps)


def test_feed(recipe: Recipe, data: ImageData, device: torch.device) -> Feed:
    """All test images, as they are, in order."""
    augment = augmentation(recipe, data, 0)
    batch = 4 * recipe.train.batch if recipe.train is not None else 256
    return Feed(data.test.to(device), None, batch, augment, seed=recipe.seed, name="test", order="sequential")


def _steps(count: int, batch: int) -> int:
    """The batches of an epoch; a last one of a single image is left out, which normalisation could make nothing of."""
    whole, rest = divmod(count, batch)
    return whole + (rest > 1) if whole else 1
