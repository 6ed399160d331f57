"""Cells as lists of entries, and the genotypes that they are.

    DARTS, P-DARTS, SGAS, ...  (op, input), two for each node, or every edge of the cell
    pt.darts, AutoDL-Projects  a list of pairs, or of (op, input, strength), for each node
    FairDARTS                  (op, node, input)

Ops have the name by which diffnas knows them where another program calls the same op otherwise.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from diffnas.core.genotype import Genotype, Input, Nodes, op_name, state_index
from diffnas.errors import GenotypeError

SAME_OPS = {
    "zero": "none",  # NASLib, MMRazor
    "dua_sepc_3x3": "sep_conv_3x3",  # AutoDL-Projects
    "dua_sepc_5x5": "sep_conv_5x5",
    "dil_sepc_3x3": "dil_conv_3x3",
    "dil_sepc_5x5": "dil_conv_5x5",
    "maxpool": "max_pool_3x3",  # NNI before 2.0
    "avgpool": "avg_pool_3x3",
    "skipconnect": "skip_connect",
    "sepconv3x3": "sep_conv_3x3",
    "sepconv5x5": "sep_conv_5x5",
    "dilconv3x3": "dil_conv_3x3",
    "dilconv5x5": "dil_conv_5x5",
}
_KINDS = {"normal_cell": "normal", "reduction": "reduce", "reduce_cell": "reduce", "reduction_cell": "reduce"}
_FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat", "connectN", "connects")
Entry = tuple[Any, ...]


def from_fields(arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Genotype:
    """The genotype in what `Genotype(...)` is called with."""
    values = {**dict(zip(_FIELDS, arguments, strict=False)), **keywords}
    if len(values) < len(arguments) + len(keywords):
        raise GenotypeError("genotype: Genotype(...) has a field twice, or more than six without a name")
    given = {key: value for key, value in values.items() if value is not None}  # AutoDL's `connects=None`
    if any(isinstance(value, str) for value in given.values()):
        raise GenotypeError("genotype: a field of Genotype(...) is a name, not a value; nothing is looked up")
    kinds = {_KINDS.get(key, key) for key in given if not key.endswith("concat")}
    return _from_lists(given, kinds, "Genotype(...) text")


def from_dictionary(values: Mapping[str, Any]) -> Genotype:
    """The genotype in {"normal": [...], "normal_concat": [...], ...}; other keys are passed over."""
    kinds = {_KINDS.get(key, key) for key, value in values.items() if _is_cell(key, value, values)}
    return _from_lists(values, kinds, "dictionary of cells")


def is_dictionary(values: Mapping[Any, Any]) -> bool:
    """Whether a cell stands in `values`."""
    return any(_is_cell(key, value, values) for key, value in values.items())


def _is_cell(key: Any, value: Any, values: Mapping[Any, Any]) -> bool:
    """Whether `key` of a dictionary holds a cell: a list that names ops, or one beside the concat of its name."""
    if not isinstance(value, list | tuple):
        return False
    return f"{key}_concat" in values or (key in ("normal", "reduce", "recurrent", *_KINDS) and _names_ops(value))


def _names_ops(value: Any) -> bool:
    """Whether the first of what is in nested lists is a name; in lists of strengths it is a number."""
    while isinstance(value, list | tuple) and value:
        value = value[0]
    return isinstance(value, str | Mapping)


def _from_lists(values: Mapping[str, Any], kinds: Iterable[str], source: str) -> Genotype:
    renamed = {_kind(key): value for key, value in values.items()}
    if len(renamed) < len(values):
        raise GenotypeError("genotype: a cell stands twice, under two names of it")
    values = renamed
    if "recurrent" in kinds:
        return _recurrent(values, source)
    kinds = sorted(kinds, key=list(values).index)
    missing = [f"{op_name(kind)}_concat" for kind in kinds if f"{kind}_concat" not in values]
    missing += [
        op_name(key.removesuffix("_concat"))
        for key in values
        if key.endswith("_concat") and key.removesuffix("_concat") not in kinds
    ]
    if not kinds or missing:
        raise GenotypeError(f"genotype: missing {', '.join(missing) or 'normal and normal_concat'}")
    cells = {op_name(kind): _cell(kind, values[kind], values[f"{kind}_concat"]) for kind in kinds}
    return Genotype("darts-cnn", cells, {"source": source})


def _kind(key: Any) -> str:
    """A key with the name that diffnas has for the kind of cell."""
    cell, concat = re.fullmatch(r"(.*?)(_concat)?", str(key), re.DOTALL).groups("")  # type: ignore[union-attr]
    return f"{_KINDS.get(cell, cell)}{concat}"


def _recurrent(values: Mapping[str, Any], source: str) -> Genotype:
    if "concat" not in values:
        raise GenotypeError(
            f"genotype: a recurrent cell has recurrent and concat; got {', '.join(map(op_name, values)):.80}"
        )
    entries, states = _entries("recurrent", values["recurrent"]), _states("recurrent", values["concat"])
    nodes = Nodes(tuple((pair("recurrent", entry),) for entry in entries), states, first=1)
    return Genotype("darts-rnn", {"recurrent": nodes}, {"source": source})


# -- lists of entries


def _cell(kind: str, entries: Any, concat: Any) -> Nodes:
    listed, states = _entries(kind, entries), _states(kind, concat)
    if not all(map(_is_entry, listed)):
        return Nodes(tuple(tuple(pair(kind, entry) for entry in _entries(kind, node)) for node in listed), states)
    if listed and all(len(entry) == 3 and is_whole(entry[1]) and is_whole(entry[2]) for entry in listed):
        return _of_triples(kind, listed, states)
    pairs = [pair(kind, entry) for entry in listed]
    starts = accumulate(_node_sizes(kind, pairs, states), initial=0)
    return Nodes(tuple(tuple(pairs[start:end]) for start, end in pairwise(starts)), states)


def _node_sizes(kind: str, pairs: Sequence[Input], states: Sequence[int]) -> list[int]:
    """Returns the number of entries of each node in a flat list: all its edges if each is listed once (SNAS), else two."""
    nodes = next(n for n in range(len(pairs) + 1) if n * (n + 3) // 2 >= len(pairs))
    every = [2 + k for k in range(nodes)]
    bounds = list(pairwise(accumulate(every, initial=0)))
    whole = sum(every) == len(pairs)
    listed = whole and all(sorted(s for _, s in pairs[a:b]) == list(range(b - a)) for a, b in bounds)
    if listed and max(states, default=0) < nodes + 2:
        return every
    if len(pairs) % 2 or (whole and 2 * nodes < len(pairs) and max(states, default=0) < nodes + 2):
        raise GenotypeError(
            f"genotype: {kind} has {len(pairs)} entries, which are neither two per node nor every edge of the cell once"
        )
    return [2] * (len(pairs) // 2)


def _of_triples(kind: str, entries: Sequence[Entry], states: tuple[int, ...]) -> Nodes:
    """(op, node, input) as FairDARTS writes them: a node without inputs is no state, and what reads it is left out."""
    inputs: dict[int, list[Input]] = defaultdict(list)
    for op, node, source in entries:
        if not 2 <= node <= 64:
            raise GenotypeError(f"genotype: {kind} has an entry (op, node, input) of node {node}; nodes are 2, 3, ...")
        inputs[node].append((known_op(op), source))
    count = max([*inputs, *states]) - 1
    numbers = range(2, min(count, 64) + 2)
    nodes = [tuple(e for e in inputs.get(k, ()) if e[1] < 2 or e[1] in inputs) for k in numbers]
    return Nodes(tuple(nodes), tuple(state for state in states if state in inputs or state > 65))


def _is_entry(value: Any) -> bool:
    """Whether `value` is (op, input), perhaps with a third number, or {"op": op, "input": input}."""
    if isinstance(value, Mapping):
        return True
    return isinstance(value, list | tuple) and len(value) in (2, 3) and isinstance(value[0], str)


def pair(kind: str, entry: Any) -> Input:
    """(op, index) of an entry in the cell `kind`; `GenotypeError` where it is none."""
    if isinstance(entry, Mapping) and set(entry) == {"op", "input"}:
        entry = (entry["op"], entry["input"])
    if not _is_entry(entry) or (len(entry) == 3 and not isinstance(entry[2], float)) or not is_whole(entry[1]):
        raise GenotypeError(f"genotype: {kind} must be a list of (op, index) pairs; {entry!r:.60} is none")
    return known_op(entry[0]), entry[1]


def known_op(name: Any) -> str:
    """An op by the name that diffnas has for it."""
    known: str = SAME_OPS.get(op_name(name), name)
    return known


def is_whole(value: Any) -> bool:
    """Whether `value` is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def _entries(kind: str, value: Any) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise GenotypeError(f"genotype: {kind} must be a list of (op, index) pairs; {value!r:.60} is none")
    return value


def _states(kind: str, concat: Any) -> tuple[int, ...]:
    try:
        return tuple(map(state_index, concat))
    except TypeError:
        raise GenotypeError(f"genotype: the concat of {kind} must be a list of indices; got {concat!r:.60}") from None
