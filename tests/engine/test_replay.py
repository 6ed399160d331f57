"""Steps that are recorded once and repeated on the same memory are the steps that would have been taken.

A tape (`diffnas.testing.tape`) stands for a CUDA graph.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffnas.core.batch import Batch
from diffnas.core.seeds import generator
from diffnas.core.space import Shape, TextShape
from diffnas.engine import Search
from diffnas.engine.optim import load_optimizer_state, optimizer_state, set_learning_rate
from diffnas.engine.replay import WARM, Losses, Replay
from diffnas.engine.search_steps import SearchSteps, captured, draws
from diffnas.engine.stage import Clock
from diffnas.engine.steady import SteadyAdam, SteadySGD
from diffnas.methods.darts import DARTS
from diffnas.methods.drnas import DrNAS
from diffnas.methods.gdas import GDAS
from diffnas.methods.smooth_darts import SmoothDARTS
from diffnas.methods.snas import SNAS
from diffnas.registry import METHODS, choice_class
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.spaces.darts_rnn.space import DartsRNN
from diffnas.spaces.nasbench201.space import NASBench201
from diffnas.tasks.classification import Classification
from diffnas.tasks.language import LanguageTask
from diffnas.testing.tape import Tape, Watched

CAPTURED = [name for name in METHODS if captured(choice_class("method", name)()) != "never"]
NEEDS: dict[str, dict[str, Any]] = {
    "pdarts": {"skip_dropout": True},
    "pcdarts": {"partial": 2},
    "fairdarts": {"ops": ("skip_connect", "sep_conv_3x3")},
    "darts-minus": {"ops": ("none", "sep_conv_3x3", "auxiliary_skip"), "excluded": ("none", "auxiliary_skip")},
}


def search_of(method: Any, space: Any = None, shape: Any = None, task: Any = None, form: str = "fast") -> Search:
    """A small search in float64 with optimizers that can be replayed."""
    torch.manual_seed(0)
    shape = shape or Shape(4, 3, 8)
    if space is None:
        needs = NEEDS.get(method.name, {})
        space = DartsCNN(
            **{"channels": 4, "layers": 2, "nodes": 2, "ops": ("none", "skip_connect", "sep_conv_3x3"), **needs}
        )
    net = space.supernet(shape, space.size, form=form).double()
    arch = method.arch(space, generator(0, "arch")).double()
    momentum = 0.0 if task is not None else 0.9
    return Search(
        method=method,
        space=space,
        supernet=net,
        arch=arch,
        weights_optimizer=SteadySGD(net.parameters(), 0.1, momentum, 3e-4),
        arch_optimizer=SteadyAdam(arch.parameters(), 3e-3, (0.5, 0.999), 1e-8, 1e-3),
        task=task or Classification(),
        clip=5.0,
        clock=Clock(epochs=4),
        shape=shape,
        device_draws=True,
    )


def batches(step: int, size: int = 3) -> dict[str, Batch]:
    draw = torch.Generator().manual_seed(step)
    return {
        name: Batch(
            torch.randn(size, 3, 8, 8, generator=draw, dtype=torch.float64), torch.randint(4, (size,), generator=draw)
        )
        for name in ("train", "valid")
    }


def pair(make: Callable[[], Search]) -> tuple[Search, Replay]:
    """A search that is stepped eagerly, and one that is replayed, from the same beginning."""
    eager, other = make(), make()
    other.supernet.load_state_dict(eager.supernet.state_dict())
    other.arch.load_state_dict(eager.arch.state_dict())
    return eager, Replay(SearchSteps(other), Tape())


def require_same(eager: Search, replay: Replay, steps: int, feed: Callable[[int], dict[str, Batch]]) -> None:
    """Takes steps of both at falling rates, the last of them in the next epoch."""
    for step in range(steps):
        for search in (eager, replay.steps.search):
            set_learning_rate(search.weights_optimizer, 0.1 / (step + 1))
            search.advance(epoch=int(step == steps - 1))
        torch.manual_seed(step)
        with Watched():
            expected = eager.method.step(eager, feed(step))
        torch.manual_seed(step)
        with Watched():
            found = replay.step(feed(step))
        assert replay.off is None
        for name, loss in expected.items():
            assert torch.equal(found[name].value, loss.value) and torch.equal(found[name].correct, loss.correct)
    for mine, theirs in zip(
        (*replay.steps.search.supernet.state_dict().values(), *replay.steps.search.arch.state_dict().values()),
        (*eager.supernet.state_dict().values(), *eager.arch.state_dict().values()),
        strict=True,
    ):
        assert torch.equal(mine, theirs)


def test_which_methods_are_captured() -> None:
    assert sorted(CAPTURED) == [
        "beta-darts", "darts", "darts-minus", "darts-plus", "drnas", "fairdarts", "mmrazor-darts", "pcdarts", "pdarts",
        "robust-darts", "smooth-darts", "snas",
    ]  # fmt: skip


def test_the_page_on_gpus_names_them() -> None:
    """The rows of its table: how the steps of each method are taken."""
    page = (Path(__file__).parents[2] / "docs" / "gpu.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `") and line.count("|") == 4]
    told = {name: how for names, how in rows for name in re.findall(r"`([a-z-]+)`", names) if name in METHODS}
    assert set(told) == set(METHODS)
    for name, how in told.items():
        method = choice_class("method", name)()
        assert ("graphs" in how) == (captured(method) != "never"), name
        assert ("anew in every epoch" in how) == (captured(method) == "epoch"), name
        assert ("search.draws=device" in how) == draws(method), name


@pytest.mark.parametrize("name", CAPTURED)
def test_a_replayed_step_is_the_eager_one_bit_for_bit(name: str) -> None:
    eager, replay = pair(lambda: search_of(choice_class("method", name)()))
    require_same(eager, replay, WARM + 5, batches)
    assert replay.recorded or captured(eager.method) == "epoch"


@pytest.mark.parametrize("perturbation", ["rs", "adv"])
@pytest.mark.parametrize("base", [DARTS(), DrNAS(warmup=0), SNAS(bilevel=True)])
def test_shares_that_are_drawn_and_moved(perturbation: Any, base: Any) -> None:
    eager, replay = pair(lambda: search_of(SmoothDARTS(base, perturbation, steps=1)))
    require_same(eager, replay, WARM + 4, batches)
    assert captured(eager.method) == "epoch"


def test_a_method_around_one_that_cannot_be_captured_is_not_either() -> None:
    assert captured(SmoothDARTS(GDAS())) == "never"


@pytest.mark.parametrize("form", ["fast", "plain"])
def test_second_order(form: str) -> None:
    require_same(*pair(lambda: search_of(DARTS(unrolled=True), form=form)), WARM + 4, batches)


def test_nas_bench_201() -> None:
    require_same(*pair(lambda: search_of(DARTS(), NASBench201(channels=4, layers=1))), WARM + 4, batches)


def test_text_with_carried_states_and_windows_of_two_lengths() -> None:
    space, shape = DartsRNN(units=6, steps=2), TextShape(20)

    def windows(step: int) -> dict[str, Batch]:
        draw, length = torch.Generator().manual_seed(step), 4 + step % 2
        return {
            name: Batch(*torch.randint(20, (2, length, 3), generator=draw), scale=length / 4, carry=carries.get(name))
            for name in ("train", "valid")
        }

    carries: dict[str, Tensor] = {}
    eager, replay = pair(lambda: search_of(DARTS(), space, shape, LanguageTask()))
    for step in range(2 * WARM + 7):
        torch.manual_seed(step)
        with Watched():
            expected = eager.method.step(eager, windows(step))
        torch.manual_seed(step)
        with Watched():
            found = replay.step(windows(step))
        assert all(torch.equal(found[name].value, loss.value) for name, loss in expected.items()), step
        carries |= {name: loss.carry for name, loss in expected.items()}
    assert len(replay.recorded) == 2


def test_the_rate_of_a_step_is_that_of_its_moment() -> None:
    """A rate that is a number of Python would stay what it was when the step was recorded."""
    _, replay = pair(lambda: search_of(DARTS()))
    for step in range(WARM + 1):
        replay.step(batches(step))
    before = copy.deepcopy(replay.steps.search.weights)
    set_learning_rate(replay.steps.search.weights_optimizer, 0.0)
    replay.step(batches(9))
    assert all(torch.equal(mine, old) for mine, old in zip(replay.steps.search.weights, before, strict=True))


class Broken(Tape):
    """Records what cannot be repeated, or repeats something else."""

    def __init__(self, error: bool) -> None:
        super().__init__()
        self.error = error

    def record(self, work: Callable[[], Losses]) -> tuple[Losses, Callable[[], None]]:
        if self.error:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        losses, _ = super().record(work)
        return losses, lambda: None


@pytest.mark.parametrize("error", [True, False])
def test_what_cannot_be_replayed_goes_on_eagerly(error: bool, caplog: pytest.LogCaptureFixture) -> None:
    eager, other = search_of(DARTS()), search_of(DARTS())
    replay = Replay(SearchSteps(other), Broken(error))
    for step in range(WARM + 4):
        expected = eager.method.step(eager, batches(step))
        found = replay.step(batches(step))
        assert all(torch.equal(found[name].value, loss.value) for name, loss in expected.items())
    assert replay.off is not None and not replay.recorded
    said = (
        "operation not permitted when stream is capturing" if error else "the graph's step lies 100% from the eager one"
    )
    assert [line for line in caplog.messages if "search.graph" in line] == [
        f"search.graph: steps are not captured: {said}"
    ]


def test_a_look_ahead_with_dropout_is_not_captured() -> None:
    space = DartsCNN(channels=4, layers=2, nodes=2, ops=("none", "skip_connect", "sep_conv_3x3"), dropout=0.5)
    replay = Replay(SearchSteps(search_of(DARTS(unrolled=True), space)), Tape())
    for step in range(WARM + 1):
        replay.step(batches(step))
    assert replay.off == "the passes of a look-ahead must draw the same noise"


def test_a_class_says_for_itself_whether_it_is_captured() -> None:
    class Mine(DARTS):
        """Overrides nothing that is seen from outside."""

    assert captured(DARTS()) == "throughout" and captured(Mine()) == "never"


def test_other_shapes_and_steps_without_the_architecture_are_of_their_own_kind() -> None:
    replay = Replay(SearchSteps(search_of(DARTS())), Tape())
    feeds = [batches(0), {"train": batches(0)["train"]}, batches(0, 2)]
    for step in range(3 * (WARM + 2)):
        replay.step(feeds[step % 3])
    assert len(replay.recorded) == 3


@pytest.mark.parametrize("nesterov", [False, True])
def test_steady_sgd_is_torchs(nesterov: bool) -> None:
    mine, theirs = ([torch.nn.Parameter(torch.ones(3, 2, dtype=torch.float64))] for _ in range(2))
    steady = SteadySGD(mine, 0.1, 0.9, 1e-3, nesterov)
    usual = torch.optim.SGD(theirs, 0.1, 0.9, weight_decay=1e-3, nesterov=nesterov)
    require_alike(steady, usual, mine[0], theirs[0])


def test_steady_adam_is_torchs() -> None:
    mine, theirs = ([torch.nn.Parameter(torch.ones(3, 2, dtype=torch.float64))] for _ in range(2))
    settings = (3e-3, (0.5, 0.999), 1e-8, 1e-3)
    require_alike(SteadyAdam(mine, *settings), torch.optim.Adam(theirs, *settings), mine[0], theirs[0])


def require_alike(
    steady: torch.optim.Optimizer, usual: torch.optim.Optimizer, mine: torch.nn.Parameter, theirs: torch.nn.Parameter
) -> None:
    """Ten steps, halfway the state of each goes to the other."""
    first, second = (torch.nn.ParameterDict({"p": p}) for p in (mine, theirs))
    for step in range(10):
        if step == 5:
            of_steady, of_usual = optimizer_state(steady, first), optimizer_state(usual, second)
            load_optimizer_state(steady, first, copy.deepcopy(of_usual))
            load_optimizer_state(usual, second, copy.deepcopy(of_steady))
        gradient = torch.randn(3, 2, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        for optimizer, parameter in ((steady, mine), (usual, theirs)):
            set_learning_rate(optimizer, 0.1 / (step + 1))
            parameter.grad = gradient.clone()
            optimizer.step()
        assert torch.allclose(mine, theirs, rtol=1e-12, atol=1e-12)
