"""The fast supernet is the plain one: the same names, values, gradients and running statistics."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffnas.core.batch import Batch
from diffnas.core.mixture import Mix
from diffnas.core.space import Form, TextShape
from diffnas.engine import Search, arch_step, unrolled_arch_step, weight_step
from diffnas.engine.gradients import normalisation
from diffnas.engine.search import Alphas
from diffnas.methods.darts import DARTS
from diffnas.spaces.darts_rnn.fused import NodeReads, Plan, recur
from diffnas.spaces.darts_rnn.layout import KIND
from diffnas.spaces.darts_rnn.space import DartsRNN
from diffnas.tasks.language import LanguageTask

V, H, T, N = 13, 6, 4, 5


def built(form: Form, space: DartsRNN, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The supernet with larger weights than those it begins with, and statistics as after long training."""
    torch.manual_seed(7)
    supernet = space.supernet(TextShape(V), form=form).to(dtype)
    for name, tensor in supernet.named_parameters():
        nn.init.normal_(tensor, std=0.05 if name == "bias" else 0.5)
    supernet.cell.norm.running_mean.normal_()
    supernet.cell.norm.running_var.uniform_(4.0, 9.0)
    return supernet


def mixed(space: DartsRNN, edge: bool, active: str, dtype: torch.dtype = torch.float64) -> Mix:
    """Shares as leaves; `active`: "all", "one" op per edge, at "random", or "few": whole nodes have none."""
    torch.manual_seed(11)
    size = (len(space.cells[KIND].edges), len(space.ops))
    live = {
        "all": None,
        "one": torch.zeros(size, dtype=torch.bool).scatter_(1, torch.randint(size[1], (size[0], 1)), True),
        "random": torch.rand(size) < 0.5,
        "few": torch.rand(size) < 0.15,
    }[active]
    if active == "few" and live is not None:
        live[1:3] = False
    scales = (torch.rand(size[0], dtype=dtype) + 0.5).requires_grad_() if edge else None
    return Mix(torch.randn(size, dtype=dtype).softmax(-1).requires_grad_(), scales, live)


def outcome(supernet: nn.Module, mix: Mix, carried: bool, norm: str = "own") -> dict[str, Tensor]:
    """One pass: what is said, the gradients of a fixed function of all of it, and all state afterwards."""
    draw = torch.Generator().manual_seed(2)
    dtype = mix.op.dtype
    tokens = torch.randint(0, V, (T, N), generator=draw)
    carry = torch.randn(1, N, H, generator=draw, dtype=torch.float64).to(dtype).requires_grad_() if carried else None
    torch.manual_seed(5)  # masks
    spoken = supernet((tokens, carry), {KIND: mix})
    pushes = [torch.randn(t.shape, generator=draw, dtype=torch.float64).to(dtype) for t in spoken]
    total = torch.stack([(t * push).sum() for t, push in zip(spoken, pushes, strict=True)]).sum()
    leaves = dict(supernet.named_parameters())
    leaves |= (
        {"shares": mix.op} | ({} if mix.edge is None else {"edge": mix.edge}) | ({"carry": carry} if carried else {})
    )
    grads = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    found = {name: t.detach() for name, t in zip(spoken._fields, spoken, strict=True)}
    found |= {
        f"grad {n}": torch.zeros_like(t) if g is None else g for (n, t), g in zip(leaves.items(), grads, strict=True)
    }
    return found | {f"state {n}": t.clone() for n, t in supernet.state_dict().items()}


def agree(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert list(found) == list(expected)
    largest = max(float(t.abs().max()) for name, t in expected.items() if name.startswith("grad"))
    for name, theirs in expected.items():
        size = max(float(theirs.abs().max()), 1e-3 * largest if name.startswith("grad") else 1e-30)
        assert torch.allclose(found[name], theirs, rtol=0.0, atol=tolerance * size), name


DROPPING = DartsRNN(units=H, steps=3)
STILL = DartsRNN(units=H, steps=3, dropout=0.0, dropouth=0.0, dropoutx=0.0, dropouti=0.0, dropoute=0.0)
SPACES = {
    "as published": DROPPING,
    "no dropout": STILL,
    "dropped words, two nodes out": DartsRNN(units=H, steps=4, concat=2, dropoute=0.3),
    "other ops": DartsRNN(units=H, steps=3, ops=("identity", "sigmoid", "none")),
    "narrowed": DartsRNN(
        units=H, steps=2, edge_ops={KIND: [["none", "tanh"], ["relu", "identity"], ["none", "sigmoid", "tanh"]]}
    ),
}
CASES = list(itertools.product(SPACES, (False, True), ("all", "one", "random", "few")))


@pytest.mark.parametrize(("space", "edge", "active"), CASES)
def test_a_pass(space: str, edge: bool, active: str) -> None:
    for carried, training in ((True, True), (False, True), (True, False)):
        found = [
            outcome(built(form, SPACES[space]).train(training), mixed(SPACES[space], edge, active), carried)
            for form in ("fast", "plain")
        ]
        agree(*found, 1e-9)


def test_a_pass_in_float32() -> None:
    found = [
        outcome(built(form, DROPPING, torch.float32), mixed(DROPPING, False, "all", torch.float32), True)
        for form in ("fast", "plain")
    ]
    agree(*found, 1e-4)


def searching(form: Form, dtype: torch.dtype = torch.float64) -> Search:
    supernet = built(form, DROPPING, dtype)
    arch = Alphas(DROPPING.cells, torch.Generator().manual_seed(0), 1.0).to(dtype)
    return Search(
        method=DARTS(),
        space=DROPPING,
        supernet=supernet,
        arch=arch,
        weights_optimizer=torch.optim.SGD(supernet.parameters(), 2.0, weight_decay=5e-7),
        arch_optimizer=torch.optim.Adam(arch.parameters(), 3e-3, weight_decay=1e-3),
        task=LanguageTask(),
        clip=0.25,
    )


def batch(seed: int) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, V, (T + 1, N), generator=draw)
    carry = torch.randn(1, N, H, generator=draw, dtype=torch.float64)
    return Batch(tokens[:-1], tokens[1:], scale=0.5, carry=carry)


def test_steps_of_a_search(close: Any) -> None:
    """Architecture, weights and second order, in turns: the numbers stay together."""
    ended = []
    for form in ("fast", "plain"):
        search: Search = searching(form)
        torch.manual_seed(9)
        for step in range(2):
            arch_step(search, search.relax("arch"), batch(10 + step))
            weight_step(search, search.relax("weights"), batch(step))
            unrolled_arch_step(search, search.relax("arch"), batch(20 + step), batch(30 + step), clip=0.25)
        ended.append({**search.supernet.state_dict(), **search.arch.state_dict()})
    for name, theirs in ended[1].items():
        close(ended[0][name].double(), theirs.double(), 1e-7)


def test_statistics_rest_where_the_engine_says_so() -> None:
    search = searching("fast")
    before = {n: t.clone() for n, t in search.supernet.state_dict().items()}
    first = batch(0)
    with normalisation(search, "train_frozen_stats"):
        search.supernet((first.inputs, first.carry), search.relax("eval"))
    with normalisation(search, "running"):
        search.supernet((first.inputs, first.carry), search.relax("eval"))
    assert all(torch.equal(t, before[n]) for n, t in search.supernet.state_dict().items())


def test_without_a_graph_the_values_are_the_same(close: Any) -> None:
    supernet, mix = built("fast", STILL), mixed(STILL, False, "all")
    tokens = torch.randint(0, V, (T, N), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        bare = supernet((tokens, None), {KIND: mix})
    close(supernet((tokens, None), {KIND: mix}).log_probs, bare.log_probs, 1e-14)
    assert not bare.states.requires_grad


def test_gradients_are_derivatives(close: Any) -> None:
    torch.manual_seed(0)
    like = {"dtype": torch.float64, "requires_grad": True}
    plan = Plan(
        (NodeReads((0,), (0,), (("tanh", 0), ("identity", 1))), NodeReads((0,), (1,), (("sigmoid", 2),)),
         NodeReads((0, 2), (3, 4), (("tanh", 0), ("sigmoid", 2)))), (1, 3, 3),
    )  # fmt: skip
    x, hidden, mask = torch.randn(2, 2, 3, **like), torch.randn(2, 3, **like), torch.rand(2, 3).double()
    start, shares = torch.randn(6, 6, **like), torch.rand(5, 3, **like)
    weights = [torch.randn(3, 6, **like) for _ in plan.nodes]

    leaves, push = [x, hidden, start, shares, *weights], torch.randn(2, 2, 3, dtype=torch.float64)

    def run(x: Tensor, hidden: Tensor, start: Tensor, shares: Tensor, *weights: Tensor) -> Tensor:
        return (recur(plan, x, hidden, mask, start, weights, shares)[0] * push).sum()

    grads, step = torch.autograd.grad(run(*leaves), leaves), 1e-6
    for place, (leaf, grad) in enumerate(zip(leaves, grads, strict=True)):
        way = torch.randn_like(leaf)
        ends = [run(*leaves[:place], leaf + sign * step * way, *leaves[place + 1 :]) for sign in (1, -1)]
        close((ends[0] - ends[1]) / (2 * step), (grad * way).sum().detach(), 1e-7)


def test_it_goes_back_once() -> None:
    supernet, mix = built("fast", STILL), mixed(STILL, False, "all")
    tokens = torch.zeros(2, N, dtype=torch.int64)
    loss = supernet((tokens, None), {KIND: mix}).states.square().sum()
    (grad,) = torch.autograd.grad(loss, [mix.op], retain_graph=True, create_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        torch.autograd.grad(loss, [mix.op], retain_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("form", ["plain", "fast"])
def test_one_sequence_has_no_statistics(form: Form) -> None:
    tokens = torch.zeros(2, 1, dtype=torch.int64)
    supernet = built(form, STILL)
    with pytest.raises(ValueError):
        supernet((tokens, None), {KIND: mixed(STILL, False, "all")})
    assert supernet.eval()((tokens, None), {KIND: mixed(STILL, False, "all")}).log_probs.isfinite().all()
