"""P-DARTS: its stages, its dropout, its limit to skip connections, and whole derivations of the original."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import diffnas
from diffnas.core.batch import Batch
from diffnas.core.cell import Cell
from diffnas.core.genotype import Nodes
from diffnas.core.mixture import allowed_mask, softmax_allowed
from diffnas.core.space import Size
from diffnas.engine import Search, differentiate
from diffnas.engine.stage import Clock, Stage
from diffnas.interop import load_weights, translate
from diffnas.methods.pdarts import PDARTS, restricted
from diffnas.pipeline.stages import top
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.spaces.nasbench201.space import NASBench201

Build = Callable[..., Search]
OPS = ("none", "skip_connect", "conv", "pool")
KINDS = ("normal", "reduce")


def test_three_fresh_stages() -> None:
    size = Size(16, 5)
    assert PDARTS().stages(75, size) == (
        Stage(25, size, warmup=10),
        Stage(25, replace(size, layers=11), keep=5, warmup=10),
        Stage(25, replace(size, layers=17), keep=3, warmup=10),
    )
    assert [stage.epochs for stage in PDARTS().stages(77, size)] == [26, 26, 25]
    assert [stage.epochs for stage in PDARTS().stages(1, size)] == [1, 1, 1]
    assert all(stage.fresh for stage in PDARTS().stages(75, size))


def test_skip_dropout_fades_twice() -> None:
    method = PDARTS()
    for stage, first in enumerate((0.1, 0.4, 0.7)):
        found = [method.supernet_buffers(Clock(stage, epoch, epoch, 25))["skip_dropout"] for epoch in range(25)]
        line = [first * (25 - e - 1) / 25 for e in range(10)]
        assert found == pytest.approx(line + [first * math.exp(-0.2 * (e - 10)) for e in range(10, 25)])
    assert PDARTS(rates=(0.0, 0.0, 0.0)).supernet_buffers(Clock()) == {}


def test_what_does_not_go_together() -> None:
    assert PDARTS().check_space(DartsCNN(skip_dropout=True)) == []
    assert PDARTS(rates=(0.0, 0.0, 0.0)).check_space(NASBench201()) == []
    assert [key for key, _ in PDARTS().check_space(DartsCNN())] == ["skip_dropout"]
    assert [key for key, _ in PDARTS().check_space(NASBench201())] == ["name"]
    assert PDARTS().check_settings() == []
    wrong = PDARTS(added_layers=(6, 3), kept_ops=(3, 5), rates=(0.1, 1.0, 0.0))
    assert [key for key, _ in wrong.check_settings()] == ["added_layers", "kept_ops", "rates"]


def test_the_weakest_skip_goes_first_and_edges_are_chosen_anew() -> None:
    cell = Cell.dense(OPS, 2, 2, in_degree=2, excluded=("none",))
    shares = torch.tensor(
        [
            [0.1, 0.6, 0.2, 0.1],  # 0 -> 2
            [0.3, 0.4, 0.1, 0.2],  # 1 -> 2
            [0.1, 0.5, 0.3, 0.1],  # 0 -> 3: without its skip, weaker than 1 -> 3
            [0.5, 0.0, 0.1, 0.4],  # 1 -> 3
            [0.0, 0.9, 0.1, 0.0],  # 2 -> 3
        ]
    )
    before = shares.clone()
    steps = [restricted(cell, shares, most) for most in range(9)]
    assert torch.equal(shares, before) and steps[8] == steps[4]
    skip = "skip_connect"
    assert steps[4].inputs == (((skip, 0), (skip, 1)), ((skip, 0), (skip, 2))) == restricted(cell, shares, None).inputs
    assert steps[3].inputs == (((skip, 0), ("pool", 1)), ((skip, 0), (skip, 2)))
    assert steps[2].inputs == (((skip, 0), ("pool", 1)), (("pool", 1), (skip, 2)))
    assert steps[1].inputs == ((("conv", 0), ("pool", 1)), (("pool", 1), (skip, 2)))
    assert steps[0].inputs == ((("conv", 0), ("pool", 1)), (("conv", 0), ("pool", 1)))


def test_ties_go_to_the_later_edge_in_the_order_of_sources() -> None:
    cell = Cell.dense(OPS, 2, 2, in_degree=2, excluded=("none",))
    shares = torch.tensor([[0.2, 0.2, 0.6, 0.0]] * 5)
    assert restricted(cell, shares, 2).inputs == ((("conv", 0), ("conv", 1)), (("conv", 1), ("conv", 2)))


def test_a_skip_with_nothing_in_its_place_stays() -> None:
    cell = Cell.dense(("skip_connect",), 2, 1, in_degree=2)
    assert restricted(cell, torch.ones(2, 1), 1).ops == ("skip_connect", "skip_connect")
    plain = Cell.dense(("a", "b"), 2, 1, in_degree=2)
    assert restricted(plain, torch.tensor([[0.5, 0.5], [0.2, 0.8]]), 0).ops == ("a", "b")


def test_only_cells_that_keep_the_resolution_are_limited(make_search: Build) -> None:
    space = DartsCNN(channels=4, layers=2, nodes=3)
    for most, normal in ((2, 2), (0, 0), (None, 6)):
        search = make_search(space, PDARTS(max_skips=most))
        with torch.no_grad():
            for alpha in search.arch.parameters():
                alpha[:, 3] += 1.0
        genotype = search.derive()
        assert genotype is not None
        found = {kind: nodes.ops.count("skip_connect") for kind, nodes in genotype.cells.items()}
        assert found == {"normal": normal, "reduce": 6}


def test_a_cell_that_keeps_all_edges_has_its_ops_chosen_anew() -> None:
    cell = NASBench201().cells["cell"]
    shares = torch.tensor([[0.1, 0.5, 0.1, 0.3, 0.0]] * 4 + [[0.3, 0.4, 0.1, 0.1, 0.1]] * 2)
    ops = restricted(cell, shares, 2).ops
    assert len(ops) == 6 and ops.count("skip_connect") == 2 and ops[4:] == ("none", "none")


def test_a_whole_search(tmp_path: Path) -> None:
    settings = ["method.name=pdarts", "method.warmup=0", "method.added_layers=[1, 1]", "space.skip_dropout=true"]
    size = ["space.channels=2", "space.layers=1", "space.nodes=1", "data.train_limit=128", "search.epochs=3"]
    run = diffnas.search(diffnas.read_recipe("darts-digits-tiny", [*settings, *size]), tmp_path / "run")
    rows = list(run.search.metrics())
    assert [row["stage"] for row in rows] == [0, 1, 2] and len({row["lr"] for row in rows}) == 1  # each starts afresh
    for row, kept in zip(rows, (8, 5, 3), strict=True):
        assert all(sum(share > 0 for share in edge) == kept for edge in row["strength"]["normal"])


def listed(nodes: Nodes) -> list[list[Any]]:
    return [[op, source] for node in nodes.inputs for op, source in node]


def shares_of(case: Any, stage: int, kind: str) -> tuple[Cell, Tensor]:
    """The narrowed cell of a recorded stage, and the shares of its alphas, which are listed op by op that is left."""
    allowed = torch.tensor(case["stages"][stage][f"switches_{kind}"], dtype=torch.bool)
    cell = DartsCNN().cells[kind].keep(allowed.tolist())
    alphas = torch.zeros(allowed.shape)
    alphas[allowed] = torch.tensor(case["stages"][stage][f"alphas_{kind}"]).flatten()
    return cell, softmax_allowed(alphas, allowed_mask(cell))


@pytest.mark.parametrize("kind", KINDS)
def test_the_original_keeps_the_same_ops(kind: str, record: Any) -> None:
    method = PDARTS(rates=(0.0, 0.0, 0.0))
    cases = record("ij_pdarts_derivation")["cases"]
    assert len(cases) >= 20
    for case in cases:
        stages = method.stages(75, Size(case["stages"][0]["C"], case["stages"][0]["layers"]))
        for index, (stage, recorded) in enumerate(zip(stages, case["stages"], strict=True)):
            assert (stage.size.channels, stage.size.layers) == (recorded["C"], recorded["layers"])
            cell, shares = shares_of(case, index, kind)
            if index < 2:
                kept = cell.keep(top(shares, stages[index + 1].keep or 0).tolist())
                assert kept.allowed == shares_of(case, index + 1, kind)[0].allowed


def test_the_original_derives_and_restricts_the_same_cells(record: Any) -> None:
    steps = 0
    for case in record("ij_pdarts_derivation")["cases"]:
        normal, reduce = (shares_of(case, 2, kind) for kind in KINDS)
        assert listed(restricted(*normal, None)) == case["genotype"]["normal"]
        assert listed(restricted(*reduce, None)) == case["genotype"]["reduce"]
        assert restricted(*normal, None).ops.count("skip_connect") == case["normal_skips"]
        for step in case["restricted"]:
            assert listed(restricted(*normal, step["max_skips"])) == step["genotype"]["normal"]
            assert case["genotype"]["reduce"] == step["genotype"]["reduce"]
            steps += 1
    assert steps > 30


def narrowed(call: Any) -> DartsCNN:
    """The space of a recorded second stage."""
    switches = {kind: call.given[f"switches_{kind}"] for kind in KINDS}
    space = DartsCNN(channels=4, layers=5, skip_dropout=True)
    return space.narrow(switches)


def recorded(call: Any, make_search: Build) -> Search:
    search = make_search(narrowed(call), PDARTS(), side=16)
    load_weights(search.supernet, call.state, "pdarts")
    with torch.no_grad():
        for kind, alpha in search.arch.get_submodule("alpha").named_parameters():
            alpha[call.given[f"switches_{kind}"]] = call.given[f"alphas_{kind}"].flatten()
    return search


def test_the_original_second_stage(oracle: Any, close: Any, make_search: Build) -> None:
    call = oracle("e_pdarts_stage2")
    search = recorded(call, make_search)
    mixture = search.relax("arch")
    found = differentiate(search, mixture, Batch(call.given["x"], call.given["y"]), {"weights", "mixture"})
    close(found.loss.value, call.found["loss"])
    alphas = torch.autograd.grad(mixture.tensors(), list(search.arch.parameters()), found.mixture)
    grads = [a[call.given[f"switches_{kind}"]].view(14, 5) for kind, a in zip(KINDS, alphas, strict=True)]
    close(torch.cat(grads), torch.cat([call.found[f"grad/alphas_{kind}"] for kind in KINDS]))
    names = [name for name, _ in search.supernet.named_parameters()]
    expected = call.group("grad/")
    for theirs, ours in translate(search.supernet, expected, "pdarts").items():
        close(found.weights[names.index(ours)], expected[theirs])
    close(search.supernet.eval()(call.given["x"], mixture), call.found["logits_evalmode_after"])


def test_the_original_second_stage_evaluates_without_dropout(oracle: Any, close: Any, make_search: Build) -> None:
    call = oracle("e_pdarts_stage2_skipdropout_eval")
    search = recorded(call, make_search)
    search.supernet.get_buffer("skip_dropout").fill_(0.4)
    logits = search.supernet.eval()(call.given["x"], search.relax("eval"))
    close(logits, call.found["logits_evalmode_after"])
    assert not torch.equal(search.supernet.train()(call.given["x"], search.relax("eval")), logits)
