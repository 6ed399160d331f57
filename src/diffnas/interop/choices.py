"""Cells as dictionaries with a key for each choice, and the genotypes that they are.

NNI            {"normal/op_2_0": op, "normal/input_2_0": [input], ...}; before 2.0 {"normal_n2_p0": op, ...}
MMRazor        {"normal_n2": {"chosen": ["normal_n2_p0", ...]}, "normal_n2_p0": {"chosen": [op]}, ...}
NAS-Bench-301  {"NetworkSelectorDatasetInfo:darts:edge_normal_0": op, ...}
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from diffnas.core.genotype import Genotype, Input, Nodes, op_name
from diffnas.errors import GenotypeError
from diffnas.interop.cells import is_whole, known_op, pair

_OLD_NNI = ("maxpool", "avgpool", "skipconnect", "sepconv3x3", "sepconv5x5", "dilconv3x3", "dilconv5x5")
_NNI = re.compile(r"(?:.*/)?(normal|reduce)/(op|input)_(\d{1,2})_(\d{1,2})")


def is_nni(values: Mapping[Any, Any]) -> bool:
    """Whether these are the choices of NNI's DARTS space."""
    return any(_NNI.fullmatch(str(key)) for key in values)


def from_nni(values: Mapping[Any, Any]) -> Genotype:
    """The genotype in NNI's choices: an op and an input for each of the two branches of a node."""
    chosen: dict[tuple[str, int], dict[str, dict[int, Any]]] = defaultdict(lambda: {"op": {}, "input": {}})
    for key, value in values.items():
        match = _NNI.fullmatch(str(key))
        if match:
            kind, part, node, branch = match.groups()
            chosen[kind, int(node)][part][int(branch)] = value
    if max(node for _, node in chosen) != 5:
        raise GenotypeError(
            "genotype: choices of NNI, but not of its DARTS space, whose cells have the nodes 2 to 5; its NASNet, ENAS, "
            "AmoebaNet and PNAS spaces have ops of their own"
        )
    cells: dict[str, dict[int, list[Input]]] = {"normal": {}, "reduce": {}}
    for (kind, node), parts in chosen.items():
        if set(parts["op"]) != set(parts["input"]):
            raise GenotypeError(f"genotype: {kind}/op_{node}_* and {kind}/input_{node}_* of NNI do not go together")
        sources = {branch: value if is_whole(value) else _only(value) for branch, value in parts["input"].items()}
        cells[kind][node] = [pair(kind, (parts["op"][branch], sources[branch])) for branch in sorted(sources)]
    return _by_nodes(cells, "choices of NNI")


_EDGE = re.compile(r"(normal|reduce)_n(\d{1,2})(?:_(switch)|_p(\d{1,2}))?")


def is_chosen(values: Mapping[Any, Any]) -> bool:
    """Whether these are the choices of MMRazor's DARTS, or of NNI's before 2.0, which name edges the same way."""
    return any(_EDGE.fullmatch(str(key)) for key in values)


def from_chosen(values: Mapping[Any, Any]) -> Genotype:
    """The genotype in the choices of edges by node (`normal_n2`) and of ops by edge (`normal_n2_p0`).

    Ops of edges that their node does not choose are no part of it; they are kept in its provenance.
    """
    cells: dict[str, dict[int, list[Input]]] = {"normal": {}, "reduce": {}}
    wrapped = any(isinstance(value, Mapping) for value in values.values())  # as MMRazor does
    for key, value in values.items():
        match = _EDGE.fullmatch(str(key))
        if match and match[4] is None:
            edges = [_edge(key, edge) for edge in _chosen(key, value, wrapped)]
            cells[match[1]][int(match[2])] = [
                (_numbered_op(op), source) for name, source in edges for op in _chosen(name, values.get(name), wrapped)
            ]
    genotype = _by_nodes(cells, "subnet of MMRazor" if wrapped else "choices of NNI")
    unchosen = _unchosen(values) if wrapped else {}
    if not unchosen:
        return genotype
    return Genotype(genotype.space, genotype.cells, {**genotype.provenance, "unchosen": unchosen})


def _unchosen(values: Mapping[Any, Any]) -> dict[str, str]:
    """The op of every edge that its node does not choose."""
    chosen = {edge for key, value in values.items() if _is_node(key) for edge in _chosen(key, value)}
    return {
        str(key): _numbered_op(_chosen(key, value)[0])
        for key, value in values.items()
        if _EDGE.fullmatch(str(key)) and not _is_node(key) and key not in chosen
    }


def _is_node(key: Any) -> bool:
    match = _EDGE.fullmatch(str(key))
    return match is not None and match[4] is None


def _chosen(key: str, value: Any, wrapped: bool = True) -> list[Any]:
    chosen = value.get("chosen") if isinstance(value, Mapping) else None if wrapped else value
    if chosen is None or chosen == []:
        raise GenotypeError(f"genotype: {key} does not say what is chosen")
    return list(chosen) if isinstance(chosen, list | tuple) else [chosen]


def _edge(key: str, edge: Any) -> tuple[str, int]:
    """The name and the input of a chosen edge, which older files only number."""
    node = key.removesuffix("_switch")
    name = f"{node}_p{edge}" if is_whole(edge) else str(edge)
    match = _EDGE.fullmatch(name)
    if match is None or not name.startswith(f"{node}_p"):
        raise GenotypeError(f"genotype: {key} chooses {edge!r:.60}, which is no edge of it, such as {node}_p0")
    return name, int(match[4])


def _numbered_op(op: Any) -> str:
    return known_op(_OLD_NNI[op] if is_whole(op) and 0 <= op < len(_OLD_NNI) else op)


_CONFIG = re.compile(r"(?:NetworkSelectorDatasetInfo:darts:)?(edge|inputs_node)_(normal|reduce)_(\d{1,2})")


def is_config(values: Mapping[Any, Any]) -> bool:
    """Whether this is a configuration of NAS-Bench-301."""
    return any(_CONFIG.fullmatch(str(key)) and ":" in str(key) for key in values)


def from_config(values: Mapping[Any, Any]) -> Genotype:
    """The genotype in a configuration of NAS-Bench-301: ops by edge, edges counted through the cell.

    The inputs that it names for a node must be those whose edges have an op.
    """
    cells: dict[str, dict[int, list[Input]]] = {
        kind: {node: [] for node in range(2, 6)} for kind in ("normal", "reduce")
    }
    named: list[tuple[str, int, Any]] = []
    for key, value in sorted(values.items(), key=lambda item: _number_at_end(str(item[0]))):
        match = _CONFIG.fullmatch(str(key))
        if match is None:
            continue
        number = int(match[3])
        if match[1] == "inputs_node":
            named.append((match[2], number, value))
            continue
        node = next((k for k in range(4) if number < (k + 1) * (k + 4) // 2), None)
        if node is None:
            raise GenotypeError(f"genotype: {key}: a cell of NAS-Bench-301 has the edges 0 to 13")
        cells[match[2]][node + 2].append((known_op(value), number - node * (node + 3) // 2))
    for kind, node, inputs in named:
        if "_".join(str(source) for _, source in cells[kind].get(node, ())) != inputs:
            raise GenotypeError(
                f"genotype: the edges of {kind} node {node} are not those that inputs_node names, {inputs!r}"
            )
    return _by_nodes(cells, "configuration of NAS-Bench-301")


def _number_at_end(key: str) -> int:
    digits = re.search(r"\d{0,4}\Z", key)
    return int(digits[0]) if digits and digits[0] else 0


def _only(values: Any) -> Any:
    """The one value in a list, where it is that."""
    return values[0] if isinstance(values, list | tuple) and len(values) == 1 else values


def _by_nodes(cells: Mapping[str, Mapping[int, Sequence[Input]]], source: str) -> Genotype:
    """The genotype of inputs by node, all nodes of a cell put out; both cells have as many nodes."""
    nodes_of = {}
    count = max(map(len, cells.values()))
    for kind, nodes in cells.items():
        if sorted(nodes) != list(range(2, count + 2)):
            raise GenotypeError(f"genotype: cell {kind} has the nodes {sorted(nodes)}; they must be 2 to {count + 1}")
        if not all(len(inputs) == 2 for inputs in nodes.values()):
            raise GenotypeError(f"genotype: a node of cell {kind} does not choose two inputs")
        nodes_of[kind] = Nodes(tuple(tuple(nodes[node]) for node in sorted(nodes)), tuple(sorted(nodes)))
    return Genotype("darts-cnn", nodes_of, {"source": source})


_BLOCK = re.compile(r"(?:.*\.)?layers\.(\d{1,2})\.(\d{1,2})")


def is_blocks(values: Mapping[Any, Any]) -> bool:
    """Whether these are MMRazor's choices of shuffle blocks (SPOS, DSNAS)."""
    return any(
        _BLOCK.fullmatch(str(key)) and isinstance(value, Mapping) and str(value.get("chosen")).startswith("shuffle_")
        for key, value in values.items()
    )


def from_blocks(values: Mapping[Any, Any]) -> Genotype:
    """The chain of blocks in MMRazor's choices `backbone.layers.STAGE.BLOCK`."""
    blocks = {}
    for key, value in values.items():
        match = _BLOCK.fullmatch(str(key))
        if match:
            blocks[int(match[1]), int(match[2])] = _only(_chosen(key, value))
    return single_path([blocks[place] for place in sorted(blocks)], "subnet of MMRazor")


def single_path(ops: Sequence[str], source: str) -> Genotype:
    """The genotype of a chain of blocks, each reading the one before."""
    chain = tuple(((op_name(op), block),) for block, op in enumerate(ops))
    return Genotype("shufflenet-blocks", {"blocks": Nodes(chain, (len(chain),), first=1)}, {"source": source})
