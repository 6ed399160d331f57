"""All genotypes that stand in a text, whatever stands around them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from diffnas.core.genotype import Genotype, genotype_of, parse_edges
from diffnas.errors import GenotypeError
from diffnas.interop import cells, choices, nasbench201
from diffnas.interop.literals import Call, DepthError, LiteralError, read_literal

MOST_DEEP = 1000  # values nested too deeply, after which a text is searched no further: each is begun at every depth

_START = re.compile(
    r"(?:[Gg]enotype\w{0,40}|\bStructure)\s*\(\s*(?:\w{1,40}\s*=\s*)?(?=[\[(]|range\b|list\b|tuple\b|np\.|array\b)"
    r"|(?P<braces>\{\s*['\"]|\b(?:OrderedDict|dict)\s*\(\s*[\[{\w])"
)
_CELL_KEYS = re.compile(
    r"(?:\{|[dD]ict\s*\()[\s\[({'\"]*(?:normal|reduc|recurrent|format|space|cells|NetworkSelector|backbone\.layers|\d(?:_|<-)\d['\"])"
)


@dataclass(frozen=True)
class Found:
    """A genotype at a place of a text, perhaps under a name, or the error in reading it."""

    at: int
    name: str | None
    genotype: Genotype | GenotypeError | LiteralError
    line: int = 0


def find_genotypes(text: str) -> list[Found]:
    """Finds everything that looks like a genotype in `text`, in order."""
    items, line, at = [], 1, 0
    for item in sorted([*_values(text), *_strings(text)], key=lambda item: item.at):
        line, at = line + text.count("\n", at, item.at), item.at
        items.append(replace(item, line=line))
    return items


def _values(text: str) -> Iterator[Found]:
    at = deep = 0
    while deep < MOST_DEEP and (match := _START.search(text, at)):
        start = match.start() if match["braces"] else _word_start(text, match.start())
        at = match.end()
        if re.search(r"(?:^|\n)[ \t]*#.*\Z", text[max(0, start - 160) : start]):
            continue  # a comment of a program
        name = _assigned(text, start)
        try:
            value, end = read_literal(text, start)
        except LiteralError as error:
            deep += isinstance(error, DepthError)
            if not match["braces"] or _CELL_KEYS.match(text, start):
                yield Found(start, name, error)
                at = max(at, error.position)
            continue
        if isinstance(value, Call) and re.match(r"\s*[\[(]|\.\w", text[end : end + 40]):
            yield Found(start, name, LiteralError(end, "something is done to the Genotype(...); nothing is computed"))
            continue
        held = [Found(start, key or name, genotype) for key, genotype in genotypes_within(value)]
        at = end if held else at  # a text within it may hold one
        yield from held


def _strings(text: str) -> Iterator[Found]:
    for at, string in nasbench201.official_strings(text):
        genotype = _attempt(partial(parse_edges, string)) if string else LiteralError(at, nasbench201.NO_STRING)
        yield Found(at, _assigned(text, at), genotype)


def _word_start(text: str, at: int) -> int:
    """Returns the start of the dotted word that contains `at`."""
    before = re.search(r"[A-Za-z_][\w.]{0,79}\Z", text[max(0, at - 80) : at])
    return at - len(before[0]) if before else at


def _assigned(text: str, at: int) -> str | None:
    """Returns the name that the value at `at` is assigned to, if nothing else precedes it on its line."""
    before = re.search(r"(?:^|\n)[ \t]*['\"]?(\w{1,80})['\"]?\s*[=:]\s*['\"]?\Z", text[max(0, at - 160) : at])
    return before[1] if before else None


def genotypes_within(value: Any, name: str | None = None) -> Iterator[tuple[str | None, Genotype | GenotypeError]]:
    """The genotypes that `value` is or holds, under their keys."""
    reader = _reader(value)
    if reader is not None:
        yield name, _attempt(reader)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from genotypes_within(item, str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from genotypes_within(item, name)


def _reader(value: Any) -> Callable[[], Genotype] | None:
    """Returns the function that turns `value` into a genotype, or None if it is not one."""
    if isinstance(value, Call):
        if value.name.endswith("Structure"):
            return partial(_structure, value)
        return partial(cells.from_fields, value.arguments, value.keywords)
    if not isinstance(value, Mapping):
        return None
    if {"format", "cells"} <= set(value):
        return partial(genotype_of, value)
    forms = (
        (choices.is_nni, choices.from_nni),
        (choices.is_chosen, choices.from_chosen),
        (choices.is_config, choices.from_config),
        (choices.is_blocks, choices.from_blocks),
        (nasbench201.is_edges, nasbench201.from_edges),
        (cells.is_dictionary, cells.from_dictionary),
    )
    return next((partial(read, value) for fits, read in forms if fits(value)), None)


def _structure(call: Call) -> Genotype:
    if len(call.arguments) != 1 or not nasbench201.is_structure(call.arguments[0]):
        raise GenotypeError("genotype: Structure(...) must hold a list of (op, index) pairs for each of three nodes")
    return nasbench201.from_structure(call.arguments[0])


def _attempt(read: Callable[[], Genotype]) -> Genotype | GenotypeError:
    try:
        return read()
    except GenotypeError as error:
        return error


def error_at(text: str, error: LiteralError) -> GenotypeError:
    """Formats an error with its place in the text."""
    line, column = text.count("\n", 0, error.position) + 1, error.position - text.rfind("\n", 0, error.position)
    return GenotypeError(f"genotype: line {line}, column {column}: {error}")
