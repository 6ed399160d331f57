"""Genotypes in the texts that people have: search logs, `genotypes.py`, dictionaries, files of other programs.

A text may hold anything besides.  What looks like a genotype and cannot be read is an error with its place, never passed
over; of several with names one must be named; of several without, as a search prints them, the last counts.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from diffnas.core.genotype import Genotype, named, parse_edges, parse_json
from diffnas.errors import GenotypeError, RecipeError
from diffnas.interop import nasbench201, prints
from diffnas.interop.found import Found, error_at, find_genotypes, genotypes_within
from diffnas.interop.literals import LiteralError, read_literal
from diffnas.interop.strangers import strange_value, stranger
from diffnas.runtime.yaml_text import parse_yaml

log = logging.getLogger("diffnas")
LARGEST_TEXT = 2**24
LARGEST_YAML = 2**18

_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
_REPLACED = {"“": '"', "”": '"', "‘": "'", "’": "'", '\\"': '"', "\\'": "'", "\\n": "  ", "\\/": "/"}
_REPLACED |= {"&quot;": '"', "&#39;": "'", "&#x27;": "'"}
_YAML_KEYS = re.compile(
    r"(?m)^[ -]*['\"]?(?:normal|reduc|recurrent|backbone\.layers|NetworkSel|[0-3](?:_|<-)[0-3]|space)"
)


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
    if choice is None and re.match(r"\{.{0,200}\"format\"", text.lstrip(), re.DOTALL):
        return parse_json(text, where)
    clean = cleaned(text)
    with named(where):
        string = nasbench201.unwrapped(clean)
        candidates = [] if string else find_genotypes(clean)
        if candidates:
            return _chosen(candidates, clean, where, choice)
        genotype = parse_edges(string) if string else _whole(clean)
    return genotype if where == "genotype" else _placed(genotype, where)


def is_text(text: str) -> bool:
    """Whether `text` is that of an architecture, and not a mistyped name or path."""
    return bool(set(text) & set("{[(|=\n") or re.fullmatch(r"\d[\d\s,;-]*", text.strip()) or stranger(text))


def cell_text(text: str) -> str | int | None:
    """The official string or index of NAS-Bench-201 that all of `text` is, whatever its wrapping; None where it is neither."""
    number = re.fullmatch(r"(?:index ?)?[#=:]? ?(\d{1,9})", text.strip(), re.ASCII)
    return int(number[1]) if number else nasbench201.unwrapped(cleaned(text))


def cleaned(text: str) -> str:
    """Returns `text` without colours, and with typographic or escaped quotes made plain."""
    text = _ESCAPE.sub("", text.removeprefix("\ufeff"))
    for theirs, ours in _REPLACED.items():
        text = text.replace(theirs, ours)
    return text


# -- which of them is meant


def _chosen(candidates: list[Found], text: str, where: str, choice: str | None) -> Genotype:
    names = list(dict.fromkeys(item.name for item in candidates if item.name))
    meant = candidates if choice is None else _named(candidates, text, choice)
    if not meant or (choice is None and len(names) > 1):
        numbered = not names or any(map(str.isdigit, names))
        known = f"lines {_listed([str(item.line) for item in candidates])}" if numbered else _listed(names)
        if meant:
            raise GenotypeError(f"genotype: holds several genotypes; name one as FILE:NAME or FILE:LINE, of {known}")
        raise GenotypeError(f"genotype: no genotype has the name {choice!r:.60} or begins on that line; it has {known}")
    last = meant[-1]
    if not isinstance(last.genotype, Genotype):
        raise _unreadable(last.genotype, candidates, text)
    said = f"line {last.line}"
    if len(meant) > 1:
        log.warning("%s: holds %d genotypes; the last is taken, %s (FILE:LINE names another)", where, len(meant), said)
        said = f"the last of {len(meant)}, {said}"
    if where == "genotype":
        return _placed(last.genotype, f"a text, {said}" if len(candidates) > 1 else "", last.name)
    return _placed(last.genotype, f"{where}, {said}", last.name)


def _unreadable(error: GenotypeError | LiteralError, candidates: Sequence[Found], text: str) -> GenotypeError:
    said = error if isinstance(error, GenotypeError) else error_at(text, error)
    others = len([item for item in candidates if isinstance(item.genotype, Genotype)])
    if not others:
        return said
    return GenotypeError(f"{said.lines[0]}; {others} others in the text can be read: FILE:LINE names one by its line")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} others" if len(names) > 12 else "")


def _named(candidates: list[Found], text: str, choice: str) -> list[Found]:
    if choice.isdigit():
        return [item for item in candidates if choice == str(item.line)]
    for _ in range(8):  # NAME = OTHER, which stands for it
        meant = [item for item in candidates if item.name == choice]
        other = re.search(rf"(?m)^{re.escape(choice)}\s*=\s*(\w+)\s*(?:#.*)?$", text)
        if meant or other is None:
            break
        choice = other[1]
    return meant


def _placed(genotype: Genotype, place: str, name: str | None = None) -> Genotype:
    """`genotype`, whose provenance says where it was read; our own JSON keeps the one it has."""
    own = dict(genotype.provenance)
    added = {"from": place, "name": name if name != "genotype" else None}
    new = {key: said for key, said in added.items() if said and key not in own}
    return Genotype(genotype.space, genotype.cells, {**own, **new})


# -- texts that are one value, or a file of one program


def _whole(text: str) -> Genotype:
    """The genotype that all of `text` is; `GenotypeError` says what else it is, or what was expected."""
    bare = text.strip()
    if not bare:
        raise GenotypeError("genotype: is empty; give a published name, a file or a run folder")
    if re.fullmatch(r"\d+", bare):
        raise GenotypeError(
            f"genotype: a number alone is the index of a cell of NAS-Bench-201, which `diffnas lookup {bare:.20}` reads"
        )
    if bare.startswith("|"):
        return parse_edges(re.sub(r"\s*([|~+])\s*", r"\1", bare))
    genotype = prints.from_print(bare) or _of_yaml(bare)
    said = None if genotype else stranger(bare)
    if said:
        raise GenotypeError(f"genotype: this is {said}")
    return genotype or _of_value(text)


def _of_yaml(text: str) -> Genotype | None:
    """The genotype in YAML that has keys of one; None where it has none."""
    if len(text) > LARGEST_YAML or not _YAML_KEYS.search(text):
        return None
    try:
        tree = parse_yaml(text.replace("!!python/tuple", ""), "genotype")
    except RecipeError as error:
        raise GenotypeError(*error.lines) from None
    candidates = list(genotypes_within(tree)) if isinstance(tree, Mapping) else []
    if candidates and isinstance(candidates[-1][1], GenotypeError):
        raise candidates[-1][1]
    return next((genotype for _, genotype in candidates if isinstance(genotype, Genotype)), None)


def _of_value(text: str) -> Genotype:
    """The genotype in a list, or in bare numbers, that is all of `text`."""
    if re.fullmatch(r"[\d\s,;]+", text):
        return prints.from_numbers([int(number) for number in re.findall(r"\d+", text)])
    lead = len(text) - len(text.lstrip())
    start = re.compile(r"(?:\w{1,80} ?[=:])?\s*(?=[\[({])").match(text, lead)
    if start is None:
        raise GenotypeError(_EXPECTED)
    try:
        value, end = read_literal(text, start.end())
    except LiteralError as error:
        raise error_at(text, error) from None
    if text[end:].strip(" \n\r\t;"):
        rest = text[end : end + 80].strip()
        raise error_at(text, LiteralError(end, f"the text should end here; found {rest!r:.40}"))
    if nasbench201.is_structure(value):
        return nasbench201.from_structure(value)
    if isinstance(value, list | tuple) and value and all(type(number) is int for number in value):
        return prints.from_numbers(value)
    said = strange_value(value)
    raise GenotypeError(f"genotype: this is {said}" if said else _EXPECTED)


_EXPECTED = (
    "genotype: expected Genotype(normal=[...], normal_concat=[...], ...), a dictionary with these keys, diffnas's JSON, or a "
    "cell |op~0|+|op~0|op~1|+|op~0|op~1|op~2|; there is none in the text"
)
