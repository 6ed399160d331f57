"""Cells in the language of Graphviz, for those who have it."""

from __future__ import annotations

from diffnas.core.genotype import Genotype
from diffnas.draw.layout import FAMILIES, clean, family


def draw_dot(genotype: Genotype) -> str:
    """All cells as a graph of Graphviz, a cluster for each kind; nothing here needs Graphviz.

    As DARTS's own pictures: inputs c_{k-2} and c_{k-1}, nodes by number, an edge labelled with each op, the output c_{k}.
    """
    lines = ["digraph cells {", '  rankdir=LR; node [shape=box, style="rounded,filled", fillcolor="#eef0f4"];']
    for kind, nodes in genotype.cells.items():
        recurrent = nodes.first == 1 and ("rnn" in genotype.space or "recurrent" in kind)
        inputs = ["x_t, h_{t-1}"] if recurrent else [f"c_{{k-{nodes.first - k}}}" for k in range(nodes.first)]
        names = [*inputs, *(str(nodes.first + k) for k in range(len(nodes.inputs)))]
        lines += [f"  subgraph {_quoted(f'cluster {kind}')} {{", f"    label={_quoted(kind)};"]
        lines += [f"    {_state(kind, state)} [label={_quoted(name)}];" for state, name in enumerate(names)]
        lines.append(f"    {_state(kind, 'out')} [label={_quoted('h_t' if recurrent else 'c_{k}')}];")
        for target, node in enumerate(nodes.inputs, nodes.first):
            for op, source in node:
                look = f"label={_quoted(op)}, color={_quoted(FAMILIES[family(op)][0])}"
                lines.append(f"    {_state(kind, source)} -> {_state(kind, target)} [{look}];")
        lines += [f"    {_state(kind, state)} -> {_state(kind, 'out')} [arrowhead=none];" for state in nodes.concat]
        lines.append("  }")
    return "\n".join([*lines, "}"]) + "\n"


def _state(kind: str, state: int | str) -> str:
    return _quoted(f"{kind} {state}")


def _quoted(text: str) -> str:
    """`text` as a string of the language, in which nothing but the quote and the backslash is special."""
    return '"' + clean(text).replace("\\", "\\\\").replace('"', '\\"') + '"'
