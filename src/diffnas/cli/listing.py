"""The lines that `diffnas list` prints: a row each for a program, rows in groups under headings on a terminal."""

from __future__ import annotations

import inspect
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from diffnas.cli.goals import GOALS, group_of, is_for, place_of
from diffnas.core.published_genotypes import PUBLISHED
from diffnas.core.settings import settings_model
from diffnas.errors import UserError
from diffnas.plugins import load_installed
from diffnas.recipe.keys import Key, model_keys, nearest, recipe_keys
from diffnas.recipe.modalities import data_sets
from diffnas.recipe.recipe import recipe_names, recipe_summary
from diffnas.registry import METHODS, SPACES, TASKS, choice_class
from diffnas.runtime.yaml_text import to_flow_yaml

Rows = list[tuple[str, ...]]
LEAST_TEXT = 40  # columns of a text beside names; where there are fewer, it stands below them
HEAD = "recipe"  # what keys outside all sections are listed under


def listing(what: str, section: str | None = None, goal: str | None = None) -> Iterator[str]:
    """Yields the lines of one list: methods, spaces, tasks, data, recipes, genotypes or keys.

    `section` chooses among keys, `goal` among recipes.  Raises `UserError` where there is no such section, or nothing to
    choose from.
    """
    if section is not None and what != "keys":
        raise UserError(f"list {what} {section}: a section chooses among keys alone: diffnas list keys {section}")
    if goal is not None and what != "recipes":
        raise UserError(f"--for {goal}: chooses among recipes alone: diffnas list recipes --for {goal}")
    lists: dict[str, Callable[[], Rows]] = {
        "methods": _methods,
        "spaces": lambda: [(name, _line(choice_class("space", name))) for name in SPACES],
        "tasks": lambda: [(name, _line(choice_class("task", name))) for name in TASKS],
        "data": lambda: sorted((name, info.about) for name, info in data_sets().items()),
        "recipes": lambda: _recipes(goal),
        "genotypes": lambda: [(name, entry[0]) for name, entry in PUBLISHED.items()],
        "keys": lambda: _keys(section),
    }
    load_installed()
    rows = lists[what]()
    groups = {"recipes": lambda row: group_of(row[0]), "keys": lambda row: _section(row[0])}
    if sys.stdout.isatty() and what in groups and goal is section is None:
        yield from _grouped(rows, groups[what])
    else:
        yield from _table(rows, _widths(rows))
    if sys.stdout.isatty() and goal is not None:
        yield from ["", *textwrap.wrap(GOALS[goal], _width())]


def _grouped(rows: Rows, group: Callable[[tuple[str, ...]], str]) -> Iterator[str]:
    """Yields `rows` under the headings of their groups, all in the same columns."""
    widths = _widths(rows)
    for number, heading in enumerate(dict.fromkeys(map(group, rows))):
        yield from [""] * (number > 0)
        yield heading
        yield from (f"  {line}" for line in _table([row for row in rows if group(row) == heading], widths, 2))


def _widths(rows: Rows) -> list[int]:
    """The width of every column but the last."""
    return [max(len(row[k]) for row in rows) for k in range(len(rows[0]) - 1)]


def _table(rows: Rows, widths: Sequence[int], indent: int = 0) -> Iterator[str]:
    for row in rows:
        head = "".join(f"{cell:<{width}}  " for cell, width in zip(row, widths, strict=False))
        yield from _wrapped(head, row[-1], indent)


def _width() -> int:
    """The columns of the terminal that lines take; 0 where there is none."""
    return min(shutil.get_terminal_size().columns, 120) if sys.stdout.isatty() else 0


def _wrapped(head: str, text: str, indent: int) -> list[str]:
    """Formats `head` and `text` on one line for a program, or wrapped in two columns on a terminal."""
    width = _width()
    if not width:
        return [f"{head}{text}".rstrip()]
    width -= indent
    if width < len(head) + LEAST_TEXT:
        return [head.rstrip(), *_filled(text, max(width, 24), "    ", "    ")]
    return _filled(text, width, head, " " * len(head))


def _filled(text: str, width: int, first: str, later: str) -> list[str]:
    """The lines of `text`, of which the first begins with `first`; words with hyphens stay whole."""
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=later, break_on_hyphens=False)


def _methods() -> Rows:
    """Yields the lines of each method: name, description, paper, and settings with their defaults."""
    rows: Rows = []
    for name in METHODS:
        cls = choice_class("method", name)
        paper = (inspect.getdoc(inspect.getmodule(cls)) or "").split("\n\n")[0].replace("\n", " ").rstrip(".")
        settings = ", ".join(f"{key.name.removeprefix('method.')}={_plain(key.default)}" for key in _settings(cls))
        about = f"{_line(cls)} {paper}." if paper else _line(cls)
        rows.append((name, f"{about}{f' [{settings}]' if settings else ''}{_graph(cls)}"))
    return rows


def _graph(cls: Any) -> str:
    """Says whether steps of the method can be CUDA graphs."""
    if vars(cls).get("capture", "never") == "never":
        return "; steps are eager"
    return f"; steps can be CUDA graphs{' with search.draws=device' if getattr(cls, 'draws', False) else ''}"


def _settings(cls: Any) -> list[Key]:
    return model_keys(settings_model(cls), "method.")


def _line(cls: Any) -> str:
    return (inspect.getdoc(cls) or "").splitlines()[0]


def _recipes(goal: str | None) -> Rows:
    rows: Rows = []
    for name in recipe_names():
        if goal is None or is_for(name, goal):
            about, source, sections = recipe_summary(name)
            rows.append((name, " + ".join(sections), f"{about} ({source})" if source else about))
    return sorted(rows, key=lambda row: place_of(row[0])) if sys.stdout.isatty() else rows


def _section(key: str) -> str:
    return key.partition(".")[0] if "." in key else HEAD


def _keys(section: str | None) -> Rows:
    keys = recipe_keys()
    if section is not None:
        keys = _of_section(keys, section)
    rows: Rows = [] if sys.stdout.isatty() else [("KEY", "DEFAULT", "MEANING")]
    for key in keys:
        only = f"; {key.choice}" if key.choice else ""
        rows.append((key.name, _plain(key.default), f"{key.about} [{key.must.removeprefix('a ')}{only}]"))
    return rows


def _of_section(keys: Sequence[Key], section: str) -> list[Key]:
    """The keys of `section` (`method`, `search.weights`), or those of the method or space of that name."""
    chosen = [key for key in keys if _section(key.name) == section or key.name.startswith(f"{section}.")]
    chosen = chosen or [key for key in keys if key.choice == section or key.name == section]
    if not chosen:
        known = list(dict.fromkeys(_section(key.name) for key in keys))
        hint = nearest(section, [*known, *METHODS, *SPACES])
        raise UserError(f"list keys {section}: is unknown{hint}; known: {', '.join(known)}, methods and spaces")
    return chosen


def _plain(value: Any) -> str:
    if isinstance(value, tuple | list) and len(value) > 2:
        return f"[{value[0]}, ...]"
    return to_flow_yaml(value) if value != "" else '""'
