"""Settings: dataclass fields that carry their meaning and limits, so that recipes can check and list them.

Methods, spaces and the sections of a recipe all declare theirs so.  Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, create_model, field_validator

T = TypeVar("T")
LARGEST_COUNT = 10**15
LARGEST_NUMBER = 1e36  # a multiple of it still fits into float32, whose largest is 3.4e38


def setting(
    default: Any, about: str, *, must: str | None = None, before: Any = dataclasses.MISSING, **limits: Any
) -> Any:
    """Declares a setting: a dataclass field with `default`; `about` says what it changes and where the default comes from.

    `limits` are pydantic's bounds: `ge`, `gt`, `le`, `lt`, `min_length`, `max_length`, `pattern`; `must` describes valid
    values if type and bounds do not suffice.  `before` is the value that run folders older than the setting continue with,
    if it is not the default.
    """
    metadata = {"about": about, "limits": limits, "must": must}
    if before is not dataclasses.MISSING:
        metadata["before"] = before
    return dataclasses.field(default=default, metadata=metadata)


def choice(section: str, default: Any, about: str, about_settings: str) -> Any:
    """Declares a dataclass field that holds an object of the registry of `section`, `default` if a recipe names none.

    In a recipe it is two keys: NAME, the object's name, and NAME_settings, its own settings.
    """
    metadata = {"chooses": section, "about": about, "about_settings": about_settings}
    return dataclasses.field(default=default, metadata=metadata)


class Settings(BaseModel):
    """The model that checks a dataclass of settings: unknown keys are refused, types are strict, numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _as_yaml_means_it(cls, value: Any, info: ValidationInfo) -> Any:
        """Accepts a list for a tuple, and 3.0 for a whole number: YAML has no tuples, and reads 1e3 as a float."""
        limit = largest(value)
        if limit is not None:
            raise ValueError(f"above {limit:g}")
        annotation = cls.model_fields[str(info.field_name)].annotation
        kinds = {annotation, *get_args(annotation)} - {NoneType}
        if isinstance(value, list) and any(get_origin(kind) is tuple for kind in kinds):
            return tuple(value)
        whole = isinstance(value, float) and int in kinds and float not in kinds and value.is_integer()
        return int(value) if whole else value


@cache
def settings_model(cls: Any) -> type[Settings]:
    """Builds the model that checks a dataclass of settings, and of those that its fields hold."""
    hints = get_type_hints(cls)
    fields: dict[str, Any] = {}
    for entry in dataclasses.fields(cls):
        default: Any = entry.default if entry.default_factory is dataclasses.MISSING else entry.default_factory()
        kind = hints[entry.name]
        if "chooses" in entry.metadata:
            fields[entry.name] = (str, Field(default.name, description=entry.metadata["about"]))
            about = entry.metadata["about_settings"]
            fields[f"{entry.name}_settings"] = (dict[str, Any], Field({}, description=about))
            continue
        if dataclasses.is_dataclass(kind):
            kind = settings_model(kind)  # type: ignore[arg-type]
            default = kind.model_validate(dataclasses.asdict(default))
        about, must = entry.metadata.get("about", ""), entry.metadata.get("must")
        fields[entry.name] = (
            kind,
            Field(default, description=about, title=must, **entry.metadata.get("limits", {})),
        )
    return create_model(cls.__name__, __base__=Settings, **fields)


def settings_from(cls: type[T], checked: BaseModel) -> T:
    """Builds the dataclass `cls` from `checked`, an instance of its model."""
    hints = get_type_hints(cls)
    values = {
        name: settings_from(hints[name], value) if isinstance(value, BaseModel) else value
        for name, value in dict(checked).items()
    }
    return cls(**values)


def settings_of(thing: Any) -> dict[str, Any]:
    """The settings of a dataclass by key, as a recipe holds them."""
    values: dict[str, Any] = {}
    for entry in dataclasses.fields(thing):
        value = getattr(thing, entry.name)
        if "chooses" in entry.metadata:
            values |= {entry.name: value.name, f"{entry.name}_settings": settings_of(value)}
        else:
            values[entry.name] = settings_of(value) if dataclasses.is_dataclass(value) else value
    return values


def largest(value: Any) -> float | None:
    """Returns the size limit that `value`, or a number in it, exceeds; None if it exceeds none."""
    if isinstance(value, list | tuple):
        return next(filter(None, map(largest, value)), None)
    if not isinstance(value, int | float):
        return None
    limit = LARGEST_NUMBER if isinstance(value, float) else LARGEST_COUNT
    return limit if abs(value) > limit else None
