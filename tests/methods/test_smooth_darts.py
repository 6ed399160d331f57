"""SmoothDARTS: the projection, the random and the worst perturbation by hand, and who sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffnas.core.batch import Batch, Loss
from diffnas.core.mixture import Mix, Mixture
from diffnas.core.space import Size
from diffnas.engine import Search
from diffnas.engine.stage import Clock
from diffnas.methods.darts_pt import DARTSPT
from diffnas.methods.drnas import DrNAS
from diffnas.methods.smooth_darts import SmoothDARTS, projected
from diffnas.methods.snas import SNAS
from diffnas.spaces.darts_cnn.space import DartsCNN

DOUBLE = torch.float64
SPACE = DartsCNN(channels=2, layers=1, nodes=1, ops=("none", "skip_connect", "sep_conv_3x3"))


def batches() -> dict[str, Batch]:
    torch.manual_seed(0)
    return {name: Batch(torch.randn(4, 3, 8, 8), torch.randint(0, 10, (4,))) for name in ("train", "valid")}


def by_hand(moved: Tensor, before: Tensor) -> Tensor:
    """The projection of rows of a softmax, number by number."""
    rows = []
    for row, former in zip(moved.tolist(), before.tolist(), strict=True):
        within = [min(1.0, max(0.0, value)) for value in row]
        if sum(within) == 0:
            within[former.index(max(former))] = 1.0
        rows.append([value / sum(within) for value in within])
    return torch.tensor(rows, dtype=moved.dtype)


def test_projection(close: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    before = torch.randn(40, 5, generator=draw, dtype=DOUBLE).softmax(-1)
    moved = before + torch.randn(40, 5, generator=draw, dtype=DOUBLE)
    moved[3] = -1.0
    moved[4] = 7.0
    allowed = torch.ones(40, 5, dtype=torch.bool)
    found = projected(moved, before, allowed)
    close(found, by_hand(moved, before), 1e-15)
    assert found[3].tolist() == pytest.approx([float(k == before[3].argmax()) for k in range(5)])
    assert found[4].tolist() == pytest.approx([0.2] * 5)


def test_projection_keeps_to_what_is_allowed_and_to_the_sum_of_a_row() -> None:
    before = torch.tensor([[0.0, 0.6, 0.4], [0.9, 0.9, 0.6], [0.0, 0.0, 0.0]], dtype=DOUBLE)
    moved = torch.tensor([[0.5, 0.3, 0.1], [1.5, 0.5, 0.5], [0.2, 0.2, -0.1]], dtype=DOUBLE)
    allowed = torch.tensor([[False, True, True], [True, True, True], [False, False, False]])
    found = projected(moved, before, allowed)
    assert found[0].tolist() == pytest.approx([0.0, 0.75, 0.25])
    assert found[1].tolist() == pytest.approx(
        [1.2, 0.6, 0.6]
    )  # shares that are not those of a softmax keep their sum, 2.4
    assert found[2].tolist() == [0.0, 0.0, 0.0]


def test_epsilon_grows_in_a_line() -> None:
    method = SmoothDARTS()
    found = [method.epsilon(Clock(epoch=epoch, epochs=50)) for epoch in (0, 25, 49)]
    assert found == pytest.approx([0.03, 0.165, 0.03 + 0.27 * 49 / 50])
    assert SmoothDARTS(epsilon_first=0.1, epsilon_last=0.1).epsilon(Clock(epoch=3, epochs=7)) == pytest.approx(0.1)


def test_around_a_selection_epsilon_stays_at_its_last_value() -> None:
    """DARTS-PT tunes a supernet that was trained to the end; epsilon may grow a second time, as once."""
    for anew, expected in ((False, [0.03, 0.165, 0.3, 0.3]), (True, [0.03, 0.165, 0.03, 0.165])):
        method = SmoothDARTS(DARTSPT(), begins_anew=anew)
        clocks = [
            Clock(stage=stage, epoch=epoch, epochs=50, selecting=stage == 1) for stage in (0, 1) for epoch in (0, 25)
        ]
        assert [method.epsilon(clock) for clock in clocks] == pytest.approx(expected)


def test_random_shares_by_hand(make_search: Callable[..., Search], close: Any) -> None:
    search = make_search(SPACE, method=SmoothDARTS(), dtype=DOUBLE, scale=1.0)
    search.clock = Clock(epoch=5, epochs=10)
    twin = torch.Generator()
    twin.set_state(search.shared.get_state())
    found, clean = search.relax("weights"), search.arch()
    for kind, mix in found.items():
        before = clean[kind].op.detach()
        noise = (2.0 * torch.rand(before.shape, generator=twin, dtype=DOUBLE) - 1.0) * 0.165
        close(mix.op, by_hand(before + noise, before), 1e-14)
        assert not mix.op.requires_grad and mix.edge is None
    assert not torch.equal(search.relax("weights")["reduce"].op, found["reduce"].op)  # another draw


def test_only_weight_steps_are_perturbed(make_search: Callable[..., Search]) -> None:
    data = batches()
    for perturbation in ("rs", "adv"):
        search, plain = make_search(method=SmoothDARTS(perturbation=perturbation), scale=0.5), make_search(scale=0.5)
        for use in ("arch", "eval"):
            for kind, mix in search.relax(use, data["train"]).items():
                assert torch.equal(mix.op, plain.relax(use)[kind].op) and mix.op.requires_grad
        before = search.shared.get_state()
        search.derive()
        assert torch.equal(before, search.shared.get_state())
        ours, theirs = search.method.step(search, data), plain.method.step(plain, data)
        assert torch.equal(ours["valid"].value, theirs["valid"].value)
        assert not torch.equal(ours["train"].value, theirs["train"].value)
        for mine, other in zip(search.arch.parameters(), plain.arch.parameters(), strict=True):
            assert torch.equal(mine, other)
        assert any(not torch.equal(a, b) for a, b in zip(search.weights, plain.weights, strict=True))


def test_edges_and_what_is_inactive_are_left_alone(make_search: Callable[..., Search]) -> None:
    one_hot = torch.tensor([[0.0, 1.0, 0.0], [0.3, 0.3, 0.4]])
    active = torch.tensor([[False, True, False], [True, True, True]])
    mix = Mix(one_hot, edge=torch.tensor([0.25, 0.75]), active=active)
    search = make_search(SPACE, method=SmoothDARTS())
    search.arch.forward = lambda: Mixture({"normal": mix, "reduce": mix})
    found = search.relax("weights")["reduce"]
    assert torch.equal(found.edge, mix.edge) and torch.equal(found.active, active)
    assert torch.equal(found.op[0], one_hot[0]) and not torch.equal(found.op[1], one_hot[1])


class Toy(nn.Module):
    """A supernet of one weight, whose output is a function of the shares alone."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones((), dtype=DOUBLE))
        self.function = function

    def forward(self, inputs: Tensor, mixture: Mapping[str, Mix]) -> Tensor:
        return self.weight * self.function(mixture["reduce"].op)


def toy(make_search: Callable[..., Search], function: Callable[[Tensor], Tensor], **settings: Any) -> Search:
    """A search whose loss on any batch is `function` of the shares of `reduce`."""
    built = make_search(SPACE, method=SmoothDARTS(perturbation="adv", **settings), dtype=DOUBLE, scale=1.0)
    net = Toy(function)
    none = torch.zeros(())
    return Search(
        method=built.method,
        space=SPACE,
        supernet=net,
        arch=built.arch,
        weights_optimizer=torch.optim.SGD(net.parameters(), 0.1),
        arch_optimizer=built.arch_optimizer,
        task=SimpleNamespace(loss=lambda net, batch: Loss(net(batch.inputs), none, 1)),
        clock=Clock(epoch=3, epochs=9),
    )


@pytest.mark.parametrize("steps", [1, 7])
def test_the_worst_shares_by_hand(make_search: Callable[..., Search], close: Any, steps: int) -> None:
    goal = torch.tensor([[0.9, 0.05, 0.05], [0.1, 0.2, 0.7]], dtype=DOUBLE)
    search = toy(make_search, lambda op: -(op - goal).square().sum(), steps=steps)
    epsilon = 0.03 + 0.27 * 3 / 9
    clean = search.arch()["reduce"].op.detach()
    twin = torch.Generator()
    twin.set_state(search.shared.get_state())
    torch.rand(clean.shape, generator=twin, dtype=DOUBLE)  # for `normal`, which no cell uses
    at = by_hand(clean + (2.0 * torch.rand(clean.shape, generator=twin, dtype=DOUBLE) - 1.0) * epsilon, clean)
    for _ in range(steps):
        moved = at + 2.0 * epsilon / steps * (-2.0 * (at - goal)).sign()
        at = by_hand(torch.minimum(torch.maximum(moved, clean - epsilon), clean + epsilon), at)
    found = search.relax("weights", Batch(torch.zeros(1), torch.zeros(1)))["reduce"].op
    assert (at - goal).square().sum() < (clean - goal).square().sum()
    close(found, at, 1e-12)
    assert search.weights[0].requires_grad and search.supernet.training


def test_shares_that_do_not_raise_the_loss_are_discarded(make_search: Callable[..., Search]) -> None:
    search = toy(make_search, lambda op: op.sum() * 0.0 + 1.0)
    clean = search.arch()["reduce"].op
    assert torch.equal(search.relax("weights", Batch(torch.zeros(1), torch.zeros(1)))["reduce"].op, clean)
    search = toy(make_search, lambda op: -(op - clean.detach()).abs().sum())  # nowhere larger than here
    assert torch.equal(search.relax("weights", Batch(torch.zeros(1), torch.zeros(1)))["reduce"].op, clean)


def test_the_worst_is_worse_on_a_real_supernet_and_leaves_no_trace(make_search: Callable[..., Search]) -> None:
    search, data = make_search(method=SmoothDARTS(perturbation="adv"), scale=0.1), batches()["train"]
    search.clock = Clock(epoch=9, epochs=10)
    before = {name: t.clone() for name, t in search.supernet.state_dict().items()}
    worst, clean = search.relax("weights", data), search.arch().detach()
    assert all(torch.equal(before[name], t) for name, t in search.supernet.state_dict().items())
    assert all(p.requires_grad for p in search.weights) and search.supernet.training
    search.supernet.eval()
    losses = [search.task.loss(lambda x, m=m: search.supernet(x, m), data).value for m in (worst, clean)]
    assert losses[0] > losses[1]
    assert (worst["reduce"].op.sum(-1) - 1).abs().max() < 1e-6 and not worst["reduce"].op.requires_grad
    assert torch.equal(search.relax("weights")["reduce"].op, clean["reduce"].op)  # no batch, no loss to raise


def test_refusals() -> None:
    size = Size(4, 2)
    assert SmoothDARTS().check_stages(5, size) == [] and SmoothDARTS(DrNAS()).check_stages(5, size) == []
    assert "apart from weight steps" in dict(SmoothDARTS(SNAS()).check_stages(5, size))["base"]
