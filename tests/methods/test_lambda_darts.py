"""Lambda-DARTS: the alignment's gradient, as the authors' code has it, and what it does to the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from diffnas import engine
from diffnas.core.batch import Batch
from diffnas.core.space import Shape
from diffnas.engine import Search
from diffnas.methods.lambda_darts import LambdaDARTS, alignment_gradient
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.spaces.darts_rnn.space import DartsRNN
from diffnas.spaces.nasbench201.space import NASBench201

OPS = ("max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3")
SPACE = DartsCNN(channels=4, layers=6, nodes=2, ops=OPS, excluded=())


def alignment(slopes: Tensor) -> Tensor:
    rows = slopes.flatten(1)
    pairs = [(a, b) for a in range(len(rows)) for b in range(a)]
    return torch.stack([torch.cosine_similarity(rows[a], rows[b], dim=0) for a, b in pairs]).mean()


@pytest.fixture
def recorded(make_search: Callable[..., Search]) -> Callable[..., tuple[Search, Batch]]:
    """The weights, alphas and images that the authors' code was given; see tests/goldens."""

    def build(method: LambdaDARTS, **how: Any) -> tuple[Search, Batch]:
        search = make_search(SPACE, method, dtype=torch.float64, **how)
        search.clip = None
        search.advance(epoch=9, epochs=10)
        with torch.no_grad():
            for i, weight in enumerate(search.supernet.parameters()):
                rising = 0.37 * torch.arange(weight.numel(), dtype=torch.float64) + 0.11 * i
                weight.copy_(0.3 * torch.sin(rising).view_as(weight))
            for k, alpha in enumerate(search.arch.parameters()):
                alpha.copy_(torch.sin(1.7 * torch.arange(alpha.numel(), dtype=torch.float64) + k).view_as(alpha))
        images = torch.sin(0.05 * torch.arange(4 * 3 * 64, dtype=torch.float64) ** 1.1).view(4, 3, 8, 8)
        return search, Batch(images, torch.tensor([1, 3, 5, 7]))

    return build


@pytest.mark.parametrize("form", ["plain", "fast"])
def test_it_adds_what_the_authors_code_adds(form: str, recorded: Any, record: Any, close: Any) -> None:
    found = {}
    for weight in (0.0, 0.25):
        search, batch = recorded(LambdaDARTS(weight=weight, epsilon=1e-3), form=form)
        search.weights_optimizer = torch.optim.SGD(search.supernet.parameters(), 1.0)
        before = [w.detach().clone() for w in search.weights]
        loss = search.method.step(search, {"train": batch})["train"]
        found[weight] = [b - w.detach() for b, w in zip(before, search.weights, strict=True)]
    expected = record("lambda_darts")
    assert float(loss.value) == pytest.approx(expected["loss"], rel=1e-9)
    names = [name for name, _ in search.supernet.named_parameters()]
    added = dict(zip(names, (b - a for a, b in zip(found[0.0], found[0.25], strict=True)), strict=True))
    total = torch.cat([each.flatten() for each in added.values()]).norm()
    assert float(total) == pytest.approx(expected["total"], rel=1e-6)
    for name, dot in expected["dot"].items():
        weights = torch.cos(torch.arange(added[name].numel(), dtype=torch.float64))
        assert float((added[name].flatten() * weights).sum()) == pytest.approx(dot, rel=1e-6)


def test_the_moves_are_the_authors_code_s(recorded: Any, record: Any) -> None:
    search, batch = recorded(LambdaDARTS())
    apart, expected = search.relax("weights").by_cell(SPACE.chain()), record("lambda_darts")
    slopes = engine.differentiate(search, apart, batch, {"mixture"}).mixture[0]
    moves = alignment_gradient(slopes)
    assert float(alignment(slopes)) == pytest.approx(expected["alignment"], rel=1e-6)
    assert moves[0].flatten().tolist() == pytest.approx(expected["move_0"], rel=1e-6, abs=1e-10)
    norms = [size for size in expected["moves_norm"] if size]  # the reduction cells do not move
    assert [float(move.norm()) for move in moves] == pytest.approx(norms, rel=1e-6)


def test_the_gradient_of_the_alignment(close: Any) -> None:
    slopes = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(alignment(slopes), slopes)
    close(alignment_gradient(slopes.detach()), expected)
    assert alignment_gradient(torch.zeros(2, 3, 4)).isfinite().all()


def test_the_weights_make_cells_agree(recorded: Any) -> None:
    """Against the change of the alignment itself along the step that the term alone takes."""
    search, batch = recorded(LambdaDARTS(weight=1.0, epsilon=1e-5))
    search.method.step(search, {"train": batch})  # moments of the optimizer, nothing more
    apart = search.relax("weights").by_cell(SPACE.chain())

    def measured() -> float:
        slopes = engine.differentiate(search, apart, batch, {"mixture"}, "train_frozen_stats").mixture[0]
        return float(alignment(slopes))

    kept, before = engine.snapshot(search), measured()
    changes = {}
    for weight in (0.0, 1.0):
        engine.restore(search, kept)
        search.weights_optimizer = torch.optim.SGD(search.supernet.parameters(), 1e-6)
        LambdaDARTS(weight=weight, epsilon=1e-5).step(search, {"train": batch})
        changes[weight] = measured() - before
    assert changes[1.0] > changes[0.0]


def test_it_grows_from_nothing_and_leaves_no_trace(make_search: Any) -> None:
    batch = Batch(torch.randn(4, 3, 8, 8), torch.arange(4))
    ours, theirs = (make_search(SPACE, method) for method in (LambdaDARTS(), engine.Method()))
    for search in (ours, theirs):
        search.advance(epoch=0, epochs=10)
        search.method.step(search, {"train": batch, "valid": batch})
    assert all(torch.equal(a, b) for a, b in zip(ours.weights, theirs.weights, strict=True))
    ours.advance(epoch=9)
    theirs.advance(epoch=9)
    for search in (ours, theirs):
        search.method.step(search, {"train": batch})
    mean = [name for name in ours.supernet.state_dict() if name.endswith("running_mean")]
    assert all(torch.equal(ours.supernet.state_dict()[n], theirs.supernet.state_dict()[n]) for n in mean)
    assert not all(torch.equal(a, b) for a, b in zip(ours.weights, theirs.weights, strict=True))


def test_it_needs_two_cells_of_a_kind() -> None:
    assert LambdaDARTS().check_space(NASBench201(layers=1)) == []
    assert "no two cells" in LambdaDARTS().check_space(DartsRNN())[0][1]
    assert LambdaDARTS().check_space(DartsCNN(layers=3)) and not LambdaDARTS(reduce=True).check_space(
        DartsCNN(layers=3)
    )
    assert LambdaDARTS(reduce=True).aligned(DartsCNN()) == ["normal", "reduce"]
    assert NASBench201(layers=1).supernet(Shape(10, 3, 8)).layers == 1
