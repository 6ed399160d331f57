"""Checks of a recipe: every key on its own, then their combinations, all in one report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError, create_model
from pydantic.fields import FieldInfo

from diffnas.core.settings import largest, settings_from, settings_model
from diffnas.core.space import Shape, TextShape
from diffnas.data import DATA
from diffnas.data.texts import TEXTS
from diffnas.errors import MOST
from diffnas.plugins import load_installed, plugin_hint
from diffnas.recipe import schema
from diffnas.recipe.keys import choice_model, leaf_of, modality_keys, model_keys, must_be, nearest, section_of
from diffnas.recipe.schema import SECTIONS, Head
from diffnas.registry import REGISTRIES, Kind, choice_class, make, names_of
from diffnas.runtime.yaml_text import quote_value

HEAD = tuple(entry.name for entry in dataclasses.fields(Head))
Problems = list[tuple[str, str]]
"""(key, reason) pairs."""


def modality_of(data: Any) -> str:
    """Returns the modality of the data set `data`, `images` or `text`; an unknown name counts as images."""
    return "text" if isinstance(data, str) and data in TEXTS else "images"


class Check:
    """A check of raw `values`: `parts` holds what is sound, by name, `problems` a line per mistake."""

    def __init__(self, name: str, values: Mapping[str, Any], origins: Mapping[str, str]) -> None:
        self.name, self.values, self.origins = name, values, origins
        self.problems: dict[str, None] = {}  # lines in order, none twice
        if not all(_known(kind, chosen) for kind, chosen in self._named()):
            load_installed()
        self.modality = self._modality()
        strangers = [key for key in values if key not in {*HEAD, *SECTIONS[self.modality], *REGISTRIES}]
        # a section that is misspelt is refused at once: the settings of spaces and methods need torch
        self.by_name_alone = bool(strangers)
        self.models = self._models()
        self.keys = [key.name for section, model in self.models.items() for key in model_keys(model, f"{section}.")]
        self.keys += HEAD
        for number, key in enumerate(strangers):
            self._refuse(key, f"is unknown{_hint(number, key, [*self.models, *self.keys])}")
        self.parts: dict[str, Any] = {}
        head = self._sound(settings_model(Head), {key: values[key] for key in HEAD if key in values}, "")
        self.parts |= dict(head or {})
        for section, model in self.models.items():
            self._section(section, model)
        for key, reason in contradictions(
            self.parts, [name for name in self.models if values.get(name) is not None], name
        ):
            self._refuse(key, reason)

    def _named(self) -> Iterator[tuple[Kind, Any]]:
        """Yields (kind, name) of everything that the recipe names and plug-ins may have registered."""
        sections: tuple[Kind, ...] = ("data", "space", "method")
        for section in sections:
            values = self.values.get(section)
            values = values if isinstance(values, dict) else {}
            named: dict[str, Kind] = {"name": section, "base": "method"}
            yield from ((kind, values[key]) for key, kind in named.items() if key in values)
            if section == "space" and isinstance(values.get("ops"), list):
                yield from (("op", op) for op in values["ops"])

    def _modality(self) -> str:
        """Returns the modality of the recipe's data, or of its space if the data's name is unknown."""
        data, space = (self.values.get(section) for section in ("data", "space"))
        name = data.get("name") if isinstance(data, dict) else None
        chosen = space.get("name") if isinstance(space, dict) else None
        unknown = name is not None and not (isinstance(name, str) and name in {*DATA, *TEXTS})
        if unknown and isinstance(chosen, str) and chosen in REGISTRIES["space"]:
            return str(choice_class("space", chosen).modality)
        return modality_of(name)

    def _models(self) -> dict[str, type[BaseModel]]:
        """Returns the model of every section; the data, space and method that the recipe names decide which."""
        models: dict[str, type[BaseModel]] = {
            name: settings_model(cls) for name, cls in SECTIONS[self.modality].items()
        }
        for section, registry in REGISTRIES.items():
            values = self.values.get(section)
            name = values.get("name") if isinstance(values, dict) else None
            known = isinstance(name, str) and name in registry and not self.by_name_alone
            # where the choice is not known, its keys cannot be either
            models[section] = (
                choice_model(section, str(name)) if known else create_model("Any", __config__={"extra": "allow"})
            )
        return models

    def _section(self, section: str, model: type[BaseModel]) -> None:
        """Adds the section to `parts` where it is sound, None where there is none."""
        values = self.values.get(section, {} if section in ("data", "log") else None)
        if values is None and section not in ("data", "log"):
            self.parts[section] = None
        elif not isinstance(values, dict):
            self._refuse(section, f"must hold keys and values; got {quote_value(values)}")
        elif section not in REGISTRIES:
            checked = self._sound(model, values, f"{section}.")
            if checked is not None:
                self.parts[section] = settings_from(SECTIONS[self.modality][section], checked)
        else:
            checked = self._sound(model, {key: value for key, value in values.items() if key != "name"}, f"{section}.")
            name, registry = values.get("name"), REGISTRIES[section]
            if not (isinstance(name, str) and name in registry):
                said = (
                    "must say which"
                    if name is None
                    else f"{quote_value(name)} is unknown{nearest(str(name), registry)}"
                )
                own = "" if name is None else plugin_hint(section, name, self.name)
                self._refuse(f"{section}.name", f"{said}; known: {', '.join(registry)}{own}")
            elif checked is not None and not self.by_name_alone and self._sound_base(checked):
                self.parts[section] = make(section, name, dict(checked))

    def _sound(self, model: type[BaseModel], values: Mapping[str, Any], at: str) -> BaseModel | None:
        """Checks `values` by `model` and returns them, or None if there is a mistake."""
        checked, mistakes = read_settings(model, values, self.keys, at)
        elsewhere = {key.name: name for name in SECTIONS if name != self.modality for key in modality_keys(name)}
        for key, reason in mistakes:
            if key in elsewhere and reason.startswith("is unknown"):
                reason = f"is a key for {elsewhere[key]}, and the data are {self.modality}; leave it out"
            self._refuse(key, reason)
        return checked

    def _sound_base(self, checked: BaseModel) -> bool:
        """Whether the settings of a wrapper's base are sound; other sections have none."""
        if not hasattr(checked, "base_settings"):
            return True
        values = dict(checked)
        mistakes = _base_mistakes(values["base"], values["base_settings"], "method")
        for key, reason in mistakes:
            self._refuse(key, reason)
        return not mistakes

    def _refuse(self, key: str, reason: str) -> None:
        """Adds a line that begins with where `key` was set."""
        parts = key.split(".")
        origins = (self.origins.get(".".join(parts[:length])) for length in range(len(parts), 0, -1))
        origin = next(filter(None, origins), f"recipe {self.name}")
        # an override says its key itself, unless it holds a whole section
        says = origin.startswith("--set ") and origin[6:].partition("=")[0].strip() == key
        self.problems[sentence(origin if says else f"{origin}: {key}", reason)] = None


def _known(kind: Kind, name: Any) -> bool:
    """Whether a registered thing of that kind has that name; values that are not names pass."""
    return not isinstance(name, str) or name in names_of(kind)


def _base_mistakes(base: str, settings: Mapping[str, Any], at: str) -> Problems:
    """Returns the mistakes in `base` and `base_settings` of a wrapper, and of the wrapper within it."""
    registry = REGISTRIES["method"]
    if base not in registry:
        return [
            (f"{at}.base", f"{quote_value(base)} is unknown{nearest(base, registry)}; known: {', '.join(registry)}")
        ]
    model = choice_model("method", base)
    inside = f"{at}.base_settings"
    checked, mistakes = read_settings(
        model, settings, [key.name for key in model_keys(model, f"{inside}.")], f"{inside}."
    )
    if checked is not None and hasattr(checked, "base_settings"):
        return _base_mistakes(settings.get("base", "darts"), settings.get("base_settings", {}), inside)
    return mistakes


def sentence(key: str, reason: str) -> str:
    """`KEY: must be ...`, or `KEY is unknown`."""
    return f"{key}{' ' if reason.startswith('is unknown') else ': '}{reason}"


def read_settings(
    model: type[BaseModel], values: Mapping[str, Any], known: Iterable[str], at: str = ""
) -> tuple[BaseModel | None, Problems]:
    """Checks `values` by `model` and returns them, None if there are mistakes, and the mistakes; `known` are keys for hints."""
    try:
        return model.model_validate(values), []
    except ValidationError as error:
        # a value with many mistakes inside is one mistake
        leaves = dict(leaf_of(model, tuple(problem["loc"])) for problem in error.errors(include_url=False))
        return None, [_mistake(values, *leaf, known, at, number) for number, leaf in enumerate(leaves.items())]


def _hint(number: int, word: str, known: Iterable[str]) -> str:
    """Returns `nearest` for the first mistakes only: it is slow, and no more are listed."""
    return nearest(word, known) if number < MOST else ""


def _mistake(
    values: Mapping[str, Any], keys: tuple[str, ...], info: FieldInfo | None, known: Iterable[str], at: str, number: int
) -> tuple[str, str]:
    dotted = at + ".".join(keys)
    if info is None:
        return dotted, f"is unknown{_hint(number, dotted, known)}"
    value: Any = values
    for key in keys:
        value = value[key]
    is_text = str in {info.annotation, *get_args(info.annotation)}
    quote = "; put it in quotes" if is_text and isinstance(value, int | float) else ""
    verb = "hold" if section_of(info) else "be"
    limited = any(hasattr(limit, "le") or hasattr(limit, "lt") for limit in info.metadata)
    limit = largest(value)
    large = "" if limit is None or limited else f" and at most {limit:g} in size"
    return dotted, f"must {verb} {must_be(info)}{large}; got {quote_value(value)}{quote}"


def shape_of(data: schema.Images | schema.Text) -> Shape | TextShape:
    """Returns the shape of the networks, as far as a recipe tells; a folder's classes or words are known once it is read."""
    if isinstance(data, schema.Text):
        return TextShape(TEXTS[data.name].words or 2)
    return _image_shape(data)


def _image_shape(data: schema.Images) -> Shape:
    info = DATA[data.name]
    return Shape(info.classes or 2, info.channels, data.side or info.side or 32)


def contradictions(parts: Mapping[str, Any], named: list[str], recipe: str = "") -> Problems:
    """Returns the contradictions in `parts`, the sound sections by name; `named` are the sections that the recipe has."""
    problems: Problems = []
    data, space, method = parts.get("data"), parts.get("space"), parts.get("method")
    search, train = parts.get("search"), parts.get("train")
    if "search" in named:
        problems += [(f"{key}.name", "must be there: a search needs one") for key in REGISTRIES if key not in named]
    if method is not None:
        problems += [(f"method.{key}", reason) for key, reason in method.check_settings()]
    if data is not None and data.name not in (known := sorted({*DATA, *TEXTS})):
        own = plugin_hint("data", data.name, recipe)
        problems.append(
            (
                "data.name",
                f"{quote_value(data.name)} is unknown{nearest(data.name, known)}; known: {', '.join(known)}{own}",
            )
        )
        data = None
    if search is not None and method is not None and method.needs_double_backward and search.supernet != "plain":
        problems.append(("search.supernet", f"must be plain: method {method.name} as set here differentiates twice"))
    if search is not None:
        problems += _betas(search.arch.betas)
    if isinstance(search, schema.ImageSearch):
        problems += _rates("search.weights", search.weights)
        problems += _nesterov(search.weights, method) + _schedule(search.weights, search.epochs)
    if isinstance(train, schema.ImageTrain):
        problems += _rates("train", train)
    if data is None:
        return problems
    problems += _text(data) if isinstance(data, schema.Text) else _data(data)
    if space is not None and space.modality != modality_of(data.name):
        return [
            *problems,
            ("space.name", f"{space.name} reads {space.modality}, and {data.name} is {modality_of(data.name)}"),
        ]
    if search is not None and space is not None:
        problems += _searched(search, data, space, method)
    if train is not None and space is not None:
        settings = dataclasses.asdict(train)
        problems += [(f"train.{key}", reason) for key, reason in space.check_network(shape_of(data), settings)]
    for name, section in (("search", search), ("train", train)):
        if isinstance(data, schema.Images) and section is not None:
            problems += _cutout(f"{name}.cutout", section.cutout, _image_shape(data).side)
    return problems


def _cutout(key: str, cutout: int, side: int) -> Problems:
    return [(key, f"must not exceed the images' side, {side}; got {cutout}")] * (cutout > side)


def _searched(search: schema.Search, data: schema.Images | schema.Text, space: Any, method: Any) -> Problems:
    """Returns the contradictions in a search; a method is asked only about spaces that can be built."""
    problems = [(f"space.{key}", reason) for key, reason in space.check_size(shape_of(data), space.size)]
    if problems or method is None:
        return problems
    check_space = [(f"space.{key}", reason) for key, reason in method.check_space(space)]
    if any(key == "space.name" for key, _ in check_space):
        return check_space  # nothing about this space would do
    problems += [(f"method.{key}", reason) for key, reason in method.check_stages(search.epochs, space.size)]
    stages = method.stages(search.epochs, space.size)
    for size in dict.fromkeys(stage.size for stage in stages):
        problems += [(f"space.{key}", reason) for key, reason in space.check_size(shape_of(data), size)]
    problems += check_space
    feeds = {feed for stage in stages for phase in stage.phases for feed in phase.feeds}
    if isinstance(data, schema.Images) and data.split == 1.0:
        if feeds & {"valid", "score"}:
            problems.append(
                ("data.split", f"must be below 1: method {method.name} trains the architecture on the rest")
            )
        elif method.uses_score_feed:
            problems.append(("data.split", f"must be below 1: method {method.name} measures the supernet on the rest"))
    return problems


def _text(data: schema.Text) -> Problems:
    if data.name == "text" and data.path is None:
        return [("data.path", "must say which folder has your train.txt, valid.txt and test.txt")]
    if data.name == "embedded" and data.path is not None:
        return [("data.path", "must be null: the embedded text is in the package")]
    return []


def _data(data: schema.Images) -> Problems:
    problems: Problems = []
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
    return problems


def _rates(at: str, settings: schema.Weights | schema.ImageTrain) -> Problems:
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


def _betas(betas: tuple[float, float]) -> Problems:
    if all(0 <= beta < 1 for beta in betas):
        return []
    return [("search.arch.betas", f"must both be at least 0 and below 1; got {quote_value(betas)}")]
