"""Any genotype printed in any of the forms is read back equal; a damaged text is refused or says what it now says.

What a damaged text says is asked of Python's, JSON's and YAML's own parsers, which the code under test does not use.
"""

from __future__ import annotations

import ast
import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from diffnas.core.genotype import Genotype, Nodes
from diffnas.errors import GenotypeError
from diffnas.interop.genotypes import cell_text, read_genotype
from diffnas.interop.nasbench201 import NASLIB_EDGES, NASLIB_OPS
from diffnas.spaces.darts_cnn.layout import PUBLISHED_OPS as OPS

Form = Callable[[Genotype], str]
NB201_OPS = st.sampled_from(NASLIB_OPS)


@st.composite
def nodes(draw: st.DrawFn, count: int, width: int | None, distinct: bool, ops: Any) -> Nodes:
    """Nodes 2, 3, ... of a cell, of `width` inputs each, or as many as there are states where it is None."""
    inputs = []
    for node in range(2, count + 2):
        size = width or node
        sources = draw(
            st.lists(st.integers(0, node - 1), min_size=size, max_size=size, unique=distinct or width is None)
        )
        inputs.append(tuple((draw(ops), source) for source in sources))
    last = count + 1
    concat = sorted({last, *draw(st.sets(st.integers(2, last)))})
    return Nodes(tuple(inputs), tuple(concat))


def genotypes(counts: st.SearchStrategy[int], width: int | None, distinct: bool = False) -> st.SearchStrategy[Genotype]:
    def both(count: int) -> st.SearchStrategy[Genotype]:
        cell = nodes(count, width, distinct, st.sampled_from(OPS))
        return st.builds(lambda a, b: Genotype("darts-cnn", {"normal": a, "reduce": b}), cell, cell)

    return counts.flatmap(both)


@st.composite
def grid_cells(draw: st.DrawFn) -> Genotype:
    inputs = tuple(tuple((draw(NB201_OPS), source) for source in range(node)) for node in (1, 2, 3))
    return Genotype("nasbench201", {"cell": Nodes(inputs, (3,), first=1)})


def fields(genotype: Genotype, entries: Callable[[Nodes], Any] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind, cell in genotype.cells.items():
        found[kind] = [entry for node in cell.inputs for entry in node] if entries is None else entries(cell)
        found[f"{kind}_concat"] = list(cell.concat)
    return found


def call(values: dict[str, Any]) -> str:
    return f"Genotype({', '.join(f'{key}={value!r}' for key, value in values.items())})"


def strengths(cell: Nodes) -> list[tuple[tuple[str, int, float], ...]]:
    return [tuple((op, source, 0.125) for op, source in node) for node in cell.inputs]


def triples(cell: Nodes) -> list[tuple[str, int, int]]:
    return [(op, node, source) for node, inputs in enumerate(cell.inputs, 2) for op, source in inputs]


FLAT: dict[str, Form] = {
    "text": lambda g: call(fields(g)),
    "log": lambda g: f"\x1b[1m2026-01-01 00:00:00,1 genotype = {call(fields(g))} acc 97\n",
    "program": lambda g: f"NAME = {call(fields(g))}  # {{'x': 1}}\n".replace("), (", "),\n    ("),
    "json": lambda g: json.dumps(fields(g)),
    "json line": lambda g: json.dumps({"epoch": 1, "found": call(fields(g))}),
    "dictionary": lambda g: repr({"epoch": 1, "arch": fields(g)}),
    "yaml": lambda g: yaml.safe_dump(json.loads(json.dumps(fields(g)))),
}
NESTED: dict[str, Form] = {
    "by node": lambda g: call(fields(g, lambda cell: [list(node) for node in cell.inputs])),
    "strengths": lambda g: repr(fields(g, strengths)),
    "printed": lambda g: g.to_text(),
    "ours": lambda g: f"log: {g.to_json()}",
}


@settings(max_examples=25, deadline=None)
@given(genotypes(st.integers(1, 6), 2), st.sampled_from(sorted(FLAT | NESTED)))
def test_two_inputs_per_node(genotype: Genotype, form: str) -> None:
    text = (FLAT | NESTED)[form](genotype)
    assert read_genotype(text) == genotype, text


@settings(max_examples=25, deadline=None)
@given(genotypes(st.integers(2, 5), None), st.sampled_from(sorted(FLAT | NESTED)))
def test_every_edge(genotype: Genotype, form: str) -> None:
    text = (FLAT | NESTED)[form](genotype)
    assert read_genotype(text) == genotype, text


@settings(max_examples=15, deadline=None)
@given(genotypes(st.integers(1, 5), 3))
def test_triples(genotype: Genotype) -> None:
    assert read_genotype(call(fields(genotype, triples))) == genotype


def choices(genotype: Genotype) -> tuple[dict[str, Any], dict[str, Any]]:
    """As NNI and as MMRazor choose."""
    nni: dict[str, Any] = {}
    mmrazor: dict[str, Any] = {}
    for kind, cell in genotype.cells.items():
        for node, inputs in enumerate(cell.inputs, 2):
            mmrazor[f"{kind}_n{node}"] = {"chosen": [f"{kind}_n{node}_p{source}" for _, source in inputs]}
            for branch, (op, source) in enumerate(inputs):
                nni |= {f"{kind}/op_{node}_{branch}": op, f"{kind}/input_{node}_{branch}": [source]}
                mmrazor[f"{kind}_n{node}_p{source}"] = {"chosen": [op]}
    return nni, mmrazor


@settings(max_examples=15, deadline=None)
@given(genotypes(st.just(4), 2, distinct=True))
def test_choices(genotype: Genotype) -> None:
    all_out = Genotype("darts-cnn", {kind: Nodes(cell.inputs, (2, 3, 4, 5)) for kind, cell in genotype.cells.items()})
    nni, mmrazor = choices(genotype)
    for text in (repr(nni), json.dumps(nni), yaml.safe_dump(mmrazor), json.dumps(mmrazor)):
        assert read_genotype(text) == all_out, text


def grid_text(genotype: Genotype) -> str:
    return "+".join("".join(f"|{op}~{s}" for op, s in node) + "|" for node in genotype.cells["cell"].inputs)


GRID: dict[str, Form] = {
    "official": grid_text,
    "spaced": lambda g: grid_text(g).replace("|", " | ").replace("+", "\n+ "),
    "structure": lambda g: f"The 3-th epoch : Structure(4 nodes with {grid_text(g)})",
    "list": lambda g: repr(list(g.cells["cell"].inputs)),
    "numbers": lambda g: repr(
        tuple(NASLIB_OPS.index({s: op for op, s in g.cells["cell"].inputs[n - 1]}[s]) for s, n in NASLIB_EDGES)
    ),
    "edges": lambda g: repr({f"{s}_{n}": g.cells["cell"].inputs[n - 1][s][0] for s, n in NASLIB_EDGES}),
}


@settings(max_examples=30, deadline=None)
@given(grid_cells(), st.sampled_from(sorted(GRID)))
def test_cells_of_nas_bench_201(genotype: Genotype, form: str) -> None:
    text = GRID[form](genotype)
    assert read_genotype(text) == genotype, text
    assert cell_text(text) in (None, grid_text(genotype))


# -- damage


def damaged(text: str, rng: random.Random) -> str:
    """`text` after one accident."""
    at, length = rng.randrange(len(text)), rng.choice((1, 1, 1, 2, 5, 20))
    inserted = rng.choice("0123456789,,()[]{}'\"=:.+-*|~_x ")
    other = rng.randrange(len(text))
    return {
        "delete": text[:at] + text[at + length :],
        "insert": text[:at] + inserted + text[at:],
        "replace": text[:at] + inserted + text[at + 1 :],
        "cut": text[:at],
        "begin": text[at:],
        "repeat": text[:at] + text[at : at + length] + text[at:],
        "move": text[:at] + text[other : other + length] + text[at:],
    }[rng.choice(("delete", "insert", "replace", "cut", "begin", "repeat", "move"))]


def python_value(text: str) -> Any:
    """What Python says of a text `Genotype(...)` or a literal; `range` is the only name it knows."""
    tree = ast.parse(text.strip(), mode="eval").body
    if isinstance(tree, ast.Call):
        return {str(k.arg): ast.literal_eval(k.value) for k in tree.keywords}
    return ast.literal_eval(tree)


def said(genotype: Genotype) -> list[Any]:
    """The entries and concats of a genotype, in order."""
    return [
        part for cell in genotype.cells.values() for part in ([e for n in cell.inputs for e in n], list(cell.concat))
    ]


def says(values: Any) -> list[Any]:
    """The same in fields."""
    return [
        part
        for kind in (key for key in values if f"{key}_concat" in values)
        for part in ([(entry[0], entry[1]) for entry in values[kind]], list(values[f"{kind}_concat"]))
    ]


V = Genotype(
    "darts-cnn",
    {
        kind: Nodes(((("sep_conv_3x3", 0), (op, 1)), (("max_pool_3x3", 2), ("none", 0))), (2, 3))
        for kind, op in (("normal", "skip_connect"), ("reduce", "dil_conv_5x5"))
    },
)


def outcome(text: str) -> Genotype | None:
    """The genotype in `text`, None where it is refused in one line."""
    try:
        return read_genotype(text)
    except GenotypeError as error:
        assert len(error.lines) >= 1 and all(len(line) < 500 for line in error.lines)
        assert not re.search(r"syntax|Traceback|<unknown>|Expecting", str(error)), error
        return None


@pytest.mark.parametrize("form", ["text", "dictionary", "json"])
def test_damaged_values(form: str) -> None:
    rng, whole = random.Random(0), FLAT[form](V)
    for _ in range(300):
        text = damaged(whole, rng)
        found = outcome(text)
        if found is None or found == V:
            continue
        readings = [says(values) for values in _values(text)]
        assert said(found) in readings, text


def _values(text: str) -> Iterator[dict[str, Any]]:
    """The whole calls and dictionaries of cells in a damaged text, the widest first."""
    for start in (match.start() for match in re.finditer(r"Genotype\(|\{", text)):
        for end in range(len(text), start, -1):
            if text[end - 1] not in ")}":
                continue
            try:
                values = python_value(text[start:end])
            except (SyntaxError, ValueError):
                continue
            if isinstance(values, dict):
                yield values
                break


def _words(text: str) -> Any:
    """The YAML in a text, in which every value is a word."""
    return yaml.load(text, yaml.BaseLoader)  # noqa: S506 (it makes text and lists only)


def test_damaged_choices() -> None:
    cell = Nodes(V.cells["normal"].inputs + ((("none", 1), ("none", 3)), (("none", 4), ("none", 0))), (2, 3, 4, 5))
    genotype = Genotype("darts-cnn", {"normal": cell, "reduce": cell})
    nni, mmrazor = choices(genotype)
    rng = random.Random(1)
    for whole, parse, pick in ((repr(nni), ast.literal_eval, 0), (yaml.safe_dump(mmrazor), _words, 1)):
        for _ in range(150 if pick else 300):
            text = damaged(whole, rng)
            found = outcome(text)
            if found is None or found == genotype:
                continue
            values = parse(text[text.index("{") :] if pick == 0 else text)
            assert {key: values.get(key) for key in choices(found)[pick]} == choices(found)[pick], text


@pytest.mark.parametrize("form", ["official", "spaced", "structure"])
def test_damaged_cells_of_nas_bench_201(form: str) -> None:
    ops = ("nor_conv_3x3", "none", "skip_connect")
    inputs = tuple(tuple((ops[source], source) for source in range(node)) for node in (1, 2, 3))
    genotype = Genotype("nasbench201", {"cell": Nodes(inputs, (3,), first=1)})
    rng, whole = random.Random(2), GRID[form](genotype)
    for _ in range(300):
        text = damaged(whole, rng)
        found = outcome(text)
        if found is not None and found != genotype:
            assert grid_text(found) in re.sub(r"\s", "", text), text
