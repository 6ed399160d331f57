"""ENAS: what its controller writes against enumeration, the direction of REINFORCE, and the selection."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from diffnas.core.batch import Batch
from diffnas.core.cell import Cell
from diffnas.core.seeds import generator
from diffnas.core.space import Size
from diffnas.engine import Search
from diffnas.engine.stage import Phase
from diffnas.methods.enas import ENAS
from diffnas.spaces.darts_cnn.space import DartsCNN

Build = Callable[..., Search]
PAIR = Cell.dense(("none", "a", "b"), 2, 1, in_degree=2, excluded=("none",))
SMALL: dict[str, Any] = {"units": 4, "layers": 1, "favoured": (), "tanh_constant": 5.0, "op_tanh_reduce": 1.0}


def louder(search: Search) -> Search:
    """A controller whose choices are far from even."""
    with torch.no_grad():
        for parameter in search.arch.parameters():
            parameter.mul_(12.0)
    return search


def children(search: Search, count: int) -> dict[float, Any]:
    """Children by their log-probability, which tells sequences of choices apart."""
    drawn = (search.relax("arch") for _ in range(count))
    return {round(child.log_prob.item(), 12): child for child in drawn}


@pytest.mark.parametrize(("cell", "count"), [(None, 9), (PAIR, 16)])
def test_probabilities_of_all_children_sum_to_one(cell: Cell | None, count: int, toy: Build) -> None:
    search = louder(toy(ENAS(**SMALL), *([cell] if cell else [])))
    found = children(search, 1500)
    total = math.fsum(map(math.exp, found))
    assert len(found) == count and total == pytest.approx(1.0, abs=1e-9)
    greedy = search.arch(None)
    assert greedy.log_prob.item() in [pytest.approx(key) for key in found]
    assert all(child["cell"].op.sum() == 2.0 for child in found.values())
    if cell:  # the same input and op twice
        assert max(float(child["cell"].op.max()) for child in found.values()) == 2.0
        assert not any(bool(child["cell"].op[:, 0].any()) for child in found.values())


def test_reinforce_goes_where_the_reward_grows(toy: Build, table: Batch) -> None:
    search = louder(toy(ENAS(**SMALL, aggregate=1500, entropy_weight=0.0, baseline_decay=0.9)))
    search.arch.baseline.fill_(0.8)
    parameters = list(search.arch.parameters())
    found = children(search, 1000).values()
    rewards = [(table.inputs * child["cell"].op).sum() for child in found]
    expected = sum(child.log_prob.exp() * reward for child, reward in zip(found, rewards, strict=True))
    grads = torch.autograd.grad(expected, parameters, allow_unused=True)
    before = [p.detach().clone() for p in parameters]
    losses = search.method.step(search, {"valid": table})
    moved = [p.detach() - b for p, b in zip(parameters, before, strict=True)]
    assert list(losses) == ["valid"] and losses["valid"].correct.item() == pytest.approx(expected.item(), abs=0.03)
    truth = torch.cat([torch.zeros_like(m).flatten() if s is None else s.flatten() for s, m in zip(grads, moved)])  # noqa: B905
    step = torch.cat([m.flatten() for m in moved])
    assert float(torch.cosine_similarity(step, truth, dim=0)) > 0.9
    assert 0.5 < float(step.norm() / truth.norm()) < 1.5


def test_reward_baseline_and_entropy(toy: Build, table: Batch, close: Any) -> None:
    search, twin = (louder(toy(ENAS(**SMALL, aggregate=2, entropy_weight=0.5, baseline_decay=0.75))) for _ in range(2))
    first, second = twin.relax("arch"), twin.relax("arch")
    b, terms = torch.zeros((), dtype=torch.float64), []
    for child in (first, second):
        reward = (table.inputs * child["cell"].op).sum() + 0.5 * child.entropy.detach()
        b = 0.75 * b + 0.25 * reward
        terms.append(-(reward - b) * child.log_prob)
    parameters = list(twin.arch.parameters())
    grads = torch.autograd.grad(sum(terms) / 2, parameters, allow_unused=True)
    search.method.step(search, {"valid": table})
    assert search.arch.baseline.item() == pytest.approx(b.item(), rel=1e-5)  # accuracies are summed in float32
    for mine, start, grad in zip(search.arch.parameters(), parameters, grads, strict=True):
        close(mine.detach(), start.detach() - (0.0 if grad is None else grad), 1e-5)


def test_every_child_is_scored_on_a_batch_of_its_own(toy: Build, table: Batch) -> None:
    other = Batch(10 * table.inputs, table.targets)
    settings = {**SMALL, "aggregate": 2, "entropy_weight": 0.0, "baseline_decay": 0.0}
    assert ENAS(**settings).stages(1, Size(16, 8))[0].phases[1].each == 2
    for batches, scale, each in (("own", 10, 2), ("shared", 1, 1)):
        method = ENAS(**settings, batches=batches)  # type: ignore[arg-type]
        assert method.stages(1, Size(16, 8))[0].phases[1].each == each
        search, twin = toy(method), toy(method)
        _, second = twin.relax("arch"), twin.relax("arch")
        search.method.step(search, {"valid": table, "valid.1": other} if each == 2 else {"valid": table})
        reward = scale * float((table.inputs * second["cell"].op).sum())
        assert search.arch.baseline.item() == pytest.approx(reward, rel=1e-5)  # it forgets all but the last reward


def test_entropy_of_even_choices(toy: Build) -> None:
    search = toy(ENAS(**SMALL))
    with torch.no_grad():
        for parameter in search.arch.parameters():
            parameter.zero_()
    child = search.relax("arch")
    assert child.entropy.item() == pytest.approx(2 * math.log(3)) == -child.log_prob.item()


def test_weights_see_a_new_child_each_step_and_the_controller_waits(toy: Build, table: Batch) -> None:
    search = toy(ENAS(**SMALL))
    before = [p.detach().clone() for p in search.arch.parameters()]
    seen = set()
    for _ in range(30):
        assert list(search.method.step(search, {"train": table})) == ["train"]
        mix = search.relax("weights")["cell"]
        seen.add(tuple(mix.op.flatten().tolist()))
        assert not mix.op.requires_grad and torch.equal(mix.active, mix.op > 0)
    assert len(seen) > 4
    assert all(torch.equal(a, b) for a, b in zip(before, search.arch.parameters(), strict=True))


def test_favoured_ops_begin_ahead() -> None:
    space = DartsCNN(channels=4, layers=2)
    arch: Any = ENAS().arch(space, torch.Generator().manual_seed(0))
    assert (
        arch.op_bias.tolist() == [0, 0, 0, 0, 10, 10, 0, 0]
        and arch.lean.tolist() == [-0.25] * 4 + [0.25] * 2 + [-0.25] * 2
    )
    plain: Any = ENAS(favoured=()).arch(space, torch.Generator().manual_seed(0))
    assert not plain.op_bias.any() and not plain.lean.any()
    draw = torch.Generator().manual_seed(1)
    liked = sum(float(mix.op[:, 4:6].sum()) for _ in range(20) for mix in arch(draw).values()) / 20 / 16
    assert liked > 0.4  # 2 / 7 without


def test_selection_keeps_the_best_child(toy: Build, table: Batch) -> None:
    stages = ENAS(candidates=40).stages(5, Size(16, 8))
    assert [phase.feeds for phase in stages[0].phases] == [("train",), ("valid",)]
    assert stages[0].phases[1].steps == 30 and stages[1].phases == (Phase(("score",), 40),)
    assert (stages[1].fresh, stages[1].restart, len(ENAS(candidates=0).stages(5, Size(16, 8)))) == (False, True, 1)
    search = toy(ENAS(**SMALL), score=[table.inputs, -table.inputs])
    greedy = search.derive()
    for step in range(60):
        search.advance(step=step)
        assert search.method.step(search, {"score": table}) == {}
    assert [node[0][0] for node in search.derive().cells["cell"].inputs] == ["c", "a"]  # 0.9 and 0.7
    assert search.arch.winner.accuracy.item() == pytest.approx(1.6)
    assert search.relax("eval")["cell"].op.tolist() == search.strength()["cell"].tolist() == [[0, 0, 1], [1, 0, 0]]
    fresh = toy(ENAS(**SMALL))
    assert fresh.derive() == greedy
    fresh.load_state_dict(search.state_dict())
    assert fresh.derive() == search.derive()


def test_inputs_that_are_chosen_twice_are_derived_twice(toy: Build) -> None:
    search = louder(toy(ENAS(**SMALL), PAIR))
    found = search.method.samples(search, 200, torch.Generator().manual_seed(0))
    nodes = {genotype.cells["cell"].inputs[0] for genotype in found}
    assert all(len(node) == 2 for node in nodes) and any(first == second for first, second in nodes)


def test_selection_without_its_batches_says_so(toy: Build, table: Batch) -> None:
    search = toy(ENAS(**SMALL))
    search.feeds.clear()
    with pytest.raises(ValueError, match="score"):
        search.method.step(search, {"score": table})


def test_the_choices_of_the_host_are_those_of_the_device() -> None:
    """On a GPU the host chooses by a copy of the controller; the device computes what depends on its parameters."""
    controller = ENAS().arch(DartsCNN(nodes=2), generator(0, "arch")).double()
    straight = controller.told(generator(0, "child"))
    for _ in range(2):  # the copy follows the parameters
        told = controller.told(None, controller.on_host().told(generator(0, "child")).picks)
        assert torch.equal(told.log_prob, straight.log_prob) and torch.equal(told.entropy, straight.entropy)
        assert all(torch.equal(told[kind].op, straight[kind].op) for kind in straight)
        assert all(told[kind].live == straight[kind].live for kind in straight)
        with torch.no_grad():
            controller.op_bias.add_(torch.randn(len(controller.op_bias), generator=generator(0, "bias")))
        straight = controller.told(generator(0, "child"))
    assert "twin" not in {name.partition(".")[0] for name in controller.state_dict()}
