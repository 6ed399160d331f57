"""DARTS: its mixture, its defaults, and which verb a step takes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from diffnas.core.batch import Batch
from diffnas.core.space import Size
from diffnas.engine import Search
from diffnas.engine.gradients import hypergradient
from diffnas.engine.stage import Clock, Stage, Transition
from diffnas.methods.darts import DARTS


def batches() -> dict[str, Batch]:
    torch.manual_seed(0)
    return {name: Batch(torch.randn(4, 3, 8, 8), torch.randint(0, 10, (4,))) for name in ("train", "valid")}


def test_defaults() -> None:
    method = DARTS()
    assert method.stages(50, Size(16, 8)) == (Stage(50, Size(16, 8)),)
    assert method.supernet_buffers(Clock()) == {} and method.check_settings() == []
    assert DARTS(exact=True).check_settings() == [("exact", "needs method.unrolled=true")]


def test_the_mixture_is_a_softmax_of_alpha(make_search: Callable[..., Search]) -> None:
    search = make_search(scale=2.0)
    for kind, mix in search.relax("arch").items():
        assert torch.equal(mix.op, search.arch.alpha[kind].softmax(-1)) and mix.edge is None
        assert torch.equal(search.strength()[kind], mix.op) and not search.strength()[kind].requires_grad
    assert make_search().arch.alpha["normal"].abs().max() < 1e-2  # 1e-3 N(0, 1)
    assert search.method.on_epoch_boundary(search, 0) == Transition() and search.penalty(search.relax("arch")) is None


def test_a_step_moves_the_architecture_first(make_search: Callable[..., Search]) -> None:
    search, twin, data = make_search(), make_search(), batches()
    search.method.step(search, data)
    twin.method.step(twin, {"valid": data["valid"]})
    twin.method.step(twin, {"train": data["train"]})
    for mine, other in zip(search.weights, twin.weights, strict=True):
        assert torch.equal(mine, other)
    warm = make_search()
    warm.method.step(warm, {"train": data["train"]})
    assert torch.equal(warm.arch.alpha["reduce"], make_search().arch.alpha["reduce"])
    assert not torch.equal(search.arch.alpha["reduce"], warm.arch.alpha["reduce"])


def test_unrolled_takes_the_second_order_verb(make_search: Callable[..., Search]) -> None:
    data, found = batches(), {}
    for name, method in {"first": DARTS(), "second": DARTS(unrolled=True), "exact": DARTS(True, True)}.items():
        search = make_search(method=method)
        losses = search.method.step(search, data)
        found[name] = (losses, [a.detach().clone() for a in search.arch.parameters()])
    twin = make_search()
    ahead, _ = hypergradient(twin, twin.relax("arch"), data["train"], data["valid"])
    assert torch.equal(found["second"][0]["valid"].value, ahead.value)
    assert not torch.equal(found["first"][0]["valid"].value, ahead.value)
    assert set(found["exact"][0]) == {"train", "valid"}


def test_derivation_is_legal_and_pure(make_search: Callable[..., Search]) -> None:
    search = make_search(scale=1.0)
    state = torch.get_rng_state()
    first = search.derive()
    assert first is not None and first == search.derive() and torch.equal(state, torch.get_rng_state())
    assert all(len(node) == 2 for nodes in first.cells.values() for node in nodes.inputs)
