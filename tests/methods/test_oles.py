"""OLES: the authors' cosines and what stops by them; what has stopped stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from diffnas.core.batch import Batch
from diffnas.engine import Search
from diffnas.methods.oles import OLES, Stopping, op_cosines
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.spaces.darts_rnn.space import DartsRNN

OWN = [[0, 1, 2, 3], [4, 5], [6, 7, 8, 9]]  # which of the recorded weights belong to which op
SHARES = (0.6, 0.05, -1.1)


def recorded_gradient(i: int, t: int, valid: bool, shape: list[int]) -> Tensor:
    """The gradient that the authors' code was given for weight `i` in step `t`; see tests/goldens."""
    count = torch.arange(int(torch.tensor(shape).prod()), dtype=torch.float64)
    share = next(share for share, own in zip(SHARES, OWN, strict=True) if i in own) if valid else 1.0
    noise = torch.sin(1.3 * count * (1.1 if valid else 1.0) + 2.1 * t + i)
    return (share * torch.sin(0.9 * count + i) + 0.8 * noise).view(shape)


def test_the_cosines_of_the_authors_code(record: Callable[[str], Any]) -> None:
    golden = record("oles")
    steps = []
    for t in range(21):
        train = [recorded_gradient(i, t, False, shape) for i, shape in enumerate(golden["shapes"])]
        valid = [recorded_gradient(i, t + 1, True, shape) for i, shape in enumerate(golden["shapes"])]
        steps.append(op_cosines(train, torch._foreach_add(train, valid), OWN))
    theirs = [[golden[key][k] for k in (0, 1, 3)] for key in ("first", "after_20")]
    assert steps[0].tolist() == pytest.approx(theirs[0], abs=1e-9)
    assert sum(steps[:20]).tolist() == pytest.approx(theirs[1], abs=1e-9)
    stops = [bool(mean < OLES().threshold) for mean in torch.stack(steps).mean(0)]
    assert stops == [golden["frozen_after"][k] == 21 for k in (0, 1, 3)] == [False, False, True]


def batches(seed: int) -> dict[str, Batch]:
    draw = torch.Generator().manual_seed(seed)
    images = torch.randn(8, 3, 8, 8, generator=draw)
    return {name: Batch(images, torch.randint(0, 10, (8,), generator=draw)) for name in ("train", "valid")}


def searched(make_search: Any, method: OLES, **settings: Any) -> Search:
    space = DartsCNN(channels=4, layers=3, nodes=1, **settings)
    search: Search = make_search(space, method)
    search.arch = method.arch(space, torch.Generator().manual_seed(0))
    search.arch_optimizer = torch.optim.Adam(search.arch.alpha.parameters(), 3e-4)
    return search


def test_stopped_weights_stay_and_others_move(make_search: Any) -> None:
    search = searched(make_search, OLES(window=2, threshold=1.0))
    for seed in range(2):
        search.method.step(search, batches(seed))
    assert isinstance(search.arch, Stopping)
    frozen = search.arch.frozen(search)
    names = [name for name, _ in search.supernet.named_parameters()]
    assert {names[place].split(".ops.")[1].split(".")[0] for place in frozen} == {
        "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"
    }  # fmt: skip
    before = [weight.detach().clone() for weight in search.weights]
    search.method.step(search, batches(2))
    for place, (old, new) in enumerate(zip(before, search.weights, strict=True)):
        assert torch.equal(old, new) == (place in frozen), names[place]


def test_nothing_stops_that_agrees(make_search: Any) -> None:
    search = searched(make_search, OLES(window=1, threshold=-1.0))
    for seed in range(3):
        search.method.step(search, batches(seed))
    assert isinstance(search.arch, Stopping) and not search.arch.frozen(search)
    assert not search.arch.get_buffer("scores").any() and int(search.arch.get_buffer("steps")) == 0


def test_the_gradient_on_the_validation_half_alone(make_search: Any) -> None:
    """Adding the training gradient itself turns every comparison towards agreement."""
    means = {}
    for compare in ("sum", "valid"):
        search = searched(make_search, OLES(window=9, compare=compare))
        search.method.step(search, batches(0))
        index = tuple(zip(*search.arch.watched(search), strict=True))
        means[compare] = float(search.arch.get_buffer("scores")[index].mean())
    assert -1.0 < means["valid"] < means["sum"] < 1.0


def test_recurrent_cells_are_refused() -> None:
    assert OLES().check_space(DartsRNN()) == [("name", "the ops of darts-rnn have no weights to stop")]
