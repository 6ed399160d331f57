"""A genotype: the discrete cell a search ends with, as plain data.

A genotype names its space and holds, for each kind of cell, which op reads which earlier state at every node, and which
states the cell puts out.  Any number of inputs per node is legal, the same input twice included.  Nothing read from a
file is executed: JSON is parsed as JSON, the `Genotype(normal=..., ...)` text of older code as a syntax tree of literals.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from diffnas.errors import GenotypeError

FORMAT = "diffnas-genotype-1"

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
        cells = {}
        for kind, nodes in self.cells.items():
            inputs = [[[op, source] for op, source in node] for node in nodes.inputs]
            cells[kind] = {"first": nodes.first, "inputs": inputs, "concat": list(nodes.concat)}
        head = {"format": FORMAT, "space": self.space, "provenance": dict(self.provenance)}
        lines = [json.dumps(head, indent=1)[:-2] + ',\n "cells": {']
        for kind, cell in cells.items():
            rows = ",\n    ".join(json.dumps(row) for row in cell["inputs"])  # type: ignore[attr-defined]
            tail = "," if kind != list(cells)[-1] else ""
            lines.append(
                f'  {json.dumps(kind)}: {{"first": {cell["first"]}, "concat": {json.dumps(cell["concat"])},'
                f' "inputs": [\n    {rows}\n  ]}}{tail}'
            )
        return "\n".join([*lines, " }", "}"]) + "\n"

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
    problems = []
    for k, node in enumerate(nodes.inputs):
        index = nodes.first + k
        problems += [
            f"genotype: cell {kind}, node {index} reads {source}; it can read 0 to {index - 1} only"
            for _, source in node
            if not 0 <= source < index
        ]
    last = nodes.first + len(nodes.inputs) - 1
    outside = [i for i in nodes.concat if not 0 <= i <= last]
    if outside or not nodes.concat:
        problems.append(f"genotype: cell {kind}: concat {list(nodes.concat)} must name states among 0 to {last}")
    return problems


def parse_json(text: str, where: str = "genotype") -> Genotype:
    """The genotype in JSON `text`; raises `GenotypeError` naming `where` and the first thing that is wrong."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GenotypeError(f"{where}: not valid JSON ({error}); was the file cut short?") from None
    try:
        if data["format"] != FORMAT:
            raise GenotypeError(f"{where}: format is {data['format']!r}; this version reads {FORMAT!r}")
        cells = {str(kind): _read_cell(cell) for kind, cell in data["cells"].items()}
        if not cells:
            raise GenotypeError(f"{where}: cells is empty; a genotype has at least one cell")
        return Genotype(str(data["space"]), cells, dict(data.get("provenance", {})))
    except KeyError as error:
        raise GenotypeError(f"{where}: the key {error.args[0]!r} is missing") from None
    except GenotypeError as error:
        raise GenotypeError(*(line.replace("genotype:", f"{where}:", 1) for line in error.lines)) from None
    except (TypeError, AttributeError, ValueError) as error:
        raise GenotypeError(f"{where}: not the shape of a genotype ({error})") from None


def _read_cell(cell: Any) -> Nodes:
    inputs = tuple(tuple((_op(op), _index(source)) for op, source in node) for node in cell["inputs"])
    return Nodes(inputs, tuple(_index(i) for i in cell["concat"]), _index(cell.get("first", 2)))


def _op(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not the name of an op")
    return value


def _index(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is not an index")
    return value


def parse_original(text: str, where: str = "genotype") -> Genotype:
    """The genotype in a `Genotype(normal=[...], normal_concat=..., ...)` text of older code, read as data only.

    Entries are (op, source) pairs: two per node, or one per edge of the whole cell where there are that many (SNAS).
    """
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise GenotypeError(f"{where}: neither JSON nor a Genotype(...) text ({error})") from None
    if not isinstance(call, ast.Call) or call.args or not isinstance(call.func, ast.Name | ast.Attribute):
        raise GenotypeError(f"{where}: expected Genotype(normal=[...], normal_concat=[...], ...)")
    values: dict[str, Any] = {}
    for keyword in call.keywords:
        try:
            values[str(keyword.arg)] = _literal(keyword.value)
        except (ValueError, TypeError):
            raise GenotypeError(f"{where}: {keyword.arg} must be a list of (op, index) pairs, or indices") from None
    kinds = [key for key in values if not key.endswith("concat")]
    missing = [f"{kind}_concat" for kind in kinds if f"{kind}_concat" not in values]
    if not kinds or missing:
        raise GenotypeError(f"{where}: missing {', '.join(missing) or 'normal and normal_concat'}")
    try:
        cells = {kind: _nodes(values[kind], tuple(map(_index, values[f"{kind}_concat"]))) for kind in kinds}
        return Genotype("darts-cnn", cells, {"source": "Genotype(...) text"})
    except GenotypeError as error:
        raise GenotypeError(*(line.replace("genotype:", f"{where}:", 1) for line in error.lines)) from None
    except (TypeError, ValueError) as error:
        raise GenotypeError(f"{where}: not a list of (op, index) pairs ({error})") from None


def _literal(node: ast.expr) -> Any:
    """A literal, or `range(a, b)` and `list(range(a, b))`, which older code writes for a concat."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        if node.func.id == "list" and len(node.args) == 1:
            return list(_literal(node.args[0]))
        if node.func.id == "range" and 1 <= len(node.args) <= 2:
            bounds = [_index(ast.literal_eval(arg)) for arg in node.args]
            if max(map(abs, bounds)) > 1000:
                raise ValueError("range too long")
            return list(range(*bounds))
    return ast.literal_eval(node)


def _nodes(entries: Any, concat: tuple[int, ...]) -> Nodes:
    pairs = [(_op(op), _index(source)) for op, source in entries]
    count = max(concat, default=1) - 1
    if len(pairs) == 2 * count or len(pairs) != count * (count + 3) // 2:
        sizes = [2] * (len(pairs) // 2)
    else:
        sizes = [2 + k for k in range(count)]  # every edge of the cell is listed
    if sum(sizes) != len(pairs):
        raise ValueError(f"{len(pairs)} entries are not two per node")
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    return Nodes(tuple(tuple(pairs[s : s + n]) for s, n in zip(starts, sizes, strict=True)), concat)


def read_genotype_file(path: Path) -> Genotype:
    """The genotype in a file: our JSON, or a `Genotype(...)` text."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GenotypeError(f"{path}: cannot be read as text ({error})") from None
    return parse_genotype(text, str(path))


def parse_genotype(text: str, where: str = "genotype") -> Genotype:
    """The genotype in `text`, told apart by its first character."""
    return (parse_json if text.lstrip().startswith("{") else parse_original)(text, where)
