"""Genotypes as text: read as data, written back the same, refused in one line."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from diffnas.core.genotype import FORMAT, Genotype, Nodes, parse_genotype, read_genotype_file
from diffnas.core.published_genotypes import PUBLISHED, published
from diffnas.errors import GenotypeError


def plain() -> dict[str, Any]:
    cell = {"first": 2, "inputs": [[["skip_connect", 0], ["none", 1]], [["sep_conv_3x3", 2]]], "concat": [2, 3]}
    cells = {"normal": copy.deepcopy(cell), "reduce": copy.deepcopy(cell)}
    return {"format": FORMAT, "space": "darts-cnn", "provenance": {}, "cells": cells}


def refused(text: str) -> str:
    with pytest.raises(GenotypeError) as caught:
        parse_genotype(text, "mine.json")
    assert len(caught.value.lines) == 1, caught.value.lines
    (line,) = caught.value.lines
    assert line.startswith("mine.json: ") and len(line) < 400
    return line


# -- what is read


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_genotypes_survive_json(name: str) -> None:
    genotype = published(name)
    again = parse_genotype(genotype.to_json())
    assert again == genotype and again.provenance == genotype.provenance
    assert pickle.loads(pickle.dumps(genotype)) == genotype
    assert genotype.to_text().count("\n") + 1 == sum(len(nodes.inputs) + 1 for nodes in genotype.cells.values())


def test_repeats_no_inputs_and_five_inputs() -> None:
    none: tuple[tuple[str, int], ...] = ()
    five = tuple(("skip_connect", source) for source in (0, 1, 2, 2, 1))
    cell = Nodes((none, five, (("sep_conv_3x3", 3), ("sep_conv_3x3", 3))), (2, 3, 4))
    genotype = Genotype("darts-cnn", {"normal": cell, "reduce": cell})
    assert parse_genotype(genotype.to_json()) == genotype
    assert genotype.to_text().splitlines()[0] == "normal 2 = 0"
    assert cell.ops == ("skip_connect",) * 5 + ("sep_conv_3x3",) * 2


def test_keys_that_have_defaults() -> None:
    data = plain()
    del data["provenance"], data["cells"]["normal"]["first"]
    assert parse_genotype(json.dumps(data)) == parse_genotype(json.dumps(plain()))
    assert parse_genotype(" \n" + json.dumps(plain())).cells["normal"].first == 2


# -- JSON that is refused

Change = tuple[tuple[str, ...], Any, str]
CHANGES: list[Change] = [
    (("format",), "diffnas-genotype-9", "format is 'diffnas-genotype-9'; this version reads 'diffnas-genotype-1'"),
    (("format",), 1, "format must be text; got 1"),
    (("space",), None, "space must be text; got null"),
    (("space",), ["darts-cnn"], "space must be text"),
    (("provenance",), [1], "provenance must be keys and values; got [1]"),
    (("cells",), {}, "cells is empty"),
    (("cells",), [], "cells must be keys and values; got []"),
    (("cells",), "x", "cells must be keys and values"),
    (("cells", "normal"), 3, "cells.normal must hold keys and values; got 3"),
    (("cells", "normal"), None, "cells.normal must hold keys and values; got null"),
    (("cells", "a b"), {}, "'a b' is not a name"),
    (("cells", "normal", "first"), "2", "cells.normal.first must be a whole number"),
    (("cells", "normal", "first"), True, "cells.normal.first must be a whole number; got true"),
    (("cells", "normal", "first"), -1, "cell normal: first must be at least 0; got -1"),
    (("cells", "normal", "first"), 10**9, "cell normal: 1000000000 inputs; 64 is the limit"),
    (("cells", "normal", "inputs"), "x", "cells.normal.inputs must be a list"),
    (("cells", "normal", "inputs"), [3], "inputs must hold, for every node, a list of [op, index] pairs"),
    (("cells", "normal", "inputs"), [[["skip_connect"]]], "[op, index] pairs"),
    (("cells", "normal", "inputs"), [[["skip_connect", 0, 1]]], "[op, index] pairs"),
    (("cells", "normal", "inputs"), [[["skip_connect", "0"]]], "[op, index] pairs"),
    (("cells", "normal", "inputs"), [[["skip_connect", 0.0]]], "[op, index] pairs"),
    (("cells", "normal", "inputs"), [[["skip_connect", True]]], "[op, index] pairs"),
    (("cells", "normal", "inputs"), [[[3, 0]]], "3 is not a name"),
    (("cells", "normal", "inputs"), [[["\x1b[2J", 0]]], "is not a name"),
    (("cells", "normal", "inputs"), [[["x" * 500, 0]]], "is not a name"),
    (("cells", "normal", "inputs"), [[["skip_connect", 9]], []], "node 2 reads 9; it can read 0 to 1 only"),
    (("cells", "normal", "inputs"), [[["skip_connect", -1]], []], "node 2 reads -1; it can read 0 to 1 only"),
    (("cells", "normal", "inputs"), [[["skip_connect", 2]], []], "node 2 reads 2; it can read 0 to 1 only"),
    (("cells", "normal", "inputs"), [[["skip_connect", 10**40]], []], "it can read 0 to 1 only"),
    (("cells", "normal", "inputs"), [[]] * 1000, "cell normal: 1000 nodes; 64 is the limit"),
    (("cells", "normal", "inputs"), [[["none", 0]] * 1000, []], "node 2 has 1000 inputs; 64 is the limit"),
    (("cells", "normal", "concat"), [], "concat [] must name states among 0 to 3"),
    (("cells", "normal", "concat"), [4], "concat [4] must name states among 0 to 3"),
    (("cells", "normal", "concat"), [-1], "concat [-1] must name states"),
    (("cells", "normal", "concat"), [2] * 1000, "cell normal: 1000 concat; 64 is the limit"),
    (("cells", "normal", "concat"), ["2"], "and concat indices"),
    (("cells", "normal", "concat"), 2, "cells.normal.concat must be a list; got 2"),
]


@pytest.mark.parametrize(("path", "value", "said"), CHANGES, ids=range(len(CHANGES)))
def test_a_wrong_value_is_one_line(path: tuple[str, ...], value: Any, said: str) -> None:
    data = plain()
    node = data
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    assert said in refused(json.dumps(data))


@pytest.mark.parametrize("key", ["format", "space", "cells", "cells.normal.inputs", "cells.normal.concat"])
def test_a_missing_key_is_named(key: str) -> None:
    data = plain()
    node = data
    *parents, last = key.split(".")
    for part in parents:
        node = node[part]
    del node[last]
    assert refused(json.dumps(data)) == f"mine.json: the key {key} is missing"


@pytest.mark.parametrize(
    "text", ["{", json.dumps(plain())[:-20], "{}{}", '{"a": 1' + "0" * 5000 + "}", '{"a":' * 100_000, "{'format': 1}"]
)
def test_broken_json_is_one_line(text: str) -> None:
    assert "not valid JSON" in refused(text)


def test_several_mistakes_of_a_cell_are_several_lines() -> None:
    data = plain()
    data["cells"]["normal"]["inputs"][0] = [["none", 7], ["none", 8]]
    data["cells"]["reduce"]["concat"] = [9]
    with pytest.raises(GenotypeError) as caught:
        parse_genotype(json.dumps(data), "mine.json")
    assert len(caught.value.lines) == 3 and all(line.startswith("mine.json: cell") for line in caught.value.lines)


# -- files


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("\ufeff" + json.dumps(plain()), encoding="utf-8")
    assert read_genotype_file(path) == parse_genotype(json.dumps(plain()))
    for content, said in [
        (b"\xff\xfe\x00", "not a text file (UTF-8)"),
        (b"", "not valid JSON: damaged at line 1, column 1"),
        (b"Genotype()", "not valid JSON"),
        (b"{" + b" " * 2**20, "larger than 1 MiB"),
    ]:
        path.write_bytes(content)
        with pytest.raises(GenotypeError, match="^" + str(path)) as caught:
            read_genotype_file(path)
        assert said in str(caught.value)
    with pytest.raises(GenotypeError, match="cannot be read: Is a directory"):
        read_genotype_file(tmp_path)


# -- strings of NAS-Bench-201


def test_a_string_of_nas_bench_201() -> None:
    text = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|none~2|"
    found = parse_genotype(f" {text}\n")
    nodes = found.cells["cell"]
    assert found.space == "nasbench201" and nodes.first == 1 and nodes.concat == (3,)
    assert nodes.inputs[1] == (("none", 0), ("avg_pool_3x3", 1)) and len(nodes.ops) == 6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("|none~0", "'|none~0' is not a block of a cell"),
        ("|none~0|+", "'' is not a block"),
        ("|none~0|+|none~0|x|", "'|none~0|x|' is not a block"),
        ("|none|", "'|none|' is not a block"),
        ("|none~-1|", "is not a block"),
        ("|none~²|", "is not a block"),
        ("|none~1|", "cell cell, node 1 reads 1; it can read 0 to 0 only"),
        ("+".join(["|none~0|"] * 65), "65 nodes; 64 is the limit"),
    ],
)
def test_other_strings_are_one_line(text: str, said: str) -> None:
    assert said in refused(text)
