"""The page of published recipes, docs/recipes.md, says what the packaged recipes hold."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from diffnas.recipe.recipe import RECIPES, flat_values, read_recipe
from diffnas.runtime.yaml_text import parse_yaml

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
LONGEST = 140  # what a column can hold
TRAINING = re.compile(r"as `([\w-]+)`(?: but (.+))?")


class Row(NamedTuple):
    key: str
    published: str
    file: str
    ours: str
    why: str


@cache
def tables() -> dict[str, list[Row]]:
    """The rows of every table, by each recipe that its heading names."""
    found: dict[str, list[Row]] = {}
    for part in PAGE.read_text(encoding="utf-8").split("\n### ")[1:]:
        head, *lines = part.split("\n")
        cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line.startswith("| `")]
        rows = [Row(key.strip("`"), *rest) for key, *rest in cells]
        found |= dict.fromkeys(re.findall(r"`([\w-]+)`", head), rows)
    return found


def published() -> list[str]:
    """The recipes that name a publication."""
    names = (path.stem for path in sorted(RECIPES.glob("*.yaml")))
    return [name for name in names if read_recipe(name).source]


def written(name: str) -> set[str]:
    """The keys that the file of a recipe sets, or the one that it extends."""
    tree: Any = parse_yaml((RECIPES / f"{name}.yaml").read_text(), name)
    keys = written(tree["extends"]) if "extends" in tree else set()
    return keys | {key for section, value in tree.items() if section in SECTIONS for key in leaves(section, value)}


SECTIONS = ("seed", "data", "space", "method", "search", "train")


def leaves(at: str, value: Any) -> list[str]:
    if not isinstance(value, dict) or at.endswith(("edge_ops", "base_settings")):
        return [at]
    return [key for name, inner in value.items() for key in leaves(f"{at}.{name}", inner)]


def shown(value: str) -> str:
    return value if len(value) <= LONGEST else "(as in the recipe)"


def test_every_published_recipe_has_its_table_and_no_other_has() -> None:
    assert sorted(tables()) == sorted(published())


@pytest.mark.parametrize("name", published())
def test_ours_is_what_the_recipe_resolves_to(name: str) -> None:
    values = flat_values(read_recipe(name))
    for row in tables()[name]:
        assert all(row), row
        if row.key == "train":
            like, changes = TRAINING.fullmatch(row.ours).groups()  # type: ignore[union-attr]
            other = {key: v for key, v in flat_values(read_recipe(like)).items() if key.startswith("train.")}
            other |= {
                f"train.{key}": v for key, v in (each.split(" ", 1) for each in (changes or "").split(", ") if each)
            }
            assert other == {key: v for key, v in values.items() if key.startswith("train.")}
        else:
            assert row.ours == f"`{shown(values[row.key])}`", row
        if row.why == "=" and re.fullmatch(r"[\d.e-]+", row.published):
            assert float(row.published) == float(row.ours.strip("`")), row


@pytest.mark.parametrize("name", published())
def test_no_key_that_a_recipe_sets_is_left_out(name: str) -> None:
    search = read_recipe(name).search is not None
    keys = {"train" if search and key.startswith("train.") else key for key in written(name)}
    assert {key for key in keys if not key.endswith(".name")} <= {row.key for row in tables()[name]}
