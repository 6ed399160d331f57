"""Images as commands use them: batches, a network's training, and its accuracy."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from diffnas.core.schedules import ramp
from diffnas.core.space import Shape
from diffnas.data import DATA, few
from diffnas.data.augment import Augment
from diffnas.data.decode import Scale
from diffnas.data.feeds import Feed
from diffnas.data.images import ImageData, list_splits, load_images, split_train
from diffnas.data.images import Images as Pixels
from diffnas.data.inputs import ImageInputs
from diffnas.data.layout import roles, shown_name
from diffnas.data.lists import read_lists
from diffnas.data.stream import Streamed
from diffnas.data.streamed_set import Reading, stream_images, usual_resize
from diffnas.data.views import View, decoder
from diffnas.engine.search import Feed as AnyFeed
from diffnas.errors import DataError
from diffnas.pipeline.digests import digests_of, keep_digests, read_digests
from diffnas.pipeline.evaluate import MOST_CLASSES, evaluate
from diffnas.pipeline.sources.cosine import CosineTraining
from diffnas.pipeline.sources.tasks import task_of, without_smoothing
from diffnas.pipeline.supernet_weights import CosineSGD
from diffnas.recipe.recipe import Recipe
from diffnas.recipe.schema import Images, ImageSearch, ImageTrain
from diffnas.runtime.console import log
from diffnas.runtime.device import PRECISIONS
from diffnas.runtime.distributed import world
from diffnas.runtime.run_folder import Part
from diffnas.runtime.sharing import cpus
from diffnas.tasks.base import Task
from diffnas.tasks.classification import Classification

MOST_WORKERS = 16  # where a recipe does not say how many
MOST_PIXELS = 2**22  # of an evaluation's batch: 4,096 images of 32 x 32, 83 of 224 x 224
FIRST = 5  # of the images that a test leaves out, so many are named


class ImageSource:
    """The images of a recipe, read as `stored` says where that is given."""

    def __init__(self, recipe: Recipe, stored: ImageInputs | None = None) -> None:
        self.recipe, self.data = recipe, load_data(recipe, stored)
        data, scale = self.data, self.data.scale
        resize = data.train.view.resize if isinstance(data.train, Streamed) else None
        self.inputs = ImageInputs(
            data.name, data.train.names, data.side, data.mean, data.std, scale.integers, scale.floats, resize
        )
        self.shape, self.names = self.inputs.shape, self.inputs.names

    @property
    def about(self) -> dict[str, Any]:
        """Classes, which folder served as what with how many images, what was left aside, and how values were scaled."""
        data = self.data
        parts = {role: {"from": data.folders.get(role), "images": len(images)} for role, images in _parts(data).items()}
        section = _section(self.recipe)
        about = {"name": section.name, "path": section.path, "classes": list(self.names), **parts}
        return about | {"left_aside": dict(data.aside), "scale": asdict(data.scale)}

    def say(self) -> None:
        """Logs what was found, what was left aside, and what is odd about the images."""
        say(self.data, _section(self.recipe).path)

    def search_task(self) -> Task:
        """The recipe's task: by default cross-entropy, smoothed as the search says."""
        return task_of(self.recipe, self.recipe.search)

    def search_weights(self) -> CosineSGD:
        """SGD as the search says."""
        assert isinstance(self.recipe.search, ImageSearch)
        return CosineSGD(self.recipe.search.weights)

    def search_feeds(self, device: torch.device) -> dict[str, AnyFeed]:
        """`train`, and where the images are split `valid` and `score`."""
        return dict(search_feeds(self.recipe, self.data, device))

    def training(self, network: nn.Module, device: torch.device) -> ImageTraining:
        """The training of `network`."""
        return ImageTraining(self.recipe, self.data, network, device)

    def record_training(self, part: Part) -> None:
        """Keeps digests of the training images; of streamed ones there are none, for that would be to decode them all."""
        if isinstance(self.data.train, Pixels):
            keep_digests(part, self.data.train.pixels)


class ImageTest:
    """The test images of a recipe, read as `inputs` says, all images of a folder of classes alone that is `elsewhere`.

    Raises `DataError` where they do not fit.
    """

    def __init__(self, recipe: Recipe, inputs: ImageInputs, elsewhere: bool = False) -> None:
        self.recipe, self.inputs = recipe, inputs
        self.data = _load(recipe, inputs, test_only=True, whole=elsewhere)
        read, fits = list(self.data.test.shape), [len(inputs.mean), inputs.side, inputs.side]
        if read != fits:
            raise DataError(f"data.path: the images are {read}, and the network reads {fits}")
        self.names = self.data.test.names

    def say(self) -> None:
        """Logs what was found, what was left aside, and what is odd about the images."""
        say(self.data, _section(self.recipe).path)

    def evaluate(self, network: nn.Module, device: torch.device, part: Part | None = None) -> dict[str, Any]:
        """Accuracies in percent on the test images that `part` was not trained on."""
        data, trained_on = self._untrained(part)
        feed, precision = test_feed(self.recipe, data, device), PRECISIONS[self.recipe.precision]
        result = evaluate(network, Classification(), feed, precision, len(self.inputs.classes) <= MOST_CLASSES)
        low, high = result.interval()
        return {
            "accuracy": 100.0 * result.accuracy,
            "interval": [100.0 * low, 100.0 * high],
            "error": 100.0 * (1.0 - result.accuracy),
            "top5": 100.0 * result.top5,
            "loss": result.loss,
            "n": result.n,
            "trained_on": trained_on,
            **_broken(data),
            "weights": "last epoch",
            "mean": list(self.inputs.mean),
            "std": list(self.inputs.std),
            **result.per_class(self.inputs.classes),
        }

    def _untrained(self, part: Part | None) -> tuple[ImageData, dict[str, Any] | None]:
        """The test images that `part` was not trained on; and the number and first of the others, None if unknown."""
        if isinstance(self.data.test, Streamed):
            return self.data, None
        known = None if part is None else read_digests(part)
        if known is None:
            if part is not None:
                said = "is not there (an earlier version trained this): some test images may have been trained on"
                log.warning("%s: %s", part.digests, said)
            return self.data, None
        every = torch.arange(len(self.data.test))
        seen = torch.from_numpy(np.isin(digests_of(self.data.test.pixels), known))
        places, path = every[seen].tolist(), _section(self.recipe).path
        if len(places) == len(every):
            raise DataError(
                f"data.path {path}: the network was trained on all {len(every):,} images; there is none to test"
            )
        files = self.data.files
        first = [shown_name(str(files[place])) if files else f"test image {place}" for place in places[:FIRST]]
        kept = replace(self.data, test=self.data.test.subset(every[~seen]))
        return kept, {"images": len(places), "first": first}


class ImageTraining(CosineTraining):
    """The training of a network on images, with drop path that grows."""

    def __init__(self, recipe: Recipe, data: ImageData, network: nn.Module, device: torch.device) -> None:
        # with images to choose by, the test is not looked at
        super().__init__(recipe, network, train_feed(recipe, data, device), "test" if data.valid is None else "valid")
        self.watched = test_feed(recipe, data if data.valid is None else replace(data, test=data.valid), device)

    @override
    def begin(self, epoch: int) -> float:
        """Returns the schedule's rate; drop path gets its probability."""
        settings = self.settings
        if settings.drop_path:
            self.network.get_buffer("drop_path").fill_(ramp(epoch, settings.epochs, settings.drop_path))
        return super().begin(epoch)

    @override
    def evaluation(self) -> dict[str, float]:
        """Loss and accuracy on the validation images, on the test where there are none; without label smoothing."""
        task = without_smoothing(self.task)
        result = evaluate(self.network, task, self.watched, self.precision)
        return task.check_metrics(result.loss, result.accuracy)


def load_data(recipe: Recipe, stored: ImageInputs | None = None) -> ImageData:
    """The images a recipe names, with the mean, std and scale of `stored` where there is one.

    Raises `DataError` where they are missing, damaged or do not fit.
    """
    return _load(recipe, stored)


def known_inputs(recipe: Recipe) -> ImageInputs:
    """How test images become inputs as `recipe` alone says, and the classes that they have; no training fixed it.

    Raises `DataError` where the images are missing, or their mean and std are not known.
    """
    data = _section(recipe)
    info, listed = DATA[data.name], list_splits(data.name, data.path, data.side, whole=True, test_only=True)
    mean, std = data.mean or info.mean, data.std or info.std
    if mean is None or std is None:
        raise DataError(f"data.mean, data.std: are not known for {data.name}; set those of the training")
    resize = _reading(data, None).view.resize if data.streamed else None
    shape = recipe.shape
    assert isinstance(shape, Shape)
    return ImageInputs(data.name, listed.test.names, shape.side, tuple(mean), tuple(std), resize=resize)


def _load(recipe: Recipe, stored: ImageInputs | None, test_only: bool = False, whole: bool = False) -> ImageData:
    """The images a recipe names, in memory or streamed, as `stored` says where there is one."""
    data = _section(recipe)
    options: dict[str, Any] = {
        "train_limit": None if test_only else data.train_limit,
        "test_limit": data.test_limit,
        "mean": data.mean if stored is None else stored.mean,
        "std": data.std if stored is None else stored.std,
        "test_only": test_only,
        "whole": whole,
    }
    if data.streamed:
        return stream_images(data.name, data.path, _reading(data, stored), **options)
    return load_images(data.name, data.path, side=data.side, scale=stored.scale if stored else None, **options)


def _reading(data: Images, stored: ImageInputs | None) -> Reading:
    """How streamed images are read: as the recipe says, and as `stored` does where there is one."""
    info = DATA[data.name]
    side = data.side or info.usual_side
    random = (data.augment or info.augment) == "random-resized-crop"
    flip = info.flip if data.flip is None else data.flip
    resize = data.resize or (usual_resize(side) if random else None)
    view = View(
        side=side,
        resize=resize if stored is None else stored.resize,
        area=data.crop_area if random else None,
        flip=random and flip,
        scale=Scale() if stored is None else stored.scale,
    )
    workers = min(cpus(), MOST_WORKERS) if data.workers is None else data.workers
    return Reading(view, workers, data.broken_limit)


def _broken(data: ImageData) -> dict[str, Any]:
    """The number and first of the streamed images that could not be read; nothing where images are in memory."""
    if not isinstance(data.test, Streamed):
        return {}
    names = [name for names in world().all(list(data.test.intake.broken)) for name in names]
    return {"broken": {"images": len(names), "first": names[:FIRST]}}


def say(data: ImageData, path: str | None) -> None:
    """Logs a line of what was found, one of what was left aside, and one for each oddity."""
    parts = [f"{role} {len(images):,} images{_place(data, role)}" for role, images in _parts(data).items()]
    log.info("data: %s: %s classes; %s", path or data.name, f"{data.classes:,}", "; ".join(parts))
    if isinstance(data.test, Streamed):
        workers = f"{data.test.workers} workers" if data.test.workers else "no workers"
        log.info("data: images are decoded by %s with %s while they are needed", workers, decoder())
    if data.aside:
        said = few([what if what.startswith("folder ") else f"{count:,} {what}" for what, count in data.aside.items()])
        log.info("data: left aside: %s", said)
    for line in data.warnings:
        log.warning("data: %s", line)


def _parts(data: ImageData) -> dict[str, Pixels | Streamed]:
    parts = {"train": data.train, "valid": data.valid, "test": data.test}
    return {role: images for role, images in parts.items() if images is not None and len(images)}


def _place(data: ImageData, role: str) -> str:
    """Says where the images of a part are, and their purpose where it is not plain."""
    folder = data.folders.get(role)
    if folder is None or (folder == "." and role == "train"):
        return ""
    if folder == ".":
        return " held out of every class" if "train" in data.folders else ", all of the folder"
    if role == "valid":
        return f" in {folder} (looked at while training; the test is not)"
    return f" in {folder}" + (
        " (there is no other test)" if role == "test" and "test" not in roles(Path(folder).name) else ""
    )


def shape_of(data: ImageData) -> Shape:
    """Returns the shape of the inputs and outputs of a network for `data`."""
    return Shape(data.classes, data.channels, data.side)


def augmentation(
    recipe: Recipe, data: ImageData, cutout: int, jitter: tuple[float, float, float, float] | None = None
) -> Augment:
    """Crop and flip as the recipe says or the data set usually has; cutout and jitter are those of the current section."""
    section = _section(recipe)
    info = DATA[section.name]
    crop = info.crop if section.crop is None else section.crop
    flip = info.flip if section.flip is None else section.flip
    if isinstance(data.train, Streamed) and data.train.view.area is not None:
        crop, flip = 0, False  # the workers have done that
    return Augment(crop=crop, flip=flip, cutout=cutout, mean=data.mean, std=data.std, jitter=jitter)


def search_feeds(recipe: Recipe, data: ImageData, device: torch.device) -> dict[str, Feed]:
    """`train` and `valid`: augmented batches of the two halves; `score`: the architecture half as it is, in order.

    Where all images train the weights (a split of 1) there is `train` alone.
    """
    search, split = recipe.search, _section(recipe).split
    assert isinstance(search, ImageSearch)
    lists = _lists(recipe, data)
    images, augment = data.train.to(device), augmentation(recipe, data, search.cutout, search.jitter)
    if split == 1.0 and lists is None:
        every, steps = torch.arange(len(images)), _steps(len(images), search.batch)
        return {"train": Feed(images, every, search.batch, augment, seed=recipe.seed, name="train", steps=steps)}
    weights, arch = lists or split_train(data.train, split, search.batch, _section(recipe).first == "weights")
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
        "score": Feed(
            images,
            arch,
            evaluated(search.batch, data.side),
            augment,
            seed=recipe.seed,
            name="score",
            order="sequential",
        ),
    }


def _lists(recipe: Recipe, data: ImageData) -> tuple[Tensor, Tensor] | None:
    """Indices of the images that train weights and architecture, where the recipe names lists of them."""
    section, search = _section(recipe), recipe.search
    if section.weights_list is None or section.arch_list is None or not isinstance(data.train, Streamed):
        return None
    files = {"data.weights_list": section.weights_list, "data.arch_list": section.arch_list}
    found = read_lists(data.train, files)
    assert isinstance(search, ImageSearch)
    short = [
        f"search.batch {search.batch}: {key} has {len(at):,} images"
        for key, at in found.items()
        if len(at) < search.batch
    ]
    if short:
        raise DataError(*short)
    return found["data.weights_list"], found["data.arch_list"]


def train_feed(recipe: Recipe, data: ImageData, device: torch.device) -> Feed:
    """All training images, augmented, in a new order every epoch."""
    train = recipe.train
    assert isinstance(train, ImageTrain)
    augment = augmentation(recipe, data, train.cutout, train.jitter)
    steps = _steps(len(data.train), train.batch)
    return Feed(data.train.to(device), None, train.batch, augment, seed=recipe.seed, name="train", steps=steps)


def test_feed(recipe: Recipe, data: ImageData, device: torch.device) -> Feed:
    """All test images, as they are, in order."""
    return _feed_in_order(recipe, data.test, data.mean, data.std, device)


def _feed_in_order(
    recipe: Recipe, images: Pixels | Streamed, mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> Feed:
    """All of `images`, normalised and not augmented, in order."""
    augment = Augment(crop=0, flip=False, cutout=0, mean=mean, std=std)
    batch = evaluated(64 if recipe.train is None else recipe.train.batch, images.shape[1])
    return Feed(images.to(device), None, batch, augment, seed=recipe.seed, name="test", order="sequential")


def evaluated(batch: int, side: int) -> int:
    """Images of a batch in an evaluation: four times those of a step, which needs gradients, but never more than fit memory."""
    return min(4 * batch, max(1, MOST_PIXELS // side**2))


def _section(recipe: Recipe) -> Images:
    assert isinstance(recipe.data, Images)
    return recipe.data


def _steps(count: int, batch: int) -> int:
    """The batches of an epoch; a last one of a single image is left out, which normalisation could make nothing of."""
    whole, rest = divmod(count, batch)
    return whole + (rest > 1) if whole else 1
