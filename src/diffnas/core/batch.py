"""Batches: the data that one step of a task reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Inputs and targets of one step, on the device, ready for the network.

    Images: `inputs` [N, C, H, W] float, `targets` [N] int64; text: tokens [T, N] int64 both.  `scale` multiplies the learning
    rate of the step that uses the batch; `carry` is the hidden state of a recurrent task, `None` elsewhere.
    """

    inputs: Tensor
    targets: Tensor
    scale: float = 1.0
    carry: Any = None


class LanguageModelOutput(NamedTuple):
    """The outputs of a language model for tokens [T, N] and a carry [1, N, H].

    `log_probs` [T, N, V] of the next token; `carry` [1, N, H], the last hidden state, part of the graph; `states` [T, N, H],
    all of them, and `dropped` [T, N, H], the same after the output's dropout.
    """

    log_probs: Tensor
    carry: Tensor
    states: Tensor
    dropped: Tensor


@dataclass(frozen=True)
class Loss:
    """The loss of a task on a network's outputs.

    `value` [] is the loss proper; `weight_only` [] (auxiliary head, regularisers) enters the weight step only.  `correct` []
    is a count of right answers among `count`; `carry` is the hidden state to go on with.  Nothing is read back to the host.
    """

    value: Tensor
    correct: Tensor
    count: int
    weight_only: Tensor | None = None
    carry: Any = None

    def total(self) -> Tensor:
        """[]: the loss proper plus what weights alone answer for."""
        return self.value if self.weight_only is None else self.value + self.weight_only

    def detach(self) -> Loss:
        """Returns a copy detached from the graph."""
        weight_only = None if self.weight_only is None else self.weight_only.detach()
        return Loss(self.value.detach(), self.correct, self.count, weight_only, self.carry)
