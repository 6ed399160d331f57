"""Widening: every new channel copies an old one, everywhere it passes through, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from diffnas.core.space import Form, Shape, Size
from diffnas.engine import Search
from diffnas.pipeline.stages import inherited
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.spaces.nasbench201.space import NASBench201
from diffnas.spaces.widen import channel_copies, widened

SPACE = DartsCNN(channels=8, layers=3, nodes=2)
NARROW, WIDE = Size(8, 3, 4), Size(8, 3, 2)  # ops on 2, then on 4 channels (twice that after each reduction)
State = dict[str, Tensor]


def supernet(size: Size, form: Form = "plain", space: DartsCNN | NASBench201 = SPACE) -> nn.Module:
    """A supernet in which no two numbers are equal, those of running statistics included."""
    net = space.supernet(Shape(10, 3, 8), size, form)
    for k, tensor in enumerate(net.state_dict().values()):
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=torch.Generator().manual_seed(k)))
    return net


def grown(space: DartsCNN | NASBench201 = SPACE, seed: int = 0) -> tuple[State, State, nn.Module]:
    """The state of a narrow supernet, the same widened, and the wide supernet that holds it."""
    narrow, wide = (Size(8, space.layers, partial) for partial in (4, 2))
    old = {name: t.clone() for name, t in supernet(narrow, space=space).state_dict().items()}
    net = space.supernet(Shape(10, 3, 8), wide)
    copies = channel_copies(old, net, torch.Generator().manual_seed(seed))
    new = {name: widened(t, copies.get(name, ())) for name, t in old.items()}
    net.load_state_dict(new)
    return old, new, net


def sources(new: Tensor, old: Tensor) -> list[int]:
    """The old entry of the first dimension that each new one equals."""
    found = [[k for k, before in enumerate(old) if torch.equal(before, after)] for after in new]
    assert all(len(matches) == 1 for matches in found)
    return [matches[0] for matches in found]


def grew(index: list[int], before: int) -> bool:
    """Whether `index` begins with the old channels in order and goes on with copies of old ones."""
    return index[:before] == list(range(before)) and len(index) == 2 * before and max(index) < before


@pytest.mark.parametrize("op", ["sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3"])
@pytest.mark.parametrize("cell", [0, 1])
def test_copies_pass_through_a_separable_convolution(op: str, cell: int) -> None:
    old, new, _ = grown()
    at, before = f"cells.{cell}.edges.1.ops.{op}", 2 * 2**cell
    flowing = sources(new[f"{at}.1.weight"], old[f"{at}.1.weight"])
    assert grew(flowing, before)
    for start in range(0, 8 if op.startswith("sep") else 4, 4):
        depthwise, pointwise, norm = (f"{at}.{start + k}" for k in (1, 2, 3))
        assert sources(new[f"{depthwise}.weight"], old[f"{depthwise}.weight"]) == flowing
        out = sources(new[f"{norm}.running_mean"], old[f"{norm}.running_mean"])
        assert grew(out, before)
        assert sources(new[f"{norm}.running_var"], old[f"{norm}.running_var"]) == out
        assert torch.equal(new[f"{pointwise}.weight"], old[f"{pointwise}.weight"][out][:, flowing])
        flowing = out


@pytest.mark.parametrize("cell", [1, 2])
def test_the_two_halves_of_a_factorized_reduction(cell: int) -> None:
    old, new, _ = grown()
    at, half = f"cells.{cell}.edges.0.ops.skip_connect", 2**cell
    index = sources(new[f"{at}.norm.running_mean"], old[f"{at}.norm.running_mean"])
    even, odd = index[: 2 * half], [k - half for k in index[2 * half :]]
    assert grew(even, half) and grew(odd, half)
    assert sources(new[f"{at}.norm.running_var"], old[f"{at}.norm.running_var"]) == index
    read = sources(new[f"{at}.even.weight"][0, :], old[f"{at}.even.weight"][0, :])
    assert grew(read, 2 * half)
    assert torch.equal(new[f"{at}.even.weight"], old[f"{at}.even.weight"][even][:, read])
    assert torch.equal(new[f"{at}.odd.weight"], old[f"{at}.odd.weight"][odd][:, read])


def test_the_normalisation_after_a_pool() -> None:
    old, new, _ = grown()
    for op in ("max_pool_3x3", "avg_pool_3x3"):
        mean, variance = (f"cells.1.edges.2.ops.{op}.1.running_{name}" for name in ("mean", "var"))
        index = sources(new[mean], old[mean])
        assert grew(index, 4) and sources(new[variance], old[variance]) == index


def test_a_dense_convolution() -> None:
    old, new, _ = grown(NASBench201(channels=8, layers=1))
    name = next(name for name in old if name.endswith("ops.nor_conv_3x3.1.weight"))
    mean = name.replace("1.weight", "2.running_mean")
    out = sources(new[mean], old[mean])
    read = sources(new[name][0], old[name][0])
    assert grew(out, 2) and grew(read, 2)
    assert torch.equal(new[name], old[name][out][:, read])


def test_nothing_else_changes() -> None:
    old, new, _ = grown()
    changed = {name for name in old if old[name].shape != new[name].shape}
    assert changed == {name for name, t in old.items() if ".ops." in name and t.dim()}
    assert all(torch.equal(old[name], new[name]) for name in old.keys() - changed)


def test_equal_sizes_are_left_alone() -> None:
    net = supernet(WIDE)
    assert channel_copies(net.state_dict(), net, torch.Generator()) == {}
    tensor = torch.randn(3, 2)
    assert widened(tensor, ()) is tensor and widened(tensor, (None, None)) is tensor


def test_copies_come_from_the_generator() -> None:
    (_, one, _), (_, same, _), (_, other, _) = grown(seed=1), grown(seed=1), grown(seed=2)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("form", ["plain", "fast"])
@pytest.mark.parametrize("restart", [False, True])
def test_a_stage_takes_over_weights_and_momentum(form: Form, restart: bool, make_search: Callable[..., Search]) -> None:
    before = searching(make_search, supernet(NARROW, form))
    for k, weight in enumerate(before.weights):
        before.weights_optimizer.state[weight]["momentum_buffer"] = weight.detach() * (k + 2.0)
    after = searching(make_search, supernet(WIDE, form))
    after.load_state_dict(inherited(before, after, restart))
    slots = after.weights_optimizer.state
    assert bool(slots) != restart
    for k, weight in enumerate(after.weights if slots else []):
        assert torch.equal(slots[weight]["momentum_buffer"], weight.detach() * (k + 2.0))
    narrow, wide = before.supernet.state_dict(), after.supernet.state_dict()
    assert all(torch.equal(t, wide[name][tuple(map(slice, t.shape))]) for name, t in narrow.items() if not halves(name))


def halves(name: str) -> bool:
    """Whether `name` is of channels that come from two convolutions: there the old ones do not come first."""
    return "skip_connect.norm" in name


def searching(make_search: Callable[..., Search], net: nn.Module) -> Search:
    """A search on `net`."""
    search = make_search(SPACE)
    search.supernet, search.weights = net, [p for p in net.parameters() if p.requires_grad]
    search.weights_optimizer = torch.optim.SGD(search.weights, 0.1, 0.9)
    return search
