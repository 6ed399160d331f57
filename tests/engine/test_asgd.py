"""The switch to averaged SGD: when, to what, and back and forth without a trace."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from diffnas.engine.asgd import Trigger, averaged_sgd, averages
from diffnas.engine.optim import load_optimizer_state, optimizer_state


def fired_after(losses: list[float], patience: int = 5) -> int | None:
    trigger = Trigger(patience)
    found = [trigger.fires(loss) for loss in losses]
    assert sum(found) == trigger.fired <= 1
    return found.index(True) if trigger.fired else None


def test_it_fires_above_the_least_of_all_older_losses() -> None:
    falling = [9.0, 8.0, 7.0, 6.0, 5.0, 4.0]
    assert fired_after(falling) is None
    # the 7th epoch is compared with the first alone, the 8th with the first two
    assert fired_after([*falling, 8.5, 8.5]) == 7
    assert fired_after([*falling, 9.5]) == 6
    assert fired_after([*falling, 9.0, 8.0, 7.0]) is None  # equal is not above
    assert fired_after([1.0, 9.0, 9.0, 9.0, 9.0, 9.0]) is None
    assert fired_after([1.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0]) == 6
    assert fired_after([1.0, 9.0, 9.0, 9.0, 9.0, 0.5, 0.6, 0.7]) is None


def test_patience() -> None:
    assert fired_after([3.0, 2.0, 2.5], patience=1) is None
    assert fired_after([3.0, 2.0, 2.5, 2.6], patience=1) == 3
    assert fired_after([3.0, 2.0, 2.5], patience=0) == 2
    assert fired_after([3.0, float("nan")], patience=0) is None


def test_a_trigger_goes_on_from_its_state() -> None:
    losses = [5.0, 4.0, 3.0, 3.5, 3.2, 4.5, 3.4, 3.3, 3.9]
    for cut in range(len(losses)):
        first, second = Trigger(2), Trigger(2)
        early = [first.fires(loss) for loss in losses[:cut]]
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        whole = Trigger(2)
        assert early + [second.fires(loss) for loss in losses[cut:]] == [whole.fires(loss) for loss in losses]


def model() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2).double()


def step(network: nn.Linear, optimizer: torch.optim.Optimizer, seed: int) -> None:
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    network(x).square().mean().backward()
    optimizer.step()


def test_steps_are_those_of_sgd_and_the_average_is_of_all_but_the_first() -> None:
    left, right = model(), model()
    sgd = torch.optim.SGD(left.parameters(), 0.25, weight_decay=0.01)
    asgd = averaged_sgd(right.parameters(), 0.25, 0.01)
    passed = []
    for seed in range(6):
        step(left, sgd, seed)
        step(right, asgd, seed)
        passed.append(left.weight.detach().clone())
        assert torch.allclose(left.weight, right.weight, rtol=1e-13, atol=0)
    mean = torch.stack(passed[1:]).mean(0)
    with averages(asgd):
        assert torch.allclose(right.weight, mean, rtol=1e-6, atol=0)  # PyTorch's shares 1/n are float32
        assert not torch.equal(right.weight, passed[-1])


def test_the_rate_acts_on_the_step_after() -> None:
    network = model()
    asgd = averaged_sgd(network.parameters(), 0.25, 0.0)
    step(network, asgd, 0)
    asgd.param_groups[0]["lr"] = 0.125
    step(network, asgd, 1)
    before = network.weight.detach().clone()
    step(network, asgd, 2)
    assert torch.allclose(network.weight, before - 0.125 * network.weight.grad, rtol=1e-13, atol=0)


def test_weights_come_back_bit_for_bit_also_after_an_error() -> None:
    network = model().float()
    asgd = averaged_sgd(network.parameters(), 0.3, 1e-3)
    for seed in range(5):
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        asgd.zero_grad()
        network(x).square().mean().backward()
        asgd.step()
    held = {name: (p.data_ptr(), p.detach().clone()) for name, p in network.named_parameters()}
    kept = [state["ax"].clone() for state in asgd.state.values()]

    def failing() -> None:
        with averages(asgd):
            assert not torch.equal(network.weight, held["weight"][1])
            assert network.weight.requires_grad
            network.weight.data.add_(1)  # what happens to the averages within is not kept
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        failing()
    for name, parameter in network.named_parameters():
        assert parameter.data_ptr() == held[name][0] and torch.equal(parameter, held[name][1])
    assert all(torch.equal(state["ax"], ax) for state, ax in zip(asgd.state.values(), kept, strict=True))


def test_without_averages_nothing_moves() -> None:
    network = model()
    before = network.weight.detach().clone()
    for optimizer in (averaged_sgd(network.parameters(), 0.1, 0.0), torch.optim.SGD(network.parameters(), 0.1)):
        with averages(optimizer):
            assert torch.equal(network.weight, before)


def test_a_resumed_average_is_the_same_bit_for_bit() -> None:
    whole, cut = model(), model()
    first = averaged_sgd(whole.parameters(), 0.25, 0.01)
    second = averaged_sgd(cut.parameters(), 0.25, 0.01)
    for seed in range(3):
        step(whole, first, seed)
        step(cut, second, seed)
    file = io.BytesIO()
    torch.save({"network": cut.state_dict(), "optimizer": optimizer_state(second, cut)}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    resumed = model()
    resumed.load_state_dict(state["network"])
    third = averaged_sgd(resumed.parameters(), 0.25, 0.01)
    load_optimizer_state(third, resumed, state["optimizer"])
    for seed in range(3, 6):
        step(whole, first, seed)
        step(resumed, third, seed)
    assert torch.equal(whole.weight, resumed.weight)
    with averages(first), averages(third):
        assert torch.equal(whole.weight, resumed.weight)
