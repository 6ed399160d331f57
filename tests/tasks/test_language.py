"""The loss of a language model, by hand, and its perplexity."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from diffnas.core.batch import Batch, LanguageModelOutput
from diffnas.tasks.language import LanguageTask, perplexity

# two rows of two columns, three words
SHARES = torch.tensor([[[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]], [[0.25, 0.5, 0.25], [0.5, 0.25, 0.25]]]).double()
BATCH = Batch(torch.tensor([[0, 1], [1, 2]]), torch.tensor([[0, 2], [2, 1]]), carry="before")
STATES = torch.tensor([[[1.0, 2.0], [0.0, 1.0]], [[2.0, 4.0], [0.0, 4.0]]], dtype=torch.float64, requires_grad=True)


def net(given: tuple[Tensor, Any]) -> LanguageModelOutput:
    tokens, carry = given
    assert torch.equal(tokens, BATCH.inputs[: len(tokens)]) and carry == "before"
    rows = len(tokens)
    return LanguageModelOutput(SHARES[:rows].log(), STATES[rows - 1 : rows], STATES[:rows], 2 * STATES[:rows])


def test_likelihood_right_answers_and_carry() -> None:
    loss = LanguageTask().loss(net, BATCH)
    assert float(loss.value) == pytest.approx(-math.log(0.5 * 0.75 * 0.25 * 0.25) / 4)
    assert int(loss.correct) == 2 and loss.count == 4
    assert loss.carry.shape == (1, 2, 2) and not loss.carry.requires_grad
    assert torch.equal(loss.carry, STATES[-1:])


def test_activation_regularisation() -> None:
    slowness = (1 + 4 + 0 + 9) / 4
    size = 4 * (1 + 4 + 0 + 1 + 4 + 16 + 0 + 16) / 8
    extra = LanguageTask().loss(net, BATCH).weight_only
    assert extra is not None and float(extra.detach()) == pytest.approx(1e-3 * slowness)
    loss = LanguageTask(alpha=2.0, beta=0.5).loss(net, BATCH)
    assert loss.weight_only is not None and float(loss.weight_only.detach()) == pytest.approx(2 * size + 0.5 * slowness)
    assert float(loss.total().detach()) == pytest.approx(float(loss.value) + 2 * size + 0.5 * slowness)
    (gradient,) = torch.autograd.grad(loss.weight_only, STATES)
    assert float(gradient[0, 0, 0]) == pytest.approx(2 * 8 * 1 / 8 - 0.5 * 2 * 1 / 4)
    assert LanguageTask(beta=0.0).loss(net, BATCH).weight_only is None


def test_a_single_row_has_no_differences() -> None:
    short = Batch(BATCH.inputs[:1], BATCH.targets[:1], carry="before")
    loss = LanguageTask().loss(net, short)
    assert loss.weight_only is None and loss.count == 2 and int(loss.correct) == 2
    extra = LanguageTask(alpha=1.0).loss(net, short).weight_only
    assert extra is not None and float(extra.detach()) == pytest.approx(4 * (1 + 4 + 0 + 1) / 4)


def test_no_answer_is_right_where_nothing_is_a_number() -> None:
    def lost(given: tuple[Tensor, Any]) -> LanguageModelOutput:
        return LanguageModelOutput(torch.full((2, 2, 3), math.nan), *net(given)[1:])

    assert int(LanguageTask().loss(lost, BATCH).correct) == 0


def test_perplexity_and_its_interval() -> None:
    found = perplexity([math.log(10), math.log(20), math.log(40)], [5, 10, 5])
    assert found.value == pytest.approx(20) and found.n == 20
    half = 1.959964 * math.sqrt(3 / 2 * 2 * (0.25 * math.log(2)) ** 2)
    assert (found.low, found.high) == pytest.approx((20 * math.exp(-half), 20 * math.exp(half)))


def test_perplexity_of_one_window_or_none_that_is_finite() -> None:
    one = perplexity([math.log(7)], [9])
    assert one.value == pytest.approx(7) and (one.low, one.high) == (0.0, math.inf)
    assert perplexity([1000.0, 1000.0], [1, 1]).value == math.inf


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    stream = torch.Generator().manual_seed(0)
    hits = 0
    for _ in range(400):
        windows = 3 + 0.5 * torch.randn(60, 1, generator=stream, dtype=torch.float64)
        losses = (windows + torch.randn(60, 35, generator=stream, dtype=torch.float64)).mean(1)
        found = perplexity(losses.tolist(), [35] * 60)
        hits += found.low < math.exp(3) < found.high
    assert 0.92 < hits / 400 < 0.98


def test_what_is_recorded_and_said() -> None:
    task = LanguageTask()
    found = task.metrics(math.log(50.0), 0.25)
    assert found == {"loss": math.log(50.0), "perplexity": pytest.approx(50.0), "accuracy": 25.0}
    row = {f"valid_{name}": value for name, value in found.items()}
    assert task.format_metrics("valid", row) == "valid 50.00"
    loss = torch.tensor(math.log(50.0), dtype=torch.float64)
    assert float(task.reward(loss, torch.tensor(0.25))) == pytest.approx(1.6)
    assert 1e300 < task.metrics(1e6, 0.0)["perplexity"] < math.inf  # which JSON can hold
