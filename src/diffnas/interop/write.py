"""Genotypes in the forms that other programs read."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import yaml

from diffnas.core.genotype import Genotype, Nodes
from diffnas.errors import GenotypeError


def to_darts(genotype: Genotype) -> str:
    """Returns the `Genotype(normal=[...], normal_concat=[...], ...)` of DARTS, its recurrent form for recurrent cells.

    The form lists two inputs a node (recurrent: one), or every edge of the cell; raises `GenotypeError` where nodes have other
    numbers of inputs.
    """
    if set(genotype.cells) == {"recurrent"}:
        nodes = genotype.cells["recurrent"]
        return f"Genotype(recurrent={_inputs('recurrent', nodes, 1)}, concat={list(nodes.concat)})\n"
    cells = _darts_cells(genotype, "a genotype of DARTS")
    parts = [f"{kind}={_inputs(kind, nodes, 2)}, {kind}_concat={list(nodes.concat)}" for kind, nodes in cells.items()]
    return f"Genotype({', '.join(parts)})\n"


def to_subnet(genotype: Genotype) -> str:
    """Returns the subnet YAML of OpenMMLab's MMRazor: the edges that each node chooses, and the op of each edge.

    Edges that are not chosen are listed where the genotype was read from such a file.  Raises `GenotypeError` where a node
    reads a state twice or not two, or the cell puts out less than all nodes, which the form cannot hold.
    """
    values: dict[str, dict[str, list[str]]] = {}
    unchosen = genotype.provenance.get("unchosen")
    for kind, nodes in _darts_cells(genotype, "a subnet of MMRazor").items():
        if list(nodes.concat) != list(range(nodes.first, nodes.first + len(nodes.inputs))):
            raise GenotypeError(
                f"genotype: a subnet of MMRazor puts out all nodes; {kind} puts out {list(nodes.concat)}"
            )
        for node, inputs in enumerate(nodes.inputs, nodes.first):
            name = f"{kind}_n{node}"
            if len(inputs) != 2:
                raise GenotypeError(
                    f"genotype: nodes of MMRazor choose two edges; {kind}, node {node} has {len(inputs)}"
                )
            ops = {f"{name}_p{source}": op for op, source in inputs}
            if len(ops) < len(inputs):
                raise GenotypeError(f"genotype: {kind}, node {node} reads a state twice; a subnet has one op an edge")
            values[name] = {"chosen": list(ops)}
            others = unchosen if isinstance(unchosen, Mapping) else {}
            ops |= {edge: op for edge, op in others.items() if edge.startswith(f"{name}_p") and edge not in ops}
            values |= {edge: {"chosen": [ops[edge]]} for edge in sorted(ops)}
    return str(yaml.safe_dump(values, sort_keys=False, default_flow_style=False))


def to_edges(genotype: Genotype) -> str:
    """Returns the cell string of NAS-Bench-201, `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`."""
    if set(genotype.cells) != {"cell"}:
        raise GenotypeError(f"genotype: NAS-Bench-201 has one cell; this genotype has {', '.join(genotype.cells)}")
    nodes = ("|" + "|".join(f"{op}~{source}" for op, source in node) + "|" for node in genotype.cells["cell"].inputs)
    return "+".join(nodes) + "\n"


def _darts_cells(genotype: Genotype, form: str) -> dict[str, Nodes]:
    if set(genotype.cells) != {"normal", "reduce"}:
        raise GenotypeError(
            f"genotype: {form} has the cells normal and reduce; this one has {', '.join(genotype.cells)}"
        )
    return {kind: genotype.cells[kind] for kind in ("normal", "reduce")}


def _inputs(kind: str, nodes: Nodes, count: int) -> str:
    """Returns the inputs of all nodes in one list, as the form has them."""
    numbers = [len(inputs) for inputs in nodes.inputs]
    if numbers not in ([count] * len(numbers), list(range(nodes.first, nodes.first + len(numbers)))):
        raise GenotypeError(f"genotype: a genotype of DARTS lists {count} inputs a node; {kind} has {numbers}")
    return f"[{', '.join(f'({op!r}, {source})' for inputs in nodes.inputs for op, source in inputs)}]"


FORMS: dict[str, Callable[[Genotype], str]] = {
    "diffnas": Genotype.to_json,
    "darts": to_darts,
    "mmrazor": to_subnet,
    "nasbench201": to_edges,
}
"""What writes a genotype, by the name of the form."""
SUFFIXES = {".json": "diffnas", ".txt": "darts", ".py": "darts", ".yaml": "mmrazor", ".yml": "mmrazor"}
"""The form that the name of a file asks for."""
