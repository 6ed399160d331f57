"""DARTS-PT: every choice against brute force, what the decisions do to mixtures and cells, and whole searches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import diffnas
from diffnas.core.batch import Batch
from diffnas.core.mixture import Mix, Mixture
from diffnas.core.seeds import generator
from diffnas.core.space import Shape, Size
from diffnas.engine import Search
from diffnas.engine.stage import Clock, Stage, Transition
from diffnas.errors import Diverged, Interrupted
from diffnas.methods.budget.budget import Budget
from diffnas.methods.darts import DARTS
from diffnas.methods.darts_minus import DARTSMinus
from diffnas.methods.darts_plus import DARTSPlus
from diffnas.methods.darts_pt import (
    DARTSPT,
    GONE,
    OPEN,
    before_tuning,
    decide_edge,
    decide_node,
    decisions,
    due,
    score_without,
)
from diffnas.methods.pdarts import PDARTS
from diffnas.methods.smooth_darts import SmoothDARTS
from diffnas.registry import SPACES, choice_class
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.tasks.classification import Classification

OPS = ("none", "skip_connect", "avg_pool_3x3", "sep_conv_3x3")
SPACE = DartsCNN(channels=2, layers=3, nodes=3, ops=OPS)
DOUBLE = torch.float64


class Scored:
    """A feed of three batches, the last one smaller."""

    steps = 3

    def epoch(self, epoch: int) -> list[Batch]:
        draw = torch.Generator().manual_seed(5)
        images = [torch.randn(n, 3, 8, 8, generator=draw, dtype=DOUBLE) for n in (6, 6, 4)]
        return [Batch(x, torch.randint(0, 10, (len(x),), generator=draw)) for x in images]


def build(method: DARTSPT, space: DartsCNN = SPACE, form: Any = "plain", seed: int = 0) -> Search:
    """A search in the tuning stage, its alphas and weights far from their first values, in float64."""
    torch.manual_seed(seed)
    supernet = space.supernet(Shape(10, 3, 8), form=form).to(DOUBLE)
    arch = method.arch(space, generator(seed, "arch")).to(DOUBLE)
    with torch.no_grad():
        for parameter in arch.parameters():
            parameter.mul_(1000.0)
    return Search(
        method=method,
        space=space,
        supernet=supernet,
        arch=arch,
        weights_optimizer=torch.optim.SGD(supernet.parameters(), 0.0025, 0.9, weight_decay=3e-4),
        arch_optimizer=torch.optim.Adam(arch.parameters(), 3e-4, (0.5, 0.999), weight_decay=1e-3),
        task=Classification(),
        seed=seed,
        clip=5.0,
        clock=Clock(stage=1, epochs=method.tuning, total=50, selecting=True),
        feeds={"score": Scored()},
    )


def choices(search: Search) -> dict[str, list[int]]:
    return {kind: search.arch.get_buffer(f"choice_{kind}").tolist() for kind in search.space.cells}


def measured(search: Search, kind: str, change: Callable[[Tensor], None]) -> tuple[float, float]:
    """(accuracy, loss) of a copy of the supernet in training mode, the shares of `kind` changed, without the engine."""
    shares = {k: alpha.detach().softmax(-1) for k, alpha in search.arch.alpha.items()}
    for k, row in choices(search).items():
        for e, o in enumerate(row):
            if o != OPEN:
                shares[k][e] = 0.0
            if o >= 0:
                shares[k][e, o] = 1.0
    change(shares[kind])
    right = loss = count = 0.0
    supernet = copy.deepcopy(search.supernet).train().requires_grad_(False)
    for batch in Scored().epoch(0):
        logits = supernet(batch.inputs, {k: Mix(op) for k, op in shares.items()})
        right += float((logits.argmax(1) == batch.targets).sum())
        loss += float(F.cross_entropy(logits, batch.targets, reduction="sum"))
        count += len(batch.targets)
    return right / count, loss / count


def zero(*place: Any) -> Callable[[Tensor], None]:
    return lambda op: op.__setitem__(place, 0.0)


def advance(search: Search, epoch: int) -> None:
    search.clock = replace(search.clock, stage_epoch=epoch, epoch=epoch, total=50 + epoch)


@pytest.mark.parametrize("criterion", ["accuracy", "loss"])
def test_the_score_without_an_op(criterion: Any) -> None:
    search = build(DARTSPT(criterion=criterion))
    before = {name: t.clone() for name, t in search.supernet.state_dict().items()}
    found = score_without(search, "reduce", [(2, o) for o in range(4)], criterion)
    for o in range(4):
        accuracy, loss = measured(search, "reduce", zero(2, o))
        assert found[o] == pytest.approx(accuracy if criterion == "accuracy" else -loss, rel=1e-5)  # sums are float32
    assert all(torch.equal(before[name], t) for name, t in search.supernet.state_dict().items())


@pytest.mark.parametrize("criterion", ["accuracy", "loss"])
def test_nothing_is_decided_by_what_is_not_finite(criterion: Any) -> None:
    search = build(DARTSPT(criterion=criterion))
    with torch.no_grad():
        search.weights[0].fill_(torch.nan)
    with pytest.raises(Diverged, match="after epoch 50 the loss without an op is not finite"):
        decide_edge(search, "normal", 0, criterion)
    assert choices(search)["normal"][0] == OPEN


def test_the_op_that_is_missed_most_stays() -> None:
    for edge in (0, 7):
        search = build(DARTSPT(criterion="loss"), seed=edge)
        losses = [measured(search, "normal", zero(edge, o))[1] for o in (1, 2, 3)]  # `none` is never derived
        decide_edge(search, "normal", edge, "loss")
        assert choices(search)["normal"][edge] == 1 + losses.index(max(losses))
        again = build(DARTSPT(), seed=edge)
        accuracies = [measured(again, "normal", zero(edge, o))[0] for o in (1, 2, 3)]
        decide_edge(again, "normal", edge, "accuracy")
        assert choices(again)["normal"][edge] == 1 + accuracies.index(min(accuracies))


# criterion, what the original `project_edge` was told of a node's edges, which of them it kept
NODES = [
    ("loss", [2, 2, 1, 1, 0], [0, 1]),
    ("accuracy", [0, 0, 3], [0, 1]),
    ("loss", [3, 2, 2, 3], [0, 3]),
    ("accuracy", [2, 2, 2, 3, 1], [0, 4]),
    ("accuracy", [0, 1, 1, 1], [0, 1]),
    ("loss", [0, 0, 0, 0], [0, 1]),
    ("loss", [1, 3, 3, 3], [1, 2]),
    ("accuracy", [2, 3, 2, 3], [0, 2]),
]


@pytest.mark.parametrize(("criterion", "told", "kept"), NODES)
def test_edges_are_deleted_as_by_the_original(
    criterion: Any, told: list[int], kept: list[int], monkeypatch: Any
) -> None:
    """All edges are there when one is measured; of equal ones the last goes first."""
    search, asked = build(DARTSPT(), DartsCNN(channels=2, layers=3, nodes=4, ops=OPS)), []

    def given(search: Search, kind: str, entries: list[int], criterion: str) -> list[float]:
        asked.append(list(entries))
        return [told[entry] * (1.0 if criterion == "accuracy" else -1.0) for entry in entries]

    monkeypatch.setattr("diffnas.methods.darts_pt.score_without", given)
    search.arch.get_buffer("choice_normal")[: len(told)] = 1
    decide_node(search, "normal", list(range(len(told))), 2, criterion)
    assert [e for e in range(len(told)) if choices(search)["normal"][e] == 1] == kept
    assert asked == [list(range(len(told)))]


def test_the_edges_that_are_missed_least_may_go_one_by_one() -> None:
    search = build(DARTSPT(criterion="loss"))
    edges = list(search.space.cells["reduce"].edges_into(4))
    for e in edges:
        decide_edge(search, "reduce", e, "loss")
    expected, left = choices(search)["reduce"], list(edges)
    while len(left) > 2:
        losses = []
        for e in left:

            def change(op: Tensor, e: int = e) -> None:
                op[[*set(edges) - set(left), e]] = 0.0

            losses.append(measured(search, "reduce", change)[1])
        gone = left.pop(losses.index(min(losses)))
        expected[gone] = GONE
    decide_node(search, "reduce", edges, 2, "loss", "left")
    assert choices(search)["reduce"] == expected and expected.count(GONE) == 2


def test_decided_edges_have_one_op_and_the_others_the_shares_of_the_method_within() -> None:
    search = build(DARTSPT())
    before = search.relax("arch")
    assert all(torch.equal(mix.op, search.arch()[kind].op) for kind, mix in before.items())
    search.arch.get_buffer("choice_normal")[:3] = torch.tensor([3, GONE, 1])
    mix = search.relax("arch")["normal"]
    assert mix.op[0].tolist() == [0, 0, 0, 1] and mix.op[1].tolist() == [0] * 4 and mix.op[2].tolist() == [0, 1, 0, 0]
    assert torch.equal(mix.op[3:], before["normal"].op[3:]) and mix.op.requires_grad
    assert torch.equal(mix.active[:3], mix.op[:3] > 0) and mix.active[3:].all()
    search.clock = replace(search.clock, stage=0, selecting=False)
    assert search.relax("arch")["normal"].active is None  # before the tuning stage nothing is looked up


def test_a_promise_of_the_method_within_is_kept() -> None:
    search = build(DARTSPT())
    active = torch.zeros(9, 4, dtype=torch.bool)
    active[:, 2] = True
    search.arch.forward = lambda: Mixture({k: Mix(active.to(DOUBLE), active=active) for k in ("normal", "reduce")})
    search.arch.get_buffer("choice_reduce")[4] = 3
    found = search.relax("eval")["reduce"].active
    assert found[4].tolist() == [False, False, False, True] and torch.equal(found[:4], active[:4])


@pytest.mark.parametrize("form", ["plain", "fast"])
def test_a_whole_tuning_decides_everything(form: Any) -> None:
    method = DARTSPT(interval=2, tuning=21, criterion="loss")
    search = build(method, form=form)
    cell = SPACE.cells["normal"]
    assert decisions(cell) == 11 and method.check_space(SPACE) == []
    counts, draw = [], torch.Generator().manual_seed(1)
    for epoch in range(method.tuning):
        advance(search, epoch)
        before = choices(search)
        assert search.method.on_epoch_boundary(search, epoch) == search.method.on_epoch_boundary(
            search, epoch
        )  # the second time in vain
        counts.append(sum(a != b for a, b in zip(before["normal"], choices(search)["normal"], strict=True)))
        images = torch.randn(4, 3, 8, 8, generator=draw, dtype=DOUBLE)
        data = Batch(images, torch.randint(0, 10, (4,), generator=draw))
        search.method.step(search, {"train": data, "valid": data})
        assert search.derive() is not None
    assert counts[:18:2] == [1] * 9 and not any(counts[1::2])  # nine edges, ...
    assert sum(counts[18:]) == 1 + 2  # ... then the nodes of three and four inputs, which keep two
    advance(search, method.tuning)
    search.method.on_epoch_boundary(search, method.tuning)
    genotype = search.derive()
    for kind, row in choices(search).items():
        kept = {(SPACE.ops[o], *cell.edges[e]) for e, o in enumerate(row) if o >= 0}
        nodes = zip(cell.nodes, genotype.cells[kind].inputs, strict=True)
        assert {(op, source, node) for node, inputs in nodes for op, source in inputs} == kept and len(kept) == 6
        assert (search.relax("eval")[kind].op.sum(-1) == torch.tensor([float(o >= 0) for o in row])).all()


def test_decisions_are_random_but_repeat() -> None:
    found = []
    for seed in (0, 0, 1, 2, 3):
        search = build(DARTSPT(), seed=0)
        search.seed = seed
        before = search.shared.get_state()
        search.method.on_epoch_boundary(search, 0)
        assert torch.equal(before, search.shared.get_state())
        found.append(choices(search))
    assert found[0] == found[1] and len({str(each) for each in found}) > 1
    assert all(sum(o != OPEN for o in row) == 1 for each in found for row in each.values())


def test_derivation_takes_what_is_decided_and_else_the_strongest() -> None:
    search = build(DARTSPT())
    whole = search.derive()
    search.clock = replace(search.clock, stage=0, selecting=False)
    assert search.derive() == whole  # nothing is decided
    search.clock = replace(search.clock, stage=1, selecting=True)
    weakest = search.strength()["normal"][:, 1:].argmin(-1) + 1
    search.arch.get_buffer("choice_normal").copy_(weakest)
    assert search.derive().cells["normal"] != whole.cells["normal"]
    search.arch.get_buffer("choice_normal")[1] = GONE
    for op, source in search.derive().cells["normal"].inputs[0]:
        assert source == 0 and op == OPS[int(weakest[0])]


def test_blank_leaves_the_architecture_alone() -> None:
    search = build(DARTSPT(blank=True))
    before = {name: t.clone() for name, t in search.arch.state_dict().items()}
    data = Scored().epoch(0)
    for stage in (0, 1):
        search.clock = replace(search.clock, stage=stage, selecting=stage == 1)
        weights = [w.detach().clone() for w in search.weights]
        assert set(search.method.step(search, {"train": data[0], "valid": data[1]})) == {"train"}
        assert any(not torch.equal(a, b) for a, b in zip(weights, search.weights, strict=True))
    assert all(torch.equal(before[name], t) for name, t in search.arch.state_dict().items())


def test_stages_and_dials() -> None:
    size = Size(16, 8)
    tuning = Stage(81, size, fresh=False, restart=True, rate=0.1, constant=True)
    assert DARTSPT().stages(50, size) == (Stage(50, size), tuning)
    assert DARTSPT(falling=True).stages(50, size)[1] == replace(tuning, constant=False)
    progressive = DARTSPT(PDARTS()).stages(75, Size(16, 5))
    assert len(progressive) == 4 and progressive[3].size == progressive[2].size
    within = Clock(stage=0, stage_epoch=10, epoch=10, epochs=50, total=10)
    later = Clock(stage=1, stage_epoch=3, epoch=3, epochs=81, total=53, selecting=True)
    assert before_tuning(within) == within
    assert before_tuning(later) == Clock(stage=0, stage_epoch=49, epoch=50, epochs=50, total=53)


def test_the_method_within_does_not_begin_its_annealing_anew() -> None:
    method = DARTSPT(SmoothDARTS())
    search = build(method)
    clean = search.arch()["reduce"].op.detach()
    largest = max(float((search.relax("weights")["reduce"].op - clean).abs().max()) for _ in range(5))
    assert largest > 0.1  # epsilon stays at 0.3; anew it would be 0.03
    for around in (method.base, SmoothDARTS(DARTSPT())):
        clock = before_tuning(search.clock) if around is method.base else search.clock
        assert around.epsilon(clock) == pytest.approx(0.3)
    minus = DARTSPT(DARTSMinus())
    space = DartsCNN(channels=2, layers=1, nodes=1, ops=(*OPS, "auxiliary_skip"), excluded=("none", "auxiliary_skip"))
    assert minus.check_space(space) == []
    search = build(minus, space)
    assert search.relax("arch")["reduce"].op[:, -1].tolist() == [0.0] * 2  # faded out


def test_refusals_and_misfits() -> None:
    assert DARTSPT().check_settings() == [] and DARTSPT(DARTSPT()).check_settings()[-1][0] == "base"
    assert DARTSPT(DARTS(exact=True)).check_settings() == [("base_settings.exact", "needs method.unrolled=true")]
    assert DARTSPT().check_space(DartsCNN()) == [] and decisions(DartsCNN().cells["normal"]) == 17
    assert DARTSPT(tuning=80).check_space(DartsCNN()) == []  # the last one before the last epoch
    short = dict(DARTSPT(tuning=75).check_space(DartsCNN()))["name"]
    assert "17 decisions" in short and "method.tuning to 81" in short
    for name in SPACES:
        space = choice_class("space", name)()
        assert all(decisions(cell) >= len(cell.nodes) for cell in space.cells.values())
    small = choice_class("space", "nasbench201")()
    assert decisions(small.cells["cell"]) == 6
    method = DARTSPT(tuning=25)
    assert method.check_space(small) == [] and [e for e in range(25) if due(e, method.interval, method.tuning)] == [
        0,
        5,
        10,
        15,
        20,
        24,
    ]


def test_wrappers_between_two_of_them_are_seen_through() -> None:
    assert [key for key, _ in DARTSPT(SmoothDARTS(Budget(DARTSPT()))).check_settings()] == ["base"]
    assert DARTSPT(SmoothDARTS(Budget())).check_settings() == []


def test_where_the_method_within_stops_deciding_begins(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(
        DARTSPlus, "on_epoch_boundary", lambda self, search, epoch: Transition(stop=epoch > 0, genotype_epoch=1)
    )
    run = diffnas.search(tiny(DARTSPT(DARTSPlus(), tuning=6, interval=1)), tmp_path / "run")
    assert [row["stage"] for row in run.search.metrics()] == [0] + [1] * 6
    assert diffnas.load_genotype(run).provenance["epoch"] == 7


def test_a_search_without_batches_to_score_says_so(make_search: Callable[..., Search]) -> None:
    search = build(DARTSPT())
    search.feeds = {}
    with pytest.raises(ValueError, match='darts-pt measures the supernet .* feeds={"score"'):
        search.method.on_epoch_boundary(search, 0)


# -- whole searches

TINY = ["space.channels=2", "space.layers=1", "space.nodes=2", "data.train_limit=128", "data.test_limit=100"]
TINY += ["search.epochs=2", "search.weights.warmup=0"]


def tiny(method: DARTSPT) -> diffnas.Recipe:
    recipe = diffnas.read_recipe("darts-digits-tiny", TINY)
    object.__setattr__(recipe, "method", method)
    return recipe


def test_a_search_from_recipe_to_genotype_and_stopped_in_between(tmp_path: Path, monkeypatch: Any) -> None:
    from diffnas.runtime.checkpoint import load_checkpoint

    method = DARTSPT(interval=1, tuning=6)  # five edges and a node of three inputs
    run = diffnas.search(tiny(method), tmp_path / "whole")
    rows = run.search.metrics()
    assert [row["stage"] for row in rows] == [0, 0] + [1] * 6 and rows[2]["lr"] == pytest.approx(0.1 * rows[0]["lr"])
    state = load_checkpoint(run.search.checkpoints)["state"]["search"]["arch"]
    assert all((state[f"choice_{kind}"] != OPEN).all() for kind in ("normal", "reduce"))
    assert sum(int((state[f"choice_{kind}"] == GONE).sum()) for kind in ("normal", "reduce")) == 2

    calls = 0
    inner = DARTSPT.step

    def stopping(self: DARTSPT, search: Search, batches: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 7:  # within an epoch of the tuning stage, after a decision
            import os
            import signal

            os.kill(os.getpid(), signal.SIGTERM)
        return inner(self, search, batches)

    monkeypatch.setattr(DARTSPT, "step", stopping)
    with pytest.raises(Interrupted):
        diffnas.search(tiny(method), tmp_path / "part")
    monkeypatch.setattr(DARTSPT, "step", inner)
    monkeypatch.setattr("diffnas.pipeline.resume.read_recipe", lambda *_: tiny(method))
    resumed = diffnas.search(None, tmp_path / "part", resume=True)
    other = load_checkpoint(resumed.search.checkpoints)["state"]["search"]["arch"]
    assert all(torch.equal(state[name], other[name]) for name in state)
    assert resumed.search.genotype.read_text() == run.search.genotype.read_text()
