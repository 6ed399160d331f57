"""Images as commands use them: batches, a network's training, and its accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diffnas.core.schedules import cosine, ramp
from diffnas.core.space import Shape
from diffnas.data import DATA
from diffnas.data.augment import Augment
from diffnas.data.feeds import Feed
from diffnas.data.images import ImageData, load_images, split_train
from diffnas.engine.search import Feed as AnyFeed
from diffnas.pipeline.evaluate import evaluate
from diffnas.recipe import Recipe
from diffnas.runtime.device import PRECISIONS
from diffnas.sections import Images, ImageSearch, ImageTrain
from diffnas.tasks.images import ImageTask


class ImageSource:
    """The images of a recipe."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.data = recipe, load_data(recipe)
        self.shape, self.names = shape_of(self.data), self.data.train.names

    def search_task(self) -> ImageTask:
        """Cross-entropy, smoothed as the search says."""
        search = self.recipe.search
        assert isinstance(search, ImageSearch)
        return ImageTask(smoothing=search.smoothing)

    def search_feeds(self, device: torch.device) -> dict[str, AnyFeed]:
        """`train`, and where the images are split `valid` and `score`."""
        return dict(search_feeds(self.recipe, self.data, device))

    def training(self, network: nn.Module, device: torch.device) -> ImageTraining:
        """The training of `network`."""
        return ImageTraining(self.recipe, self.data, network, device)

    def test(self, network: nn.Module, device: torch.device) -> dict[str, Any]:
        """Accuracies on the test images in percent."""
        feed = test_feed(self.recipe, self.data, device)
        found = evaluate(network, ImageTask(), feed, PRECISIONS[self.recipe.precision])
        low, high = found.interval()
        return {
            "accuracy": 100.0 * found.accuracy,
            "interval": [100.0 * low, 100.0 * high],
            "error": 100.0 * (1.0 - found.accuracy),
            "top5": 100.0 * found.top5,
            "loss": found.loss,
            "n": found.n,
            "weights": "last epoch",
        }


class ImageTraining:
    """SGD on a cosine, with drop path that grows; the last epoch's weights are the result."""

    def __init__(self, recipe: Recipe, data: ImageData, network: nn.Module, device: torch.device) -> None:
        train = recipe.train
        assert isinstance(train, ImageTrain)
        self.settings, self.network, self.precision = train, network, PRECISIONS[recipe.precision]
        self.task = ImageTask(train.auxiliary_weight, train.smoothing)
        self.feed, self.test = train_feed(recipe, data, device), test_feed(recipe, data, device)
        weights = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(weights, train.lr, train.momentum, weight_decay=train.decay, foreach=True)

    def begin(self, epoch: int) -> float:
        """The cosine's rate; drop path gets its probability."""
        settings = self.settings
        if settings.drop_path:
            self.network.get_buffer("drop_path").fill_(ramp(epoch, settings.epochs, settings.drop_path))
        return cosine(epoch, settings.epochs, settings.lr, settings.lr_min)

    def after(self, epoch: int) -> dict[str, float]:
        """Loss and accuracy on the test images, every `test_every` epochs and at the end."""
        every, last = self.settings.test_every, epoch + 1 == self.settings.epochs
        if not last and not (every and (epoch + 1) % every == 0):
            return {}
        found = evaluate(self.network, self.task, self.test, self.precision)
        return {"test_loss": found.loss, "test_accuracy": 100.0 * found.accuracy}

    def result(self) -> Mapping[str, Tensor]:
        """The weights as they are."""
        found: Mapping[str, Tensor] = self.network.state_dict()
        return found

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the network and the optimizer are all there is."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to do."""


def load_data(recipe: Recipe) -> ImageData:
    """The images a recipe names; raises `DataError` where they are missing, damaged or do not fit."""
    data = _section(recipe)
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
    section = _section(recipe)
    info = DATA[section.name]
    crop = info.crop if section.crop is None else section.crop
    flip = info.flip if section.flip is None else section.flip
    return Augment(crop=crop, flip=flip, cutout=cutout, mean=data.mean, std=data.std)


def search_feeds(recipe: Recipe, data: ImageData, device: torch.device) -> dict[str, Feed]:
    """`train` and `valid`: augmented batches of the two halves; `score`: the architecture half as it is, in order.

    Where all images train the weights (a split of 1) there is `train` alone.
    """
    search, split = recipe.search, _section(recipe).split
    assert isinstance(search, ImageSearch)
    images, augment = data.train.to(device), augmentation(recipe, data, search.cutout)
    if split == 1.0:
        every, steps = torch.arange(len(images)), _steps(len(images), search.batch)
        return {"train": Feed(images, every, search.batch, augment, seed=recipe.seed, name="train", steps=steps)}
    weights, arch = split_train(data.train, split, search.batch, _section(recipe).first == "weights")
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
    assert isinstance(train, ImageTrain)
    augment = augmentation(recipe, data, train.cutout)
    steps = _steps(len(data.train), train.batch)
    return Feed(data.train.to(device), None, train.batch, augment, seed=recipe.seed, name="train", steps=steps)


def test_feed(recipe: Recipe, data: ImageData, device: torch.device) -> Feed:
    """All test images, as they are, in order."""
    augment = augmentation(recipe, data, 0)
    batch = 4 * recipe.train.batch if recipe.train is not None else 256
    return Feed(data.test.to(device), None, batch, augment, seed=recipe.seed, name="test", order="sequential")


def _section(recipe: Recipe) -> Images:
    assert isinstance(recipe.data, Images)
    return recipe.data


def _steps(count: int, batch: int) -> int:
    """The batches of an epoch; a last one of a single image is left out, which normalisation could make nothing of."""
    whole, rest = divmod(count, batch)
    return whole + (rest > 1) if whole else 1
