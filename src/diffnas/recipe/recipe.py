"""Recipes: one experiment as one typed value, read from YAML, with every mistake reported at once.

A recipe may extend one other.  Values come from defaults, the recipe extended, the recipe itself and overrides
(`section.key=value`), in that order; where each came from is kept and written into the run folder.  torch is not loaded.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from diffnas.core.settings import settings_of
from diffnas.core.space import AnyShape, Space
from diffnas.errors import RecipeError
from diffnas.plugins import load_plugins
from diffnas.recipe import schema
from diffnas.recipe.keys import nearest
from diffnas.recipe.modalities import keys_of_task, modalities, modality_of
from diffnas.recipe.validate import HEAD, Check, sections_of
from diffnas.registry import REGISTRIES, choice_class
from diffnas.runtime.files import read_bytes
from diffnas.runtime.terminal import printable
from diffnas.runtime.yaml_text import parse_yaml, quote_value, yaml_lines

if TYPE_CHECKING:
    from diffnas.engine.method import Method
    from diffnas.tasks.base import Task

RECIPES = Path(__file__).parents[1] / "recipes"
LIMITS = {
    "search.epochs",
    "train.epochs",
    "search.checkpoint_every",
    "train.checkpoint_every",
    "search.supernet",
    "search.compile",
    "search.graph",
    "train.compile",
    "train.graph",
    "data.path",
    "data.workers",
    "data.broken_limit",
    "device",
}
"""What may change when a run is resumed (`log.*` besides): how far and where it runs, not what it computes."""
LARGEST = 2**18  # bytes; the resolved recipe of the largest space is some 50,000


@dataclass(frozen=True)
class Recipe:
    """A checked recipe; `space`, `method`, `search`, `train` and `task` are None where it has no such section.

    `data`, `search` and `train` are the sections of its modality (`diffnas.schema`).
    """

    name: str
    about: str
    source: str
    seed: int
    device: str
    precision: Literal["float32", "bfloat16", "float16"]
    data: Any
    space: Space | None
    method: Method | None
    search: Any
    train: Any
    log: schema.Log
    task: Task | None = None
    statistics: Literal["process", "all"] = "process"
    deterministic: bool = False
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def values(self) -> dict[str, Any]:
        """Returns all keys as nested plain values, which `read_recipe` reads back."""
        tree = {name: getattr(self, name) for name in HEAD}
        modality = modalities()[self.modality]
        for name in sections_of(modality):
            section = getattr(self, name)
            if section is not None:
                tree[name] = _jsonable(settings_of(section))
        for name in REGISTRIES:
            choice = getattr(self, name)
            if choice is not None:
                tree[name] = {"name": choice.name, **_jsonable(settings_of(choice))}
        if self.task is not None:
            for key in keys_of_task(self.task, modality):
                tree["task"].pop(key, None)
        order = [*HEAD, "data", "space", "method", "task", "search", "train", "log"]
        return {key: tree[key] for key in order if key in tree}

    def to_yaml(self) -> str:
        """The recipe as YAML, every line with where its value came from."""
        # a path may hold what no YAML may, even in a comment
        origins = {key: printable(origin) for key, origin in self.origins.items()}
        return "\n".join(yaml_lines(self.values(), origins)) + "\n"

    @property
    def modality(self) -> str:
        """The name of the modality of the data: `images`, `text`, `tensors`, or that of a plug-in."""
        return modality_of(self.data.name)

    @property
    def shape(self) -> AnyShape:
        """The shape of the networks, as far as the recipe tells; a folder's classes or words are known once it is read."""
        return modalities()[self.modality].shape(self.data)


def recipe_names() -> list[str]:
    """The names of the recipes in the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def read_recipe(name_or_path: str | Path, overrides: Sequence[str] = (), plugins: Sequence[str | Path] = ()) -> Recipe:
    """Reads the recipe of that name or at that path, with `overrides` ("section.key=value") on top.

    `plugins` are files or modules that register methods, spaces, data sets or ops; they are loaded first (docs/plugins.md).
    Raises `RecipeError` with one line per mistake, all of them at once, and `PluginError`.
    """
    load_plugins(plugins)
    overrides = (overrides,) if isinstance(overrides, str) else overrides
    values, origins = _read_with_base(str(name_or_path))
    problems: list[str] = []
    for text in overrides:
        problems += _override(values, origins, text)
    check = Check(str(name_or_path), values, origins)
    if problems or check.problems:
        raise RecipeError(*problems, *check.problems)
    named = {key: origin.partition("=")[0] if origin.startswith("--set") else origin for key, origin in origins.items()}
    return Recipe(**check.parts, origins=named)


def recipe_summary(name: str) -> tuple[str, str, tuple[str, ...]]:
    """Returns the description and source of a packaged recipe, and which of search and train it has; without checks."""
    values, _ = _read_with_base(name)
    sections = tuple(section for section in ("search", "train") if values.get(section) is not None)
    return str(values.get("about", "")), str(values.get("source", "")), sections


def packaged_values(name: str) -> dict[str, Any]:
    """What the packaged recipe of that name says, with what it extends, as nested values; without defaults or checks."""
    return _read_with_base(name)[0]


def changed_keys(old: Recipe, new: Recipe) -> list[str]:
    """Returns the dotted keys whose values differ although a resumed run may not change them."""
    before, after = flat_values(old), flat_values(new)
    return sorted(key for key in {**before, **after} if before.get(key) != after.get(key) and not is_limit(key))


def is_limit(key: str) -> bool:
    """Whether a resumed run may change `key`."""
    return key in LIMITS or key.startswith("log.")


def flat_values(recipe: Recipe) -> dict[str, str]:
    """Returns every dotted key with its value as JSON; the settings of a base method are one value."""
    tree = recipe.values()
    nested = {f"{name}.{key}": v for name in REGISTRIES for key, v in tree.get(name, {}).items() if isinstance(v, dict)}
    inside = tuple(f"{key}." for key in nested)
    flat = {key: value for key, value in leaves(tree) if not key.startswith(inside)} | nested
    return {key: json.dumps(value, sort_keys=True) for key, value in flat.items()}


def said_origins(text: str, keys: Sequence[str]) -> dict[str, str] | None:
    """Returns the origin of each of the `keys` of a written recipe, from its comments; None unless all lines have one."""
    said = [line.rpartition("  # ")[2] for line in text.splitlines() if "  # " in line]
    return dict(zip(keys, said, strict=True)) if len(keys) == len(said) else None


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) for every leaf of nested mappings."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value and prefix.count(".") < 2:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _read_file(name: str) -> tuple[Path, dict[str, Any]]:
    path = RECIPES / f"{name}.yaml" if name in recipe_names() else Path(name)
    try:
        content = read_bytes(path, LARGEST + 1)
    except (OSError, ValueError) as error:
        raise RecipeError(_unreadable(name, path, error)) from None
    if len(content) > LARGEST:
        raise RecipeError(f"recipe {name}: larger than {LARGEST // 1024} KiB; a recipe is a page of text")
    try:
        values = parse_yaml(content.decode("utf-8-sig"), f"recipe {name}")
    except UnicodeDecodeError:
        raise RecipeError(f"recipe {name}: not a text file (UTF-8)") from None
    if not isinstance(values, dict):
        raise RecipeError(f"recipe {name}: must be keys and values, as in: name: mine, search: {{epochs: 10}}")
    return path, values


def _unreadable(name: str, path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError) and not path.suffix and "/" not in name:
        hint = nearest(name, recipe_names())
        return f"recipe {name!r} is unknown{hint}; `diffnas list recipes` shows all, or give a file"
    if isinstance(error, IsADirectoryError):
        inside = next(
            (file for file in (path / "search" / "recipe.yaml", path / "recipe.yaml") if file.is_file()), None
        )
        return f"recipe {name}: is a folder; name a file" + (f": {inside}" if inside else "")
    return f"recipe {name:.200}: cannot be read: {getattr(error, 'strerror', None) or error}"


def _read_with_base(name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The recipe merged over the one it extends, and the origin of each leaf."""
    path, values = _read_file(name)
    if _of_run(path) and isinstance(values.get("method"), dict):
        _add_what_was_done_before(values["method"])
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if "extends" in values:
        base_name = _base_name(name, path, values.pop("extends"))
        _, base = _read_file(base_name)
        if "extends" in base:
            raise RecipeError(f"recipe {name}: extends {base_name}, which extends another; one level is the limit")
        # a name, a sentence and a source belong to one recipe only
        base = {key: value for key, value in base.items() if key not in ("name", "about", "source")}
        _merge(merged, base, origins, f"recipe {base_name}")
    _merge(merged, values, origins, f"recipe {name}")
    merged.setdefault("name", re.sub(r"[^A-Za-z0-9._-]", "-", path.stem).lstrip("._-")[:100] or "unnamed")
    return merged, origins


def _of_run(path: Path) -> bool:
    """Whether a command has written the file into a run folder, with every key that there was then."""
    return path.name == "recipe.yaml" and (path.parent / "environment.json").is_file()


def _add_what_was_done_before(method: dict[str, Any]) -> None:
    """Adds to the settings of a run's method those that came later, with what was done before; to its base's as well."""
    name = method.get("name")
    if not (isinstance(name, str) and name in REGISTRIES["method"]):
        return
    for entry in dataclasses.fields(choice_class("method", name)):
        if "before" in entry.metadata:
            method.setdefault(entry.name, entry.metadata["before"])
    if isinstance(method.get("base_settings"), dict):
        within = {"name": method.get("base"), **method["base_settings"]}
        _add_what_was_done_before(within)
        method["base_settings"] = {key: value for key, value in within.items() if key != "name"}


def _base_name(name: str, path: Path, base: Any) -> str:
    """Returns the recipe that is extended: a file beside this one, or the given name or path."""
    if not isinstance(base, str) or not base or "\0" in base or len(base) > 200:
        raise RecipeError(f"recipe {name}: extends: must be the name or file of one recipe; got {quote_value(base)}")
    beside = path.parent / base
    file = beside if beside.is_file() else Path(base)
    if file.is_file() and file.samefile(path):
        raise RecipeError(f"recipe {name}: extends: is the recipe itself; name another, or leave it out")
    return str(file) if file.is_file() else base


def _merge(into: dict[str, Any], values: Mapping[str, Any], origins: dict[str, str], origin: str, at: str = "") -> None:
    for key, value in values.items():
        dotted = f"{at}{key}"
        if not at and key in REGISTRIES and _chooses_another(into.get(key), value):
            # the settings in a file are those of another space or method; what --set says stays, to be read or refused
            stale = [dotted for dotted in into[key] if not origins.get(f"{key}.{dotted}", "").startswith("--set")]
            into[key] = {name: setting for name, setting in into[key].items() if name not in stale}
            for name in list(origins):
                if name.startswith(tuple(f"{key}.{gone}" for gone in stale)):
                    del origins[name]
        if isinstance(value, dict) and isinstance(into.get(key, {}), dict) and at.count(".") < 2:
            if not isinstance(into.get(key), dict):
                into[key] = {}
            _merge(into[key], value, origins, origin, f"{dotted}.")
            origins.setdefault(dotted, origin)
        else:
            into[key] = value
            origins[dotted] = origin


def _chooses_another(before: Any, value: Any) -> bool:
    """Whether `value` names another space or method than `before`."""
    named = isinstance(before, dict) and isinstance(value, dict) and "name" in before and "name" in value
    return bool(named and before["name"] != value["name"])


def _override(values: dict[str, Any], origins: dict[str, str], text: str) -> list[str]:
    """Sets one "section.key=value" in `values`; returns a line per mistake."""
    key, equals, raw = text.partition("=")
    key = key.strip()
    if not equals or not re.fullmatch(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*", key):
        return [f"--set {text}: must be section.key=value"]
    try:
        value = parse_yaml(raw, f"--set {text}")
    except RecipeError as error:
        return list(error.lines)
    tree: dict[str, Any] = {}
    node = tree
    *parents, leaf = key.split(".")
    for part in parents:
        node = node.setdefault(part, {})
    node[leaf] = value
    _merge(values, tree, origins, f"--set {text}")
    return []


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    return [_jsonable(item) for item in value] if isinstance(value, tuple | list) else value
