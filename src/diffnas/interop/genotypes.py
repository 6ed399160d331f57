"""Genotypes in the texts that people have: search logs, `genotypes.py`, dictionaries, files of other programs.

A text may hold anything besides.  What looks like a genotype and cannot be read is an error with its place, never passed
over; of several with names one must be named; of several without, as a search prints them, the last counts.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from diffnas.core.genotype import Genotype, genotype_of, named, parse_edges, parse_json
from diffnas.errors import GenotypeError, RecipeError
from diffnas.interop import cells, choices, nasbench201, prints
from diffnas.interop.literals import Call, LiteralError, read_literal
from diffnas.interop.strangers import strange_value, stranger
from diffnas.yaml_text import parse_yaml

log = logging.getLogger("diffnas")
LARGEST_TEXT = 2**26
LARGEST_YAML = 2**18

_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
_REPLACED = {"“": '"', "”": '"', "‘": "'", "’": "'", '\\"': '"', "\\'": "'", "\\n": "  ", "\\/": "/"}
_REPLACED |= {"&quot;": '"', "&#39;": "'", "&#x27;": "'"}
_START = re.compile(
    r"(?:[Gg]enotype\w{0,40}|\bStructure)\s*\(\s*(?:\w{1,40}\s*=\s*)?(?=[\[(]|range\b|list\b|tuple\b|np\.|array\b)"
    r"|(?P<braces>\{\s*['\"])"
)
_CELL_KEYS = re.compile(
    r"\{\s*['\"](?:normal|reduc|recurrent|format|space|cells|NetworkSelector|backbone\.layers|\d(?:_|<-)\d['\"])"
)
_YAML_KEYS = re.compile(
    r"(?m)^[ -]*['\"]?(?:normal|reduc|recurrent|backbone\.layers|NetworkSel|[0-3](?:_|<-)[0-3]|space)"
)


@dataclass(frozen=True)
class Found:
    """A genotype at a place of a text, perhaps under a name, or why what stands there cannot be read."""

    at: int
    name: str | None
    genotype: Genotype | GenotypeError


def read_genotype_file(path: Path, choice: str | None = None) -> Genotype:
    """The genotype in a file of any form that `read_genotype` knows."""
    return read_genotype(read_text(path), str(path), choice)


def read_text(path: Path) -> str:
    """The text of a file that may hold a genotype."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_TEXT + 1)
    except OSError as error:
        raise GenotypeError(f"{path}: cannot be read: {error.strerror}") from None
    return decoded(content, str(path))


def decoded(content: bytes, where: str) -> str:
    """The text in bytes that may hold a genotype; `GenotypeError` where they are too many or no text."""
    if len(content) > LARGEST_TEXT:
        raise GenotypeError(f"{where}: larger than {LARGEST_TEXT // 2**20} MiB, so not a genotype")
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))  # what PowerShell redirects
    text = content.decode("utf-16" if wide else "utf-8-sig", "replace")
    if "\0" in text:
        raise GenotypeError(f"{where}: not a text file, so not a genotype")
    return text


def read_genotype(text: str, where: str = "genotype", choice: str | None = None) -> Genotype:
    """The genotype in `text`, of whatever form; `where` names the text in messages.

    `choice` is the name of one of several genotypes, or the number of the line on which it begins.  Nothing is executed.
    Raises `GenotypeError` where the text holds none, names what it is where that is known, and lists the names where it
    holds several.  The provenance says the form, and the place where the text is a file or holds several.
    """
    if choice is None and re.match(r"\s*\{(?=.{0,200}[\"']format[\"']\s*:)", text, re.DOTALL):
        return parse_json(text, where)
    clean = cleaned(text)
    with named(where):
        found = sorted(_search(clean), key=lambda item: item.at)
        if found:
            return _chosen(found, clean, where, choice)
        genotype = _whole(clean)
    return genotype if where == "genotype" else _placed(genotype, where)


def is_known_text(text: str) -> bool:
    """Whether `text` is no name though it is made of letters, digits and the signs of paths."""
    return bool(stranger(text) or re.fullmatch(r"[\d\s]+", text))


def cell_text(text: str) -> str | int | None:
    """The official string or index of NAS-Bench-201 that all of `text` is, whatever its wrapping; None where it is neither."""
    number = re.fullmatch(r"\s*(?:index\s*)?[#=:]?\s*(\d{1,9})\s*", text, re.ASCII)
    return int(number[1]) if number else nasbench201.unwrapped(cleaned(text))


def cleaned(text: str) -> str:
    """`text` without colours, and with quotes as they were before a page or a string put them otherwise."""
    text = _ESCAPE.sub("", text.removeprefix("\ufeff"))
    for theirs, ours in _REPLACED.items():
        text = text.replace(theirs, ours)
    return text


# -- all that a text holds


def _search(text: str) -> Iterator[Found]:
    at = 0
    while match := _START.search(text, at):
        start = match.start() if match["braces"] else _word_start(text, match.start())
        at = match.end()
        if text[text.rfind("\n", 0, start) + 1 : start].lstrip().startswith("#"):
            continue  # a comment of a program
        name = _assigned(text, start)
        try:
            value, at = read_literal(text, start)
        except LiteralError as error:
            at = max(at, error.position)
            if not match["braces"] or _CELL_KEYS.match(text, start):
                yield Found(start, name, _error_at(text, error.position, str(error)))
            continue
        if isinstance(value, Call) and re.match(r"\s*[\[(]|\.\w", text[at : at + 40]):
            value, at = None, at + 1
            yield Found(start, name, _error_at(text, at, "something is done to the Genotype(...); nothing is computed"))
        yield from (Found(start, within or name, found) for within, found in _within(value, None))
    for place, string in nasbench201.official_strings(text):
        yield Found(place, _assigned(text, place), _attempt(partial(parse_edges, string)))


def _word_start(text: str, at: int) -> int:
    """Where the dotted word begins that goes on at `at`."""
    before = re.search(r"[A-Za-z_][\w.]{0,79}\Z", text[max(0, at - 80) : at])
    return at - len(before[0]) if before else at


def _assigned(text: str, at: int) -> str | None:
    """The name that what stands at `at` is assigned to, at the beginning of a line."""
    before = re.search(r"(?:^|\n)(\w{1,80})\s*=\s*['\"]?\Z", text[max(0, at - 120) : at])
    return before[1] if before else None


def _within(value: Any, name: str | None) -> Iterator[tuple[str | None, Genotype | GenotypeError]]:
    """The genotypes that `value` is or holds, under their keys."""
    reader = _reader(value)
    if reader is not None:
        yield name, _attempt(reader)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _within(item, str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _within(item, name)


def _reader(value: Any) -> Callable[[], Genotype] | None:
    """What makes a genotype of `value`; None where it is none."""
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


# -- which of them is meant


def _chosen(found: list[Found], text: str, where: str, choice: str | None) -> Genotype:
    names = list(dict.fromkeys(item.name for item in found if item.name))
    if choice is None and len(names) > 1:
        listed = ", ".join(names[:12]) + (f" and {len(names) - 12} others" if len(names) > 12 else "")
        raise GenotypeError(f"genotype: holds several genotypes; name one as FILE:NAME, of {listed}")
    meant = found if choice is None else _named(found, text, choice)
    if not meant:
        known = f"its names: {', '.join(names[:12])}" if names else f"the last is on line {_line(text, found[-1].at)}"
        raise GenotypeError(f"genotype: no genotype has the name {choice!r:.60} or begins on that line; {known}")
    last = meant[-1]
    if isinstance(last.genotype, GenotypeError):
        others = len([item for item in found if isinstance(item.genotype, Genotype)])
        if len(found) == 1 or not others:
            raise last.genotype
        raise GenotypeError(
            *last.genotype.lines[:1],
            f"genotype: {others} others in it can be read; FILE:LINE names one by the line on which it begins",
        )
    line = _line(text, last.at)
    if len(meant) > 1:
        log.warning(
            "%s: holds %d genotypes; the last is taken, line %d (FILE:LINE names another)", where, len(meant), line
        )
    said = f"the last of {len(meant)}, line {line}" if len(meant) > 1 else f"line {line}"
    if where == "genotype":
        return _placed(last.genotype, f"a text, {said}" if len(found) > 1 else "", last.name)
    return _placed(last.genotype, f"{where}, {said}", last.name)


def _named(found: list[Found], text: str, choice: str) -> list[Found]:
    for _ in range(8):  # NAME = OTHER, which stands for it
        meant = [item for item in found if item.name == choice]
        other = re.search(rf"(?m)^{re.escape(choice)}\s*=\s*(\w+)\s*(?:#.*)?$", text)
        if meant or other is None:
            break
        choice = other[1]
    return meant or [item for item in found if choice == str(_line(text, item.at))]


def _placed(genotype: Genotype, place: str, name: str | None = None) -> Genotype:
    """`genotype`, whose provenance says where it was read; our own JSON keeps the one it has."""
    own = dict(genotype.provenance)
    added = {"from": place, "name": name if name not in ("genotype", None) else None}
    return Genotype(genotype.space, genotype.cells, {**{key: text for key, text in added.items() if text}, **own})


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _error_at(text: str, at: int, reason: str) -> GenotypeError:
    column = at - text.rfind("\n", 0, at)
    return GenotypeError(f"genotype: line {_line(text, at)}, column {column}: {reason}")


# -- texts that are one value, or a file of one program


def _whole(text: str) -> Genotype:
    """The genotype that all of `text` is; `GenotypeError` says what else it is, or what was expected."""
    bare = text.strip()
    if not bare:
        raise GenotypeError("genotype: is empty; give a published name, a file or a run folder")
    said = stranger(bare)
    if said:
        raise GenotypeError(f"genotype: is {said}")
    if re.fullmatch(r"\d+", bare):
        raise GenotypeError(
            f"genotype: {bare:.20} is a number alone; the index of a cell of NAS-Bench-201 is read by `diffnas lookup`"
        )
    if bare.startswith("|"):
        return parse_edges(re.sub(r"\s+", "", bare))
    genotype = prints.from_print(bare) or _of_yaml(bare)
    return genotype or _of_value(bare)


def _of_yaml(text: str) -> Genotype | None:
    """The genotype in YAML that has keys of one; None where it has none."""
    if len(text) > LARGEST_YAML or not _YAML_KEYS.search(text):
        return None
    try:
        tree = parse_yaml(text.replace("!!python/tuple", ""), "genotype")
    except RecipeError as error:
        raise GenotypeError(*error.lines) from None
    found = list(_within(tree, None)) if isinstance(tree, Mapping) else []
    if found and isinstance(found[-1][1], GenotypeError):
        raise found[-1][1]
    return next((genotype for _, genotype in found if isinstance(genotype, Genotype)), None)


def _of_value(text: str) -> Genotype:
    """The genotype in a list that is all of `text`."""
    if re.fullmatch(r"[\d\s,;]+", text):
        text = f"[{', '.join(re.findall(r'[0-9]+', text))}]"
    text = re.sub(r"\A\w{1,80}\s*[=:]\s*", "", text)
    if text[:1] not in ("[", "(", "{"):
        raise GenotypeError(f"genotype: holds no genotype; {_EXPECTED}")
    try:
        value, end = read_literal(text)
    except LiteralError as error:
        raise _error_at(text, error.position, str(error)) from None
    if text[end:].strip(" \n\r\t;"):
        raise _error_at(text, end, f"the text should end here; found {text[end:].strip()!r:.40}")
    if nasbench201.is_structure(value):
        return nasbench201.from_structure(value)
    if isinstance(value, list | tuple) and value and all(type(number) is int for number in value):
        return prints.from_numbers(value)
    said = strange_value(value)
    raise GenotypeError(f"genotype: is {said}" if said else f"genotype: holds no genotype; {_EXPECTED}")


_EXPECTED = (
    "expected Genotype(normal=[(op, index), ...], normal_concat=[...], ...), a dictionary with these keys, diffnas's JSON, "
    "or a cell |op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
)
