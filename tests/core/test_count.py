"""Counting parameters and multiply-adds."""

from __future__ import annotations

import torch
from torch import nn

import diffnas
from diffnas.core.count import Counts, count
from diffnas.core.space import Words


def test_a_hand_count() -> None:
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    macs = 3 * 8 * 9 * 64 + 8 * 9 * 16 + 80
    assert count(layers, (3, 8, 8)) == Counts(3 * 8 * 9 + 16 + 8 * 9 + 8 + 90, macs, 0)
    assert count(layers, (1, 3, 8, 8)).macs == macs


def test_the_network_is_left_as_it_was() -> None:
    network = diffnas.build_network("darts-v1", channels=4, layers=3, auxiliary=True).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    counts = diffnas.count(network, (3, 32, 32))
    assert network.training and all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    assert counts.auxiliary == sum(p.numel() for p in network.auxiliary.parameters())
    assert counts.params + counts.auxiliary == sum(p.numel() for p in network.parameters())


def test_a_smaller_input_costs_less() -> None:
    network = diffnas.build_network("darts-v2", channels=4, layers=3)
    assert count(network, (3, 16, 16)).macs < count(network, (3, 32, 32)).macs / 3.9


def test_a_language_model_is_counted_for_one_word() -> None:
    network = diffnas.build_network("darts-rnn-v2", vocabulary=50, units=8)
    cell = 16 * 16 + 8 * 8 * 16
    assert count(network, Words(50)) == Counts(cell + 50 * 8 + 50, cell + 50 * 8, 0)
