"""What `diffnas list` prints."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from diffnas.core.known import PUBLISHED
from diffnas.data import DATA
from diffnas.methods import METHODS
from diffnas.recipe import REGISTRIES, choice_class, read_recipe, recipe_keys, recipe_names
from diffnas.spaces import SPACES

Rows = list[tuple[str, ...]]


def listing(what: str) -> Iterator[str]:
    """The lines of one list: methods, spaces, data, recipes, genotypes or keys."""
    lists: dict[str, Callable[[], Rows]] = {
        "methods": lambda: _choices("method", METHODS),
        "spaces": lambda: _choices("space", SPACES),
        "data": lambda: [(name, info.about) for name, info in DATA.items()],
        "recipes": _recipes,
        "genotypes": lambda: [(name, entry[0]) for name, entry in PUBLISHED.items()],
        "keys": _keys,
    }
    rows = lists[what]()
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]) - 1)]
    for row in rows:
        yield "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()


def _choices(section: str, registry: dict[str, str]) -> Rows:
    assert section in REGISTRIES
    return [(name, (inspect.getdoc(choice_class(section, name)) or "").splitlines()[0]) for name in registry]


def _recipes() -> Rows:
    rows: Rows = []
    for name in recipe_names():
        recipe = read_recipe(name)
        parts = " + ".join(part for part in ("search", "train") if getattr(recipe, part) is not None)
        source = f" ({recipe.source})" if recipe.source else ""
        rows.append((name, parts, f"{recipe.about}{source}"))
    return rows


def _keys() -> Rows:
    return [(key.name, key.type, _plain(key.default), f"{key.about}{_only(key.choice)}") for key in recipe_keys()]


def _only(choice: str) -> str:
    return f" [{choice}]" if choice else ""


def _plain(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value) or '""'
