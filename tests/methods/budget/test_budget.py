"""The budget: costs by hand, the limit against enumeration, and tables read from files."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import diffnas
from diffnas.core.batch import Batch
from diffnas.core.cell import Cell
from diffnas.core.count import count
from diffnas.core.genotype import Nodes
from diffnas.core.space import Shape
from diffnas.engine import Search, strongest
from diffnas.engine.stage import Transition
from diffnas.errors import RecipeError
from diffnas.methods.beta_darts import BetaDARTS
from diffnas.methods.budget.budget import Budget
from diffnas.methods.budget.cost_table import read_cost_table
from diffnas.methods.budget.knapsack import affordable, cost_of
from diffnas.registry import choice_class
from diffnas.spaces.darts_cnn.space import DartsCNN

DOUBLE = torch.float64
SPACE = DartsCNN(channels=4, layers=3, nodes=3, ops=("none", "skip_connect", "sep_conv_3x3", "dil_conv_3x3"))
SHAPE = Shape(10, 3, 8)


def build(make_search: Callable[..., Search], method: Budget, space: DartsCNN = SPACE, scale: float = 1.0) -> Search:
    search = make_search(space, method=method, dtype=DOUBLE, scale=scale)
    search.shape = SHAPE
    return search


def batches() -> dict[str, Batch]:
    draw = torch.Generator().manual_seed(0)
    images = {name: torch.randn(4, 3, 8, 8, generator=draw, dtype=DOUBLE) for name in ("train", "valid")}
    return {name: Batch(x, torch.randint(0, 10, (4,), generator=draw)) for name, x in images.items()}


def cost(search: Search, unit: str = "macs") -> int:
    """What the network of the genotype really costs."""
    network = search.space.network(search.derive(), SHAPE, channels=4, layers=3)
    return getattr(count(network, (3, 8, 8)), unit)


# -- the expected cost


@pytest.mark.parametrize("unit", ["macs", "params"])
def test_the_expected_cost_by_hand(make_search: Any, unit: Any) -> None:
    search = build(make_search, Budget(unit=unit, target=1e5, weight=0.5))
    costs, mixture = SPACE.costs(SHAPE, unit), search.relax("arch")
    expected = SPACE.fixed_cost(SHAPE, unit)
    for kind, cell in SPACE.cells.items():
        for e, (_, node) in enumerate(cell.edges):
            kept = 2 / node  # node n has n inputs, and keeps two
            expected += kept * sum(mixture[kind].op[e, o].item() * costs[kind][e][o] for o in range(4))
    method = search.method
    assert method.expected(search, mixture).item() == pytest.approx(expected / 1e5, rel=1e-12)
    excess = max(0.0, expected / 1e5 - 1)
    assert search.penalty(mixture).item() == pytest.approx(0.5 * excess, rel=1e-12)
    linear = build(make_search, Budget(unit=unit, target=1e9, weight=0.5, form="share"))
    assert linear.penalty(linear.relax("arch")).item() == pytest.approx(0.5 * expected / 1e9, rel=1e-12)
    assert build(make_search, Budget(unit=unit, target=1e9)).penalty(mixture).item() == 0.0


def test_the_usual_target_is_the_cost_of_equal_shares(make_search: Any) -> None:
    search = build(make_search, Budget(), scale=0.0)
    assert search.method.expected(search, search.relax("arch")).item() == pytest.approx(1.0, rel=1e-12)


def test_in_a_chain_it_is_the_cost_of_the_network() -> None:
    space = choice_class("space", "shufflenet-blocks")(channels=2, widths=(8, 16), depths=(1, 1), last=16)
    shape = Shape(4, 1, 8)
    torch.manual_seed(0)
    method = Budget(target=1000.0)
    arch = method.arch(space, torch.Generator().manual_seed(0))
    with torch.no_grad():
        arch.alpha["blocks"].copy_(torch.tensor([[60.0, 0, 0, 0], [0, 0, 0, 60.0]]))
    parts: dict[str, Any] = {"weights_optimizer": None, "arch_optimizer": None, "task": None}
    search = Search(method=method, space=space, supernet=torch.nn.Linear(1, 1), arch=arch, shape=shape, **parts)
    network = space.network(search.derive(), shape, channels=2, layers=2)
    assert 1000 * method.expected(search, search.relax("eval")).item() == pytest.approx(count(network, (1, 8, 8)).macs)


def test_the_network_counted_may_be_another_one(make_search: Any) -> None:
    wide = build(make_search, Budget(target=1.0, channels=8, layers=4, side=16))
    shape, size = replace(SHAPE, side=16), replace(SPACE.size, channels=8, layers=4)
    mixture = wide.relax("arch").map(torch.zeros_like)
    assert wide.method.expected(wide, mixture).item() == SPACE.fixed_cost(shape, "macs", size)
    odd = build(make_search, Budget(channels=5))
    with pytest.raises(RecipeError, match="method.channels: must be even, not 5.* in the network that is counted"):
        odd.penalty(odd.relax("arch"))


def test_the_penalty_makes_networks_cheaper(make_search: Any) -> None:
    data, found = batches(), []
    for weight in (0.0, 50.0):
        search = build(make_search, Budget(weight=weight, target=1000.0))
        for group in search.arch_optimizer.param_groups:
            group["lr"] = 0.05
        for _ in range(3):
            search.method.step(search, data)
        found.append(Budget(target=1000.0).expected(search, search.relax("eval")).item())
        assert not any(name.startswith("budget") for name in search.arch.state_dict())
    assert found[1] < 0.98 * found[0]
    assert build(make_search, Budget(weight=0.0)).penalty(search.relax("arch")) is None


def test_it_adds_to_the_penalty_of_the_method_within(make_search: Any) -> None:
    search = build(make_search, Budget(BetaDARTS(), target=1000.0))
    search.clock = replace(search.clock, epoch=1, epochs=2)
    mixture, alone = search.relax("arch"), build(make_search, Budget(target=1000.0))
    own = search.method.base.penalty(search, mixture)
    assert search.penalty(mixture).item() == pytest.approx(own.item() + alone.penalty(alone.relax("arch")).item())


# -- the limit


def every(cells: dict[str, Cell]) -> list[dict[str, tuple[tuple[tuple[int, int], ...], ...]]]:
    """Every choice there is, as (edge, op) pairs per node and kind."""
    kinds = []
    for cell in cells.values():
        nodes = []
        for node in cell.nodes:
            edges, options = cell.edges_into(node), []
            for kept in itertools.combinations(edges, len(edges) if cell.in_degree is None else cell.in_degree):
                ops = [
                    [o for o, op in enumerate(cell.ops) if cell.allowed[e][o] and op not in cell.excluded] for e in kept
                ]
                options += [tuple(zip(kept, chosen, strict=True)) for chosen in itertools.product(*ops)]
            nodes.append(options)
        kinds.append(list(itertools.product(*nodes)))
    return [dict(zip(cells, whole, strict=True)) for whole in itertools.product(*kinds)]


def summed(choice: Any, values: dict[str, Any]) -> float:
    return sum(values[kind][e][o] for kind, nodes in choice.items() for node in nodes for e, o in node)


def strength_of(cells: dict[str, Cell], nodes: dict[str, Nodes], strength: dict[str, Any]) -> float:
    return cost_of(cells, nodes, strength)


@pytest.mark.parametrize("seed", range(4))
def test_the_limit_against_enumeration(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    cells = {
        "a": Cell.dense(("none", "x", "y"), 1, 3, in_degree=2 if seed % 2 else None, excluded=("none",)),
        "b": Cell.dense(("x", "y", "z"), 2, 1, in_degree=1, allowed=[["x", "y"], ["x", "z"]]),
    }
    if seed % 2:
        cells["a"] = replace(cells["a"], in_degree=1)
    shapes = {kind: (len(cell.edges), len(cell.ops)) for kind, cell in cells.items()}
    strength = {k: torch.rand(s, generator=draw, dtype=DOUBLE).tolist() for k, s in shapes.items()}
    costs = {k: torch.randint(0, 20, s, generator=draw).double().tolist() for k, s in shapes.items()}
    choices = every(cells)
    assert len(choices) == (2**6 if seed % 2 == 0 else 2 * 4 * 6) * 4
    table = sorted((summed(c, costs), summed(c, strength)) for c in choices)
    least, most = table[0][0], table[-1][0]
    for limit in torch.linspace(least, most, 12).tolist():
        found = affordable(cells, strength, costs, limit)
        best = max(s for c, s in table if c <= limit)
        assert cost_of(cells, found, costs) <= limit
        assert strength_of(cells, found, strength) == pytest.approx(best, rel=1e-12)
    below = affordable(cells, strength, costs, least - 1)
    assert cost_of(cells, below, costs) == least  # nothing fits: the cheapest


def test_without_a_limit_it_is_the_usual_derivation() -> None:
    cells = DartsCNN().cells
    draw = torch.Generator().manual_seed(3)
    for _ in range(5):
        shares = {k: torch.randn(14, 8, generator=draw).softmax(-1) for k in cells}
        rows = {k: s.tolist() for k, s in shares.items()}
        found = affordable(cells, rows, DartsCNN().costs(Shape(10), "macs"), 1e18)
        assert found == {k: strongest(cell, shares[k]) for k, cell in cells.items()}


@pytest.mark.parametrize("unit", ["macs", "params"])
def test_no_derived_network_passes_the_limit(make_search: Any, unit: Any) -> None:
    free = build(make_search, Budget(unit=unit), scale=3.0)
    usual, cheapest = cost(free, unit), SPACE.fixed_cost(SHAPE, unit)  # skip connections of stride 1 cost nothing
    found = []
    for share in (1.0, 0.8, 0.6):
        limit = cheapest + share * (usual - cheapest)
        search = build(make_search, Budget(unit=unit, limit=limit), scale=3.0)
        assert search.method.on_epoch_boundary(search, 0) == Transition()
        found.append(cost(search, unit))
        assert found[-1] <= limit
    assert found[0] == usual and free.derive() == build(make_search, Budget(unit=unit, limit=usual), scale=3.0).derive()
    assert found[2] > 0.5 * found[1]  # it does not fall further than it must


def test_a_limit_below_the_cheapest_network_is_refused(make_search: Any) -> None:
    search = build(make_search, Budget(limit=100.0))
    with pytest.raises(RecipeError, match=r"method.limit: must be at least \d+ macs, what the cheapest network costs"):
        search.method.on_epoch_boundary(search, 0)
    least = float(search.space.fixed_cost(SHAPE, "macs"))
    assert build(make_search, Budget(limit=100.0)).derive() is not None  # the cheapest there is
    assert cost(build(make_search, Budget(limit=100.0))) >= least


# -- tables


def written(folder: Path, text: str, name: str = "table.csv") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def mistakes(folder: Path, text: str, name: str = "table.csv") -> list[str]:
    with pytest.raises(RecipeError) as caught:
        read_cost_table(written(folder, text, name))
    return [line.replace(f"{folder}/", "") for line in caught.value.lines]


def test_a_table_by_op_or_by_place(tmp_path: Path) -> None:
    table = read_cost_table(written(tmp_path, "op,cost\nx,1.5\ny,2\n"))
    assert table.cost("a", 0, "x") == 1.5 and table.cost("b", 7, "y") == 2.0 and table.cost("a", 0, "z") is None
    table = read_cost_table(written(tmp_path, "kind,edge,op,cost\n,,x,1\na,,x,2\na,3,x,4\n,3,x,5\n"))
    assert [table.cost(*place, "x") for place in (("b", 0), ("a", 0), ("a", 3), ("b", 3))] == [1, 2, 4, 5]
    same = read_cost_table(written(tmp_path, json.dumps({"x": 1.5, "y": 2}), "t.json"))
    assert same.costs == read_cost_table(written(tmp_path, "\ufeffop,cost\nx,1.5\ny,2\n")).costs
    rows = [{"op": "x", "cost": 1}, {"kind": "a", "edge": 3, "op": "x", "cost": 4}]
    assert read_cost_table(written(tmp_path, json.dumps(rows), "t.json")).cost("a", 3, "x") == 4.0


def test_every_mistake_of_a_table_has_a_line(tmp_path: Path) -> None:
    text = "kind,edge,op,cost\n,,x,nan\n,,y,-1\n,,z,\n,-1,x,1\n,,,3\n,,u,1\n,,u,2\n,,w,1,9\na\n"
    found = mistakes(tmp_path, text)
    assert [line.partition(":")[0] for line in found] == [f"table.csv, line {n}" for n in (2, 3, 4, 5, 6, 8, 9, 10)]
    assert found[0].endswith("cost must be a number of at least 0; got 'nan'") and found[5].endswith(
        "gives a cost twice"
    )
    assert "edge must be a whole number" in found[3] and "op must be the name" in found[4]
    for text in ("", "name,price\nx,1\n", "op,cost,op\n", 'op,cost\n"x,1\n', "op,cost\n"):
        assert len(mistakes(tmp_path, text)) == 1
    for text in (
        "[1]",
        "3",
        "{",
        '{"x": true}',
        '{"x": "1e999"}',
        '[{"op": "x"}]',
        "[[]]",
        "[" * 5000,
        '[{"op": 3}]',
        "{}",
    ):
        assert len(mistakes(tmp_path, text, "t.json")) == 1
    assert "must end in .csv or .json" in mistakes(tmp_path, "", "t.txt")[0]
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "t.csv", tmp_path / "absent.csv", tmp_path, "\0.csv", "x" * 5000):
        with pytest.raises(RecipeError):
            read_cost_table(path)


def test_a_budget_of_latency(make_search: Any, tmp_path: Path) -> None:
    table = written(tmp_path, "op,cost\nskip_connect,1\nsep_conv_3x3,10\ndil_conv_3x3,5\n")
    search = build(make_search, Budget(unit="latency", table=table, limit=12.0), scale=2.0)
    assert search.method.check_settings() == [] and search.method.check_space(SPACE) == []
    ops = [op for nodes in search.derive().cells.values() for op in nodes.ops]
    assert len(ops) == 12 and set(ops) == {"skip_connect"}  # twelve ops at 1 each
    loose = build(make_search, Budget(unit="latency", table=table, limit=40.0), scale=2.0)
    ops = [op for nodes in loose.derive().cells.values() for op in nodes.ops]
    assert sum({"skip_connect": 1, "sep_conv_3x3": 10, "dil_conv_3x3": 5}[op] for op in ops) <= 40 < 60
    short = written(tmp_path, "op,cost\nskip_connect,1\n", "short.csv")
    assert Budget(unit="latency", table=short).check_space(SPACE) == [
        ("ops", f"dil_conv_3x3 has no cost in {short}"),
        ("ops", f"sep_conv_3x3 has no cost in {short}"),
    ]


def test_refusals_and_misfits(tmp_path: Path) -> None:
    assert Budget().check_settings() == [] and Budget().check_space(SPACE) == []
    assert [key for key, _ in Budget(unit="latency").check_settings()] == ["table"]
    bad = written(tmp_path, "op,cost\nx,y\n")
    found = Budget(table=bad).check_settings()
    assert [key for key, _ in found] == ["table", "table"] and "line 2" in found[1][1]
    assert Budget(table=bad, unit="latency").check_space(SPACE) == []  # refused already

    class Silent:
        name, modality = "silent", "text"
        cells = SPACE.cells

    assert "silent does not tell what its ops cost" in dict(Budget().check_space(Silent()))["name"]
    with pytest.raises(RecipeError, match="method.table: .*line 2: cost must be a number"):
        diffnas.read_recipe("darts-digits-tiny", [f"method={{name: budget, unit: latency, table: {bad}}}"])


def test_a_search_within_a_budget(tmp_path: Path) -> None:
    settings = ["space.channels=2", "space.layers=1", "space.nodes=2", "data.train_limit=128", "search.epochs=1"]
    recipe = diffnas.read_recipe("darts-digits-tiny", [*settings, "method={name: budget, unit: params, limit: 250}"])
    run = diffnas.search(recipe, tmp_path / "run")
    genotype = diffnas.load_genotype(run)
    network = recipe.space.network(genotype, recipe.shape, channels=2, layers=1)
    assert count(network, (1, 8, 8)).params <= 250
    low = diffnas.read_recipe("darts-digits-tiny", [*settings, "method={name: budget, unit: params, limit: 5}"])
    with pytest.raises(RecipeError, match="method.limit: must be at least"):
        diffnas.search(low, tmp_path / "low")
