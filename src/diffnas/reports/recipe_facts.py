"""What a run's recipe says, and where it differs from the recipe of that name in the package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from diffnas.errors import UserError
from diffnas.recipe.recipe import LARGEST, leaves, packaged_values, recipe_names, said_origins
from diffnas.reports.values import mapping, text
from diffnas.runtime.files import is_file, read_bytes
from diffnas.runtime.yaml_text import parse_yaml

HEAD = {"name", "about", "source"}
MOST_PARSED = 512  # recipes that are kept: a search and a training of 256 runs


@dataclass(frozen=True)
class Difference:
    """A key whose value is not that of the packaged recipe: `ours`, `theirs`, and who set it."""

    key: str
    ours: str
    theirs: str
    origin: str


@dataclass(frozen=True)
class RecipeFacts:
    """The values of a recipe.yaml by dotted key, and where each came from, as far as it says."""

    values: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)

    def get(self, key: str) -> str:
        """The value at `key` in words, empty where there is none."""
        return text(self.values.get(key))

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.get("name") or "unnamed"

    @property
    def packaged(self) -> bool:
        """Whether the package has a recipe of this name."""
        return self.name in recipe_names()

    def differences(self, before: RecipeFacts | None = None) -> list[Difference]:
        """What differs from the packaged recipe of this name; nothing where there is none.

        `before` is the recipe that this one was read from (a training's: that of the search), which knows more origins.
        """
        if not self.packaged:
            return []
        shipped, packaged = dict(leaves(packaged_values(self.name))), {f"recipe {each}" for each in recipe_names()}
        differences = []
        for key, value in self.values.items():
            origin = self._origin(key, before)
            same = _same(value, shipped[key]) if key in shipped else (origin in packaged or not _is_set(origin))
            if key not in HEAD and not same:
                theirs = text(shipped[key]) if key in shipped else "(default)"
                differences.append(Difference(text(key), text(value) or "null", theirs, origin))
        return differences

    def _origin(self, key: str, before: RecipeFacts | None) -> str:
        origin = self.origins.get(key, "")
        if before is not None and origin.endswith("recipe.yaml") and before.values.get(key) == self.values.get(key):
            return before.origins.get(key, "")
        return text(origin)


def _is_set(origin: str) -> bool:
    """Whether a value comes from a person, rather than from a default or from a run's recipe, which may say no more."""
    return origin not in {"", "default"} and not origin.endswith("recipe.yaml")


def _same(ours: Any, theirs: Any) -> bool:
    """Whether two values are one, `3` and `3.0` included."""
    return bool(ours == theirs)


def read_recipe_facts(path: Path, problems: list[str]) -> RecipeFacts:
    """The recipe at `path` as plain values, without checks; what is wrong with it goes to `problems`."""
    if not is_file(path):
        problems.append(f"{path.name} is missing")
        return RecipeFacts()
    try:
        content = read_bytes(path, LARGEST + 1)
        if len(content) > LARGEST:
            raise ValueError("too large")
        facts = _parsed(content.decode("utf-8-sig"))
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {error.strerror}")
        return RecipeFacts()
    except (UserError, ValueError):
        problems.append(f"{path.name} is damaged, and is left out")
        return RecipeFacts()
    if not facts.values:
        problems.append(f"{path.name} holds no keys and values")
    return facts


@lru_cache(maxsize=MOST_PARSED)
def _parsed(written: str) -> RecipeFacts:
    """The recipe in YAML text `written`; kept, as parsing takes longer than reading all other files of most runs."""
    values = dict(leaves(mapping(parse_yaml(written, "recipe"))))
    origins = (said_origins(written, list(values)) or {}) if values else {}
    return RecipeFacts(values, {key: text(origin) for key, origin in origins.items()})
