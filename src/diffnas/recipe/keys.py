"""Every key a recipe may have: what its value must be in plain words, its default, and what it means.

The keys of `space` and `method` are the fields of the dataclass that the recipe names.  torch is not loaded.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from diffnas.core.modality import Modality
from diffnas.core.settings import Settings, settings_model
from diffnas.recipe.modalities import modalities
from diffnas.recipe.schema import Head, Log
from diffnas.registry import REGISTRIES, choice_class

ONE = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
MANY = {int: "whole numbers", float: "numbers", str: "names"}
LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "min_length": "of length"}


@dataclass(frozen=True)
class Key:
    """A key of recipes, for listings: `choice` is the space, method or modality that has it, empty if all have it."""

    name: str
    must: str
    default: Any
    about: str
    choice: str = ""


def recipe_keys() -> list[Key]:
    """Returns every key a recipe may have."""
    keys = model_keys(settings_model(Head), "", "")
    having: dict[Key, list[str]] = {}
    for modality in modalities().values():
        for key in modality_keys(modality):
            having.setdefault(key, []).append(modality.name)
    keys += model_keys(settings_model(Log), "log.")
    keys += [dataclasses.replace(key, choice=_choice(names)) for key, names in having.items()]
    for section, registry in REGISTRIES.items():
        why = "computes the loss (null: the one of the data)" if section == "task" else "to search"
        about = f"which {section} {why}: see `diffnas list {section}s`"
        keys.append(Key(f"{section}.name", one_of(registry), None, about))
        for name in registry:
            keys += model_keys(choice_model(section, name), f"{section}.", name)
    return sorted(keys, key=lambda key: ("." in key.name, key.name))


def _choice(names: list[str]) -> str:
    """Says which modalities have a key; nothing where all have it."""
    return "" if len(names) == len(modalities()) else f"for {' and '.join(names)}"


def modality_keys(modality: Modality) -> list[Key]:
    """Returns every key of the sections that depend on the modality."""
    models = {name: settings_model(section) for name, section in modality.sections.items()}
    return [key for name, model in models.items() for key in model_keys(model, f"{name}.")]


def choice_model(section: str, name: str) -> type[Settings]:
    """Returns the model that checks the settings of a space or method."""
    return settings_model(choice_class(section, name))


def model_keys(model: type[BaseModel], prefix: str, choice: str = "") -> list[Key]:
    """Returns the keys of a section, including those of nested sections."""
    keys = []
    for name, info in model.model_fields.items():
        inner = section_of(info)
        if inner is not None:
            keys += model_keys(inner, f"{prefix}{name}.", choice)
        else:
            keys.append(Key(f"{prefix}{name}", must_be(info), info.default, info.description or "", choice))
    return keys


def section_of(info: FieldInfo) -> type[Settings] | None:
    """Returns the model of a nested section, or None if the field holds a value."""
    kind = info.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Settings) else None


def must_be(info: FieldInfo) -> str:
    """Says what a field's value must be: `a whole number of at least 1`, `fresh or cycle`, `a list of 2 numbers`."""
    if info.title is not None:
        return info.title
    if section_of(info) is not None:
        return "keys and values"
    kinds = [kind for kind in get_args(info.annotation) if kind is not NoneType]
    nullable = NoneType in get_args(info.annotation)
    said = _type_words(kinds[0] if nullable else info.annotation)
    return f"{said}{_limits(info)}{' or null' if nullable else ''}"


def _limits(info: FieldInfo) -> str:
    """`` above 0``, `` from 4 to 1024``, `` of at least 0 and below 1``, or nothing."""
    limits = {name: getattr(limit, name) for limit in info.metadata for name in LIMITS if hasattr(limit, name)}
    if "min_length" in limits:
        return f" ({limits['min_length']} or more)"
    if {"ge", "le"} <= set(limits):
        return f" from {limits['ge']} to {limits['le']}"
    said = " and ".join(f"{LIMITS[name]} {value}" for name, value in limits.items())
    return f" {'of ' * said.startswith('at')}{said}" if said else ""


def _type_words(annotation: Any) -> str:
    if annotation in ONE:
        return ONE[annotation]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return one_of(inner)
    if origin is dict:
        return "keys and values"
    if origin in (tuple, list):
        count = f"{len(inner)} " if origin is tuple and Ellipsis not in inner else ""
        return f"a list of {count}{MANY.get(inner[0], 'lists')}"
    return str(annotation)


def one_of(names: Iterable[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *first, last = map(str, names)
    return f"{', '.join(first)} or {last}" if first else last


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?`, or nothing where no name is near."""
    known = list(dict.fromkeys(known))
    section, _, leaf = word.rpartition(".")
    # a right word in the wrong place comes first: `lr`, `search.lr`
    same = [name for name in known if "." in name and name.rpartition(".")[2] == leaf]
    inside = [name for name in same if section and name.startswith(f"{section.partition('.')[0]}.")]
    near = (inside or same)[:3] or difflib.get_close_matches(word[:200], known, n=1, cutoff=0.6)
    if not near and section:
        leaves = {name.rpartition(".")[2]: name for name in reversed(known)}
        near = [leaves[match] for match in difflib.get_close_matches(leaf[:200], leaves, n=1, cutoff=0.75)]
    return f"; did you mean {one_of(near)}?" if near else ""


def leaf_of(model: type[BaseModel], path: tuple[Any, ...]) -> tuple[tuple[str, ...], FieldInfo | None]:
    """Finds the key that `path` leads to or into, and its field; None if there is no such key."""
    fields: Mapping[str, FieldInfo] = model.model_fields
    for depth, part in enumerate(path, 1):
        info = fields.get(str(part))
        inner = section_of(info) if info is not None else None
        if inner is None or depth == len(path):
            return tuple(map(str, path[:depth])), info
        fields = inner.model_fields
    return (), None
