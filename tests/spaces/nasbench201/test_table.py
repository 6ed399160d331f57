"""The table of NAS-Bench-201: the packaged numbers, the official order, and what is computed about a cell."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffnas.core.count import count
from diffnas.core.genotype import Genotype, Nodes, parse_edges
from diffnas.core.published_genotypes import published
from diffnas.core.space import Shape
from diffnas.errors import GenotypeError
from diffnas.spaces.nasbench201 import table as nb
from diffnas.spaces.nasbench201.layout import OPS
from diffnas.spaces.nasbench201.space import NASBench201

SHARED = Path(os.environ.get("DIFFNAS_SHARED", Path(__file__).parents[3] / "../shared")) / "data"
BEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def all_of(op: str) -> str:
    return nb.format_cell([op] * 6)


def accuracies(cell: str) -> list[float]:
    return [round(result.test_200.mean, 2) for result in nb.lookup(cell).results.values() if result.test_200]


# -- the numbers


def test_the_published_optima_and_the_collapsed_cell() -> None:
    assert [round(nb.packaged().mean(data).max(), 2) for data in nb.DATA] == [94.37, 73.51, 47.31]
    assert [int(nb.packaged().mean(data).argmax()) for data in nb.DATA] == [6111, 9930, 857]
    assert accuracies(all_of("skip_connect")) == [54.30, 15.61, 16.32]
    assert accuracies(BEST) == [94.36, 73.51, 46.34]  # what DrNAS reports


def test_an_entry() -> None:
    entry = nb.lookup(BEST)
    assert (entry.index, entry.text) == (9930, BEST)
    found = entry.results["cifar100"]
    assert found.test_200 == nb.Measured(found.test_200.mean, 1, 15625, 0.0) and found.valid_200 is None  # type: ignore[union-attr]
    second = entry.results["imagenet16-120"].test_200
    assert second is not None and second.gap == pytest.approx(nb.packaged().mean("imagenet16-120").max() - second.mean)
    assert second.rank == 1 + sum(nb.packaged().mean("imagenet16-120") > second.mean)
    assert entry.results["cifar10"].valid_12 == nb.Measured(pytest.approx(84.746), 2, 15625, pytest.approx(0.146))


def test_equals_share_the_better_rank() -> None:
    ranks = [nb.packaged().entry(index).results["cifar10"].test_200.rank for index in (6111, 13714)]  # type: ignore[union-attr]
    assert ranks == [1, 1]
    values = nb.packaged().mean("cifar10")
    third = int(np.argsort(-values)[2])
    assert nb.packaged().entry(third).results["cifar10"].test_200.rank == 3  # type: ignore[union-attr]


def test_a_table_with_gaps() -> None:
    means, seeds = np.full(nb.CELLS, np.nan), np.full(nb.CELLS, np.nan)
    means[[3, 5]], seeds[5] = [90.0, 80.0], 2
    table = nb.Table({"cifar10_test_200_mean": means, "cifar10_test_200_seeds": seeds}, "mine")
    assert table.entry(5).results["cifar10"].test_200 == nb.Measured(80.0, 2, 2, 10.0, seeds=2)
    assert table.entry(3).results["cifar10"].test_200 == nb.Measured(90.0, 1, 2, 0.0)
    assert table.entry(4).results["cifar10"].test_200 is None and table.entry(4).source == "mine"
    with pytest.raises(KeyError):
        table.mean("cifar100")


def test_arrays_cannot_be_changed() -> None:
    for array in (nb.packaged().mean("cifar10"), nb.grid()):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


# -- the official order


def test_the_order_is_that_of_the_authors() -> None:
    # NAS-Bench-201 shuffles the grid with seed 88: the index is not ours, nor that of the sources we collected
    grid = list(itertools.product(range(len(OPS)), repeat=6))
    random.Random(88).shuffle(grid)
    assert nb.grid().tolist() == [list(cell) for cell in grid]


def test_index_and_cell_are_inverse() -> None:
    assert nb.indices_of(nb.grid()).tolist() == list(range(nb.CELLS))
    for index in (0, 1, 1835, 15624):
        ops = nb.ops_at(index)
        assert nb.index_of(ops) == index and nb.parse_cell(nb.format_cell(ops)) == ops
    assert nb.format_cell(nb.ops_at(0)) == (
        "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
    )
    assert nb.indices_of(np.zeros((2, 3, 6), int)).shape == (2, 3)
    for wrong in ([[0] * 5], [[5] * 6], [[-1] * 6]):
        with pytest.raises(ValueError, match="rows of 6 ops"):
            nb.indices_of(wrong)
    for index in (-1, nb.CELLS):
        with pytest.raises(IndexError):
            nb.ops_at(index)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is not a block of a cell"),
        ("|none~0|+|none~0|none~1|", "has 2 nodes and 1 inputs, not 3 and 1; a cell is |op~0|+|op~0|op~1|+"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|+|none~0|", "has 4 nodes"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|conv~2|", "op 'conv' is unknown; NAS-Bench-201 has none, skip_"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|", "node 3 reads 2 of the 3 states before it; a cell is |op~0|+"),
        ("|none~0|+|none~0|none~0|+|none~0|none~1|none~2|", "node 2 reads 0 twice"),
        ("|none~0|+|none~0|none~2|+|none~0|none~1|none~2|", "cell cell, node 2 reads 2"),
        ("|none~0+|none~0|none~1|+|none~0|none~1|none~2|", "'|none~0' is not a block"),
        ("|none|+|none~0|none~1|+|none~0|none~1|none~2|", "'|none|' is not a block"),
    ],
)
def test_what_is_no_cell(text: str, said: str) -> None:
    with pytest.raises(GenotypeError) as caught:
        nb.lookup(text)
    assert len(caught.value.lines) == 1 and caught.value.lines[0].startswith(f"genotype: {said}")


def test_genotypes() -> None:
    assert nb.ops_of(parse_edges(BEST)) == nb.parse_cell(BEST) and nb.lookup(parse_edges(BEST)) == nb.lookup(BEST)
    swapped = Nodes(((("none", 0),), (("nor_conv_3x3", 1), ("avg_pool_3x3", 0)), (("skip_connect", 2),)), (3,), 1)
    expected = "|none~0|+|avg_pool_3x3~0|nor_conv_3x3~1|+|none~0|none~1|skip_connect~2|"
    assert nb.lookup(Genotype("nasbench201", {"cell": swapped})).text == expected


def test_genotypes_that_are_no_cell_of_the_grid() -> None:
    with pytest.raises(GenotypeError, match="is of the space darts-cnn"):
        nb.lookup(published("darts-v2"))
    empty = ((), (), ())
    wrong = {
        "has 1 nodes and 1 inputs": Nodes(((),), (1,), 1),
        "has 3 nodes and 2 inputs": Nodes(empty, (4,), 2),
        r"puts out \[2\]": Nodes(empty, (2,), 1),
    }
    for said, nodes in wrong.items():
        with pytest.raises(GenotypeError, match=said):
            nb.lookup(Genotype("nasbench201", {"cell": nodes}))


# -- what is computed


def test_sizes_are_those_of_the_network() -> None:
    for text, data in [(all_of("nor_conv_1x1"), "cifar10"), (BEST, "cifar100"), (BEST, "imagenet16-120")]:
        classes, side = nb.DATA[data]
        with torch.device("meta"):
            network = NASBench201().network(parse_edges(text), Shape(classes, 3, side))
        counts = count(network, (3, side, side))
        assert nb.size(nb.parse_cell(text), data) == (counts.params, counts.macs)
    assert nb.size(nb.parse_cell(all_of("nor_conv_3x3")), "cifar10")[0] == 1_531_546


def test_cells_that_compute_the_same() -> None:
    texts = (
        "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|",
        "|none~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|skip_connect~2|",
        "|avg_pool_3x3~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|skip_connect~2|",  # node 1 is never read
        "|none~0|+|none~0|avg_pool_3x3~1|+|nor_conv_3x3~0|none~1|avg_pool_3x3~2|",  # pools of nothing
    )
    cells = [nb.parse_cell(text) for text in texts]
    assert {nb.formula(cell) for cell in cells} == {"nor_conv_3x3(x)"}
    indices = {nb.index_of(cell) for cell in cells}
    assert all(indices - {index} <= set(nb.same_function(index)) for index in indices)
    shifted = nb.parse_cell("|none~0|+|none~0|nor_conv_1x1~1|+|nor_conv_3x3~0|none~1|skip_connect~2|")
    assert nb.formula(shifted) == "nor_conv_1x1() + nor_conv_3x3(x)"
    assert nb.formula(nb.parse_cell(all_of("none"))) == "0"


def test_cells_of_one_formula_are_equal_networks() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    first, second = (
        "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|skip_connect~1|nor_conv_1x1~2|",
        ("|none~0|+|nor_conv_3x3~0|none~1|+|nor_conv_1x1~0|avg_pool_3x3~1|skip_connect~2|"),
    )
    found = []
    for text in (first, second):
        network = NASBench201().network(parse_edges(text), Shape(10, 3, 8), channels=4, layers=1).double().eval()
        for kernel in (1, 3):
            torch.manual_seed(kernel)
            for module in network.modules():
                if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (kernel, kernel):
                    torch.nn.init.normal_(module.weight, std=0.3)
        torch.manual_seed(9)
        torch.nn.init.normal_(network.get_submodule("classifier").weight)  # type: ignore[arg-type]
        torch.nn.init.zeros_(network.get_submodule("classifier").bias)  # type: ignore[arg-type]
        found.append(network(x))
    assert nb.formula(nb.parse_cell(first)) == nb.formula(nb.parse_cell(second))
    assert torch.allclose(*found, rtol=1e-12)


# -- the file


def test_the_file_is_small_plain_and_says_where_it_is_from() -> None:
    assert nb.PACKAGED.stat().st_size < 300_000
    with np.load(nb.PACKAGED, allow_pickle=False) as stored:
        assert set(stored) == {"codes", "columns", "steps", "counts", "provenance"}
        assert "NATS-Bench" in str(stored["provenance"]) and stored["counts"].dtype == np.uint16


def test_reading_needs_numpy_alone() -> None:
    code = """
import sys
from diffnas.spaces.nasbench201 import table
table.lookup(table.format_cell(["none"] * 6))
assert not {"torch", "pandas", "pyarrow"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_pack_gives_back_what_went_in(tmp_path: Path) -> None:
    texts = [nb.format_cell(nb.ops_at(index)) for index in range(nb.CELLS)]
    means = {key: nb.packaged().mean(*key) for key in nb.STEPS}
    with np.load(nb.PACKAGED, allow_pickle=False) as old:
        path = tmp_path / "table.npz"
        path.write_bytes(nb.pack(texts, means))
        with np.load(path, allow_pickle=False) as new:
            assert all(np.array_equal(old[name], new[name]) for name in old)
    with pytest.raises(ValueError, match="not every cell once"):
        nb.pack([*texts[:-1], texts[0]], means)
    with pytest.raises(ValueError, match="cifar10 test_200: not a whole number of 60,000 images"):
        nb.pack(texts, {**means, ("cifar10", "test_200"): means["cifar10", "test_200"] + 0.0005})


@pytest.fixture(scope="module")
def source() -> dict[str, Any]:
    """What the packaged table was made from."""
    parquet = pytest.importorskip("pyarrow.parquet")
    if not (SHARED / "nasbench201.parquet").is_file():
        pytest.skip("the collected table is not at hand")
    found: dict[str, Any] = parquet.read_table(SHARED / "nasbench201.parquet").to_pydict()
    return found


def test_every_number_of_the_source_is_kept(source: dict[str, Any]) -> None:
    assert source["arch_str"] == [nb.format_cell(nb.ops_at(index)) for index in source["index"]]
    for data, measure in nb.STEPS:
        name = f"{data.replace('-', '_')}_{'test_acc_200_mean' if measure == 'test_200' else 'valid_acc_12'}"
        # the sources average float32 percentages; ours count images
        assert np.abs(nb.packaged().mean(data, measure) - source[name]).max() < 5e-7


def test_sizes_and_formulas_agree_with_the_source(source: dict[str, Any]) -> None:
    for data, (classes, _) in nb.DATA.items():
        name = data.replace("-", "_")
        found = np.array([nb.size(nb.ops_at(index), data) for index in range(nb.CELLS)])
        assert np.array_equal(found[:, 0], np.rint(np.array(source[f"{name}_params_m_computed"]) * 1e6))
        # the source adds the classifier's bias
        assert np.array_equal(found[:, 1] + classes, np.rint(np.array(source[f"{name}_flops_m_computed"]) * 1e6))
    # ours never part what is one cell in the paper's finer count of 6,466, but for convolutions of nothing
    formulas = nb._formulas()
    for name in random.Random(0).sample(sorted(set(source["unique_str"])), 500):
        same = {formulas[index] for index, other in enumerate(source["unique_str"]) if other == name}
        assert len(same) == 1 or any("()" in text for text in same)
