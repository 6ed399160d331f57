"""Public names are built from the glossary's words and plain English, and from no word that the glossary has replaced."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import typer.main

import diffnas
from diffnas.cli.main import app
from diffnas.recipe.keys import recipe_keys

PAGE = (Path(__file__).parents[1] / "docs" / "glossary.md").read_text(encoding="utf-8")
_, *LINES = [line for line in PAGE.splitlines() if line.startswith("| ")]  # without the head of the table
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in LINES]
TERMS = {word for row in ROWS for word in re.split(r"[ ,]+", row[0])}
REPLACED = {word for row in ROWS for word in re.split(r"[ ,]+", row[2]) if word}
REPLACED |= set(re.split(r"[ ,]+", PAGE.rpartition("names: ")[2].strip(" .\n")))
ENGLISH = set(
    re.findall(
        r"\w+",
        """
    about adaptive added advance aggregate allowed among anew area at begins best blank boundary broken build by
    candidate case check command compare compile constant convert correct count decide decided delta dense depth detach
    dict differencing doctor double draw each early end evaluate every exact excluded factor falling favoured
    finalist first fit fixed format fresh from grows growth halving head history image in input interval into joint
    keep kept largest last late lead leaves left limit list live load log lookup main map max mean min multiplier
    name nasbench needs new next of on only origin output path patience per pool predict random rate read reading reason
    reduce resize restart round sampled sampling scale schema seconds section selecting set show shrink source stop
    strongest subset sum
    target tensors test testing text to total train training translate
    uses usual valid validate values when width without
    """,
    )
)


def split(name: str) -> list[str]:
    """The words of a name in snake, kebab or camel case, in lower case and without numbers."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def known(word: str, words: set[str]) -> bool:
    """Whether `words` hold it, or what it is the plural of."""
    return bool({word, word.removesuffix("s"), word.removesuffix("es"), f"{word}s"} & words)


def public_names() -> Iterator[str]:
    """Every name of `diffnas`, of its classes' methods and fields, of commands, and of the keys of recipes."""
    for name in diffnas.__all__:
        thing = getattr(diffnas, name)
        yield name
        if inspect.isclass(thing):
            fields = {**vars(thing), **getattr(thing, "__annotations__", {})}
            yield from (f"{name}.{field}" for field in fields if not field.startswith("_"))
        if inspect.ismodule(thing):
            yield from (f"{name}.{each}" for each in thing.__all__)
    command = typer.main.get_command(app)
    for name, sub in command.commands.items():  # type: ignore[attr-defined]
        yield name
        yield from (f"{name} {inner}" for inner in getattr(sub, "commands", {}))
    yield from (key.name for key in recipe_keys())


NAMES = sorted(set(public_names()))


def test_the_glossary_is_read() -> None:
    assert len(NAMES) > 300 and {"mixture", "cell", "nesterov"} <= TERMS and {"turn", "dial", "podium"} <= REPLACED
    assert not TERMS & REPLACED
    words = [row[0] for row in ROWS]
    assert words == sorted(words) and all(row[1] for row in ROWS)


def test_names_are_split() -> None:
    assert split("in_degree") == ["in", "degree"] and split("CellSpace.to_json") == ["cell", "space", "to", "json"]
    assert split("best-cells") == ["best", "cells"] and split("SGDRate") == ["sgd", "rate"]


def test_names_are_built_from_known_words() -> None:
    strangers = {name: [word for word in split(name) if not known(word, TERMS | ENGLISH)] for name in NAMES}
    strangers = {name: words for name, words in strangers.items() if words}
    assert not strangers, "use the words of docs/glossary.md, or add these to it"


def test_no_name_uses_a_replaced_word() -> None:
    assert not [name for name in NAMES if REPLACED & set(split(name))], "docs/glossary.md has the word to use"


def test_plain_words_are_used() -> None:
    used = {word for name in NAMES for word in split(name)}
    idle = {word for word in ENGLISH if not {word, f"{word}s", f"{word}es"} & used}
    assert not idle, f"no name needs {sorted(idle)}: take them off the list"
