"""What some programs add to the supernet: drop path of edges, dropout before the classifier, an auxiliary head."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diffnas.core.batch import Batch
from diffnas.core.mixture import Mix, allowed_mask, softmax_allowed
from diffnas.core.space import Form, Shape
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.spaces.darts_cnn.supernet import MixedCell

SHAPE = Shape(10, 3, 16)
OPS = ("none", "skip_connect", "max_pool_3x3", "sep_conv_3x3")


def mixture(space: DartsCNN, edges: bool = False) -> dict[str, Mix]:
    """Random shares as leaves, and perhaps shares of edges."""
    draw, found = torch.Generator().manual_seed(1), {}
    for kind, cell in space.cells.items():
        logits = torch.randn(len(cell.edges), len(cell.ops), generator=draw, dtype=torch.float64)
        shares = softmax_allowed(logits, allowed_mask(cell)).requires_grad_()
        scale = torch.rand(len(cell.edges), generator=draw, dtype=torch.float64).requires_grad_() if edges else None
        found[kind] = Mix(shares, scale)
    return found


def built(space: DartsCNN, form: Form, shape: Shape = SHAPE) -> Any:
    torch.manual_seed(0)
    return space.supernet(shape, form=form).double().train()


@pytest.mark.parametrize(("partial", "edges"), [(1, False), (2, True)])
def test_both_forms_drop_alike(partial: int, edges: bool, close: Any) -> None:
    space = DartsCNN(channels=4, layers=3, nodes=2, ops=OPS, partial=partial, drop_path=0.4, dropout=0.3)
    x, found = torch.randn(3, 3, 16, 16, dtype=torch.float64), {}
    for form in ("plain", "fast"):
        net, mixes = built(space, form), mixture(space, edges)  # type: ignore[arg-type]
        torch.manual_seed(7)
        value = net(x, mixes).square().sum()
        tensors = [*net.parameters(), *(t for mix in mixes.values() for t in (mix.op, mix.edge) if t is not None)]
        found[form] = [value, *torch.autograd.grad(value, tensors, allow_unused=True)]
    for ours, theirs in zip(found["fast"], found["plain"], strict=True):
        assert (ours is None) == (theirs is None)
        if theirs is not None:
            close(ours.detach(), theirs.detach(), 1e-9)


def test_an_edge_passes_an_image_whole_or_not_at_all() -> None:
    space = DartsCNN(channels=4, layers=2, nodes=1, ops=("skip_connect", "sep_conv_3x3"), drop_path=0.5)
    net = built(space, "plain")
    kept = net._kept(2, 4000)
    assert kept.shape == (2, 4000) and set(kept.unique().tolist()) == {0.0, 2.0} and abs(float(kept.mean()) - 1) < 0.06
    cell: MixedCell = net.cells[0]
    inputs = [torch.randn(2, 12, 8, 8, dtype=torch.float64)] * 2
    mix = mixture(space)[net.kinds[0]]
    by_edge = torch.tensor([[2.0, 0.0], [2.0, 2.0]], dtype=torch.float64)  # the second image takes one edge only
    whole, thin = cell(inputs, mix), cell(inputs, mix, by_edge)
    assert torch.allclose(thin[0], 2 * whole[0]) and not torch.allclose(thin[1], 2 * whole[1])
    assert net.eval()._kept(2, 4) is None


def test_what_is_off_leaves_no_trace() -> None:
    """The same weights, the same random numbers, bit for bit, as without."""
    space, x = DartsCNN(channels=4, layers=3), torch.randn(2, 3, 16, 16, dtype=torch.float64)
    states = []
    for extra in (space, DartsCNN(channels=4, layers=3, auxiliary="fixed", dropout=0.5, drop_path=0.3)):
        net = built(extra, "fast", Shape(10, 3, 32))
        state = torch.get_rng_state()
        value = net.eval()(x, mixture(extra))
        assert torch.equal(state, torch.get_rng_state())
        states.append((value, {k: v for k, v in net.state_dict().items() if not k.startswith("auxiliary")}))
    assert torch.equal(states[0][0], states[1][0])
    assert all(torch.equal(states[0][1][name], tensor) for name, tensor in states[1][1].items())


def test_drop_path_that_grows_begins_with_none() -> None:
    net = built(DartsCNN(channels=4, layers=2, nodes=1, drop_path=0.8, drop_path_grows=True), "fast")
    assert torch.equal(net._kept(2, 50), torch.ones(2, 50, dtype=torch.float64))
    net.get_buffer("progress").fill_(0.5)
    kept = net._kept(2, 3000)
    assert set(kept.unique().tolist()) == {0.0, 1 / 0.6} and abs(float((kept == 0).double().mean()) - 0.4) < 0.03
    assert "progress" not in net.state_dict()


@pytest.mark.parametrize("form", ["plain", "fast"])
@pytest.mark.parametrize("kind", ["trained", "fixed"])
def test_the_auxiliary_head_counts_in_weight_steps(kind: str, form: Form, make_search: Any) -> None:
    space = DartsCNN(channels=4, layers=3, nodes=1, auxiliary=kind)  # type: ignore[arg-type]
    search = make_search(space, side=32)
    search.supernet = space.supernet(Shape(10, 3, 32), form=form)
    search.weights = [p for p in search.supernet.parameters() if p.requires_grad]
    search.weights_optimizer = torch.optim.SGD(search.supernet.parameters(), 0.1)
    batch = Batch(torch.randn(4, 3, 32, 32), torch.tensor([1, 2, 3, 4]))
    mixes = search.relax("weights")
    logits, head = search.supernet(batch.inputs, mixes)
    before = {n: p.detach().clone() for n, p in search.supernet.named_parameters()}
    loss = search.method.step(search, {"train": batch})["train"]
    assert torch.allclose(loss.value, F.cross_entropy(logits, batch.targets), atol=1e-5)
    assert loss.weight_only is not None
    assert torch.allclose(loss.weight_only, 0.4 * F.cross_entropy(head, batch.targets), atol=1e-4)
    moved = {n for n, p in search.supernet.named_parameters() if not torch.equal(before[n], p)}
    assert ("auxiliary.classifier.weight" in moved) == (kind == "trained") and "stem.0.weight" in moved
    assert isinstance(search.supernet.eval()(batch.inputs, mixes), Tensor)


def test_the_head_needs_features_of_its_size() -> None:
    ((key, reason),) = DartsCNN(auxiliary="fixed").check_size(Shape(10, 3, 16))
    assert key == "auxiliary" and reason.endswith("here they are 4x4; set it to none")
    assert DartsCNN(auxiliary="trained").check_size(Shape(10, 3, 32)) == []
