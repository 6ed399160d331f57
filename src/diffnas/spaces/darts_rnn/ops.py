"""Parts of recurrent supernets and networks: activations, dropouts, and the language model around the cell.

T time   N sequences of a batch   H units   V words
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffnas.core.batch import LanguageModelOutput
from diffnas.core.parts import drawn
from diffnas.spaces.darts_rnn.layout import Dropouts

RANGE = 0.04  # weights begin uniform within it

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}
"""The ops by name; `none` is no flow at all."""


def drop_mask(probability: float, *shape: int, like: Tensor, dim: int | None = None) -> Tensor | None:
    """`shape`, 0 with `probability` and else 1 / (1 - probability), from torch's global generator; None for no drops.

    `dim` counts the sequences of a batch (None: it holds for all of them).
    """
    if not probability:
        return None

    def kept(sizes: tuple[int, ...]) -> Tensor:
        return torch.empty(sizes, dtype=like.dtype, device=like.device).bernoulli_(1.0 - probability)

    return (kept(shape) if dim is None else drawn(kept, shape, dim)) / (1.0 - probability)


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    """`x` times `mask`."""
    return x if mask is None else x * mask


class CellWeights(nn.Module):
    """The weights of a recurrent cell: `start` [2 H, 2 H] and, for every node, [H, 2 H], whichever states it reads."""

    def __init__(self, units: int, nodes: int) -> None:
        super().__init__()
        self.units = units
        self.start = nn.Parameter(torch.empty(2 * units, 2 * units).uniform_(-RANGE, RANGE))
        self.nodes = nn.ParameterList(torch.empty(units, 2 * units).uniform_(-RANGE, RANGE) for _ in range(nodes))


class LanguageModel(nn.Module):
    """A recurrent layer between an embedding [V, H] and a decoder with the same weights (Inan et al., 2017).

    While it trains, it drops whole words, and numbers by masks that hold for all of a window (Gal and Ghahramani, 2016).
    """

    def __init__(self, vocabulary: int, units: int, dropouts: Dropouts) -> None:
        super().__init__()
        self.dropouts = dropouts
        self.embedding = nn.Embedding(vocabulary, units)
        nn.init.uniform_(self.embedding.weight, -RANGE, RANGE)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def speak(
        self,
        tokens: Tensor,
        carry: Tensor | None,
        recur: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    ) -> LanguageModelOutput:
        """Returns the outputs for `tokens` [T, N], starting from `carry` [1, N, H] (None: zeros).

        `recur` maps the cell's inputs [T, N, H], its first hidden state [N, H] and the mask of what nodes read [N, H] (None:
        ones) to the hidden states [T, N, H].
        """
        weight, batch = self.embedding.weight, tokens.shape[1]
        units, rates = weight.shape[1], self.dropouts if self.training else Dropouts(0.0, 0.0, 0.0, 0.0, 0.0)
        words = drop_mask(rates.dropoute, len(weight), 1, like=weight)
        x = masked(F.embedding(tokens, weight), None if words is None else F.embedding(tokens, words))
        x = masked(x, drop_mask(rates.dropouti, 1, batch, units, like=weight, dim=1))
        x = masked(x, drop_mask(rates.dropoutx, batch, units, like=weight, dim=0))
        hidden = weight.new_zeros(batch, units) if carry is None else carry[0]
        states = recur(x, hidden, drop_mask(rates.dropouth, batch, units, like=weight, dim=0))
        dropped = masked(states, drop_mask(rates.dropout, 1, batch, units, like=weight, dim=1))
        log_probs = F.log_softmax(F.linear(dropped, weight, self.bias), dim=-1)
        return LanguageModelOutput(log_probs, states[-1:], states, dropped)
