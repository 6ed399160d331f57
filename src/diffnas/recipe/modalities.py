"""Images, text and tensors as recipes see them: sections, data sets, shapes, and what contradicts itself.

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from diffnas.core.modality import Modality, Problems
from diffnas.core.space import Shape, TensorShape, TextShape
from diffnas.data import DATA
from diffnas.data.registered import TENSORS
from diffnas.data.texts import TEXTS
from diffnas.recipe import schema
from diffnas.registry import MODALITIES
from diffnas.runtime.yaml_text import quote_value


def modalities() -> dict[str, Modality]:
    """Returns every modality by name: ours, and those of plug-ins."""
    return {modality.name: modality for modality in OWN} | MODALITIES


def modality_of(data: Any) -> str:
    """Returns the name of the modality of the data set `data`; an unknown name counts as images."""
    holders = (modality.name for modality in modalities().values() if isinstance(data, str) and data in modality.sets)
    return next(holders, "images")


def data_sets() -> dict[str, Any]:
    """Returns every data set by name."""
    return {name: info for modality in modalities().values() for name, info in modality.sets.items()}


def keys_of_task(task: Any, modality: Modality) -> dict[str, list[str]]:
    """Returns the fields of `task` that sections of the recipe have keys for, and these keys."""
    sections = {"search": modality.search, "train": modality.train}
    held = {
        field: [f"{name}.{key}" for name, cls in sections.items() if key in {each.name for each in fields(cls)}]
        for field, key in task.of_section.items()
    }
    return {field: keys for field, keys in held.items() if keys}


def _image_shape(data: schema.Images) -> Shape:
    info = DATA[data.name]
    return Shape(info.classes or 2, info.channels, data.side or info.side or info.usual_side)


def _text_shape(data: schema.Text) -> TextShape:
    return TextShape(TEXTS[data.name].words or 2)


def _tensor_shape(data: schema.Tensors) -> TensorShape:
    return TENSORS[data.name].shape


def _check_images(sections: Mapping[str, Any], method: Any) -> Problems:
    problems = _check_samples(sections, method)
    data = sections.get("data")
    if data is None:
        return problems
    info, side = DATA[data.name], _image_shape(data).side
    if data.name == "folder" and data.path is None:
        problems.append(("data.path", "must say which folder of images to read"))
    if info.side is not None and data.side not in (None, info.side) and data.name != "digits":
        problems.append(("data.side", f"{data.name} has images of side {info.side}; leave it out"))
    if (data.crop or 0) >= side:
        problems.append(("data.crop", f"must be below the images' side, {side}; got {data.crop}"))
    for key, value in (("data.mean", data.mean), ("data.std", data.std)):
        if value is not None and len(value) != info.channels:
            problems.append((key, f"must hold one number per channel, {info.channels}; got {len(value)}"))
    if any(deviation <= 0 for deviation in data.std or ()):
        problems.append(("data.std", "must be above 0 for every channel"))
    for name in ("search", "train"):
        section = sections.get(name)
        if section is not None and section.cutout > side:
            reason = f"must not exceed the images' side, {side}; got {section.cutout}"
            problems.append((f"{name}.cutout", reason))
        if section is not None:
            problems += _jitter(f"{name}.jitter", section.jitter)
    return problems + _streamed(data, side)


def _jitter(key: str, jitter: tuple[float, ...] | None) -> Problems:
    sound = jitter is None or (all(0 <= share <= 1 for share in jitter) and jitter[3] <= 0.5)
    return [(key, f"must be 0 to 1 each, the hue 0 to 0.5; got {quote_value(jitter)}")] * (not sound)


def _streamed(data: schema.Images, side: int) -> Problems:
    """Returns the contradictions among the keys of images that are decoded while they are needed."""
    info, problems = DATA[data.name], []
    if info.streamed is not None and data.stream not in (None, info.streamed):
        said = "it does not fit into memory" if info.streamed else "only imagenet and folder can be streamed"
        problems.append(("data.stream", f"must be {str(info.streamed).lower()} or null for {data.name}: {said}"))
    asked = {
        "augment": data.augment == "random-resized-crop",
        "resize": data.resize is not None,
        "weights_list": data.weights_list is not None,
        "arch_list": data.arch_list is not None,
    }
    if not data.streamed:
        problems += [(f"data.{key}", "needs data.stream=true") for key, given in asked.items() if given]
    if (data.weights_list is None) != (data.arch_list is None):
        problems.append(("data.weights_list", "and data.arch_list need each other: name both, or neither"))
    if data.weights_list is not None and data.train_limit is not None:
        problems.append(("data.train_limit", "must be null: the lists say which images train"))
    if data.resize is not None and data.resize < side:
        problems.append(("data.resize", f"must be at least the side, {side}; got {data.resize}"))
    if not 0 < data.crop_area[0] <= data.crop_area[1] <= 1:
        said = f"must be two shares, 0 < least <= largest <= 1; got {list(data.crop_area)}"
        problems.append(("data.crop_area", said))
    return problems


def _check_samples(sections: Mapping[str, Any], method: Any) -> Problems:
    """Checks learning rates that follow a cosine."""
    problems: Problems = []
    search, train = sections.get("search"), sections.get("train")
    if search is not None:
        problems += _rates("search.weights", search.weights)
        problems += _nesterov(search.weights, method) + _schedule(search.weights, search.epochs)
    return problems + ([] if train is None else _rates("train", train) + _training_schedule(train))


def _check_text(sections: Mapping[str, Any], method: Any) -> Problems:
    data = sections.get("data")
    if data is not None and data.name == "text" and data.path is None:
        return [("data.path", "must say which folder has your train.txt, valid.txt and test.txt")]
    if data is not None and data.name == "embedded" and data.path is not None:
        return [("data.path", "must be null: the embedded text is in the package")]
    return []


def _rates(at: str, settings: schema.Weights | schema.SampleTrain) -> Problems:
    if settings.lr_min <= settings.lr:
        return []
    return [(f"{at}.lr_min", f"must not exceed {at}.lr, {settings.lr}; got {settings.lr_min}")]


def _nesterov(weights: schema.Weights, method: Any) -> Problems:
    key = "search.weights.nesterov"
    if weights.nesterov and not weights.momentum:
        return [(key, "needs search.weights.momentum above 0")]
    if weights.nesterov and method is not None and method.uses_lookahead:
        return [(key, f"must be false: method {method.name} as set here looks one step of plain SGD ahead")]
    return []


def _schedule(weights: schema.Weights, epochs: int) -> Problems:
    """Refuses keys of the learning rate that have no effect without another, and a warm-up that leaves no schedule."""
    problems, at, length = [], "search.weights", weights.cosine_epochs or epochs
    if weights.warmup_lr and weights.rate_per == "epoch":
        problems.append((f"{at}.warmup_lr", f"needs {at}.rate_per=step; by epochs a warm-up begins above 0 by itself"))
    if weights.rate_per == "step" and weights.warmup >= length:
        problems.append((f"{at}.warmup", f"must be below the {length} epochs of the schedule; got {weights.warmup}"))
    if weights.cosine_growth is not None and weights.cosine_epochs is None:
        problems.append((f"{at}.cosine_growth", f"needs {at}.cosine_epochs, the length of the first cosine"))
    return problems


def _training_schedule(train: schema.SampleTrain) -> Problems:
    """Refuses an end that the schedule does not reach."""
    if train.lr_min and train.schedule != "cosine":
        return [("train.lr_min", f"must be 0: only the cosine ends there, and train.schedule is {train.schedule}")]
    return []


IMAGES = Modality(
    "images",
    schema.Images,
    schema.ImageSearch,
    schema.ImageTrain,
    DATA,
    _image_shape,
    task=lambda data: "classification",
    check=_check_images,
)
TEXT = Modality(
    "text",
    schema.Text,
    schema.TextSearch,
    schema.TextTrain,
    TEXTS,
    _text_shape,
    task=lambda data: "language",
    check=_check_text,
)
TENSOR = Modality(
    "tensors",
    schema.Tensors,
    schema.SampleSearch,
    schema.SampleTrain,
    TENSORS,
    _tensor_shape,
    task=lambda data: TENSORS[data.name].task,
    check=_check_samples,
)
OWN = (IMAGES, TEXT, TENSOR)
