"""The fast supernet is the plain one: the same names, weights, values, gradients and running statistics."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffnas.core.batch import Batch
from diffnas.core.mixture import Mix, Mixture
from diffnas.core.space import Shape
from diffnas.engine import differentiate
from diffnas.kernels import native
from diffnas.spaces.nasbench201 import fused
from diffnas.spaces.nasbench201.fused import FusedCell, State, chunked
from diffnas.spaces.nasbench201.space import NASBench201
from diffnas.spaces.nasbench201.supernet import MixedCell

Outcome = dict[str, Tensor]
TINY = NASBench201(channels=4, layers=1)
MIXED = [["none"], [], ["skip_connect", "nor_conv_3x3"], ["avg_pool_3x3"], ["nor_conv_1x1", "none"], ["nor_conv_3x3"]]
SPACES = {
    "whole": TINY,
    "K=2": replace(TINY, partial=2),
    "K=4": replace(TINY, channels=8, partial=4),
    "mixed edges": replace(TINY, edge_ops={"cell": MIXED}),
    "statistics of the batch": replace(TINY, statistics="batch"),
}


@pytest.fixture(autouse=True, params=["torch", "numba", "triton"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each test is of both forms: by torch alone, and with compiled kernels."""
    if request.param == "numba" and native.lack() is not None:
        pytest.skip(str(native.lack()))
    monkeypatch.setenv("DIFFNAS_KERNELS", request.param)
    return str(request.param)


def random_mix(dtype: torch.dtype = torch.float64, edge: bool = False, active: str = "all") -> Mix:
    """Shares (and edge weights) as leaves; `active`: "all", "one" op per edge, at "random", or "none"."""
    live = {
        "all": None,
        "one": torch.zeros(6, 5, dtype=torch.bool).scatter_(1, torch.randint(5, (6, 1)), True),
        "random": torch.rand(6, 5) < 0.5,
        "none": torch.zeros(6, 5, dtype=torch.bool),
    }[active]
    scales = (torch.rand(6, dtype=dtype) + 0.5).requires_grad_() if edge else None
    return Mix(torch.randn(6, 5, dtype=dtype).softmax(-1).requires_grad_(), scales, live)


def outcome(module: nn.Module, x: Tensor, given: Any, tensors: list[Tensor]) -> Outcome:
    """One pass: its value, the gradients of a fixed function of it, and all state afterwards."""
    x = x.detach().requires_grad_()
    value = module(x, given)
    push = torch.randn(value.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(value.dtype)
    named = {**dict(module.named_parameters()), "input": x, **{f"mixture {i}": t for i, t in enumerate(tensors)}}
    grads = torch.autograd.grad(value, list(named.values()), push, allow_unused=True)
    found = {
        f"grad {n}": torch.zeros_like(t) if g is None else g for (n, t), g in zip(named.items(), grads, strict=True)
    }
    return {"value": value.detach(), **found, **{n: t.clone() for n, t in module.state_dict().items()}}


def disagreement(found: Outcome, expected: Outcome, tolerance: float) -> list[str]:
    """What differs by more than `tolerance` of its size.

    A gradient's size is at least 1e-3 of the largest gradient's, a running mean's that of the deviation beside it: both may
    be zero but for rounding.
    """
    assert list(found) == list(expected)
    largest = max(float(t.abs().max()) for name, t in expected.items() if name.startswith("grad"))
    wrong = []
    for name, theirs in expected.items():
        mine = found[name]
        assert mine.shape == theirs.shape and mine.dtype == theirs.dtype, name
        floor = 1e-3 * largest if name.startswith("grad") else 0.0
        if name.endswith("running_mean"):
            floor = float(expected[name.replace("running_mean", "running_var")].max()) ** 0.5
        size = max(float(theirs.abs().max()), floor, 1e-30)
        if not torch.allclose(mine, theirs, rtol=0.0, atol=tolerance * size):
            wrong.append(f"{name}: {float((mine - theirs).abs().max()) / size:.1e}")
    return wrong


def unsettle(module: nn.Module) -> None:
    """Running statistics as after long training."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2.0)


def cells(space: NASBench201, channels: int, seed: int = 0) -> list[MixedCell]:
    """The plain and the fast cell on the same fresh weights, in float64."""
    found = []
    for form in (MixedCell, FusedCell):
        torch.manual_seed(seed)
        found.append(form(space.cells["cell"], channels, space.partial, space.statistics == "running").double())
    return found


def supernets(space: NASBench201, dtype: torch.dtype = torch.float64, seed: int = 0) -> list[nn.Module]:
    """The plain and the fast supernet on the same fresh weights."""
    found = []
    for form in ("plain", "fast"):
        torch.manual_seed(seed)
        found.append(space.supernet(Shape(5, 3, 8), form=form).to(dtype))
    return found


@pytest.mark.parametrize("seed", range(100))
def test_random_cells(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any active entries, edge weights, K, ops per edge, number of edges at once, in training and evaluation."""
    torch.manual_seed(seed)
    space = list(SPACES.values())[seed % len(SPACES)]
    monkeypatch.setattr(fused, "CACHE", 0)
    monkeypatch.setattr(fused, "CHANNELS", space.channels // space.partial * (1, 2, 99)[seed // 5 % 3])
    mix = random_mix(edge=seed % 3 == 0, active=("all", "one", "random", "none")[seed % 4])
    plain, quick = cells(space, space.channels, seed)
    unsettle(plain)
    quick.load_state_dict(plain.state_dict())
    x, tensors = torch.randn(3, space.channels, 5, 4 - seed % 2, dtype=torch.float64), Mixture({"cell": mix}).tensors()
    found, expected = (outcome(form.train(seed % 7 != 0), x, mix, tensors) for form in (quick, plain))
    assert not disagreement(found, expected, 1e-9)


def test_names_shapes_and_fresh_weights_are_the_same() -> None:
    for space in SPACES.values():
        plain, quick = supernets(space, torch.float32)
        assert list(plain.state_dict()) == list(quick.state_dict())
        assert all(torch.equal(plain.state_dict()[name], t) for name, t in quick.state_dict().items())
        assert [name for name, _ in plain.named_parameters()] == [name for name, _ in quick.named_parameters()]


@pytest.mark.parametrize(
    ("name", "active"),
    [(name, "all") for name in SPACES] + [("whole", "one"), ("K=2", "random"), ("mixed edges", "random")],
)
def test_supernets(name: str, active: str) -> None:
    """Values, gradients and running statistics, with and without edge weights, then once more in eval mode."""
    torch.manual_seed(1)
    plain, quick = supernets(SPACES[name])
    mixture = Mixture({"cell": random_mix(edge=name != "whole", active=active)})
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    found, expected = (outcome(form, x, mixture, mixture.tensors()) for form in (quick, plain))
    assert not disagreement(found, expected, 1e-9)
    unsettle(plain)
    quick.load_state_dict(plain.state_dict())
    found, expected = (outcome(form.eval(), x, mixture, mixture.tensors()) for form in (quick, plain))
    assert not disagreement(found, expected, 1e-9)


# With this seed no ReLU is so near zero that float32 flips it: plain float32 itself agrees with float64 (asserted).
@pytest.mark.parametrize(("channels", "partial"), [(4, 1), (4, 2), (8, 4)])
def test_float32(channels: int, partial: int) -> None:
    torch.manual_seed(2)
    plain, quick = supernets(replace(TINY, channels=channels, partial=partial))
    mixture, x = Mixture({"cell": random_mix(edge=partial > 1)}), torch.randn(4, 3, 8, 8, dtype=torch.float64)
    single = mixture.map(lambda t: t.detach().float().requires_grad_())
    expected = outcome(copy.deepcopy(plain), x, mixture, mixture.tensors())
    for form in (plain, quick):
        found = outcome(form.float(), x.float(), single, single.tensors())
        assert not disagreement(found, {n: t.to(found[n].dtype) for n, t in expected.items()}, 3e-4), type(form)


@pytest.mark.parametrize("norm", ["update", "batch", "running"])
@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_what_normalisation_does_in_a_pass(norm: Any, statistics: Any, make_search: Any) -> None:
    """The engine's three policies give the same in both forms; only `update` moves running statistics."""
    found = []
    for supernet in supernets(replace(TINY, statistics=statistics), seed=4):
        search = make_search(dtype=torch.float64)
        search.supernet = supernet
        search.weights = list(supernet.parameters())
        search.norms = [layer for layer in supernet.modules() if isinstance(layer, nn.BatchNorm2d)]
        unsettle(supernet) if not found else supernet.load_state_dict(found[0]["before"])
        before = {name: t.clone() for name, t in supernet.state_dict().items()}
        torch.manual_seed(5)
        batch = Batch(torch.randn(3, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2]))
        grads = differentiate(search, Mixture({"cell": random_mix()}), batch, {"weights", "mixture"}, norm)
        moved = any(not torch.equal(before[name], t) for name, t in supernet.state_dict().items())
        assert moved == (norm == "update")
        found.append({"before": before, "after": supernet.state_dict(), "grads": [*grads.weights, *grads.mixture]})
    plain, quick = found
    for mine, theirs in zip(quick["grads"], plain["grads"], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)
    for name, theirs in plain["after"].items():
        torch.testing.assert_close(quick["after"][name], theirs, rtol=1e-9, atol=1e-10)


def test_it_is_twice_differentiable(kernels: str) -> None:
    """A Hessian-vector product through both forms, where torch computes; compiled kernels say that they have none."""
    if kernels != "torch":
        supernet, mixture = supernets(TINY)[1], Mixture({"cell": random_mix()})
        loss = supernet(torch.randn(3, 3, 8, 8, dtype=torch.float64), mixture).sum()
        grad, *_ = torch.autograd.grad(loss, mixture.tensors(), create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            grad.sum().backward()
        return
    products = []
    for supernet in supernets(TINY):
        torch.manual_seed(6)
        mixture, x = Mixture({"cell": random_mix()}), torch.randn(3, 3, 8, 8, dtype=torch.float64)
        weights = list(supernet.parameters())
        loss = F.cross_entropy(supernet(x, mixture), torch.tensor([0, 1, 2]))
        grads = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
        norm = torch.stack([grad.square().sum() for grad in grads]).sum()
        products.append(torch.autograd.grad(norm, [*weights, *mixture.tensors()], materialize_grads=True))
    for mine, theirs in zip(*products, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


def test_bfloat16_is_near() -> None:
    torch.manual_seed(7)
    plain, quick = supernets(replace(TINY, partial=2), torch.float32)
    mixture, x = Mixture({"cell": random_mix(torch.float32, edge=True)}), torch.randn(8, 3, 8, 8)
    expected = plain(x, mixture).detach()
    with torch.autocast("cpu", torch.bfloat16):
        found = quick(x, mixture)
        loss = F.cross_entropy(found, torch.arange(8) % 5)
    assert torch.allclose(found.float(), expected, atol=0.2 * float(expected.abs().max()), rtol=0.0)
    for grad in torch.autograd.grad(loss, [*quick.parameters(), *mixture.tensors()]):
        assert grad.dtype == torch.float32 and torch.isfinite(grad).all()


@pytest.mark.parametrize("sides", [(1, 1), (1, 4), (2, 3), (5, 4)])
def test_pool(sides: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *sides, dtype=torch.float64)
    expected = F.avg_pool2d(x, 3, 1, padding=1, count_include_pad=False)
    torch.testing.assert_close(State(x).pooled, expected)


def test_chunked() -> None:
    assert chunked([0, 1, 3], 2) == [[0, 1], [3]] and chunked([], 2) == []


def test_one_pixel_has_no_statistics() -> None:
    for cell in cells(TINY, 4):
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            cell(torch.randn(1, 4, 1, 1, dtype=torch.float64), random_mix())
