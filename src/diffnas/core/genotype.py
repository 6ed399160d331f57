"""A genotype: the discrete cell a search ends with, as plain data.

A genotype names its space and holds, for each kind of cell, which op reads which earlier state at every node, and which
states the cell puts out.  Any number of inputs per node is legal, the same input twice included.  Nothing read from a
file is executed: JSON is parsed as JSON, the `Genotype(normal=..., ...)` text of older code as a syntax tree of literals,
the strings of NAS-Bench-201 entry by entry.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeGuard

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
        """One line per node, for people: `normal 2 = sep_conv_3x3(0) + skip_connect(1)`."""
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
    """Lets every `GenotypeError` raised within begin with `where`, the file or name the genotype came from."""
    try:
        yield
    except GenotypeError as error:
        raise GenotypeError(*(line.replace("genotype:", f"{where}:", 1) for line in error.lines)) from None


def parse_json(text: str, where: str = "genotype") -> Genotype:
    """The genotype in JSON `text`; raises `GenotypeError` naming `where` and what is wrong."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GenotypeError(f"{where}: not valid JSON ({error}); was the file cut short?") from None
    with named(where):
        return _read_genotype(data)


def _read_genotype(data: Any) -> Genotype:
    found = _get(data, "", "format", str)
    if found != FORMAT:
        raise GenotypeError(f"genotype: format is {found!r:.60}; this version reads {FORMAT!r}")
    space, cells = _get(data, "", "space", str), _get(data, "", "cells", dict)
    if not cells:
        raise GenotypeError("genotype: cells is empty; a genotype has at least one cell")
    provenance = _get({"provenance": {}, **data}, "", "provenance", dict)
    try:
        json.dumps(provenance, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise GenotypeError(f"genotype: provenance cannot be kept ({error}); leave it out") from None
    return Genotype(space, {kind: _read_cell(f"cells.{_name(kind)}", cell) for kind, cell in cells.items()}, provenance)


def _read_cell(at: str, cell: Any) -> Nodes:
    nodes, concat = _get(cell, at, "inputs", list), _get(cell, at, "concat", list)
    first = _get({"first": 2, **cell}, at, "first", int)
    try:
        inputs = tuple(tuple((_name(op), _index(source)) for op, source in node) for node in nodes)
        return Nodes(inputs, tuple(_index(i) for i in concat), first)
    except GenotypeError:
        raise
    except (TypeError, ValueError):
        reason = "inputs must hold, for every node, a list of [op, index] pairs, and concat indices"
        raise GenotypeError(f"genotype: {at}: {reason}") from None


def _get(data: Any, at: str, key: str, kind: type) -> Any:
    """`data[key]`, which must be of type `kind`."""
    if not isinstance(data, dict):
        raise GenotypeError(f"genotype: {at or 'the file'} must hold keys and values; got {json.dumps(data)[:60]}")
    dotted = f"{at}.{key}".lstrip(".")
    if key not in data:
        raise GenotypeError(f"genotype: the key {dotted} is missing")
    if not isinstance(data[key], kind) or isinstance(data[key], bool):
        said = {str: "text", dict: "keys and values", list: "a list", int: "a whole number"}[kind]
        raise GenotypeError(f"genotype: {dotted} must be {said}; got {json.dumps(data[key])[:60]}")
    return data[key]


def _name(value: Any) -> str:
    """An op or a kind of cell: a word, so that it can be printed and drawn."""
    if not isinstance(value, str) or not re.fullmatch(r"[\w.~+-]{1,60}", value, re.ASCII):
        raise GenotypeError(f"genotype: {value!r:.60} is not a name (letters, digits, underscores)")
    return value


def _index(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r:.60} is not an index")
    return value


def parse_original(text: str, where: str = "genotype") -> Genotype:
    """The genotype in a `Genotype(normal=[...], normal_concat=..., ...)` text of older code, read as data only.

    Entries are (op, source) pairs: two per node, or one per edge of the whole cell where there are that many (SNAS); in the
    text of a recurrent cell, `Genotype(recurrent=[...], concat=...)`, one per node.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what older code writes within strings is no concern of the caller
            call = _expression(ast.parse(text.strip()).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise GenotypeError(f"{where}: neither JSON nor a Genotype(...) text ({reason})") from None
    if not _calls_genotype(call) or len(call.args) > 4:
        raise GenotypeError(f"{where}: expected Genotype(normal=[...], normal_concat=[...], ...)")
    values: dict[str, Any] = {}
    names = ("normal", "normal_concat", "reduce", "reduce_concat")  # the order of the original's fields
    positional = [ast.keyword(name, value) for name, value in zip(names, call.args, strict=False)]
    for keyword in [*positional, *call.keywords]:
        try:
            values[_name(keyword.arg)] = _literal(keyword.value)
        except (GenotypeError, ValueError, TypeError, RecursionError, MemoryError):
            reason = "must be a list of (op, index) pairs, or indices"
            raise GenotypeError(f"{where}: {keyword.arg or '**'} {reason}; nothing is computed") from None
    if "recurrent" in values:
        return _recurrent_of_text(values, where)
    kinds = [key for key in values if not key.endswith("concat")]
    missing = [f"{kind}_concat" for kind in kinds if f"{kind}_concat" not in values]
    if not kinds or missing:
        raise GenotypeError(f"{where}: missing {', '.join(missing) or 'normal and normal_concat'}")
    with named(where):
        cells = {kind: _cell_of_text(kind, values[kind], values[f"{kind}_concat"]) for kind in kinds}
        return Genotype("darts-cnn", cells, {"source": "Genotype(...) text"})


def _calls_genotype(node: ast.expr | None) -> TypeGuard[ast.Call]:
    """Whether `node` reads `Genotype(...)` or `module.Genotype(...)`."""
    match node:
        case ast.Call(ast.Name("Genotype")) | ast.Call(ast.Attribute(_, "Genotype")):
            return True
    return False


def _expression(statements: list[ast.stmt]) -> ast.expr | None:
    """What stands alone in a text, or on the right of its only assignment (`DARTS_V2 = Genotype(...)`)."""
    match statements:
        case [ast.Expr(value)] | [ast.Assign([_], value)]:
            return value
    return None


def _literal(node: ast.expr) -> Any:
    """A literal, or a `range(a, b)`, perhaps in `list` or `tuple`, which older code writes for a concat."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        if node.func.id in ("list", "tuple") and len(node.args) == 1:
            return list(_literal(node.args[0]))
        if node.func.id == "range" and 1 <= len(node.args) <= 3:
            bounds = [_index(ast.literal_eval(arg)) for arg in node.args]
            if max(map(abs, bounds)) > 1000 or bounds[2:] not in ([], [1]):
                raise ValueError("range too long")
            return list(range(*bounds))
    return ast.literal_eval(node)


def _recurrent_of_text(values: Mapping[str, Any], where: str) -> Genotype:
    if set(values) != {"recurrent", "concat"}:
        raise GenotypeError(f"{where}: a recurrent cell has recurrent and concat; got {', '.join(values)}")
    with named(where):
        pairs, states = _pairs_of_text("recurrent", values["recurrent"], values["concat"])
        nodes = Nodes(tuple((pair,) for pair in pairs), states, first=1)
        return Genotype("darts-rnn", {"recurrent": nodes}, {"source": "Genotype(...) text"})


def _pairs_of_text(kind: str, entries: Any, concat: Any) -> tuple[list[Input], tuple[int, ...]]:
    try:
        return [(_name(op), _index(source)) for op, source in entries], tuple(map(_index, concat))
    except GenotypeError:
        raise
    except (TypeError, ValueError):
        raise GenotypeError(
            f"genotype: {kind} must be a list of (op, index) pairs, its concat one of indices"
        ) from None


def _cell_of_text(kind: str, entries: Any, concat: Any) -> Nodes:
    pairs, states = _pairs_of_text(kind, entries, concat)
    count = max(states, default=1) - 1
    if len(pairs) != 2 * count and len(pairs) == count * (count + 3) // 2:
        sizes = [2 + k for k in range(count)]  # every edge of the cell is listed
    else:
        sizes = [2] * (len(pairs) // 2)
    if sum(sizes) != len(pairs):
        raise GenotypeError(f"genotype: {kind} has {len(pairs)} entries, which are not two per node")
    starts = accumulate(sizes, initial=0)
    return Nodes(tuple(tuple(pairs[s : s + n]) for s, n in zip(starts, sizes, strict=False)), states)


def parse_edges(text: str, where: str = "genotype") -> Genotype:
    """The genotype in an official string of NAS-Bench-201: a block of `op~source` per node, `|op~0|+|op~0|op~1|+...`."""
    inputs = []
    for block in text.strip().split("+"):
        entries = [re.fullmatch(r"([\w.-]{1,60})~(\d{1,3})", entry, re.ASCII) for entry in block.strip("|").split("|")]
        if not (block.startswith("|") and block.endswith("|") and all(entries)):
            raise GenotypeError(f"{where}: {block!r:.60} is not a block of a cell, such as |skip_connect~0|none~1|")
        inputs.append(tuple((entry[1], int(entry[2])) for entry in entries if entry))
    with named(where):
        nodes = Nodes(tuple(inputs), (len(inputs),), first=1)
        return Genotype("nasbench201", {"cell": nodes}, {"source": "NAS-Bench-201 string"})


def read_genotype_file(path: Path) -> Genotype:
    """The genotype in a file: our JSON, a `Genotype(...)` text, or a string of NAS-Bench-201."""
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
    """The genotype in `text`, told apart by its first character."""
    return {"{": parse_json, "|": parse_edges}.get(text.lstrip()[:1], parse_original)(text, where)
