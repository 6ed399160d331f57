"""A genotype: the discrete cell a search ends with, as plain data.

A genotype names its space and holds, for each kind of cell, which op reads which earlier state at every node, and which
states the cell puts out.  Any number of inputs per node is legal, the same input twice included.  Nothing read from a
file is executed.  Here are read diffnas's own JSON and the official strings of NAS-Bench-201; the texts that other
programs print are `interop.genotypes`' matter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from diffnas.errors import GenotypeError

FORMAT = "diffnas-genotype-1"
LARGEST = 64  # inputs of a cell, nodes of a cell, inputs of a node: several times what anyone has built
LARGEST_FILE = 2**20

Input = tuple[str, int]
"""(op, source): the op applied and the index of the state it reads."""


@dataclass(frozen=True)
class Nodes:
    """The nodes of one cell: node k has index `first + k` and sums `inputs[k]`; the cell puts out `concat`."""

    inputs: tuple[tuple[Input, ...], ...]
    concat: tuple[int, ...]
    first: int = 2  # the cell's own inputs have the indices below it

    @property
    def ops(self) -> tuple[str, ...]:
        """Every op in list order."""
        return tuple(op for node in self.inputs for op, _ in node)

    def places(self) -> dict[str, str]:
        """Maps each op `ops.K` of a network's cell to its name in the supernet's, whose edges go by target, then source."""
        before = [sum(range(self.first, self.first + k)) for k in range(len(self.inputs))]
        places = [f"edges.{before[k] + source}.ops.{op}" for k, node in enumerate(self.inputs) for op, source in node]
        return {f"ops.{k}": place for k, place in enumerate(places)}


@dataclass(frozen=True)
class Genotype:
    """Cells by kind (`normal`, `reduce`, ...) in the space named `space`; `provenance` says where it comes from."""

    space: str
    cells: Mapping[str, Nodes]
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cells", MappingProxyType(dict(self.cells)))
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))
        problems = [line for kind, nodes in self.cells.items() for line in _problems(kind, nodes)]
        if problems:
            raise GenotypeError(*problems)

    def __reduce__(self) -> tuple[Any, ...]:
        return Genotype, (self.space, dict(self.cells), dict(self.provenance))

    def to_json(self) -> str:
        """The JSON text that `load_genotype` reads, a line per node."""
        head = {"format": FORMAT, "space": self.space, "provenance": dict(self.provenance)}
        cells = []
        for kind, nodes in self.cells.items():
            rows = ",\n    ".join(json.dumps(node) for node in nodes.inputs)
            start = f'  {json.dumps(kind)}: {{"first": {nodes.first}, "concat": {json.dumps(nodes.concat)}, "inputs": ['
            cells.append(f"{start}\n    {rows}\n  ]}}")
        return json.dumps(head, indent=1)[:-2] + ',\n "cells": {\n' + ",\n".join(cells) + "\n }\n}\n"

    def to_text(self) -> str:
        """Formats one line per node for people: `normal 2 = sep_conv_3x3(0) + skip_connect(1)`."""
        lines = []
        for kind, nodes in self.cells.items():
            for k, node in enumerate(nodes.inputs):
                terms = " + ".join(f"{op}({source})" for op, source in node) or "0"
                lines.append(f"{kind} {nodes.first + k} = {terms}")
            lines.append(f"{kind} output = {', '.join(map(str, nodes.concat))}")
        return "\n".join(lines)


def _problems(kind: str, nodes: Nodes) -> list[str]:
    sizes = {"inputs": nodes.first, "nodes": len(nodes.inputs), "concat": len(nodes.concat)}
    large = [
        f"genotype: cell {kind}: {size} {what}; {LARGEST} is the limit"
        for what, size in sizes.items()
        if size > LARGEST
    ]
    if large or nodes.first < 0:
        return large or [f"genotype: cell {kind}: first must be at least 0; got {nodes.first}"]
    problems = []
    for k, node in enumerate(nodes.inputs):
        index = nodes.first + k
        if len(node) > LARGEST:
            problems.append(f"genotype: cell {kind}, node {index} has {len(node)} inputs; {LARGEST} is the limit")
        problems += [
            f"genotype: cell {kind}, node {index} reads {source}; it can read 0 to {index - 1} only"
            for source in dict.fromkeys(source for _, source in node)
            if not 0 <= source < index
        ]
    last = nodes.first + len(nodes.inputs) - 1
    outside = [i for i in nodes.concat if not 0 <= i <= last]
    if outside or not nodes.concat:
        problems.append(f"genotype: cell {kind}: concat {list(nodes.concat)} must name states among 0 to {last}")
    return problems


@contextmanager
def named(where: str) -> Iterator[None]:
    """Prefixes every `GenotypeError` raised in a block with `where`, the file or name of the genotype."""
    try:
        yield
    except GenotypeError as error:
        raise GenotypeError(*(line.replace("genotype:", f"{where}:", 1) for line in error.lines)) from None


def parse_json(text: str, where: str = "genotype") -> Genotype:
    """The genotype in JSON `text`; raises `GenotypeError` naming `where` and what is wrong."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise GenotypeError(f"{where}: not valid JSON: damaged at {place}; was the file cut short?") from None
    except (ValueError, RecursionError):
        raise GenotypeError(f"{where}: not valid JSON: a number is too long, or values are nested too deeply") from None
    with named(where):
        return genotype_of(data)


def genotype_of(data: Any) -> Genotype:
    """The genotype in the plain data of our JSON; `GenotypeError` says which key is wrong."""
    version = _get(data, "", "format", str)
    if version != FORMAT:
        raise GenotypeError(f"genotype: format is {version!r:.60}; this version reads {FORMAT!r}")
    space, cells = _get(data, "", "space", str), _get(data, "", "cells", dict)
    if not cells:
        raise GenotypeError("genotype: cells is empty; a genotype has at least one cell")
    provenance = _get({"provenance": {}, **data}, "", "provenance", dict)
    try:
        json.dumps(provenance, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise GenotypeError(f"genotype: provenance cannot be kept ({error}); leave it out") from None
    return Genotype(
        space, {kind: _read_cell(f"cells.{op_name(kind)}", cell) for kind, cell in cells.items()}, provenance
    )


def _read_cell(at: str, cell: Any) -> Nodes:
    nodes, concat = _get(cell, at, "inputs", list), _get(cell, at, "concat", list)
    first = _get({"first": 2, **cell}, at, "first", int)
    try:
        inputs = tuple(tuple((op_name(op), state_index(source)) for op, source in node) for node in nodes)
        return Nodes(inputs, tuple(state_index(i) for i in concat), first)
    except GenotypeError:
        raise
    except (TypeError, ValueError):
        reason = "inputs must hold, for every node, a list of [op, index] pairs, and concat indices"
        raise GenotypeError(f"genotype: {at}: {reason}") from None


def _get(data: Any, at: str, key: str, kind: type) -> Any:
    """Returns `data[key]`, which must be of type `kind`."""
    if not isinstance(data, dict):
        raise GenotypeError(f"genotype: {at or 'the file'} must hold keys and values; got {json.dumps(data)[:60]}")
    dotted = f"{at}.{key}".lstrip(".")
    if key not in data:
        raise GenotypeError(f"genotype: the key {dotted} is missing")
    if not isinstance(data[key], kind) or isinstance(data[key], bool):
        said = {str: "text", dict: "keys and values", list: "a list", int: "a whole number"}[kind]
        raise GenotypeError(f"genotype: {dotted} must be {said}; got {json.dumps(data[key])[:60]}")
    return data[key]


def op_name(value: Any) -> str:
    """Returns `value`, an op or a kind of cell; raises `GenotypeError` unless it is a word that can be printed and drawn."""
    if not isinstance(value, str) or not re.fullmatch(r"[\w.~+-]{1,60}", value, re.ASCII):
        raise GenotypeError(f"genotype: {value!r:.60} is not a name (letters, digits, underscores)")
    return value


def state_index(value: Any) -> int:
    """Returns `value`, the index of a state; raises `TypeError` unless it is a whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r:.60} is not an index")
    return value


def parse_edges(text: str, where: str = "genotype") -> Genotype:
    """The genotype in an official string of NAS-Bench-201: a block of `op~source` per node, `|op~0|+|op~0|op~1|+...`."""
    inputs = []
    for block in text.strip().split("+"):
        entries = [
            re.fullmatch(r"([\w.-]{1,60})~(0|[1-9]\d{0,2})", entry, re.ASCII) for entry in block.strip("|").split("|")
        ]
        if not (block.startswith("|") and block.endswith("|") and all(entries)):
            raise GenotypeError(f"{where}: {block!r:.60} is not a block of a cell, such as |skip_connect~0|none~1|")
        inputs.append(tuple((entry[1], int(entry[2])) for entry in entries if entry))
    with named(where):
        nodes = Nodes(tuple(inputs), (len(inputs),), first=1)
        return Genotype("nasbench201", {"cell": nodes}, {"source": "NAS-Bench-201 string"})


def read_genotype_file(path: Path) -> Genotype:
    """The genotype in a file of our JSON, or of an official string of NAS-Bench-201."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise GenotypeError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise GenotypeError(f"{path}: not a text file (UTF-8), so not a genotype") from None
    if len(content) > LARGEST_FILE:
        raise GenotypeError(f"{path}: larger than {LARGEST_FILE // 2**20} MiB, so not a genotype")
    return parse_genotype(text, str(path))


def parse_genotype(text: str, where: str = "genotype") -> Genotype:
    """The genotype in our JSON, or in an official string of NAS-Bench-201, which begins with a bar."""
    return (parse_edges if text.lstrip().startswith("|") else parse_json)(text, where)
