"""Gradients through the one door, and the steps that use it, on cells and sizes drawn at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diffnas.core.batch import Batch
from diffnas.core.mixture import Mix, Mixture
from diffnas.engine import Method, Search, apply_weights, arch_step, differentiate, unrolled_arch_step, weight_step
from diffnas.engine.gradients import hypergradient
from diffnas.spaces.darts_cnn.space import DartsCNN

SMOOTH = ("skip_connect", "avg_pool_3x3")


def batch(seed: int, count: int = 6, side: int = 8, dtype: torch.dtype = torch.float32) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, side, side, generator=draw, dtype=dtype)
    return Batch(images, torch.randint(0, 10, (count,), generator=draw))


def snapshot(search: Search) -> list[Tensor]:
    """Weights, buffers, momentum, alphas: every bit a step may touch."""
    momenta = [slot for state in search.weights_optimizer.state.values() for slot in state.values()]
    tensors = [*search.supernet.state_dict().values(), *search.arch.state_dict().values(), *momenta]
    return [t.clone() for t in tensors if isinstance(t, Tensor)]


def same(before: list[Tensor], after: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_gradients_are_those_of_autograd(make_search: Callable[..., Search], close: Any) -> None:
    search = make_search(dtype=torch.float64)
    data = batch(1, dtype=torch.float64)
    mixture = search.relax("arch")
    loss = F.cross_entropy(search.supernet(data.inputs, mixture), data.targets)
    expected = torch.autograd.grad(loss, [*search.weights, *mixture.tensors()], allow_unused=True)
    found = differentiate(search, mixture, data, {"weights", "mixture"})
    for mine, theirs in zip([*found.weights, *found.mixture], expected, strict=True):
        close(mine, torch.zeros_like(mine) if theirs is None else theirs)


def test_only_what_is_asked_for_is_given(make_search: Callable[..., Search]) -> None:
    search = make_search()
    assert differentiate(search, search.relax("arch"), batch(0), {"weights"}).mixture == []
    found = differentiate(search, search.relax("arch"), batch(0), {"mixture"})
    assert found.weights == [] and [g.shape for g in found.mixture] == [(5, 8), (5, 8)]


def test_an_idle_weight_has_a_zero_gradient(make_search: Callable[..., Search]) -> None:
    search = make_search(DartsCNN(channels=4, layers=1, nodes=2))  # its one cell reduces: no normal cell anywhere
    found = differentiate(search, search.relax("arch"), batch(0), {"mixture"})
    normal, reduce = found.mixture
    assert torch.equal(normal, torch.zeros(5, 8)) and reduce.abs().sum() > 0


def test_inactive_entries_add_neither_value_nor_gradient(make_search: Callable[..., Search], close: Any) -> None:
    search, data = make_search(dtype=torch.float64), batch(3, dtype=torch.float64)
    active = torch.rand(5, 8) < 0.5
    active[0] = False  # a whole edge may rest
    op, edge = torch.rand(5, 8, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    full = Mixture({kind: Mix(op, edge, active) for kind in ("normal", "reduce")})
    masked = Mixture({kind: Mix(mix.op * active, mix.edge) for kind, mix in full.items()})
    found = differentiate(search, full, data, {"mixture", "weights"}, "train_frozen_stats")
    expected = differentiate(search, masked, data, {"mixture", "weights"}, "train_frozen_stats")
    close(found.loss.value, expected.loss.value)
    for mine, theirs in zip(found.weights, expected.weights, strict=True):
        close(mine, theirs) if theirs.abs().max() > 1e-6 else None
    for grad, wanted in zip(found.mixture[::2], expected.mixture[::2], strict=True):
        assert torch.equal(grad[~active], torch.zeros_like(grad[~active]))
        close(grad, wanted * active)
    assert len(found.mixture) == 4  # op and edge of both kinds


def test_shares_need_not_sum_to_one(make_search: Callable[..., Search]) -> None:
    search = make_search()
    wild = Mixture({kind: Mix(5.0 * torch.randn(5, 8)) for kind in ("normal", "reduce")})
    assert torch.isfinite(differentiate(search, wild, batch(0), {"mixture"}).loss.value)


@pytest.mark.parametrize(("norm", "moves"), [("update", True), ("batch", False), ("running", False)])
def test_running_statistics(norm: Any, moves: bool, make_search: Callable[..., Search]) -> None:
    search = make_search()
    before = {name: t.clone() for name, t in search.supernet.named_buffers()}
    differentiate(search, search.relax("arch"), batch(0), {"mixture"}, norm)
    after = dict(search.supernet.named_buffers())
    assert any(not torch.equal(after[name], t) for name, t in before.items()) == moves
    assert search.supernet.training and all(layer.track_running_stats for layer in search.norms)


def test_running_statistics_are_read_in_running_mode(make_search: Callable[..., Search], close: Any) -> None:
    search, data = make_search(dtype=torch.float64), batch(0, dtype=torch.float64)
    differentiate(search, search.relax("arch"), data, {"mixture"})
    found = differentiate(search, search.relax("arch"), data, {"mixture"}, "running").loss.value
    logits = search.supernet.eval()(data.inputs, search.relax("arch"))
    close(found, F.cross_entropy(logits, data.targets).detach())


def test_weight_step_is_clipped_sgd(make_search: Callable[..., Search], close: Any) -> None:
    search, data = make_search(dtype=torch.float64), batch(5, dtype=torch.float64)
    search.clip = 0.1
    grads = differentiate(search, search.relax("weights"), data, {"weights"}, "train_frozen_stats").weights
    before = [w.detach().clone() for w in search.weights]
    alphas = [a.detach().clone() for a in search.arch.parameters()]
    weight_step(search, search.relax("weights"), data)
    norm = torch.sqrt(sum((g**2).sum() for g in grads))
    assert norm > 0.1
    for w, old, g in zip(search.weights, before, grads, strict=True):
        close(w.detach(), old - 0.025 * (0.1 / (norm + 1e-6) * g + 3e-4 * old))
    assert same(alphas, [a.detach() for a in search.arch.parameters()])


def test_frozen_weights_stay_bit_for_bit(make_search: Callable[..., Search]) -> None:
    search, given = make_search(), batch(0)
    weight_step(search, search.relax("weights"), given)  # there is momentum
    mixture = search.relax("weights")
    grads, before = differentiate(search, mixture, given, {"weights"}).weights, snapshot(search)
    apply_weights(search, mixture, grads, frozen=range(len(search.weights)))
    assert same(before, snapshot(search))
    old = [weight.detach().clone() for weight in search.weights]
    apply_weights(search, mixture, grads, frozen={0, 3})
    stayed = [torch.equal(a, b) for a, b in zip(old, search.weights, strict=True)]
    assert stayed[0] and stayed[3] and sum(stayed) == 2


class Shrinking(Method):
    """A penalty on the squares of the weights, as decay is."""

    def weight_penalty(self, search: Search, mixture: Mixture) -> Tensor:
        return 0.05 * torch.stack([weight.square().sum() for weight in search.weights]).sum()


def test_a_penalty_on_the_weights_is_like_decay(make_search: Callable[..., Search], close: Any) -> None:
    ours, theirs = make_search(method=Shrinking(), dtype=torch.float64), make_search(dtype=torch.float64)
    for search in (ours, theirs):
        search.clip = None
        for group in search.weights_optimizer.param_groups:
            group["weight_decay"] = 0.0 if search is ours else 0.1
        search.method.step(search, {"train": batch(0, dtype=torch.float64), "valid": batch(1, dtype=torch.float64)})
        unrolled_arch_step(
            search, search.relax("arch"), batch(2, dtype=torch.float64), batch(3, dtype=torch.float64), exact=True
        )
    for pair in zip(
        [*ours.weights, *ours.arch.parameters()], [*theirs.weights, *theirs.arch.parameters()], strict=True
    ):
        close(*pair)


def test_scale_multiplies_the_learning_rate(make_search: Callable[..., Search], close: Any) -> None:
    data = batch(5, dtype=torch.float64)
    found = []
    for scale in (1.0, 0.5):
        search = make_search(dtype=torch.float64, momentum=0.0)
        before = [w.detach().clone() for w in search.weights]
        weight_step(search, search.relax("weights"), Batch(data.inputs, data.targets, scale))
        found.append([w.detach() - old for w, old in zip(search.weights, before, strict=True)])
        assert search.weights_optimizer.param_groups[0]["lr"] == 0.025
    for whole, half in zip(*found, strict=True):
        if whole.abs().max() > 1e-4:
            close(half, 0.5 * whole)


def test_arch_step_moves_alphas_only(make_search: Callable[..., Search]) -> None:
    search = make_search()
    weights = [w.detach().clone() for w in search.weights]
    alphas = [a.detach().clone() for a in search.arch.parameters()]
    arch_step(search, search.relax("arch"), batch(0))
    assert same(weights, [w.detach() for w in search.weights])
    assert not same(alphas, [a.detach() for a in search.arch.parameters()])


@pytest.mark.parametrize("seed", range(3))
def test_exact_second_order_is_the_derivative(seed: int, make_search: Callable[..., Search], close: Any) -> None:
    """Against numbers: the validation loss after one step, as a function of one alpha."""
    space = DartsCNN(channels=2, layers=1 + seed, nodes=1 + seed % 2, ops=("none", *SMOOTH, "sep_conv_3x3"))
    search = make_search(space, dtype=torch.float64, seed=seed, scale=1.0)
    train, valid = batch(seed, dtype=torch.float64), batch(seed + 50, dtype=torch.float64)
    weight_step(search, search.relax("weights"), batch(seed + 99, dtype=torch.float64))  # momentum is there
    mixture = search.relax("arch")
    loss, grads = hypergradient(search, mixture, train, valid, exact=True)
    alphas = torch.autograd.grad(mixture.tensors(), list(search.arch.parameters()), grads)

    def after_one_step() -> Tensor:
        twin = make_search(space, dtype=torch.float64, seed=seed)
        twin.supernet.load_state_dict(search.supernet.state_dict())
        twin.arch.load_state_dict(search.arch.state_dict())
        for mine, other in zip(twin.weights, search.weights, strict=True):
            buffer = search.weights_optimizer.state[other]["momentum_buffer"]
            twin.weights_optimizer.state[mine]["momentum_buffer"] = buffer.clone()
        twin.clip = None
        weight_step(twin, twin.relax("weights"), train)
        return differentiate(twin, twin.relax("arch"), valid, {"mixture"}, "train_frozen_stats").loss.value

    close(loss.value, after_one_step())
    kind = "reduce"
    entry = torch.randint(0, alphas[1].numel(), (1,), generator=torch.Generator().manual_seed(seed)).item()
    step, values = 1e-6, []
    for sign in (1, -1):
        flat = search.arch.alpha[kind].data.view(-1)
        flat[entry] += sign * step
        values.append(after_one_step())
        flat[entry] -= sign * step
    close(((values[0] - values[1]) / (2 * step)).view(1), alphas[1].flatten()[entry : entry + 1], 1e-4)


def test_the_central_difference_tends_to_the_exact_product(make_search: Callable[..., Search], close: Any) -> None:
    """On a smooth net: ReLU and max pooling have kinks that a difference of the published width steps across."""
    space = DartsCNN(channels=2, layers=1, nodes=1, ops=SMOOTH)
    search = make_search(space, dtype=torch.float64, seed=1, scale=1.0)
    for module in search.supernet.modules():
        if isinstance(module, torch.nn.ReLU):
            module.forward = F.softplus
    train, valid = batch(7, 16, dtype=torch.float64), batch(8, 16, dtype=torch.float64)
    exact = hypergradient(search, search.relax("arch"), train, valid, exact=True)[1]
    found = hypergradient(search, search.relax("arch"), train, valid)[1]
    first = differentiate(search, search.relax("arch"), valid, {"mixture"}, "train_frozen_stats").mixture
    assert (exact[1] - first[1]).abs().max() > 1e-4 * exact[1].abs().max()
    close(found[1], exact[1], 1e-3)


@pytest.mark.parametrize("exact", [False, True])
def test_the_look_ahead_leaves_no_trace(exact: bool, make_search: Callable[..., Search]) -> None:
    search = make_search()
    for seed in range(2):
        weight_step(search, search.relax("weights"), batch(seed))
    before = snapshot(search)
    hypergradient(search, search.relax("arch"), batch(2), batch(3), exact)
    assert same(before, snapshot(search))
    unrolled_arch_step(search, search.relax("arch"), batch(2), batch(3), exact)
    alphas = len(search.arch.state_dict())
    split = len(search.supernet.state_dict())
    after = snapshot(search)
    assert same(before[:split], after[:split]) and same(before[split + alphas :], after[split + alphas :])
    assert not same(before[split : split + alphas], after[split : split + alphas])


def test_the_look_ahead_restores_weights_after_a_failure(make_search: Callable[..., Search]) -> None:
    search = make_search()
    before = snapshot(search)
    broken = Batch(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 99]))
    with pytest.raises(IndexError):
        hypergradient(search, search.relax("arch"), batch(0), broken)
    assert same(before, snapshot(search)) and search.supernet.training


def test_the_second_order_refuses_other_optimizers(make_search: Callable[..., Search]) -> None:
    search = make_search()
    search.weights_optimizer = torch.optim.Adam(search.supernet.parameters())
    with pytest.raises(ValueError, match="must be SGD"):
        hypergradient(search, search.relax("arch"), batch(0), batch(1))
    search.weights_optimizer = torch.optim.SGD(search.supernet.parameters(), 0.1, momentum=0.9, nesterov=True)
    with pytest.raises(ValueError, match="no nesterov"):
        hypergradient(search, search.relax("arch"), batch(0), batch(1))


def test_bfloat16_steps_are_finite(make_search: Callable[..., Search]) -> None:
    search = make_search()
    search.precision = torch.bfloat16
    losses = search.method.step(search, {"train": batch(0), "valid": batch(1)})
    assert all(torch.isfinite(loss.value) for loss in losses.values())
    assert all(torch.isfinite(a).all() for a in search.arch.parameters())
