"""Permutations that are drawn at once are those that were drawn one by one: batches stay what they were."""

from __future__ import annotations

import pytest
import torch

from diffnas.core.seeds import generator
from diffnas.data import permutations
from diffnas.data.permutations import beginnings


@pytest.mark.parametrize("count", [1, 2, 3, 10, 101, 1024])
@pytest.mark.parametrize("length", [1, 2, 9, 1024])
def test_the_numbers_are_those_of_torch(count: int, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permutations, "MOST", 6 * count)  # more than one draw
    monkeypatch.setattr(permutations, "FEW", 1)
    stream, length = generator(3, "train.order", 7), min(count, length)
    one_by_one = torch.stack([torch.randperm(count, generator=stream)[:length] for _ in range(15)])
    assert torch.equal(beginnings(count, length, 15, generator(3, "train.order", 7)), one_by_one)


def test_large_ones_are_drawn_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permutations, "_swapped", None)
    assert beginnings(permutations.MOST // 8, 5, 2, generator(0, "order")).shape == (2, 5)


def test_an_epoch_of_a_search_is_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randperm", None)
    assert beginnings(25_000, 2, 4, generator(0, "order")).shape == (4, 2)
