"""Checks of a recipe: every key on its own, then their combinations, all in one report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError, create_model
from pydantic.fields import FieldInfo

from diffnas.core.modality import Modality, Problems
from diffnas.core.settings import largest, settings_from, settings_model
from diffnas.core.space import AnyShape, TextShape
from diffnas.errors import MOST
from diffnas.plugins import load_installed, plugin_hint
from diffnas.recipe import schema
from diffnas.recipe.keys import choice_model, leaf_of, modality_keys, model_keys, must_be, nearest, one_of, section_of
from diffnas.recipe.modalities import data_sets, keys_of_task, modalities, modality_of
from diffnas.recipe.schema import Head, Log
from diffnas.registry import MODALITIES, REGISTRIES, Kind, choice_class, make, names_of
from diffnas.runtime.yaml_text import quote_value

HEAD = tuple(entry.name for entry in dataclasses.fields(Head))
NEEDED = ("space", "method")
"""The sections that a search cannot do without."""


class Check:
    """A check of raw `values`: `parts` holds what is sound, by name, `problems` a line per mistake."""

    def __init__(self, name: str, values: Mapping[str, Any], origins: Mapping[str, str]) -> None:
        self.name, self.values, self.origins = name, values, origins
        self.problems: dict[str, None] = {}  # lines in order, none twice
        if not all(_known(kind, chosen) for kind, chosen in self._named()):
            load_installed()
        self.knows_data, self.modality = self._modality()
        self.sections = sections_of(self.modality)
        strangers = [key for key in values if key not in {*HEAD, *self.sections, *REGISTRIES}]
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
        named = [name for name in self.models if values.get(name) is not None]
        for key, reason in [*self._set_elsewhere(), *contradictions(self.parts, named, self.modality)]:
            self._refuse(key, reason)

    def _named(self) -> Iterator[tuple[Kind, Any]]:
        """Yields (kind, name) of everything that the recipe names and plug-ins may have registered."""
        sections: tuple[Kind, ...] = ("data", "space", "method", "task")
        for section in sections:
            values = self.values.get(section)
            values = values if isinstance(values, dict) else {}
            named: dict[str, Kind] = {"name": section, "base": "method"}
            yield from ((kind, values[key]) for key, kind in named.items() if key in values)
            if section == "space" and isinstance(values.get("ops"), list):
                yield from (("op", op) for op in values["ops"])

    def _modality(self) -> tuple[bool, Modality]:
        """Returns whether the recipe's data are known, and their modality; that of its space where they are not."""
        data, space = (self.values.get(section) for section in ("data", "space"))
        name = data.get("name") if isinstance(data, dict) else None
        chosen = space.get("name") if isinstance(space, dict) else None
        unknown = name is not None and not (isinstance(name, str) and name in data_sets())
        if unknown and isinstance(chosen, str) and chosen in REGISTRIES["space"]:
            return False, modalities().get(choice_class("space", chosen).modality, modalities()["images"])
        return not unknown, modalities()[modality_of(name)]

    def _models(self) -> dict[str, type[BaseModel]]:
        """Returns the model of every section; the data, space and method that the recipe names decide which."""
        models: dict[str, type[BaseModel]] = {name: settings_model(cls) for name, cls in self.sections.items()}
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
            if section == "data" and not self.knows_data:
                self._refuse_data(values["name"])
            elif checked is not None:
                self.parts[section] = settings_from(self.sections[section], checked)
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

    def _refuse_data(self, name: Any) -> None:
        """Refuses data of an unknown name."""
        if isinstance(name, str):
            known = sorted(data_sets())
            said = f"{quote_value(name)} is unknown{nearest(name, known)}; known: {', '.join(known)}"
            self._refuse("data.name", said + plugin_hint("data", name, self.name))

    def _sound(self, model: type[BaseModel], values: Mapping[str, Any], at: str) -> BaseModel | None:
        """Checks `values` by `model` and returns them, or None if there is a mistake."""
        checked, mistakes = read_settings(model, values, self.keys, at)
        others = [other for other in reversed(modalities().values()) if other.name != self.modality.name]
        elsewhere = {key.name: other.name for other in others for key in modality_keys(other)}
        for key, reason in mistakes:
            if key.startswith("data.") and not self.knows_data and reason.startswith("is unknown"):
                continue  # it may be a key of the data that are not known
            if key in elsewhere and reason.startswith("is unknown"):
                reason = f"is a key for {elsewhere[key]}, and the data are {self.modality.name}; leave it out"
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

    def _set_elsewhere(self) -> Problems:
        """Returns the settings of the task that the sections of the recipe hold."""
        values = self.values.get("task")
        task = self.parts.get("task")
        if task is None or not isinstance(values, dict):
            return []
        return [
            (f"task.{field}", f"is {' and '.join(keys)} for {self.modality.name}; set that instead")
            for field, keys in keys_of_task(task, self.modality).items()
            if field in values
        ]

    def _refuse(self, key: str, reason: str) -> None:
        """Adds a line that begins with where `key` was set."""
        parts = key.split(".")
        origins = (self.origins.get(".".join(parts[:length])) for length in range(len(parts), 0, -1))
        origin = next(filter(None, origins), f"recipe {self.name}")
        # an override says its key itself, unless it holds a whole section
        says = origin.startswith("--set ") and origin[6:].partition("=")[0].strip() == key
        self.problems[sentence(origin if says else f"{origin}: {key}", reason)] = None


def sections_of(modality: Modality) -> dict[str, type]:
    """Returns the sections that do not depend on the space, the method or the task, by name."""
    return {**modality.sections, "log": Log}


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


def contradictions(parts: Mapping[str, Any], named: list[str], modality: Modality) -> Problems:
    """Returns the contradictions in `parts`, the sound sections by name; `named` are the sections that the recipe has."""
    problems: Problems = []
    data, space, method = parts.get("data"), parts.get("space"), parts.get("method")
    search, train, task = parts.get("search"), parts.get("train"), parts.get("task")
    if "search" in named:
        problems += [(f"{key}.name", "must be there: a search needs one") for key in NEEDED if key not in named]
    if method is not None:
        problems += [(f"method.{key}", reason) for key, reason in method.check_settings()]
    if search is not None and method is not None and method.needs_double_backward and search.supernet != "plain":
        problems.append(("search.supernet", f"must be plain: method {method.name} as set here differentiates twice"))
    if search is not None:
        problems += _betas(search.arch.betas) + _sparing(search, method)
    if task is not None and not _fits(task, data, modality):
        problems.append(("task.name", _unfit(task, modality)))
    problems += modality.check({"data": data, "search": search, "train": train}, method)
    if data is None:
        return problems
    if space is not None and space.modality != modality.name:
        said = f"{space.name} reads {space.modality}, and {data.name} is {modality.name}"
        return [*problems, ("space.name", said)]
    shape = modality.shape(data)
    if not isinstance(shape, TextShape) and not hasattr(shape, "sizes") and not hasattr(shape, "sample"):
        said = f"the shape of modality {modality.name} needs `sizes` or sample(), one input to count by; it is {shape!r:.100}"
        return [*problems, ("data.name", said)]
    if task is None and space is not None:
        problems += _usual_task(data, modality)
    if search is not None and space is not None:
        problems += _searched(search, data, shape, space, method)
    if train is not None and space is not None:
        settings = dataclasses.asdict(train)
        problems += [(f"train.{key}", reason) for key, reason in space.check_network(shape, settings)]
    return problems


def _usual_task(data: schema.Data, modality: Modality) -> Problems:
    """Returns why the task that a plug-in gives the data cannot be theirs."""
    name = modality.task(data)
    if name not in REGISTRIES["task"]:
        said = f"the task of {data.name}, {quote_value(name)}, is unknown; known: {one_of(REGISTRIES['task'])}"
        return [("data.name", said)]
    task = choice_class("task", name)
    if _fits(task, data, modality):
        return []
    return [("data.name", f"its task {_unfit(task, modality)}; name another: task.name")]


def _fits(task: Any, data: Any, modality: Modality) -> bool:
    """Whether a task is for these data; a modality of a plug-in answers for the task that it gives them."""
    if modality.name in (task.modalities or (modality.name,)):
        return True
    return modality.name in MODALITIES and data is not None and bool(modality.task(data) == task.name)


def _unfit(task: Any, modality: Modality) -> str:
    return f"{task.name} is for {one_of(task.modalities)}, and the data are {modality.name}"


def _searched(search: schema.Search, data: schema.Data, shape: AnyShape, space: Any, method: Any) -> Problems:
    """Returns the contradictions in a search; a method is asked only about spaces that can be built."""
    problems = [(f"space.{key}", reason) for key, reason in space.check_size(shape, space.size)]
    if problems or method is None:
        return problems
    check_space = [(f"space.{key}", reason) for key, reason in method.check_space(space)]
    if any(key == "space.name" for key, _ in check_space):
        return check_space  # nothing about this space would do
    problems += [(f"method.{key}", reason) for key, reason in method.check_stages(search.epochs, space.size)]
    stages = method.stages(search.epochs, space.size)
    for size in dict.fromkeys(stage.size for stage in stages):
        problems += [(f"space.{key}", reason) for key, reason in space.check_size(shape, size)]
    problems += check_space
    feeds = {feed for stage in stages for phase in stage.phases for feed in phase.feeds}
    if isinstance(data, schema.Samples) and data.split == 1.0:
        if feeds & {"valid", "score"}:
            problems.append(
                ("data.split", f"must be below 1: method {method.name} trains the architecture on the rest")
            )
        elif method.uses_score_feed:
            problems.append(("data.split", f"must be below 1: method {method.name} measures the supernet on the rest"))
    return problems


def _sparing(search: schema.Search, method: Any) -> Problems:
    """Returns what contradicts the keys that spare memory."""
    problems = []
    if search.recompute and search.supernet != "plain":
        problems.append(("search.supernet", "must be plain where cells are computed again (search.recompute)"))
    if search.recompute and search.compile == "on":
        problems.append(("search.compile", "must be off where cells are computed again (search.recompute)"))
    if method is not None and method.needs_double_backward and (search.recompute or search.accumulate > 1):
        key = "recompute" if search.recompute else "accumulate"
        problems.append((f"search.{key}", f"cannot be: method {method.name} as set here differentiates twice"))
    return problems


def _betas(betas: tuple[float, float]) -> Problems:
    if all(0 <= beta < 1 for beta in betas):
        return []
    return [("search.arch.betas", f"must both be at least 0 and below 1; got {quote_value(betas)}")]
