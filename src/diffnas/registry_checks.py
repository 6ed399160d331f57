"""Checks of what plug-ins register: whether commands could use it."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from diffnas.core.modality import Modality
from diffnas.core.settings import settings_model
from diffnas.core.space import TensorShape
from diffnas.data.registered import ImageSet, TensorSet
from diffnas.errors import PluginError

if TYPE_CHECKING:
    from torch import nn

NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
LONGEST = 50
NAMING = f"a name is small letters and digits, with - or _ between them, at most {LONGEST}"
NEEDED = (
    "modality",
    "size",
    "cells",
    "chain",
    "supernet",
    "network",
    "costs",
    "check_size",
    "narrow",
)  # what a space must have
SECTION_KEYS = {
    "data": ("name", "path"),
    "search": ("epochs", "arch", "supernet", "compile", "eigenvalue_every", "validate_every", "checkpoint_every"),
    "train": ("epochs", "clip", "checkpoint_every"),
}
"""The keys that commands read in the sections of every modality."""


@dataclass(frozen=True)
class Op:
    """An op of a plug-in, for the cells of `space`.

    `build(channels, stride, affine)` makes the module [N, channels, H, W] -> [N, channels, H/stride, W/stride]; its
    normalisations have learnt scales where `affine` (in networks; not in supernets).
    """

    name: str
    build: Callable[[int, int, bool], nn.Module]
    about: str = ""
    space: Literal["darts-cnn"] = "darts-cnn"


def is_name(name: Any) -> bool:
    """Returns whether a thing may be registered under `name`."""
    return isinstance(name, str) and NAME.fullmatch(name) is not None and len(name) <= LONGEST


def check(kind: str, name: str, thing: Any, taken: set[str]) -> None:
    """Raises `PluginError` where commands could not use `thing`; `taken` are the names of data sets that others have."""
    if kind == "op":
        _check_op(thing)
    elif isinstance(thing, ImageSet):
        if not thing.classes or len(set(thing.classes)) < len(thing.classes):
            raise PluginError(f"data {name!r}: classes must be names, each once")
    elif isinstance(thing, TensorSet):
        _check_tensors(thing)
    elif isinstance(thing, Modality):
        _check_modality(thing, taken)
    elif kind != "data":
        lacking = [part for part in NEEDED if kind == "space" and not hasattr(thing, part)]
        if lacking:
            raise PluginError(f"space {name!r}: lacks {', '.join(lacking)} (see docs/add-a-space.md)")
        mistakes = _settings_mistakes(f"{kind} {name!r}", thing)
        if mistakes:
            raise PluginError(*mistakes)
        if kind == "task":
            _check_task(name, thing)


def _check_task(name: str, task: Any) -> None:
    """Raises `PluginError` where a task has no loss, or a function that takes other arguments than that of `Task`."""
    from diffnas.tasks.base import Task  # needs torch

    lines = []
    if task.loss is Task.loss:
        lines.append(f"task {name!r}: needs loss(self, net, batch), which returns a diffnas.Loss")
    if not isinstance(task.modalities, tuple) or not all(isinstance(each, str) for each in task.modalities):
        lines.append(f'task {name!r}: modalities must be a tuple of names, such as ("tensors",)')
    for function in ("loss", "reward", "metrics", "format_metrics", "check_targets"):
        usual = inspect.signature(getattr(Task, function)).parameters
        given = [key for key, each in usual.items() if each.default is each.empty]
        named = {key: each.default for key, each in usual.items() if key not in given}
        try:
            inspect.signature(getattr(task, function)).bind(*given, **named)
        except TypeError:
            taken = [*given, *(f"{key}={value}" for key, value in named.items())]
            lines.append(f"task {name!r}: {function} must take ({', '.join(taken)})")
    if lines:
        raise PluginError(*lines)


def _check_tensors(thing: TensorSet) -> None:
    """Raises `PluginError` where the sizes of a data set of tensors make no sense."""
    numbers = (*thing.shape.sizes, thing.shape.outputs) if isinstance(thing.shape, TensorShape) else ()
    if len(numbers) < 2 or any(type(number) is not int or number < 1 for number in numbers):
        raise PluginError(
            f"data {thing.name!r}: shape must be a diffnas.TensorShape of whole numbers from 1; got {thing.shape}"
        )
    if thing.classes and not len(set(thing.classes)) == len(thing.classes) == thing.shape.outputs:
        raise PluginError(f"data {thing.name!r}: classes must be names, each once, as many as its outputs")


def _check_modality(modality: Modality, taken: set[str]) -> None:
    """Raises `PluginError` where a modality lacks what commands need, or its sections are no settings."""
    at = f"modality {modality.name!r}"
    taking = {"shape": 1, "task": 1, "check": 2}
    lines = [
        f"{at}: {key} must be a function of {('the data section', 'sections and method')[count - 1]}"
        for key, count in taking.items()
        if not _takes(getattr(modality, key), count)
    ]
    lacking = [part for part in ("inputs", "source", "test_set", "shape") if not hasattr(modality.reading, part)]
    if lacking:
        lines.append(f"{at}: its reading lacks {', '.join(lacking)} (see docs/plugins.md)")
    lines += _set_mistakes(at, modality.sets, taken)
    for section, cls in modality.sections.items():
        lines += _settings_mistakes(f"{at}: section {section}", cls, SECTION_KEYS[section])
    if lines:
        raise PluginError(*lines)


def _takes(function: Any, count: int) -> bool:
    """Whether `function` can be called with so many arguments."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except (TypeError, ValueError):
        return False
    return True


def _set_mistakes(at: str, sets: Any, taken: set[str]) -> list[str]:
    """Returns what is wrong with the data sets of a modality."""
    if not isinstance(sets, Mapping) or not all(isinstance(getattr(one, "about", None), str) for one in sets.values()):
        return [f"{at}: sets must hold data sets by name, each with a line `about`"]
    lines = [f"{at}: data set {name!r}: {NAMING}" for name in sets if not is_name(name)]
    both = sorted(taken & set(sets))
    return lines + ([f"{at}: data sets {', '.join(both)} exist already; choose other names"] if both else [])


def _settings_mistakes(at: str, cls: Any, keys: Iterable[str] = ()) -> list[str]:
    """Returns why the fields of a class cannot be settings of a recipe, and which of `keys` it lacks."""
    if not dataclasses.is_dataclass(cls) or "__dataclass_params__" not in vars(cls):
        called = getattr(cls, "__name__", repr(cls))
        return [f"{at}: {called} must be a dataclass: put @dataclass(frozen=True) above it"]
    try:
        settings_model(cls)  # type: ignore[arg-type]
    except Exception as error:  # noqa: BLE001 (whatever an annotation that is no setting makes of it)
        return [f"{at}: its fields cannot be settings: {error}"]
    fields, none = dataclasses.fields(cls), dataclasses.MISSING
    missing = [field.name for field in fields if field.default is none and field.default_factory is none]
    lacking = [key for key in keys if key not in {field.name for field in fields}]
    lines = [f"{at} lacks {', '.join(lacking)}; derive it from diffnas.schema (see docs/plugins.md)"] if lacking else []
    return lines + ([f"{at}: {', '.join(missing)}: a setting needs a default"] if missing else [])


def _check_op(op: Op) -> None:
    """Raises `PluginError` where the modules that `op` builds do not keep to their shape."""
    import torch

    for stride in (1, 2):
        for affine in (False, True):
            called = f"op {op.name!r}: build(4, {stride}, {affine})"
            try:
                with torch.random.fork_rng(devices=[]), torch.no_grad():
                    images = op.build(4, stride, affine)(torch.zeros(2, 4, 8, 8))
            except Exception as error:  # noqa: BLE001 (it is the user's code)
                raise PluginError(f"{called} on images [2, 4, 8, 8]: {type(error).__name__}: {error}") from None
            expected = [2, 4, 8 // stride, 8 // stride]
            if not isinstance(images, torch.Tensor) or list(images.shape) != expected:
                got = list(images.shape) if isinstance(images, torch.Tensor) else type(images).__name__
                raise PluginError(f"{called} makes {got} of images [2, 4, 8, 8]; it must make {expected}")
