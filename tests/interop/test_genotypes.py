"""Genotypes in other people's texts: read as the same cell whatever stands around it, or refused in one line."""

from __future__ import annotations

import json
import logging
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

import diffnas
from diffnas.core.count import count
from diffnas.core.genotype import Genotype, Nodes
from diffnas.core.published_genotypes import published
from diffnas.core.space import Shape
from diffnas.errors import GenotypeError
from diffnas.interop.genotypes import cell_text, read_genotype, read_genotype_file
from diffnas.interop.literals import read_literal
from diffnas.interop.nasbench201 import NASLIB_OPS
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.spaces.nasbench201.layout import OPS

CASES = Path(os.environ.get("DIFFNAS_SHARED", Path(__file__).parents[3] / "shared")) / "cases"
NODE = (("sep_conv_3x3", 0), ("skip_connect", 1))
CELL = Genotype("darts-cnn", dict.fromkeys(("normal", "reduce"), Nodes((NODE, NODE), (2, 3))))
PAIRS = "[('sep_conv_3x3', 0), ('skip_connect', 1), ('sep_conv_3x3', 0), ('skip_connect', 1)]"
TEXT = f"Genotype(normal={PAIRS}, normal_concat=range(2, 4), reduce={PAIRS}, reduce_concat=range(2, 4))"
V2 = published("darts-v2")


def refusal(text: str, choice: str | None = None) -> str:
    with pytest.raises(GenotypeError) as caught:
        read_genotype(text, "mine.txt", choice)
    assert len(caught.value.lines) == 1, caught.value.lines
    (line,) = caught.value.lines
    assert line.startswith("mine.txt: ") and len(line) < 400
    assert "syntax" not in line and "<unknown>" not in line  # what Python's parser would say
    return line.removeprefix("mine.txt: ")


# -- Genotype(...) in logs and programs


@pytest.mark.parametrize(
    "text",
    [
        f"2026-01-01 12:00:00,123 genotype = {TEXT}",
        f"01/01 12:00:00 PM genotype = {TEXT}",
        f"[2026-01-01 12:00:00] INFO - best genotype: {TEXT}, valid_acc 97.1 (epoch 3)",
        f"genotype: {TEXT}",
        f"DARTS_V2 = {TEXT}  # 2.79",
        f"\x1b[32mINFO\x1b[0m \x1b]0;title\x07{TEXT}\x1b[0m",
        f"genotypes.{TEXT}.",
        TEXT.replace("range(2, 4)", "list(range(2, 4))"),
        TEXT.replace("range(2, 4)", "array([2, 3], dtype=int64)"),
        TEXT.replace("range(2, 4)", "tensor([2, 3], device='cuda:0')"),
        TEXT.replace("range(2, 4)", "(2, 3,)").replace("(2, 3)", "(2, 3,)"),
        TEXT.replace(" 1)", " np.int64(1))").replace("'skip_connect'", "np.str_('skip_connect')"),
        TEXT.replace("('", "(u'"),
        TEXT.replace("('", "['").replace("),", "],").replace(")]", "]]").replace("range(2, 4]", "range(2, 4)"),
        TEXT.replace("'", '"'),
        TEXT.replace("'", "’"),
        TEXT.replace("'", "&#39;"),
        json.dumps({"epoch": 3, "text": f'found "{TEXT}"'}),
        json.dumps({"text": TEXT.replace("'", '"').replace(", ", ",\n")}),
        TEXT.replace(", ", ",\n      ").replace("(normal", "(\n  normal"),
        TEXT.replace("sep_conv", "sep_\nconv"),  # as a narrow terminal breaks it
        TEXT.replace("), (", "),\n2026-01-01 12:00:00,123 INFO (").replace(
            "skip_connect', 1),", "skip_connect', 1), # 2\n"
        ),
        TEXT.replace("reduce_concat=range(2, 4)", "reduce_concat=[2, 3], connectN=None, connects=None"),
        f"Genotype({PAIRS}, [2, 3], {PAIRS}, reduce_concat=(2, 3))",
        f"Genotype(reduce={PAIRS}, normal_concat=[2, 3], normal={PAIRS}, reduce_concat=(2, 3))",
        TEXT.replace("1), (", "1)], [(").replace("=[(", "=[[(").replace("1)],", "1)]],").replace("1)]], [(", "1)], [("),
        TEXT.replace("0),", "0, 0.1485),").replace("1)", "1, np.float32(0.25))"),
    ],
    ids=range(27),
)
def test_genotype_texts(text: str) -> None:
    assert read_genotype(text) == CELL


def test_the_shared_cases() -> None:
    if not CASES.is_dir():
        pytest.skip("the shared cases are not at hand")
    for line in (CASES / "genotypes.txt").read_text().splitlines():
        assert diffnas.load_genotype(line) == CELL
    for line in (CASES / "nasbench201.txt").read_text().splitlines():
        assert diffnas.lookup(line).index == 9930


def test_entries_by_node_may_be_any_number() -> None:
    text = "Genotype(normal=[[('none', 0)], [], [('none', 0), ('none', 2), ('none', 1)]], normal_concat=[2, 4])"
    assert [len(node) for node in read_genotype(text).cells["normal"].inputs] == [1, 0, 3]


@pytest.mark.parametrize("concat", [(2, 3, 4, 5), (4, 5), (3,), (2,)])
def test_a_text_that_lists_every_edge_is_read_so_whatever_its_concat(concat: tuple[int, ...]) -> None:
    cell = published("snas-mild-edge-all").cells["reduce"]
    entries = [entry for node in cell.inputs for entry in node]
    found = read_genotype(f"Genotype(normal={entries}, normal_concat={concat})").cells["normal"]
    assert found == Nodes(cell.inputs, concat)


def test_fourteen_entries_are_seven_nodes_where_the_concat_says_so_and_else_refused() -> None:
    entries = [("none", 0)] * 14
    found = read_genotype(f"Genotype(normal={entries}, normal_concat=range(2, 9))").cells["normal"]
    assert [len(node) for node in found.inputs] == [2] * 7
    said = refusal(f"Genotype(normal={entries}, normal_concat=range(2, 6))")
    assert said == "normal has 14 entries, which are neither two per node nor every edge of the cell once"


def test_a_recurrent_cell_has_one_input_per_node() -> None:
    text = "DARTS = Genotype(recurrent=[('relu', 0), ('identity', 1)], concat=range(1, 3))"
    genotype = read_genotype(text)
    assert genotype.space == "darts-rnn"
    assert genotype.cells["recurrent"] == Nodes(((("relu", 0),), (("identity", 1),)), (1, 2), first=1)
    assert read_genotype("{'recurrent': [('relu', 0), ('identity', 1)], 'concat': [1, 2]}") == genotype
    assert "a recurrent cell has recurrent and concat; got" in refusal(text.replace("concat", "recurrent_concat"))
    assert "node 2 reads 2; it can read 0 to 1 only" in refusal(text.replace("'identity', 1", "'identity', 2"))
    assert "recurrent must be a list of (op, index) pairs" in refusal(text.replace("('relu', 0)", "'relu'"))


FAIRDARTS_G = (
    "Genotype(normal=[('sep_conv_3x3', 2, 0), ('sep_conv_3x3', 2, 1), ('skip_connect', 4, 3), ('sep_conv_5x5', 4, 1), "
    "('dil_conv_3x3', 5, 0), ('sep_conv_3x3', 5, 1)], normal_concat=range(2, 6), reduce=[('avg_pool_3x3', 2, 1), "
    "('skip_connect', 2, 0), ('skip_connect', 3, 2), ('max_pool_3x3', 3, 1), ('sep_conv_5x5', 4, 3), "
    "('max_pool_3x3', 4, 0), ('dil_conv_3x3', 5, 1), ('dil_conv_3x3', 5, 4)], reduce_concat=range(2, 6))"
)


def test_triples_of_fairdarts_give_the_published_size() -> None:
    """A node that nothing enters is no state: the authors' network neither puts it out nor lets it be read."""
    genotype = read_genotype(FAIRDARTS_G)
    normal = genotype.cells["normal"]
    assert normal.concat == (2, 4, 5) and [len(node) for node in normal.inputs] == [2, 0, 1, 2]
    with torch.device("meta"):
        network = DartsCNN().network(genotype, Shape(10), channels=36, layers=20, auxiliary=True)
    counted = count(network, (3, 32, 32))
    assert round((counted.params + counted.auxiliary) / 1e6, 3) == 3.375 and round(counted.macs / 1e6) == 453
    assert "of node 1; nodes are 2, 3" in refusal(FAIRDARTS_G.replace("'sep_conv_5x5', 4, 1", "'sep_conv_5x5', 1, 1"))


def test_other_names_of_the_same_ops() -> None:
    text = "{'normal': [(('dua_sepc_3x3', 1, 0.15), ('dil_sepc_5x5', 0, 0.14))], 'normal_concat': [2]}"
    (node,) = read_genotype(text).cells["normal"].inputs
    assert node == (("sep_conv_3x3", 1), ("dil_conv_5x5", 0))


# -- dictionaries, NNI, MMRazor, NAS-Bench-301


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"normal": "normal_cell", "reduce": "reduction_cell"},
        {"reduce": "reduction"},
        {"sep_conv_3x3": "dua_sepc_3x3"},
    ],
)
@pytest.mark.parametrize(
    "wrap", ["{}", "best: {}", "Namespace(arch={})", "{{'epoch': 3, 'genotype': {}}}", "{{'a': [{}]}}"]
)
def test_dictionaries(change: dict[str, str], wrap: str) -> None:
    data = {"normal": [list(NODE)] * 2, "normal_concat": [2, 3], "reduce": list(NODE) * 2, "reduce_concat": (2, 3)}
    keywords = f"dict({', '.join(f'{key}={value!r}' for key, value in data.items())})"
    for text in (repr(data), json.dumps(data), repr(OrderedDict(data)), f"OrderedDict({list(data.items())})", keywords):
        for ours, theirs in change.items():
            text = text.replace(ours, theirs)
        assert read_genotype(wrap.format(text)) == CELL


def test_dictionaries_of_entries_and_extra_keys() -> None:
    entries = [{"op": op, "input": source} for op, source in NODE * 2]
    data = {"normal": entries, "normal_concat": [2, 3], "reduce": entries, "reduce_concat": [2, 3], "acc": 97.1}
    assert read_genotype(json.dumps({"spec": data, "seed": 3, "note": None})) == CELL
    assert refusal(json.dumps({**data, "reduction": entries})) == "a cell stands twice, under two names of it"


def nni(genotype: Genotype, wrapped: bool = True) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for kind, nodes in genotype.cells.items():
        for node, inputs in enumerate(nodes.inputs, 2):
            for branch, (op, source) in enumerate(inputs):
                found[f"{kind}/op_{node}_{branch}"] = op
                found[f"{kind}/input_{node}_{branch}"] = [source] if wrapped else source
    return found


@pytest.mark.parametrize("wrapped", [True, False])
def test_choices_of_nni(wrapped: bool) -> None:
    data = nni(V2, wrapped)
    for text in (repr(data), json.dumps(data), f"plot_double_cells({data})", json.dumps(data).replace("/", r"\/")):
        assert read_genotype(text) == V2
    assert "but not of its DARTS space" in refusal(repr({**data, "normal/op_6_0": "none"}))
    missing = {key: value for key, value in data.items() if key != "normal/input_3_1"}
    assert "normal/op_3_* and normal/input_3_* of NNI do not go together" in refusal(repr(missing))
    without = {key: value for key, value in data.items() if "normal/input_3" not in key and "normal/op_3" not in key}
    assert "has the nodes [2, 4, 5]; they must be 2 to 5" in refusal(repr(without))


def chosen(genotype: Genotype) -> dict[str, Any]:
    """Choices by edge, with an op on an edge that its node does not choose."""
    found: dict[str, Any] = {"normal_n3_p2": ["sep_conv_5x5"]}
    for kind, nodes in genotype.cells.items():
        for node, inputs in enumerate(nodes.inputs, 2):
            found[f"{kind}_n{node}"] = [f"{kind}_n{node}_p{source}" for _, source in inputs]
            found |= {f"{kind}_n{node}_p{source}": [op] for op, source in inputs}
    return found


def test_subnets_of_mmrazor() -> None:
    data = {key: {"chosen": value} for key, value in chosen(V2).items()}
    lines = [
        f"{key}:\n  chosen:\n" + "".join(f"  - {item}\n" for item in value["chosen"]) for key, value in data.items()
    ]
    for text in (
        "".join(lines),
        json.dumps(data),
        repr(data),
        "".join(lines).replace("chosen:", "meta: null\n  chosen:"),
    ):
        assert read_genotype(text) == V2
    assert "normal_n2_p0 does not say what is chosen" in refusal(
        "".join(lines).replace("normal_n2_p0:", "normal_n2_p7:")
    )
    foreign = repr(data).replace("['normal_n2_p0'", "['normal_n3_p0'")
    assert "normal_n2 chooses 'normal_n3_p0', which is no edge of it" in refusal(foreign)


def test_choices_of_nni_before_2() -> None:
    """Ops by name or number, inputs by edge or number, and an empty list for an edge that is not chosen."""
    ops = [
        "max_pool_3x3",
        "avg_pool_3x3",
        "skip_connect",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "dil_conv_3x3",
        "dil_conv_5x5",
    ]
    by_edge = {"normal_n5_p4": [], **{key: value for key, value in chosen(V2).items() if "_p" in key}}
    names = {
        key: value[0].replace("_", "").replace("pool3x3", "pool") if value else [] for key, value in by_edge.items()
    }
    numbers = {key: ops.index(value[0]) if value else [] for key, value in by_edge.items()}
    nodes = {key: value for key, value in chosen(V2).items() if "_p" not in key}
    switches = {f"{key}_switch": value for key, value in nodes.items()}
    counted = {key: [int(edge[-1]) for edge in value] for key, value in switches.items()}
    for data in ({**names, **switches}, {**numbers, **switches}, {**names, **counted}):
        assert read_genotype(json.dumps(data)) == V2
    unnamed = {"InputChoice10": [False, True], "LayerChoice3": [True]}
    assert "choices of NNI before 2.0 that have no names" in refusal(json.dumps(unnamed))


def config(genotype: Genotype) -> dict[str, str]:
    found = {}
    for kind, nodes in genotype.cells.items():
        for node, inputs in enumerate(nodes.inputs):
            start = node * (node + 3) // 2
            found |= {f"NetworkSelectorDatasetInfo:darts:edge_{kind}_{start + source}": op for op, source in inputs}
            if node:
                named = "_".join(str(source) for source in sorted(source for _, source in inputs))
                found[f"NetworkSelectorDatasetInfo:darts:inputs_node_{kind}_{node + 2}"] = named
    return found


def in_order(genotype: Genotype) -> Genotype:
    """The same cells with the inputs of a node in the order of their numbers."""
    cells = {
        kind: Nodes(tuple(tuple(sorted(node, key=lambda entry: entry[1])) for node in nodes.inputs), nodes.concat)
        for kind, nodes in genotype.cells.items()
    }
    return Genotype(genotype.space, cells)


def test_configurations_of_nas_bench_301() -> None:
    data = config(V2)
    for text in (repr(data), json.dumps(data), json.dumps({"optimized_hyperparamater_config": data, "budget": 50})):
        assert read_genotype(text) == in_order(V2)
    wrong = {**data, "NetworkSelectorDatasetInfo:darts:inputs_node_normal_3": "1_2"}
    assert "the edges of normal node 3 are not those that inputs_node names, '1_2'" in refusal(repr(wrong))
    wrong = {**data, "NetworkSelectorDatasetInfo:darts:edge_normal_14": "none"}
    assert "has the edges 0 to 13" in refusal(repr(wrong))
    wrong = {key: value for key, value in data.items() if "node_normal" not in key}
    del wrong["NetworkSelectorDatasetInfo:darts:edge_normal_0"]
    assert "a node of cell normal does not choose two inputs" in refusal(repr(wrong))


def test_shuffle_blocks_of_mmrazor_and_numbers_of_spos() -> None:
    spos = published("spos")
    ops = spos.cells["blocks"].ops
    places = [(stage, block) for stage, size in enumerate((4, 4, 8, 4)) for block in range(size)]
    lines = [f"backbone.layers.{s}.{b}:\n  chosen: {op}\n" for (s, b), op in zip(places, ops, strict=True)]
    assert read_genotype("".join(reversed(lines))) == spos
    numbers = [("shuffle_3x3", "shuffle_5x5", "shuffle_7x7", "shuffle_xception").index(op) for op in ops]
    assert read_genotype(str(numbers)) == spos == read_genotype(" ".join(map(str, numbers)))


def test_the_numbers_that_enas_publishes() -> None:
    normal, reduce = "0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1", "1 0 1 0 0 3 0 2 1 1 3 1 1 0 0 4 0 3 1 1"
    assert read_genotype(f"{normal} {reduce}") == published("enas-cifar10")
    assert "an op is not one of 0 to 4" in refusal(f"{normal} {reduce}".replace("4", "5", 1))


def test_yaml() -> None:
    lines = "normal:\n{0}normal_concat: [2, 3]\nreduce:\n{0}reduce_concat: [2, 3]\n"
    pairs = "".join(f"- [{op}, {source}]\n" for op, source in NODE * 2)
    dumped = "".join(f"- !!python/tuple\n  - {op}\n  - {source}\n" for op, source in NODE * 2)
    assert read_genotype(lines.format(pairs)) == CELL == read_genotype(lines.format(dumped))
    assert "not valid YAML" in refusal(lines.format(pairs) + "\t- x: [\n")
    assert "aliases" in refusal("normal: &a [*a]\n")


# -- cells of NAS-Bench-201

BEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
STRUCTURE = (
    "[(('nor_conv_3x3', 0),), (('nor_conv_3x3', 0), ('nor_conv_3x3', 1)), "
    "(('skip_connect', 0), ('nor_conv_3x3', 1), ('nor_conv_3x3', 2))]"
)


@pytest.mark.parametrize(
    "text",
    [
        BEST,
        BEST.replace("|", " | ").replace("~", " ~ "),
        BEST.replace("+", "+\n  "),
        f"'{BEST}',",
        f'["{BEST}" ]',
        f"Structure(4 nodes with {BEST})",
        f"<<<--->>> The 049-th epoch : Structure(4 nodes with {BEST})",
        f"arch={BEST} acc=94.37",
        f"| 9930 | {BEST} | 94.37 |",
        f"{BEST.replace('skip_connect', 'none')}, {BEST}",
        json.dumps({"index": 9930, "arch_str": BEST}),
        STRUCTURE,
        f"CODE = Structure({STRUCTURE})",
        "(2, 2, 0, 2, 2, 2)",
        "[2,2,0,2,2,2]",
        "2 2 0 2 2 2",
        "op_indices = (np.int64(2), 2, 0, 2, 2, 2)",
        "{'0_1': 'conv_3x3', '0_2': 'conv_3x3', '0_3': 'skip_connect', "
        "'1_2': 'conv_3x3', '1_3': 'conv_3x3', '2_3': 'conv_3x3'}",
        "{'1<-0': 'nor_conv_3x3', '2<-0': 'nor_conv_3x3', '3<-0': 'skip_connect', '2<-1': 'nor_conv_3x3', "
        "'3<-1': 'nor_conv_3x3', '3<-2': 'nor_conv_3x3'}",
    ],
)
def test_cells_of_nas_bench_201(text: str) -> None:
    assert diffnas.load_genotype(text) == diffnas.load_genotype(BEST)
    assert diffnas.lookup(text).index == 9930


def test_op_numbers_are_those_of_naslib() -> None:
    """Edges 0-1, 0-2, 0-3, 1-2, 1-3, 2-3; ops skip, none, 3x3, 1x1, pool: another order than the official string's."""
    assert set(NASLIB_OPS) == set(OPS)
    entry = diffnas.lookup("(4, 0, 3, 1, 4, 3)")  # the example of NASLib's issue 144
    expected = "|avg_pool_3x3~0|+|skip_connect~0|none~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_1x1~2|"
    assert entry.text == expected


@pytest.mark.parametrize(("text", "cell"), [("9930", 9930), (" #9930\n", 9930), ("index 9930", 9930), ("cell 3", None)])
def test_an_index_is_a_cell_where_a_cell_is_looked_up(text: str, cell: int | None) -> None:
    assert cell_text(text) == cell
    assert "a number alone is the index" in refusal("9930")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(2, 2, 0, 2, 2, 5)", "no six op numbers of NASLib's NAS-Bench-201: 0 skip_connect, 1 none, 2 nor_conv_3x3"),
        ("[2, 2, 0, 2, 2]", "5 numbers; six op numbers are a cell of NAS-Bench-201"),
        (repr(["none"] * 6), "this is a list of ops that does not say which edge each is of"),
        ("x = Structure([(('none', 0),)])", "must hold a list of (op, index) pairs for each of three nodes"),
        (f"best {BEST}|none~3|", "not a block of a cell"),
        (f"best {BEST[1:]}", "not a block of a cell"),
        (BEST[:-1], "not a block of a cell"),
        (BEST.replace("+|skip", "|skip"), "not a block of a cell"),
        (
            "{'0_1': 'a', '0_2': 'a', '0_3': 'a', '1_2': 'a', '1_3': 'a', '3_1': 'a'}",
            "are not the six of NAS-Bench-201",
        ),
    ],
)
def test_cells_of_nas_bench_201_that_are_refused(text: str, said: str) -> None:
    assert said in refusal(text)


# -- texts with several


LOG = "\n".join(
    f"2026-01-01 0{k}:00:00,000 epoch {k} lr 2e-2\n2026-01-01 0{k}:00:01,000 genotype = {TEXT.replace('sep', op)}"
    for k, op in enumerate(("dil", "max", "sep"))
)


def test_of_a_log_the_last_is_taken_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "diffnas"):
        genotype = read_genotype(LOG, "log.txt")
    assert genotype == CELL
    assert genotype.provenance == {"source": "Genotype(...) text", "from": "log.txt, the last of 3, line 6"}
    assert caplog.messages == ["log.txt: holds 3 genotypes; the last is taken, line 6 (FILE:LINE names another)"]
    caplog.clear()
    second = read_genotype(LOG, "log.txt", "4")
    assert second.cells["normal"].ops[0] == "max_conv_3x3" and second.provenance["from"] == "log.txt, line 4"
    assert not caplog.messages
    assert refusal(LOG, "5") == "no genotype has the name '5' or begins on that line; it has lines 2, 4, 6"


def test_a_log_cut_short_is_not_read_as_the_epoch_before() -> None:
    said = refusal(LOG[:-40])
    assert said.startswith("line 6, column ") and "2 others in the text can be read: FILE:LINE" in said
    assert read_genotype(LOG[:-40], "log.txt", "4").cells["normal"].ops[0] == "max_conv_3x3"


PROGRAM = f'''
from collections import namedtuple
Genotype = namedtuple('Genotype', 'normal normal_concat reduce reduce_concat')
PRIMITIVES = ['none', 'skip_connect']

def parse(s):
    """e.g. Genotype(normal=normal, normal_concat=concat)"""
    return Genotype(normal=parse(s), normal_concat=concat, reduce=None, reduce_concat=None)

FIRST = {TEXT.replace("sep", "dil").replace(", ", ",  # step" + chr(10) + "    ")}
#OLD = {TEXT.replace("sep", "old")}
# OLD = {TEXT[:50]}
SECOND = {TEXT}
BEST = SECOND  # by test error
LAST = BEST
Networks = {{'FIRST': FIRST, 'SECOND': SECOND}}
'''


def test_of_a_program_one_is_named() -> None:
    assert refusal(PROGRAM) == "holds several genotypes; name one as FILE:NAME or FILE:LINE, of FIRST, SECOND"
    for name in ("SECOND", "BEST", "LAST"):
        assert read_genotype(PROGRAM, "genotypes.py", name) == CELL
    first = read_genotype(PROGRAM, "genotypes.py", "FIRST")
    assert first.cells["normal"].ops[0] == "dil_conv_3x3"
    assert first.provenance == {"source": "Genotype(...) text", "from": "genotypes.py, line 10", "name": "FIRST"}
    for name in ("OLD", "Networks", "first", "A" * 500):
        assert "no genotype has the name" in refusal(PROGRAM, name) and "it has FIRST, SECOND" in refusal(PROGRAM, name)
    circle = PROGRAM + "A = B\nB = A\n"
    assert "no genotype has the name" in refusal(circle, "A")


def test_several_under_the_keys_of_a_dictionary_are_named() -> None:
    data = {"normal": [NODE, NODE], "normal_concat": [2, 3], "reduce": [NODE, NODE], "reduce_concat": [2, 3]}
    text = repr({"best": data, 7: {**data, "normal_concat": [3]}})
    assert "name one as FILE:NAME or FILE:LINE, of" in refusal(text)
    assert read_genotype(text, "a", "best") == CELL
    yaml = f"run:\n  1: {TEXT}\n  2: {TEXT}\n"
    assert refusal(yaml) == "holds several genotypes; name one as FILE:NAME or FILE:LINE, of lines 2, 3"


def test_files_and_how_one_in_them_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("genotypes.py").write_text(PROGRAM)
    Path("wide.txt").write_bytes(TEXT.encode("utf-16"))
    Path("old.txt").write_bytes("\ufeffÄ ".encode() + b"\xe4 " + TEXT.encode())
    Path("binary").write_bytes(b"PK\0\0")
    Path("9930").write_text("darts")
    for text in ("genotypes.py:SECOND", "genotypes.py#SECOND", "./genotypes.py:28", "wide.txt", "old.txt"):
        if text != "./genotypes.py:28":
            assert diffnas.load_genotype(text) == CELL
    assert diffnas.load_genotype(Path("genotypes.py").resolve().as_posix() + ":SECOND") == CELL
    for text, said in (
        ("binary", "binary: not a text file, so not a genotype"),
        ("genotypes.py:", "'genotypes.py:' is no published name, file or run folder"),
        ("gone.py:SECOND", "'gone.py:SECOND' is no published name, file or run folder"),
        ("genotypes.py:THIRD", "genotypes.py: no genotype has the name 'THIRD'"),
    ):
        with pytest.raises(GenotypeError) as caught:
            diffnas.load_genotype(text)
        assert said in str(caught.value)
    with pytest.raises(GenotypeError, match="cannot be read: Is a directory"):
        read_genotype_file(tmp_path)


# -- what diffnas prints itself


@pytest.mark.parametrize("name", ["darts-v2", "nb201-resnet", "enas-rnn", "spos", "amoebanet", "snas-mild-edge-all"])
def test_what_show_prints_is_read(name: str) -> None:
    genotype = published(name)
    for text in (
        genotype.to_text(),
        f"\n{genotype.to_text()}\nsource: somewhere\n",
        genotype.to_text().replace("\n", "\r\n"),
    ):
        assert read_genotype(text) == genotype
    again = read_genotype(f"found {genotype.to_json()} in epoch 3")
    assert again == genotype and again.provenance == genotype.provenance


def test_prints_that_are_damaged() -> None:
    text = CELL.to_text()
    assert "cell normal has the nodes [3]; they must go on from 2" in refusal(text.replace("normal 2", "normal two"))
    assert "'normal 3 = sep" in refusal(text.replace("normal 2", "normal 3"))
    assert "is no sum of op(index)" in refusal(text.replace("(0) + ", "(0) - "))


# -- what is refused by name, and what is hostile


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("8:8:8:8:8", "this is a size of NATS-Bench"),
        ("'64:48:8:16:64'", "this is a size of NATS-Bench"),
        ("[8, 16, 24, 32, 64]", "this is a size of NATS-Bench"),
        ("64-41414-1_02_333", "this is a network of TransNAS-Bench-101"),
        ("64-1234-basic", "this is a network of TransNAS-Bench-101"),
        (repr(((((0, 6), (1, 4)) * 4), (((0, 1), (1, 4)) * 4))), "this is a NAS-Bench-301 cell as pairs of numbers"),
        ("[[0, 1, 1], [0, 0, 1], [0, 0, 0]]", "this is the matrix of a cell of NAS-Bench-101"),
        ("{'matrix': [[0, 1], [0, 0]], 'ops': ['input', 'conv3x3-bn-relu']}", "this is a cell of NAS-Bench-101"),
        ('{"modules": ["super_network"], "super_network": {"normal": {"genotype": [["a", 2, 0]]}}}', "this is vega's"),
        ("{'ks': [3, 5], 'e': [4, 6], 'd': [2, 3]}", "this is a network of once-for-all"),
        ("backbone.layers.2.depth:\n  chosen: 3\nbackbone.layers.1.kernel_size:\n  chosen: 3\n", "subnet of MMRazor"),
        ('{"name": "ProxylessNASNets", "blocks": []}', "this is a network of ProxylessNAS"),
        ("ds_r1_k3_s1_e1_c16_se0.25", "MnasNet's or EfficientNet's blocks"),
        ("{'node_0': {'op': 'linear', 'input': ['x']}}", "this is a cell of NAS-Bench-NLP"),
        ("hello = world", "expected Genotype(normal=[...]"),
        ("{}", "expected Genotype(normal=[...]"),
        ("[]", "expected Genotype(normal=[...]"),
        ("[(1, 2)] and more", "line 1, column 9: the text should end here; found 'and more'"),
        ("", "is empty"),
        ("{'normal': [('a', 0), ('b', 1)]}", "missing normal_concat"),
        ("{'normal': [[0.1, 0.2]], 'reduce': [[0.3, 0.4]]}", "expected Genotype(normal=[...]"),
        ("{'normal': [('a', 0)], '\x07_concat': [2]}", "is not a name"),
        ("{'normal': [], 'normal_concat': []}", "concat [] must name states"),
        (repr({"normal": NODE, "normal_concat": [2], "reuce": NODE, "reduce_concat": [2]}), "missing reduce"),
        (
            "Genotype(normal=[('a', 0) ('b', 1)], normal_concat=[2])",
            "line 1, column 27: ',' or ']' was expected; found '('",
        ),
        ("Genotype(normal=[('a', 0), ('b', 1)]", "column 37: ',' or ')' was expected; the text ends"),
        ("Genotype(normal=[('a', 0), ('b', 1)], normal_concat=[2])._replace(x=1)", "nothing is computed"),
        ("Genotype(normal=[('a', 0), ('b', 1)], normal_concat=[2])[0]", "nothing is computed"),
        ("Genotype(normal=[('a', 0), ('b', 1)], normal=[2])", "normal stands twice"),
        ("Genotype([('a', 0), ('b', 1)], [2], normal=[2])", "has a field twice"),
        ("{'normal': [('a', 0), ('b', 1)], 'normal': [2]}", "the key 'normal' stands twice"),
        ("Genotype(normal=[('a b', 0), ('b', 1)], normal_concat=[2])", "'a b' is not a name"),
        ("Genotype(normal=[('a', 0, 1, 2), ('b', 1)], normal_concat=[2])", "must be a list of (op, index) pairs"),
        ("Genotype(normal=[('a', '0'), ('b', 1)], normal_concat=[2])", "('a', '0') is none"),
        ("Genotype(normal=[('a', True), ('b', 1)], normal_concat=[2])", "must be a list of (op, index) pairs"),
    ],
)
def test_what_is_refused_and_why(text: str, said: str) -> None:
    assert said in refusal(text)


HOSTILE = [
    "__import__('os').system('touch owned')",
    "Genotype(normal=__import__('os').system('touch owned'), normal_concat=[2])",
    "Genotype(normal=[__import__('os').system('touch owned')], normal_concat=[2])",
    "Genotype(normal=open('owned', 'w'), normal_concat=[2])",
    "Genotype(normal=[(x, 0) for x in 'ab'], normal_concat=[2])",
    "Genotype(normal=().__class__.__bases__, normal_concat=[2])",
    "Genotype(normal=(lambda: 0)(), normal_concat=[2])",
    "Genotype(normal=[('a' * 10**9, 0)], normal_concat=[2])",
    "Genotype(normal=[('a', 0)] * 10**9, normal_concat=[2])",
    "Genotype(normal=[f'{1}'], normal_concat=[2])",
    "Genotype(normal=[('none', 0), ('none', 1)], normal_concat=range(10**9))",
    "Genotype(normal=[('none', 0), ('none', 1)], normal_concat=range(0, 10**9))",
    "Genotype(normal=[('none', 0), ('none', 1)], normal_concat=range(1000000000))",
    "Genotype(normal=[('none', 0), ('none', 1)], normal_concat=list(range(-5000, 5000)))",
    "Genotype(normal=[('none', 0), ('none', 1)], normal_concat=[1000000000000])",
    "Genotype(normal=[('none', 0), ('none', 1)], normal_concat=2)",
    "Genotype(normal=[('none', 0), ('none', 1)], normal_concat=[2.0])",
    "Genotype(normal=[('none', 0), ('none', 1)], normal_concat=range(True))",
    "Genotype(normal=[('none', 0)], normal_concat=[2])",
    "Genotype(normal=[('none', 5), ('none', 1)], normal_concat=[2])",
    "Genotype(normal=[('none', 0, 1)], normal_concat=[2])",
    "Genotype(normal=[(0, 'none')], normal_concat=[2])",
    "Genotype(normal=3, normal_concat=[2])",
    "Genotype(normal=[('none', 0), ('none', 1)])",
    "Genotype(normal=x, normal_concat=[2])",
    "Genotype(**{'normal': []})",
    "Genotype(*[1])",
    "Genotype([('none', 0)], [2])",
    "Genotype()",
    "Genotype",
    "Genotype(normal=[",
    "(Genotype)()()",
    "print('owned')",
    "open('owned', 'w').write('x')",
    "exec('import os')",
    "import os",
    "x = 1",
    "Genotype(normal='\\d', normal_concat=[2])",
    "",
    "\0",
    "(" * 5000,
    "-" * 100_000 + "1",
    f"Genotype(normal={'[' * 150}{']' * 150}, normal_concat=[2])",
    f"Genotype(normal={'1+' * 20_000}1, normal_concat=[2])",
    f"Genotype(normal={[('none', 0)] * 20_000}, normal_concat=[2])",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_in_a_text_runs(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refusal(text)
    assert not list(tmp_path.iterdir())


def test_a_text_that_is_too_deep_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = 0

    def counted(text: str, start: int = 0) -> Any:
        nonlocal begun
        begun += 1
        return read_literal(text, start)

    monkeypatch.setattr("diffnas.interop.found.read_literal", counted)
    with pytest.raises(GenotypeError, match="more than 20 values stand within one another"):
        read_genotype('{"a":' * 20_000)
    assert begun == 1000
