"""Hyper-parameters as dataclass fields that carry their meaning and limits, so that recipes can check and list them.

Nothing here imports torch: a recipe is read, refused or listed before torch is loaded.
"""

from __future__ import annotations

import dataclasses
from importlib import import_module
from typing import Any


def class_at(home: Any) -> Any:
    """The class that a registry holds: itself, as plug-ins register it, or what is at `module:class`."""
    if not isinstance(home, str):
        return home
    module, _, attribute = home.partition(":")
    return getattr(import_module(module), attribute)


def setting(default: Any, about: str, before: Any = dataclasses.MISSING, **limits: Any) -> Any:
    """A dataclass field with `default`; `about` says what it changes and where the default comes from.

    `limits` are bounds in pydantic's words: `ge`, `gt`, `le`, `lt`, `min_length`.  `before` is what was done before there was
    such a setting, where that is not the default: run folders of then go on with it.
    """
    metadata = {"about": about, "limits": limits}
    if before is not dataclasses.MISSING:
        metadata["before"] = before
    return dataclasses.field(default=default, metadata=metadata)
