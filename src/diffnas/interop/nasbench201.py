"""Cells of NAS-Bench-201 as people write them: official strings in any wrapping, numbers of ops, edges by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from diffnas.core.genotype import Genotype, Nodes, op_name
from diffnas.errors import GenotypeError

NASLIB_OPS = ("skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3")
NASLIB_EDGES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
_SAME_OPS = {"conv_1x1": "nor_conv_1x1", "conv_3x3": "nor_conv_3x3"}  # NNI

NO_STRING = "what stands here is not a block of a cell, such as |skip_connect~0|none~1|"
_BLOCK = r"\|(?:\s*[\w.-]{1,60}\s*~\s*(?:0|[1-9]\d{0,2})\s*\|)+"
_STRING = re.compile(rf"{_BLOCK}(?:\s*\+\s*{_BLOCK})*", re.ASCII)
_EDGE_NAME = re.compile(r"(?:.*/)?([0-3])(?:_|<-)([0-3])")


def official_strings(text: str) -> Iterator[tuple[int, str]]:
    """Yields the start of each official string in `text`, and the string without its white space.

    It is empty where more of a string stands beside what can be read.
    """
    for match in _STRING.finditer(text):
        before, after = text[max(0, match.start() - 80) : match.start()], text[match.end() : match.end() + 80]
        damaged = re.search(r"[\w|]\Z|[+~]\s*\Z", before) or re.match(r"[\w|]|\s*[+~]", after)
        yield match.start(), "" if damaged else re.sub(r"\s+", "", match[0])


def unwrapped(text: str) -> str | None:
    """The official string that is all of `text` but for brackets, quotes and spaces; None where there is more."""
    inner = text.strip(" \t\r\n\"'`()[],;").removeprefix("Structure(4 nodes with").strip()
    bare = re.sub(r"\s*([|~+])\s*", r"\1", inner).replace("\r", "").replace("\n", "")
    whole = re.fullmatch(r"\|[\w.~|+\s-]*~[\w.~|+\s-]*\|", bare, re.ASCII) and "||" not in bare
    return bare if whole else None


def from_numbers(numbers: Sequence[int]) -> Genotype:
    """The cell of six op numbers, ops and edges in the order of NASLib, the only one that writes cells so."""
    if not all(0 <= number < len(NASLIB_OPS) for number in numbers):
        listed = ", ".join(f"{number} {op}" for number, op in enumerate(NASLIB_OPS))
        raise GenotypeError(f"genotype: {list(numbers)} are no six op numbers of NASLib's NAS-Bench-201: {listed}")
    ops = (NASLIB_OPS[number] for number in numbers)
    return _from_edges(dict(zip(NASLIB_EDGES, ops, strict=True)), "NAS-Bench-201 op numbers, as NASLib counts them")


def is_edges(values: Mapping[Any, Any]) -> bool:
    """Whether these are ops by edge: `0_1` of NNI (source first), `1<-0` of AutoDL-Projects (target first)."""
    return len(values) >= 6 and sum(bool(_EDGE_NAME.fullmatch(str(key))) for key in values) == 6


def from_edges(values: Mapping[Any, Any]) -> Genotype:
    """The cell of six ops by the name of their edge."""
    edges = {}
    for key, op in values.items():
        match = _EDGE_NAME.fullmatch(str(key))
        if match:
            ends = sorted((int(match[1]), int(match[2])))
            edges[ends[0], ends[1]] = _SAME_OPS.get(op_name(op), op)
    if set(edges) != set(NASLIB_EDGES):
        raise GenotypeError("genotype: these edges are not the six of NAS-Bench-201: 0_1, 0_2, 0_3, 1_2, 1_3, 2_3")
    return _from_edges(edges, "NAS-Bench-201 ops by edge")


def _from_edges(edges: Mapping[tuple[int, int], str], source: str) -> Genotype:
    inputs = tuple(tuple((edges[start, node], start) for start in range(node)) for node in (1, 2, 3))
    return Genotype("nasbench201", {"cell": Nodes(inputs, (3,), first=1)}, {"source": source})


def is_structure(value: Any) -> bool:
    """Whether this is a list of (op, input) pairs for each of three nodes, and no other list."""
    return isinstance(value, list | tuple) and len(value) == 3 and all(map(_is_node, value))


def _is_node(value: Any) -> bool:
    pairs = isinstance(value, list | tuple) and all(isinstance(entry, list | tuple) for entry in value)
    return pairs and all(len(e) == 2 and isinstance(e[0], str) and type(e[1]) is int for e in value)


def from_structure(value: Sequence[Sequence[tuple[str, int]]]) -> Genotype:
    """The cell in the list that AutoDL-Projects makes a `Structure` of."""
    inputs = tuple(tuple((op_name(op), source) for op, source in node) for node in value)
    nodes = Nodes(inputs, (len(inputs),), first=1)
    return Genotype("nasbench201", {"cell": nodes}, {"source": "Structure of AutoDL-Projects"})
