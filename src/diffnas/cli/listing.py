"""The lines that `diffnas list` prints."""

from __future__ import annotations

import inspect
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from diffnas.core.published_genotypes import PUBLISHED
from diffnas.core.settings import settings_model
from diffnas.plugins import load_installed
from diffnas.recipe.keys import Key, model_keys, recipe_keys
from diffnas.recipe.modalities import data_sets
from diffnas.recipe.recipe import recipe_names, recipe_summary
from diffnas.registry import METHODS, SPACES, TASKS, choice_class
from diffnas.runtime.yaml_text import to_flow_yaml

Rows = list[tuple[str, ...]]


def listing(what: str) -> Iterator[str]:
    """Yields the lines of one list: methods, spaces, tasks, data, recipes, genotypes or keys."""
    lists: dict[str, Callable[[], Rows]] = {
        "methods": _methods,
        "spaces": lambda: [(name, _line(choice_class("space", name))) for name in SPACES],
        "tasks": lambda: [(name, _line(choice_class("task", name))) for name in TASKS],
        "data": lambda: sorted((name, info.about) for name, info in data_sets().items()),
        "recipes": _recipes,
        "genotypes": lambda: [(name, entry[0]) for name, entry in PUBLISHED.items()],
        "keys": _keys,
    }
    load_installed()
    rows = lists[what]()
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]) - 1)]
    for row in rows:
        head = "".join(f"{cell:<{width}}  " for cell, width in zip(row, widths, strict=False))
        yield from _wrapped(head, row[-1])


def _wrapped(head: str, text: str) -> list[str]:
    """Formats `head` and `text` on one line for a program, or wrapped in two columns on a terminal."""
    width = min(shutil.get_terminal_size().columns, 120) if sys.stdout.isatty() else 0
    if not width:
        return [f"{head}{text}".rstrip()]
    if width < len(head) + 20:
        return [head.rstrip(), *textwrap.wrap(text, max(width, 24), initial_indent="    ", subsequent_indent="    ")]
    return textwrap.wrap(text, width, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False)


def _methods() -> Rows:
    """Yields the lines of each method: name, description, paper, and settings with their defaults."""
    rows: Rows = []
    for name in METHODS:
        cls = choice_class("method", name)
        paper = (inspect.getdoc(inspect.getmodule(cls)) or "").split("\n\n")[0].replace("\n", " ").rstrip(".")
        settings = ", ".join(f"{key.name.removeprefix('method.')}={_plain(key.default)}" for key in _settings(cls))
        about = f"{_line(cls)} {paper}." if paper else _line(cls)
        rows.append((name, f"{about}{f' [{settings}]' if settings else ''}"))
    return rows


def _settings(cls: Any) -> list[Key]:
    return model_keys(settings_model(cls), "method.")


def _line(cls: Any) -> str:
    return (inspect.getdoc(cls) or "").splitlines()[0]


def _recipes() -> Rows:
    rows: Rows = []
    for name in recipe_names():
        about, source, sections = recipe_summary(name)
        rows.append((name, " + ".join(sections), f"{about} ({source})" if source else about))
    return rows


def _keys() -> Rows:
    rows: Rows = [("KEY", "DEFAULT", "MEANING")]
    for key in recipe_keys():
        only = f"; {key.choice}" if key.choice else ""
        rows.append((key.name, _plain(key.default), f"{key.about} [{key.must.removeprefix('a ')}{only}]"))
    return rows


def _plain(value: Any) -> str:
    if isinstance(value, tuple | list) and len(value) > 2:
        return f"[{value[0]}, ...]"
    return to_flow_yaml(value) if value != "" else '""'
