"""The fast supernet is the plain one: the same names, weights, values, gradients and running statistics."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffnas.core.batch import Batch
from diffnas.core.cell import Cell
from diffnas.core.mixture import Mix, Mixture
from diffnas.core.space import Form, Shape, Size
from diffnas.engine import Search
from diffnas.kernels import native
from diffnas.methods.darts import DARTS
from diffnas.spaces.darts_cnn.fused import ops as parts
from diffnas.spaces.darts_cnn.fused import supernet as fused
from diffnas.spaces.darts_cnn.fused.supernet import FusedCell
from diffnas.spaces.darts_cnn.layout import OPS as SEARCHED
from diffnas.spaces.darts_cnn.layout import CellPlan
from diffnas.spaces.darts_cnn.ops import OPS
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.spaces.darts_cnn.supernet import MixedCell

Outcome = dict[str, Tensor]
STEADY = tuple(op for op in OPS if op != "noise")  # which the two forms draw in another order


def random_mix(cell: Cell, dtype: torch.dtype = torch.float64, edge: bool = False, active: str = "all") -> Mix:
    """Shares (and edge weights) as leaves; `active`: "all", "one" op per edge, at "random", or "rest": an edge has none."""
    size = (len(cell.edges), len(cell.ops))
    live = {
        "all": None,
        "one": torch.zeros(size, dtype=torch.bool).scatter_(1, torch.randint(size[1], (size[0], 1)), True),
        "random": torch.rand(size) < 0.5,
        "rest": torch.rand(size) < 0.7,
    }[active]
    if active == "rest" and live is not None:
        live[torch.arange(0, size[0], 2)] = False
    scales = (torch.rand(size[0], dtype=dtype) + 0.5).requires_grad_() if edge else None
    return Mix(torch.randn(size, dtype=dtype).softmax(-1).requires_grad_(), scales, live)


def unsettle(module: nn.Module) -> None:
    """Running statistics as after long training."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2.0)


def outcome(module: nn.Module, inputs: list[Tensor], mixes: Any, tensors: list[Tensor]) -> Outcome:
    """One pass of a cell or supernet: its value, the gradients of a fixed function of it, and all state afterwards."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    value = module(leaves if isinstance(module, MixedCell) else leaves[0], mixes)
    push = torch.randn(value.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(value.dtype)
    named = dict(module.named_parameters())
    named |= {f"input {i}": x for i, x in enumerate(leaves)} | {f"mixture {i}": t for i, t in enumerate(tensors)}
    slopes = torch.autograd.grad(value, list(named.values()), push, allow_unused=True)
    found = {
        f"slope {n}": torch.zeros_like(t) if g is None else g for (n, t), g in zip(named.items(), slopes, strict=True)
    }
    return {"value": value.detach(), **found, **{n: t.clone() for n, t in module.state_dict().items()}}


def disagreement(found: Outcome, expected: Outcome, tolerance: float) -> list[str]:
    """What differs by more than `tolerance` of its size.

    A gradient's size is at least 1e-3 of the largest gradient's, a running mean's that of the deviation beside it: both may
    be zero but for rounding.
    """
    assert list(found) == list(expected)
    largest = max([float(t.abs().max()) for name, t in expected.items() if name.startswith("slope")], default=0.0)
    wrong = []
    for name, theirs in expected.items():
        mine = found[name]
        assert mine.shape == theirs.shape and mine.dtype == theirs.dtype, name
        floor = 1e-3 * largest if name.startswith("slope") else 0.0
        if name.endswith("running_mean"):
            floor = float(expected[name.replace("running_mean", "running_var")].max()) ** 0.5
        size = max(float(theirs.abs().max()), floor, 1e-30)
        if not torch.allclose(mine, theirs, rtol=0.0, atol=tolerance * size):
            wrong.append(f"{name}: {float((mine - theirs).abs().max()) / size:.1e}")
    return wrong


def cells(cell: Cell, plan: CellPlan, partial: int = 1, seed: int = 0) -> list[MixedCell]:
    """The plain and the fast cell on the same fresh weights, in float64."""
    found = []
    for form in (MixedCell, FusedCell):
        torch.manual_seed(seed)
        found.append(form(cell, plan, partial).double())
    return found


def images(plan: CellPlan, n: int, side: tuple[int, int], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Inputs of a cell; twice the side where one is halved on its way in."""
    return [torch.randn(n, c, *(s << halvings for s in side), dtype=dtype) for c, halvings in plan.inputs]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Sets how many edges with `channels` are computed side by side."""

    def limit(edges: int, channels: int) -> None:
        monkeypatch.setattr(fused, "CACHE", 0)
        monkeypatch.setattr(fused, "CHANNELS", edges * channels)

    return limit


@pytest.fixture(params=["torch", "numba", "triton"], autouse=True)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test by torch alone, and by compiled kernels."""
    if request.param == "numba" and native.lack() is not None:
        pytest.skip(str(native.lack()))
    monkeypatch.setenv("DIFFNAS_KERNELS", request.param)
    if request.param == "numba":
        from diffnas.kernels.native import table

        monkeypatch.setattr(table, "lanes", lambda channels, size: 4)  # one set of kernels is enough to compile
    return str(request.param)


# ---- cells


@pytest.mark.parametrize("op", STEADY)
@pytest.mark.parametrize("kind", ["normal", "reduce"])
def test_every_op(op: str, kind: str, at_once: Callable[[int, int], None]) -> None:
    """Alone and beside a skip, on odd sides wherever the op takes them, one edge at a time and all at once."""
    for ops in dict.fromkeys([(op,), tuple(dict.fromkeys((op, "skip_connect")))]):
        halves = kind == "reduce" and any("skip" in name for name in ops)
        cell, plan = Cell.dense(ops, 2, 2), CellPlan(kind, 4, ((6, 0), (3, 0)))
        for width, training in [(1, True), (3, True), (2, False)]:
            at_once(width, 4)
            plain, quick = cells(cell, plan)
            unsettle(plain)
            quick.load_state_dict(plain.state_dict())
            mix, x = random_mix(cell), images(plan, 3, (8, 6) if halves else (9, 7))
            found, expected = (outcome(form.train(training), x, mix, [mix.op]) for form in (quick, plain))
            assert not disagreement(found, expected, 1e-9), (ops, width, training)


# With these seeds no ReLU is so near zero that float32 flips it: plain float32 itself agrees with float64 (asserted).
@pytest.mark.parametrize("op", STEADY)
@pytest.mark.parametrize("kind", ["normal", "reduce"])
def test_every_op_in_float32(op: str, kind: str) -> None:
    cell, plan = (
        Cell.dense((op, "avg_pool_3x3") if op != "avg_pool_3x3" else (op,), 2, 2),
        CellPlan(kind, 4, ((6, 0), (3, 0))),
    )
    exact, quick = cells(cell, plan)
    mix, x = random_mix(cell), images(plan, 4, (8, 8))
    single = Mix(mix.op.detach().float().requires_grad_())
    expected = outcome(copy.deepcopy(exact), x, mix, [mix.op])
    for form in (exact, quick):
        found = outcome(form.float(), [t.float() for t in x], single, [single.op])
        assert not disagreement(found, {n: t.to(found[n].dtype) for n, t in expected.items()}, 1e-4), type(form)


def random_cell(draw: torch.Generator) -> tuple[Cell, CellPlan, int]:
    """A cell of any shape, its plan, and K."""

    def pick(options: Iterable[Any]) -> Any:
        options = list(options)
        return options[int(torch.randint(len(options), (), generator=draw))]

    inputs, nodes, kind = pick((1, 2)), pick((1, 2, 3, 4)), pick(("normal", "reduce"))
    ops = [op for op in STEADY if pick((True, False))] or ["skip_connect"]
    edges = range(sum(range(inputs, inputs + nodes)))
    allowed = [[op for op in ops if pick((True, False))] for _ in edges] if pick((True, False)) else None
    concat = [i for i in range(inputs, inputs + nodes) if pick((True, False))] or None
    partial, channels = pick((1, 2)), pick((2, 4, 8))
    if channels // partial % 2:  # halving splits the channels
        ops = [op for op in ops if "skip" not in op or kind == "normal"] or ["none"]
        allowed = None if allowed is None else [[op for op in row if op in ops] for row in allowed]
    cell = Cell.dense(ops, inputs, nodes, concat=concat, allowed=allowed)
    return cell, CellPlan(kind, channels, tuple((pick((3, 4)), pick((0, 0, 1))) for _ in range(inputs))), partial


@pytest.mark.parametrize("seed", range(200))
def test_random_cells(seed: int, at_once: Callable[[int, int], None], kernels: str) -> None:
    """Any edges, ops, active entries, K, concatenation, and number of edges at once."""
    if kernels == "triton" and seed >= 60:
        pytest.skip("sixty of them have every case once")
    torch.manual_seed(seed)
    cell, plan, partial = random_cell(torch.Generator().manual_seed(seed))
    active = ("all", "one", "random", "rest")[seed % 4]
    mix, x = random_mix(cell, edge=seed % 3 == 0, active=active), images(plan, 3, ((4, 4), (6, 4))[seed % 2])
    at_once((1, 2, 99)[seed // 4 % 3], plan.channels // partial)
    plain, quick = cells(cell, plan, partial, seed)
    unsettle(plain)
    quick.load_state_dict(plain.state_dict())
    training = seed % 5 != 0
    tensors = [mix.op] if mix.edge is None else [mix.op, mix.edge]
    found, expected = (outcome(form.train(training), x, mix, tensors) for form in (quick, plain))
    assert not disagreement(found, expected, 1e-9), (cell, plan, partial)


def test_running_statistics_stay_where_they_are_not_tracked() -> None:
    cell, plan = Cell.dense(SEARCHED, 2, 2), CellPlan("reduce", 4, ((4, 0), (4, 0)))
    forms, mix, x = cells(cell, plan), random_mix(cell), images(plan, 3, (8, 8))
    for form in forms:
        for layer in form.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.track_running_stats = False
    before = {name: t.clone() for name, t in forms[0].state_dict().items()}
    expected, found = (outcome(form, x, mix, [mix.op]) for form in forms)
    assert not disagreement(found, expected, 1e-9)
    assert all(torch.equal(found[name], t) for name, t in before.items())


def test_the_layout_of_the_input_does_not_matter() -> None:
    cell, plan = Cell.dense(SEARCHED, 2, 2), CellPlan("normal", 4, ((4, 0), (4, 0)))
    _, quick = cells(cell, plan)
    mix, x = random_mix(cell), images(plan, 3, (6, 6))
    turned = [t.transpose(2, 3).contiguous().transpose(2, 3) for t in x]  # neither layout
    last = [t.to(memory_format=torch.channels_last) for t in x]
    expected = outcome(copy.deepcopy(quick), x, mix, [mix.op])
    for inputs in (last, turned):
        assert not disagreement(outcome(copy.deepcopy(quick), inputs, mix, [mix.op]), expected, 1e-12)


def test_only_what_is_asked_for_is_computed(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are numbers cost no gradient and change none of the others; nor does a mixture that is."""
    cell, plan = Cell.dense(SEARCHED, 2, 1), CellPlan("normal", 4, ((4, 0), (4, 0)))
    _, quick = cells(cell, plan)
    mix, x = random_mix(cell), images(plan, 3, (8, 8))
    expected = outcome(quick, x, mix, [mix.op])
    names = [name for name, _ in quick.named_parameters()]
    detached = Mix(mix.op.detach())
    push = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for name, g in zip(names, torch.autograd.grad(quick(x, detached), list(quick.parameters()), push), strict=True):
        assert torch.equal(g, expected[f"slope {name}"])
    calls = {"kernel": 0, "input": 0}

    def counted(kind: str, route: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def count(*given: Any) -> Tensor:
            calls[kind] += 1
            return route(*given)

        return count

    if kernels == "torch":
        monkeypatch.setattr(parts, "kernel_gradient", counted("kernel", parts.kernel_gradient))
        monkeypatch.setattr(parts, "input_gradient", counted("input", parts.input_gradient))
    elif kernels == "triton":
        from diffnas.kernels.gpu import reference

        monkeypatch.setattr(reference, "kernel_slopes", counted("kernel", reference.kernel_slopes))
        monkeypatch.setattr(reference, "state_slope", counted("input", reference.state_slope))
    else:
        from diffnas.kernels.native.table import Layout

        back = Layout.backward

        def asked(layout: Layout, *given: Any) -> Any:
            calls["input"] += given[-2]
            calls["kernel"] += given[-1]
            return back(layout, *given)

        monkeypatch.setattr(Layout, "backward", asked)
    quick.requires_grad_(False)
    (slope,) = torch.autograd.grad(quick(x, mix), [mix.op], push)
    assert torch.equal(slope, expected["slope mixture 0"]) and calls == {"kernel": 0, "input": 0}
    leaves = [t.requires_grad_() for t in x]
    found = torch.autograd.grad(quick(leaves, mix), [mix.op, *leaves], push)
    assert calls["kernel"] == 0 < calls["input"]
    for i, slope in enumerate(found[1:]):
        assert torch.equal(slope, expected[f"slope input {i}"])


def test_only_some_weights_learn() -> None:
    cell, plan = Cell.dense(SEARCHED, 2, 2), CellPlan("normal", 4, ((4, 0), (4, 0)))
    plain, quick = cells(cell, plan)
    mix, x = random_mix(cell), images(plan, 3, (6, 6))
    slopes = []
    for form in (quick, plain):
        some = dict(list(form.named_parameters())[::3])
        for name, weight in form.named_parameters():
            weight.requires_grad_(name in some)
        push = torch.linspace(-1, 1, 3 * 8 * 36, dtype=torch.float64).sin().view(3, 8, 6, 6)
        slopes.append(torch.autograd.grad(form(x, mix), list(some.values()), push))
    for mine, theirs in zip(*slopes, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-9, atol=1e-11)


def test_one_pass_leaves_nothing_to_the_next() -> None:
    """What is active, the sides, and train or eval may change from pass to pass."""
    cell, plan = Cell.dense(SEARCHED, 2, 2), CellPlan("normal", 4, ((4, 0), (4, 0)))
    plain, quick = cells(cell, plan)
    for active, side, training in [("one", 6, True), ("all", 6, True), ("random", 4, True), ("all", 4, False)]:
        mix, x = random_mix(cell, active=active), images(plan, 3, (side, side))
        found, expected = (outcome(form.train(training), x, mix, [mix.op]) for form in (quick, plain))
        assert not disagreement(found, expected, 1e-9), active


def test_foreign_ops_run_beside_the_others() -> None:
    """An op that `Outflow` does not know is left to autograd, alone on its edge or not."""
    ops = ("conv_7x1_1x7", "sep_conv_3x3", "skip_connect")
    allowed = [["conv_7x1_1x7"], ["conv_7x1_1x7", "sep_conv_3x3"], ["skip_connect"], [], ["conv_7x1_1x7"]]
    cell, plan = Cell.dense(ops, 2, 2, allowed=allowed), CellPlan("reduce", 4, ((4, 0), (4, 0)))
    plain, quick = cells(cell, plan)
    for active in ("all", "random", "rest"):
        mix, x = random_mix(cell, edge=True, active=active), images(plan, 3, (8, 8))
        found, expected = (outcome(form, x, mix, [mix.op, mix.edge]) for form in (quick, plain))
        assert not disagreement(found, expected, 1e-9), active


# ---- supernets

TINY = DartsCNN(channels=4, layers=3, nodes=2)


class Quick(DartsCNN):
    """The space, whose supernets are fast."""

    def supernet(self, shape: Shape, size: Size | None = None, form: Form = "fast") -> nn.Module:
        return super().supernet(shape, size, "fast")


def supernets(space: DartsCNN, dtype: torch.dtype, seed: int = 0) -> list[nn.Module]:
    """The plain and the fast supernet on the same fresh weights."""
    found = []
    for form in ("plain", "fast"):
        torch.manual_seed(seed)
        found.append(space.supernet(Shape(5, 3, 8), form=form).to(dtype))
    return found


def test_names_shapes_and_fresh_weights_are_the_same() -> None:
    for space in (TINY, replace(TINY, partial=2), replace(TINY, ops=STEADY)):
        plain, quick = (supernet.state_dict() for supernet in supernets(space, torch.float32))
        assert list(plain) == list(quick)
        assert all(torch.equal(plain[name], t) for name, t in quick.items())
        names = [[name for name, _ in supernet.named_parameters()] for supernet in supernets(space, torch.float32)]
        assert names[0] == names[1]


MIXED = {
    "normal": [["none"], [], ["skip_connect", "sep_conv_5x5"], ["max_pool_3x3"], ["dil_conv_3x3", "none"]],
    "reduce": [["skip_connect"], ["avg_pool_3x3", "dil_conv_5x5"], ["none"], [], ["sep_conv_3x3", "max_pool_3x3"]],
}
SPACES = {
    "whole": TINY,
    "K=2": replace(TINY, partial=2),
    "K=4": replace(TINY, channels=8, partial=4),
    "mixed edges": replace(TINY, edge_ops=MIXED),
    "one input": replace(TINY, inputs=1, in_degree=1),
    "one output": replace(TINY, concat=(2,)),
}


@pytest.mark.parametrize(
    ("name", "active"),
    [(name, "all") for name in SPACES] + [("whole", "one"), ("K=2", "random"), ("mixed edges", "rest")],
)
def test_supernets(name: str, active: str) -> None:
    """Values, gradients and running statistics, with and without edge weights, then once more in eval mode."""
    space = SPACES[name]
    plain, quick = supernets(space, torch.float64)
    mixes = {k: random_mix(c, edge=name != "whole", active=active) for k, c in space.cells.items()}
    mixture, x = Mixture(mixes), [torch.randn(3, 3, 8, 8, dtype=torch.float64)]
    found, expected = (outcome(form, x, mixture, mixture.tensors()) for form in (quick, plain))
    assert not disagreement(found, expected, 1e-9)
    assert active != "all" or all(int(t) == 1 for n, t in found.items() if n.endswith("num_batches_tracked"))
    unsettle(plain)
    quick.load_state_dict(plain.state_dict())
    found, expected = (outcome(form.eval(), x, mixture, mixture.tensors()) for form in (quick, plain))
    assert not disagreement(found, expected, 1e-9)


@pytest.mark.skipif(native.lack() is not None, reason=str(native.lack()))
def test_kernels_evaluate_few_images_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values of pieces of two, two and one image are those of the whole; batches' statistics are never those of pieces."""
    monkeypatch.setenv("DIFFNAS_KERNELS", "numba")
    monkeypatch.setattr(fused, "EVALUATED", 2 * 4 * 8 * 8)
    plain, quick = supernets(TINY, torch.float64)
    mixture, x = mixture_and_images(torch.float64)[0], torch.randn(5, 3, 8, 8, dtype=torch.float64)
    unsettle(plain)
    for training in (True, False):
        quick.load_state_dict(plain.state_dict())
        with torch.no_grad():
            found, expected = (form.train(training)(x, mixture) for form in (quick, plain))
        assert float((found - expected).abs().max()) < 1e-9


# With these sizes plain float32 itself agrees with plain float64 (asserted): no ReLU flips.
@pytest.mark.parametrize(("partial", "edge"), [(1, False), (2, True)])
def test_supernets_in_float32(partial: int, edge: bool) -> None:
    space = DartsCNN(channels=4, layers=1, nodes=2, partial=partial)
    plain, quick = supernets(space, torch.float64)
    exact = {k: random_mix(c, edge=edge) for k, c in space.cells.items()}
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    mixture = Mixture(exact)
    single = mixture.map(lambda t: t.detach().float().requires_grad_())
    expected = outcome(copy.deepcopy(plain), [x], mixture, mixture.tensors())
    for form in (plain, quick):
        found = outcome(form.float(), [x.float()], single, single.tensors())
        assert not disagreement(found, {n: t.to(found[n].dtype) for n, t in expected.items()}, 1e-4), type(form)


@pytest.mark.parametrize("unrolled", [False, True])
def test_two_search_steps_are_the_same(unrolled: bool, make_search: Callable[..., Search]) -> None:
    searches = []
    for space in (DartsCNN, Quick):
        method, dtype = DARTS(unrolled=unrolled), torch.float64
        search = make_search(space(channels=4, layers=2, nodes=2), method, dtype=dtype, scale=0.1)
        draw = torch.Generator().manual_seed(1)
        for _ in range(2):
            halves = [
                Batch(torch.randn(4, 3, 8, 8, generator=draw, dtype=dtype), torch.randint(0, 10, (4,), generator=draw))
                for _ in range(2)
            ]
            search.method.step(search, {"train": halves[0], "valid": halves[1]})
        searches.append({**search.supernet.state_dict(), **search.arch.state_dict()})
        start = make_search(space(channels=4, layers=2, nodes=2), method, dtype=dtype, scale=0.1)
        assert not torch.equal(start.arch.alpha["reduce"], search.arch.alpha["reduce"])
    plain, quick = searches
    assert not disagreement(quick, plain, 1e-8 if unrolled else 1e-9)


def mixture_and_images(dtype: torch.dtype = torch.float32) -> tuple[Mixture, Tensor]:
    """A mixture for `TINY`, and three images."""
    torch.manual_seed(3)
    return Mixture({k: random_mix(c, dtype) for k, c in TINY.cells.items()}), torch.randn(3, 3, 8, 8, dtype=dtype)


def test_it_is_once_differentiable() -> None:
    quick, (mixture, x) = supernets(TINY, torch.float32)[1], mixture_and_images()
    slopes = torch.autograd.grad(quick(x, mixture).sum(), mixture.tensors(), create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        sum(slope.square().sum() for slope in slopes).backward()


def test_a_copy_is_its_own() -> None:
    """A copy made after a pass computes with its own weights and moves its own statistics."""
    quick, (mixture, x) = supernets(TINY, torch.float64)[1], mixture_and_images(torch.float64)
    quick(x, mixture)
    before = {name: t.clone() for name, t in quick.state_dict().items()}
    twin = copy.deepcopy(quick)
    with torch.no_grad():
        for weight in twin.parameters():
            weight.mul_(0.5).add_(0.1)
    plain = supernets(TINY, torch.float64)[0]
    plain.load_state_dict(twin.state_dict())
    found, expected = (outcome(form, [x], mixture, mixture.tensors()) for form in (twin, plain))
    assert not disagreement(found, expected, 1e-9)
    assert all(torch.equal(before[name], t) for name, t in quick.state_dict().items())


@pytest.mark.parametrize("way", ["in place", "assign", "functional_call"])
def test_weights_may_be_exchanged_between_passes(way: str) -> None:
    (plain, quick), (mixture, x) = supernets(TINY, torch.float64), mixture_and_images(torch.float64)
    quick(x, mixture)
    other = supernets(TINY, torch.float64, seed=9)[0].state_dict()
    plain.load_state_dict(other)
    given = {name: t.clone() for name, t in other.items()}
    call: Callable[..., Tensor] = quick
    if way == "functional_call":
        weights = {name: given[name].requires_grad_() for name, _ in quick.named_parameters()}
        call = lambda *inputs: torch.func.functional_call(quick, {**given, **weights}, inputs)  # noqa: E731
    else:
        quick.load_state_dict(given, assign=way == "assign")
        weights = dict(quick.named_parameters())
    found = torch.autograd.grad(call(x, mixture).sum(), list(weights.values()), allow_unused=True)
    expected = torch.autograd.grad(plain(x, mixture).sum(), list(plain.parameters()), allow_unused=True)
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine is None) == (theirs is None)
        assert mine is None or torch.allclose(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("ops", [SEARCHED, ("conv_7x1_1x7", "sep_conv_3x3", "none")])
def test_bfloat16_is_near(ops: tuple[str, ...]) -> None:
    space = replace(TINY, ops=ops, layers=2)
    plain, quick = supernets(space, torch.float32)
    torch.manual_seed(5)
    mixture = Mixture({k: random_mix(c, torch.float32) for k, c in space.cells.items()})
    x, y = torch.randn(8, 3, 8, 8), torch.randint(0, 5, (8,))
    expected = plain(x, mixture).detach()
    with torch.autocast("cpu", torch.bfloat16):
        found = quick(x, mixture)
        loss = F.cross_entropy(found, y)
    assert torch.allclose(found.float(), expected, atol=0.2 * float(expected.abs().max()), rtol=0.0)
    for slope in torch.autograd.grad(loss, [*quick.parameters(), *mixture.tensors()], allow_unused=True):
        assert slope is None or (slope.dtype == torch.float32 and torch.isfinite(slope).all())


def test_sides_that_cannot_be_halved_are_refused_alike() -> None:
    cell, plan = Cell.dense(("skip_connect",), 1, 1), CellPlan("reduce", 4, ((4, 0),))
    for form, sides in itertools.product(cells(cell, plan), [(7, 8), (8, 7)]):
        with pytest.raises(ValueError, match="needs even sides, not"):
            form(images(plan, 2, sides), random_mix(cell))
