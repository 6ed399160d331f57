"""The plain supernet, against its formulas written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from diffnas.core.mixture import Mix
from diffnas.core.space import TextShape
from diffnas.spaces.darts_rnn.layout import KIND
from diffnas.spaces.darts_rnn.space import DartsRNN

STILL = {"dropout": 0.0, "dropouth": 0.0, "dropoutx": 0.0, "dropouti": 0.0, "dropoute": 0.0}
FUNCTIONS = [None, torch.tanh, torch.relu, torch.sigmoid, lambda x: x]


def normalised(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()


def test_two_nodes_by_hand(close: Any) -> None:
    torch.manual_seed(0)
    space = DartsRNN(units=6, steps=2, concat=1, **STILL)
    supernet = space.supernet(TextShape(11)).double()
    for weight in supernet.cell.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    tokens, carry = torch.randint(0, 11, (1, 4)), torch.randn(1, 4, 6, dtype=torch.float64)
    shares = torch.rand(3, 5, dtype=torch.float64)
    found = supernet((tokens, carry), {KIND: Mix(shares)})
    h, (start, *nodes) = carry[0], supernet.cell.parameters()
    c, g = (torch.cat([supernet.embedding.weight[tokens[0]], h], 1) @ start).split(6, dim=1)
    states = [normalised(h + c.sigmoid() * (g.tanh() - h))]
    edges = {1: [(0, 0)], 2: [(1, 0), (2, 1)]}
    for node, arriving in edges.items():
        total = torch.zeros_like(h)
        for e, source in arriving:
            s = states[source]
            c, g = (s @ nodes[node - 1]).split(6, dim=1)
            for o, function in enumerate(FUNCTIONS):
                if function is not None:
                    total = total + shares[e, o] * (s + c.sigmoid() * (function(g) - s))
        states.append(normalised(total))
    close(found.states[0], states[2].detach())
    close(found.carry, states[2][None].detach())


def test_a_window_is_its_parts_one_after_the_other(close: Any) -> None:
    torch.manual_seed(0)
    space = DartsRNN(units=6, steps=3, **STILL)
    supernet = space.supernet(TextShape(11)).double()
    tokens, mixture = torch.randint(0, 11, (5, 4)), {KIND: Mix(torch.rand(6, 5, dtype=torch.float64))}
    whole = supernet((tokens, None), mixture)
    first = supernet((tokens[:2], torch.zeros(1, 4, 6, dtype=torch.float64)), mixture)
    second = supernet((tokens[2:], first.carry), mixture)
    close(torch.cat([first.states, second.states]), whole.states.detach())
    close(second.carry, whole.carry.detach())


@pytest.mark.parametrize("form", ["plain", "fast"])
def test_no_state_stays_in_the_module(form: Any, close: Any) -> None:
    torch.manual_seed(0)
    supernet = DartsRNN(units=6, steps=2, **STILL).supernet(TextShape(11), form=form).double()
    tokens, mixture = torch.randint(0, 11, (3, 4)), {KIND: Mix(torch.rand(3, 5, dtype=torch.float64))}
    first, again = supernet((tokens, None), mixture), supernet((tokens, None), mixture)
    close(first.log_probs, again.log_probs.detach())
    assert first.carry.requires_grad  # the task cuts it


def test_one_normalisation_for_all_nodes_and_moments() -> None:
    supernet = DartsRNN(units=6, steps=3).supernet(TextShape(11))
    supernet((torch.zeros(5, 4, dtype=torch.int64), None), {KIND: Mix(torch.rand(6, 5))})
    assert int(supernet.get_buffer("cell.norm.num_batches_tracked")) == 5 * 4
    assert sum("running_mean" in name for name in supernet.state_dict()) == 1
