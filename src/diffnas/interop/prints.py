"""Genotypes as diffnas prints them for people, and as bare numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from diffnas.core.genotype import Genotype, Input, Nodes, op_name
from diffnas.errors import GenotypeError
from diffnas.interop.choices import single_path
from diffnas.interop.nasbench201 import from_numbers as nasbench201_cell

_NODE = re.compile(r"(?m)^[ \t]*([\w.-]{1,60}) (\d{1,3}) = (.*?)[ \t]*\r?$")
_OUTPUT = re.compile(r"(?m)^[ \t]*([\w.-]{1,60}) output = (\d[\d, ]*?)[ \t]*\r?$")
_SPACES = {"cell": "nasbench201", "recurrent": "darts-rnn", "blocks": "shufflenet-blocks"}
SPOS_BLOCKS = ("shuffle_3x3", "shuffle_5x5", "shuffle_7x7", "shuffle_xception")
ENAS_OPS = ("sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "skip_connect")


def from_print(text: str) -> Genotype | None:
    """The genotype in lines `normal 2 = sep_conv_3x3(0) + skip_connect(1)`, as `diffnas show` prints it; None without."""
    outputs = {match[1]: tuple(map(int, re.findall(r"\d+", match[2]))) for match in _OUTPUT.finditer(text)}
    if not outputs:
        return None
    nodes: dict[str, dict[int, tuple[Input, ...]]] = {kind: {} for kind in outputs}
    for match in _NODE.finditer(text):
        if match[1] not in nodes or int(match[2]) in nodes[match[1]]:
            raise GenotypeError(f"genotype: {match[0].strip()!r:.60} is a node of no cell here, or stands twice")
        nodes[match[1]][int(match[2])] = _terms(match[3])
    cells = {}
    for kind, inputs in nodes.items():
        first = 1 if kind in _SPACES else 2
        if not inputs or sorted(inputs) != list(range(first, first + len(inputs))):
            raise GenotypeError(f"genotype: cell {kind} has the nodes {sorted(inputs)}; they must go on from {first}")
        cells[kind] = Nodes(tuple(inputs[node] for node in sorted(inputs)), outputs[kind], first)
    space = _SPACES.get(next(iter(cells)), "darts-cnn") if len(cells) == 1 else "darts-cnn"
    return Genotype(space, cells, {"source": "what diffnas prints"})


def _terms(text: str) -> tuple[Input, ...]:
    if text == "0":
        return ()
    terms = [
        re.fullmatch(r"([\w.~+-]{1,60})\((0|[1-9]\d{0,2})\)", term.strip(), re.ASCII) for term in text.split(" + ")
    ]
    if not all(terms):
        raise GenotypeError(f"genotype: {text!r:.60} is no sum of op(index)")
    return tuple((op_name(term[1]), int(term[2])) for term in terms if term)


def from_numbers(numbers: Sequence[int]) -> Genotype:
    """The genotype of six, twenty or forty numbers, as NASLib, SPOS and ENAS write theirs."""
    if len(numbers) == 6:
        return nasbench201_cell(numbers)
    if len(numbers) == 20 and set(numbers) <= set(range(4)):
        return single_path([SPOS_BLOCKS[number] for number in numbers], "block numbers, as SPOS counts them")
    if len(numbers) == 40:
        return _enas(numbers)
    if len(numbers) == 5 and all(number % 8 == 0 for number in numbers):
        raise GenotypeError(
            "genotype: this is a size of NATS-Bench (the channels of five layers); diffnas has no such space"
        )
    raise GenotypeError(
        f"genotype: {len(numbers)} numbers; six op numbers are a cell of NAS-Bench-201 (as NASLib counts), twenty are blocks "
        "of SPOS, forty are ENAS's two micro cells"
    )


def _enas(numbers: Sequence[int]) -> Genotype:
    """(input, op, input, op) for each of five nodes, the normal cell first; nodes that nothing reads are put out."""
    cells = {}
    for kind, start in (("normal", 0), ("reduce", 20)):
        rows = [numbers[k : k + 4] for k in range(start, start + 20, 4)]
        if not all(0 <= op < len(ENAS_OPS) for row in rows for op in row[1::2]):
            raise GenotypeError(f"genotype: forty numbers as of ENAS, but an op is not one of 0 to {len(ENAS_OPS) - 1}")
        read = {source for row in rows for source in row[::2]}
        nodes = tuple(tuple((ENAS_OPS[row[k + 1]], row[k]) for k in (0, 2)) for row in rows)
        cells[kind] = Nodes(nodes, tuple(node for node in range(2, 7) if node not in read))
    return Genotype("darts-cnn", cells, {"source": "numbers of ENAS's micro cells"})
