"""Recipes: one experiment as one typed value, read from YAML, with every mistake reported at once.

A recipe may extend one other.  Values come from defaults, the recipe extended, the recipe itself and overrides
(`section.key=value`), in that order; where each came from is kept and written into the run folder.  torch is not loaded.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from pydantic import BaseModel, Field, ValidationError, create_model

from diffnas import sections
from diffnas.core.space import Shape, Space
from diffnas.data import DATA
from diffnas.errors import RecipeError
from diffnas.methods import METHODS
from diffnas.sections import Section
from diffnas.spaces import SPACES
from diffnas.yaml_text import parse_yaml, yaml_lines

if TYPE_CHECKING:
    from diffnas.engine.method import Method

RECIPES = Path(__file__).parent / "recipes"
LIMITS = {"search.epochs", "train.epochs", "search.checkpoint_every", "train.checkpoint_every", "data.path", "device"}
"""What may change when a run is resumed (`log.*` besides): how far and where it runs, not what it computes."""
REGISTRIES = {"space": SPACES, "method": METHODS}
PLAIN: dict[str, type[Section]] = {
    "data": sections.Data,
    "search": sections.Search,
    "train": sections.Train,
    "log": sections.Log,
}


class Head(Section):
    """What stands above the sections."""

    name: str = Field(
        "unnamed", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="the recipe's name, used for folders"
    )
    about: str = Field("", description="what it does, in a sentence")
    source: str = Field("", description="paper, table and published figure")
    seed: int = Field(0, ge=0, description="seed of every random stream")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$", description="auto, cpu, cuda, cuda:N or mps")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="precision of forward passes")


@dataclass(frozen=True)
class Recipe:
    """A checked recipe; `space`, `method`, `search` and `train` are None where it has no such section."""

    name: str
    about: str
    source: str
    seed: int
    device: str
    precision: Literal["float32", "bfloat16"]
    data: sections.Data
    space: Space | None
    method: Method | None
    search: sections.Search | None
    train: sections.Train | None
    log: sections.Log
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def values(self) -> dict[str, Any]:
        """All its keys as nested plain values, what `read_recipe` reads back."""
        tree = {name: getattr(self, name) for name in Head.model_fields}
        for name in PLAIN:
            section = getattr(self, name)
            if section is not None:
                tree[name] = section.model_dump(mode="json")
        for name in REGISTRIES:
            choice = getattr(self, name)
            if choice is not None:
                tree[name] = {"name": choice.name, **_jsonable(dataclasses.asdict(choice))}
        order = [*Head.model_fields, "data", "space", "method", "search", "train", "log"]
        return {key: tree[key] for key in order if key in tree}

    def to_yaml(self) -> str:
        """The recipe as YAML, every line with where its value came from."""
        return "\n".join(yaml_lines(self.values(), self.origins)) + "\n"

    @property
    def shape(self) -> Shape:
        """The shape of its images as far as the recipe tells; the classes of a folder are known once it is read."""
        info = DATA[self.data.name]
        return Shape(info.classes or 2, info.channels, self.data.side or info.side or 32)


def recipe_names() -> list[str]:
    """The names of the recipes in the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def read_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of that name or at that path, with `overrides` ("section.key=value") on top.

    Raises `RecipeError` with one line per mistake, all of them at once.
    """
    values, origins = _read_with_base(str(name_or_path))
    problems: list[str] = []
    for text in overrides:
        problems += _override(values, origins, text)
    checked = _Checker(str(name_or_path), values, origins, problems)
    return checked.recipe()


def changed_keys(old: Recipe, new: Recipe) -> list[str]:
    """The dotted keys whose values differ and may not differ when a run is resumed."""
    before, after = dict(leaves(old.values())), dict(leaves(new.values()))
    changed = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return sorted(key for key in changed if key not in LIMITS and not key.startswith("log."))


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) for every leaf of nested mappings."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value and prefix.count(".") < 2:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@dataclass(frozen=True)
class Key:
    """A key of recipes, for listings: `choice` is the space or method that has it, empty where all have it."""

    name: str
    type: str
    default: Any
    about: str
    choice: str = ""


def recipe_keys() -> list[Key]:
    """Every key a recipe may have."""
    keys = _model_keys(Head, "", "")
    for name, model in PLAIN.items():
        keys += _model_keys(model, f"{name}.", "")
    for section, registry in REGISTRIES.items():
        keys.append(Key(f"{section}.name", "str", None, f"one of {', '.join(registry)}"))
        for name in registry:
            keys += _model_keys(choice_model(section, name), f"{section}.", name)
    return sorted(keys, key=lambda key: ("." in key.name, key.name))


def choice_class(section: str, name: str) -> Any:
    """The class registered as `name` in the registry of `section`; raises `KeyError` for another name."""
    module, _, attribute = REGISTRIES[section][name].partition(":")
    return getattr(import_module(module), attribute)


def choice_model(section: str, name: str) -> type[Section]:
    """The fields of a space's or method's dataclass as a section that checks them."""
    cls = choice_class(section, name)
    hints = get_type_hints(cls)
    fields: dict[str, Any] = {}
    for entry in dataclasses.fields(cls):
        about = Field(entry.default, description=entry.metadata.get("about", ""), **entry.metadata.get("limits", {}))
        fields[entry.name] = (hints[entry.name], about)
    return create_model(f"{section}_{name}", __base__=Section, **fields)


def _read_file(name: str) -> tuple[Path, dict[str, Any]]:
    path = RECIPES / f"{name}.yaml" if name in recipe_names() else Path(name)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise RecipeError(f"recipe {name}: not a text file") from None
    except (OSError, ValueError) as error:
        if path.suffix or "/" in name:
            reason = "is a folder" if path.is_dir() else getattr(error, "strerror", None) or str(error)
            raise RecipeError(f"recipe {name}: cannot be read: {reason}") from None
        hint = nearest(name, recipe_names())
        raise RecipeError(
            f"recipe {name!r} is unknown{hint}; `diffnas list recipes` shows all, or give a file"
        ) from None
    values = parse_yaml(text, f"recipe {name}")
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise RecipeError(f"recipe {name}: must be keys and values (name: ..., search: ...)")
    return path, values


def _read_with_base(name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The recipe merged over the one it extends, and the origin of each leaf."""
    path, values = _read_file(name)
    base_name = values.pop("extends", None)
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    if base_name is not None:
        beside = path.parent / str(base_name)
        base_name = str(beside if beside.is_file() else base_name)
        _, base = _read_file(base_name)
        if "extends" in base:
            raise RecipeError(f"recipe {name}: extends {base_name}, which extends another; one level is the limit")
        # a name, a sentence and a source belong to one recipe only
        base = {key: value for key, value in base.items() if key not in ("name", "about", "source")}
        _merge(merged, base, origins, f"recipe {base_name}")
    _merge(merged, values, origins, f"recipe {name}")
    merged.setdefault("name", re.sub(r"[^A-Za-z0-9._-]", "-", path.stem).lstrip("._-") or "unnamed")
    return merged, origins


def _merge(into: dict[str, Any], values: Mapping[str, Any], origins: dict[str, str], origin: str, at: str = "") -> None:
    for key, value in values.items():
        dotted = f"{at}{key}"
        if isinstance(value, dict) and isinstance(into.get(key, {}), dict) and at.count(".") < 2:
            if not isinstance(into.get(key), dict):
                into[key] = {}
            _merge(into[key], value, origins, origin, f"{dotted}.")
            origins.setdefault(dotted, origin)
        else:
            into[key] = value
            origins[dotted] = origin


def _override(values: dict[str, Any], origins: dict[str, str], text: str) -> list[str]:
    """Puts one "section.key=value" into `values`; returns what is wrong with it."""
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


class _Checker:
    """Checks raw values against the sections and collects every mistake before it raises."""

    def __init__(self, name: str, values: dict[str, Any], origins: Mapping[str, str], problems: list[str]) -> None:
        self.name, self.values, self.origins, self.problems = name, values, origins, problems

    def recipe(self) -> Recipe:
        """The recipe; raises `RecipeError` with all mistakes."""
        known = {*Head.model_fields, *PLAIN, *REGISTRIES}
        models: dict[str, type[BaseModel]] = {**PLAIN}
        for section in REGISTRIES:
            model = self._choice(section)
            if model is not None:
                models[section] = model
        keys = self._valid_keys(models)
        self.problems += [self._unknown(key, keys) for key in self.values if key not in known]
        head = self._validate(Head, {k: v for k, v in self.values.items() if k in Head.model_fields}, "", keys)
        parts = {section: self._part(section, model, keys) for section, model in models.items()}
        if self.problems:
            raise RecipeError(*self.problems)
        choices = {section: self._build(section, parts.get(section)) for section in REGISTRIES}
        named = {name: parts[name] for name in ("search", "train")}
        data, log = parts["data"] or sections.Data(), parts["log"] or sections.Log()
        origins = {
            key: origin.partition("=")[0] if origin.startswith("--set") else origin
            for key, origin in self.origins.items()
        }
        recipe = Recipe(**head.model_dump(), data=data, log=log, **named, **choices, origins=origins)  # type: ignore[union-attr]
        self.problems += [f"{self._at(key)}: {reason}" for key, reason in refusals(recipe)]
        if self.problems:
            raise RecipeError(*self.problems)
        return recipe

    def _part(self, section: str, model: type[BaseModel], keys: list[str]) -> Any:
        values = self.values.get(section)
        if values is None:
            return None
        if not isinstance(values, dict):
            self.problems.append(f"{self._at(section)}: must hold keys and values, not {values!r}")
            return None
        values = {k: v for k, v in values.items() if not (section in REGISTRIES and k == "name")}
        return self._validate(model, values, f"{section}.", keys)

    def _choice(self, section: str) -> type[BaseModel] | None:
        """The model of the space or method that the recipe names."""
        values = self.values.get(section)
        if values is None:
            return None
        registry = REGISTRIES[section]
        name = values.get("name") if isinstance(values, dict) else None
        if name in registry:
            return choice_model(section, str(name))
        if isinstance(values, dict):
            hint = nearest(str(name), list(registry)) if name is not None else ""
            said = f"{name!r} is unknown" if name is not None else "is missing"
            self.problems.append(f"{self._at(f'{section}.name')}: {said}{hint}; known: {', '.join(registry)}")
        return Section if isinstance(values, dict) and not values else _anything()

    def _build(self, section: str, part: BaseModel | None) -> Any:
        if part is None:
            return None
        values = {name: getattr(part, name) for name in type(part).model_fields}
        return choice_class(section, self.values[section]["name"])(**values)

    def _validate(self, model: type[BaseModel], values: dict[str, Any], at: str, keys: list[str]) -> BaseModel | None:
        try:
            return model.model_validate(values)
        except ValidationError as error:
            for found in error.errors():
                path = [str(part) for part in found["loc"]]
                dotted = at + ".".join(path)
                if found["type"] == "extra_forbidden":
                    self.problems.append(self._unknown(dotted, keys))
                else:
                    said = found["msg"].replace("Input should be", "must be").replace("Input should", "must")
                    line = f"{self._at(dotted)}: {said}; got {found['input']!r:.80}"
                    self.problems.append(line)
            return None

    def _valid_keys(self, models: Mapping[str, type[BaseModel]]) -> list[str]:
        keys = [key.name for key in _model_keys(Head, "", "")]
        for section, model in models.items():
            keys += [key.name for key in _model_keys(model, f"{section}.", "")]
        return keys + [f"{section}.name" for section in REGISTRIES]

    def _unknown(self, key: str, keys: list[str]) -> str:
        return f"{self._at(key)} is unknown{nearest(key, keys)}"

    def _at(self, key: str) -> str:
        """Where `key` was set, and the key: what a message starts with."""
        parts = key.split(".")
        for length in range(len(parts), 0, -1):
            origin = self.origins.get(".".join(parts[:length]))
            if origin is not None:
                return origin if origin.startswith("--set") else f"{origin}: {key}"
        return f"recipe {self.name}: {key}"


def refusals(recipe: Recipe) -> list[tuple[str, str]]:
    """What is impossible about a recipe whose keys are right one by one: (key, reason) pairs."""
    data = recipe.data
    if data.name not in DATA:
        hint = nearest(data.name, list(DATA))
        return [("data.name", f"{data.name!r} is unknown{hint}; known: {', '.join(DATA)}")]
    found = []
    info, side = DATA[data.name], recipe.shape.side
    if data.name == "folder" and data.path is None:
        found.append(("data.path", "must say which folder of images to read"))
    if info.side is not None and data.side not in (None, info.side) and data.name != "digits":
        found.append(("data.side", f"{data.name} has images of side {info.side}; leave it out"))
    if (data.crop or 0) >= side:
        found.append(("data.crop", f"must be smaller than the images' side, {side}"))
    for key, value in (("data.mean", data.mean), ("data.std", data.std)):
        if value is not None and len(value) != info.channels:
            found.append((key, f"needs {info.channels} numbers, one per channel, not {len(value)}"))
    if any(deviation <= 0 for deviation in data.std or ()):
        found.append(("data.std", "must be above 0"))
    if recipe.search is not None:
        found += _search_refusals(recipe, recipe.search, side)
    if recipe.train is not None:
        found += _train_refusals(recipe, recipe.train, side)
    return found


def _search_refusals(recipe: Recipe, search: sections.Search, side: int) -> list[tuple[str, str]]:
    found = []
    for section in ("space", "method"):
        if getattr(recipe, section) is None:
            found.append((f"{section}.name", "a recipe with a search section must name one"))
    if recipe.space is not None:
        found += [(f"space.{key}", reason) for key, reason in recipe.space.refusals(recipe.shape)]
    if recipe.method is not None:
        found += [(f"method.{key}", reason) for key, reason in recipe.method.refusals()]
    if search.weights.lr_min > search.weights.lr:
        found.append(("search.weights.lr_min", f"must not exceed search.weights.lr, {search.weights.lr}"))
    if not all(0 <= beta < 1 for beta in search.arch.betas):
        found.append(("search.arch.betas", "must both be at least 0 and below 1"))
    if search.cutout > side:
        found.append(("search.cutout", f"must not exceed the images' side, {side}"))
    return found


def _train_refusals(recipe: Recipe, train: sections.Train, side: int) -> list[tuple[str, str]]:
    found = []
    if recipe.space is not None:
        settings = train.model_dump()
        found += [(f"train.{key}", reason) for key, reason in recipe.space.network_refusals(recipe.shape, settings)]
    if train.lr_min > train.lr:
        found.append(("train.lr_min", f"must not exceed train.lr, {train.lr}"))
    if train.cutout > side:
        found.append(("train.cutout", f"must not exceed the images' side, {side}"))
    return found


def _anything() -> type[BaseModel]:
    """A section that accepts all keys, where its choice is not known and has been reported."""
    return create_model("Anything", __config__={"extra": "allow"})


def _model_keys(model: type[BaseModel], prefix: str, choice: str) -> list[Key]:
    keys = []
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            keys += _model_keys(info.annotation, f"{prefix}{name}.", choice)
            continue
        kind = info.annotation.__name__ if isinstance(info.annotation, type) else str(info.annotation)
        kind = kind.replace("typing.", "").replace("NoneType", "None")
        keys.append(Key(f"{prefix}{name}", kind, info.default, info.description or "", choice))
    return keys


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?`, or nothing where no name is near."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not near and "." in word:
        leaf = {name.rpartition(".")[2]: name for name in reversed(known)}
        match = difflib.get_close_matches(word.rpartition(".")[2], leaf, n=1, cutoff=0.75)
        near = [leaf[name] for name in match]
    return f"; did you mean {near[0]}?" if near else ""


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    return [_jsonable(item) for item in value] if isinstance(value, tuple | list) else value
