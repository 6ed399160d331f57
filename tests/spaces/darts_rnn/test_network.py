"""Networks of recurrent genotypes: sizes, values, masks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from diffnas.core.genotype import Genotype, Nodes
from diffnas.core.mixture import Mix
from diffnas.core.published_genotypes import RECURRENT, published
from diffnas.core.space import TextShape
from diffnas.spaces.darts_rnn.layout import KIND, OPS
from diffnas.spaces.darts_rnn.ops import ACTIVATIONS
from diffnas.spaces.darts_rnn.space import DartsRNN

SIZES = {
    ("darts-rnn-v1", 10_000, 850): 22_960_000,
    ("darts-rnn-v2", 10_000, 850): 22_960_000,
    ("enas-rnn", 10_000, 850): 27_295_000,
    ("darts-rnn-v2", 33_278, 700): 33_127_878,
}


@pytest.mark.parametrize(("name", "words", "units"), SIZES)
def test_published_sizes(name: str, words: int, units: int) -> None:
    with torch.device("meta"):
        network = DartsRNN().network(published(name), TextShape(words), units=units)
    assert sum(p.numel() for p in network.parameters()) == SIZES[name, words, units]
    assert sum(t.numel() for t in network.state_dict().values()) == SIZES[name, words, units]


def by_hand(network: Any, nodes: Nodes, x: Tensor, h: Tensor, mask: Tensor) -> Tensor:
    """The hidden states, moment by moment, by ordinary operations."""
    outputs = []
    for word in x:
        c, g = (torch.cat([word, h * mask], 1) @ network.cell.start).chunk(2, dim=1)
        states = [h + c.sigmoid() * (g.tanh() - h)]
        for ((op, source),), weight in zip(nodes.inputs, network.cell.nodes, strict=True):
            c, g = ((states[source] * mask) @ weight).chunk(2, dim=1)
            states.append(states[source] + c.sigmoid() * (ACTIVATIONS[op](g) - states[source]))
        h = torch.stack([states[i] for i in nodes.concat]).mean(0)
        outputs.append(h)
    return torch.stack(outputs)


def drawn(seed: int) -> Genotype:
    """A random cell of random size; only some of its nodes are put out."""
    draw = torch.Generator().manual_seed(seed)

    def pick(n: int) -> int:
        return int(torch.randint(n, (1,), generator=draw))

    inputs = tuple(((OPS[1 + pick(4)], pick(k + 1)),) for k in range(2 + pick(7)))
    return Genotype("darts-rnn", {KIND: Nodes(inputs, (len(inputs), 1 + pick(len(inputs))), first=1)})


@pytest.mark.parametrize("genotype", [*map(published, RECURRENT), *map(drawn, range(4))], ids=str)
def test_values_and_gradients(genotype: Genotype, close: Any) -> None:
    torch.manual_seed(0)
    network = DartsRNN().network(genotype, TextShape(9), units=5).double()
    for weight in network.cell.parameters():
        torch.nn.init.normal_(weight, std=0.4)
    x = torch.randn(6, 3, 5, dtype=torch.float64, requires_grad=True)
    h = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    mask = (torch.rand(3, 5) < 0.75).double() / 0.75
    push = torch.randn(6, 3, 5, dtype=torch.float64)
    leaves = [x, h, *network.cell.parameters()]
    found, expected = network.cell(x, h, mask), by_hand(network, genotype.cells[KIND], x, h, mask)
    close(found, expected.detach())
    grads = [torch.autograd.grad((value * push).sum(), leaves, allow_unused=True) for value in (found, expected)]
    for mine, theirs in zip(*grads, strict=True):
        if theirs is None:  # a node that nothing reads
            assert not mine.any()
        elif theirs.any():
            close(mine, theirs)


def test_a_network_is_the_supernet_of_its_choices_without_normalisation(close: Any) -> None:
    genotype = published("darts-rnn-v1")
    still = dict.fromkeys(("dropout", "dropouth", "dropoutx", "dropouti", "dropoute"), 0.0)
    space = DartsRNN(units=6, **still)
    network, supernet = space.network(genotype, TextShape(9), units=6).double(), space.supernet(TextShape(9)).double()
    supernet.cell.norm = torch.nn.Identity()
    supernet.load_state_dict(network.state_dict())
    shares = torch.zeros(36, 5, dtype=torch.float64)
    for k, ((op, source),) in enumerate(genotype.cells[KIND].inputs):
        shares[k * (k + 1) // 2 + source, OPS.index(op)] = 1.0
    tokens = torch.randint(0, 9, (5, 3), generator=torch.Generator().manual_seed(0))
    expected = supernet((tokens, None), {KIND: Mix(shares)}).log_probs.detach()
    close(network.eval()((tokens, None)).log_probs, expected)


def test_training_draws_masks_and_evaluation_none(close: Any) -> None:
    network = DartsRNN().network(published("darts-rnn-v2"), TextShape(9), units=6).double()
    tokens = torch.randint(0, 9, (5, 3), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    first, second = network((tokens, None)), network((tokens, None))
    assert not torch.equal(first.states, second.states)
    torch.manual_seed(1)
    assert torch.equal(network((tokens, None)).log_probs, first.log_probs)
    network.eval()
    assert torch.equal(network((tokens, None)).log_probs, network((tokens, None)).log_probs)
    whole = network((tokens, None))
    assert torch.equal(whole.states, whole.dropped) and torch.equal(whole.carry[0], whole.states[-1])
    alone = network((tokens[:, 1:2], None))  # a batch of one, as in a test
    close(alone.log_probs[:, 0], whole.log_probs[:, 1])


def test_settings_of_dropout() -> None:
    network: Any = DartsRNN().network(published("darts-rnn-v2"), TextShape(9), units=6, dropouth=0.15)
    rates = network.dropouts
    assert (rates.dropout, rates.dropouth, rates.dropoutx, rates.dropouti, rates.dropoute) == (
        0.75,
        0.15,
        0.75,
        0.2,
        0.1,
    )
