"""SGAS: scores worked out by hand, what a decision changes, when decisions fall, and what is told twice."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from diffnas.core.batch import Batch
from diffnas.engine import Search
from diffnas.methods.sgas import SGAS, Decisions
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.spaces.nasbench201.space import NASBench201

SPACE = DartsCNN(channels=4, layers=3, nodes=2)


@pytest.fixture
def make(make_search: Callable[..., Search]) -> Callable[..., Search]:
    """Builds a search with what the method itself learns, its alphas large."""

    def build(method: SGAS | None = None, space: Any = SPACE) -> Search:
        method = method or SGAS()
        search = make_search(space, method, dtype=torch.float64)
        generator = torch.Generator().manual_seed(0)
        search.arch = method.arch(space, generator).double()
        search.arch_optimizer = torch.optim.Adam(search.arch.parameters(), 1e-2)
        shuffle(search, 0)
        return search

    return build


def shuffle(search: Search, seed: int) -> None:
    """Other alphas, as after an epoch."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for alpha in search.arch.alpha.values():
            alpha.copy_(torch.randn(alpha.shape, generator=generator))


def decisions(search: Search) -> Decisions:
    assert isinstance(search.arch, Decisions)
    return search.arch


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(x) for x in row]
    return [power / sum(powers) for power in powers]


def stretched(values: list[float]) -> list[float]:
    return [(value - min(values)) / (max(values) - min(values)) for value in values]


def by_hand(alphas: list[list[list[float]]]) -> list[list[float]]:
    """Importance, certainty and stability of every edge, each from 0 to 1; `alphas` [T, E, O], the last ones are now's."""
    importance, certainty, stability = [], [], []
    for e, row in enumerate(alphas[-1]):
        shares = softmax(row)
        importance.append(1 - shares[0])
        real = [share / (1 - shares[0]) for share in shares[1:]]
        certainty.append(1 + sum(p * math.log(p) for p in real) / math.log(len(real)))
        overlaps = []
        for past in alphas[-5:-1]:
            before = softmax(past[e])
            overlaps.append(sum(min(p, q / (1 - before[0])) for p, q in zip(real, before[1:], strict=True)))
        stability.append(sum(overlaps) / len(overlaps) if overlaps else 0.0)
    told = (
        stretched(stability) if len(alphas) > 1 else [1.0] * len(stability)
    )  # at first there is nothing to compare with
    return [stretched(importance), stretched(certainty), told]


def test_scores_by_hand(make: Callable[..., Search], close: Callable[..., None]) -> None:
    search, past = make(SGAS(criterion=2)), []
    for epoch in range(1, 8):
        shuffle(search, epoch)
        past.append(search.arch.alpha["normal"].tolist())
        first = decisions(search).scores("normal", stable=False)
        second = decisions(search).scores("normal", stable=True)
        importance, certainty, stability = by_hand(past)
        plain = [i * c for i, c in zip(importance, certainty, strict=True)]
        close(first, torch.tensor(plain, dtype=torch.float64))
        close(second, torch.tensor([p * s for p, s in zip(plain, stability, strict=True)], dtype=torch.float64))
        search.advance(total=epoch)
        search.method.on_epoch_boundary(search, epoch)


def test_ops_that_are_never_derived_or_not_allowed_do_not_count(
    make: Callable[..., Search], close: Callable[..., None]
) -> None:
    rows = [["none", "skip_connect", "sep_conv_3x3", "dil_conv_3x3"]] * 5
    space = DartsCNN(
        channels=4, layers=2, nodes=2, edge_ops={"normal": rows, "reduce": rows}, excluded=("none", "skip_connect")
    )
    search = make(space=space)
    importance, certainty, _ = decisions(search).measures("normal")
    for e, row in enumerate(search.arch.alpha["normal"].tolist()):
        shares = softmax([row[0], row[3], row[4], row[6]])
        p = shares[2] / (shares[2] + shares[3])
        close(importance[e], torch.tensor(shares[2] + shares[3], dtype=torch.float64))
        entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
        close(certainty[e], torch.tensor(1 - entropy / math.log(2), dtype=torch.float64))


def test_without_none_certainty_decides(make: Callable[..., Search]) -> None:
    search = make(space=DartsCNN(channels=4, layers=2, nodes=2, ops=("skip_connect", "sep_conv_3x3"), excluded=()))
    spread = (search.arch.alpha["normal"][:, 0] - search.arch.alpha["normal"][:, 1]).abs()
    assert int(decisions(search).scores("normal", stable=False).argmax()) == int(spread.argmax())


def run(search: Search, epochs: int, start: int = 0) -> list[int]:
    """Turns through epochs of other alphas; how many edges are fixed in the normal cell after each."""
    counts = []
    for epoch in range(start, epochs + 1):
        search.advance(epoch=epoch, total=epoch, epochs=epochs)
        shuffle(search, epoch)
        search.method.on_epoch_boundary(search, epoch)
        counts.append(int(decisions(search).get_buffer("chosen_normal").sum()))
    return counts


def test_decisions_fall_when_the_paper_says(make: Callable[..., Search]) -> None:
    space = DartsCNN(channels=4, layers=2)
    search = make(space=space)
    counts = run(search, 50)
    assert [epoch for epoch in range(1, 51) if counts[epoch] > counts[epoch - 1]] == [10, 15, 20, 25, 30, 35, 40, 45]
    assert counts[-1] == 8 and not decisions(search).get_buffer("open_normal").any()
    cell = space.cells["normal"]
    chosen = decisions(search).get_buffer("chosen_normal")
    assert all(int(chosen[list(cell.edges_into(node))].sum()) == 2 for node in cell.nodes)


def test_a_decision_fixes_the_best_edge_and_drops_what_a_full_node_has_left(make: Callable[..., Search]) -> None:
    search = make(SGAS(first=0, every=1))
    fixed: list[int] = []
    for epoch in range(1, 5):
        shuffle(search, epoch)
        was_open = decisions(search).get_buffer("open_normal").clone()
        scores = decisions(search).scores("normal", stable=False).masked_fill(~was_open, -1.0)
        alpha = search.arch.alpha["normal"].detach().clone()
        search.advance(total=epoch)
        search.method.on_epoch_boundary(search, epoch)
        edge = int(scores.argmax())
        fixed.append(edge)
        mix = search.relax("arch")["normal"]
        assert mix.active is not None
        one_hot = torch.zeros(8, dtype=torch.float64)
        one_hot[1 + int(alpha[edge, 1:].argmax())] = 1.0
        assert torch.equal(mix.op[edge], one_hot) and torch.equal(mix.active[edge], one_hot.bool())
        for node, arriving in ((2, {0, 1}), (3, {2, 3, 4})):
            full = len(arriving & set(fixed)) == 2
            for e in arriving - set(fixed):
                assert bool(mix.active[e].any()) != full, (node, e)
                assert torch.equal(mix.op[e], torch.zeros_like(one_hot) if full else alpha[e].softmax(-1))
    assert not decisions(search).get_buffer("open_normal").any()
    genotype = search.derive()
    assert genotype is not None
    cell = SPACE.cells["normal"]
    chosen = decisions(search).get_buffer("chosen_normal").int().argmax(1).tolist()
    for node, inputs in zip(cell.nodes, genotype.cells["normal"].inputs, strict=True):
        assert set(inputs) == {(cell.ops[chosen[e]], cell.edges[e][0]) for e in fixed if cell.edges[e][1] == node}


def test_fixed_edges_have_no_gradient_and_open_ones_have(make: Callable[..., Search]) -> None:
    search = make(SGAS(first=0))
    search.advance(total=1)
    search.method.on_epoch_boundary(search, 1)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    loss = search.supernet(x, search.relax("arch")).square().sum()
    for kind, grad in zip(search.arch.alpha, torch.autograd.grad(loss, list(search.arch.parameters())), strict=True):
        still = decisions(search).get_buffer(f"open_{kind}")
        assert still.sum() == 4 and grad[still].any(dim=1).all() and not grad[~still].any()


def test_a_turn_told_twice_counts_once(make: Callable[..., Search]) -> None:
    search = make(SGAS(first=0, every=1, criterion=2))
    assert run(search, 1) == [0, 1]
    state = {name: t.clone() for name, t in search.arch.state_dict().items()}
    search.method.on_epoch_boundary(search, 1)
    assert all(torch.equal(t, state[name]) for name, t in search.arch.state_dict().items())


def test_a_resumed_search_decides_alike(make: Callable[..., Search]) -> None:
    whole, first, second = (make(SGAS(first=1, every=2, criterion=2)) for _ in range(3))
    run(whole, 6)
    run(first, 3)
    second.load_state_dict(first.state_dict())
    run(second, 6, start=3)  # the turn at which the first one ended is asked again
    for name, tensor in whole.arch.state_dict().items():
        assert torch.equal(tensor, second.arch.state_dict()[name]), name
    batch = Batch(torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.randint(0, 10, (4,)))
    losses: list[Tensor] = [s.method.step(s, {"valid": batch})["valid"].value for s in (whole, second)]
    assert torch.equal(*losses)


def test_a_node_that_keeps_all_edges_loses_none(make: Callable[..., Search]) -> None:
    search = make(SGAS(first=0, every=1), NASBench201(channels=4, layers=1))
    for epoch in range(1, 9):
        shuffle(search, epoch)
        search.advance(total=epoch)
        search.method.on_epoch_boundary(search, epoch)
    genotype = search.derive()
    assert genotype is not None
    ops = genotype.cells["cell"].ops
    assert len(ops) == 6 and "none" not in ops
