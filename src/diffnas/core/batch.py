"""Batches: the data that one step of a task reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor

from diffnas.core.parts import Part, within
from diffnas.errors import PluginError


@dataclass(frozen=True)
class Batch:
    """Inputs and targets of one step, on the device, ready for the network.

    Images: `inputs` [N, C, H, W] float, `targets` [N] int64; text: tokens [T, N] int64 both.  `scale` multiplies the learning
    rate of the step that uses the batch; `carry` is the hidden state of a recurrent task, `None` elsewhere.  `part` says
    which part of a batch this is, where several processes share one (None: it is whole).
    """

    inputs: Tensor
    targets: Tensor
    scale: float = 1.0
    carry: Any = None
    part: Part | None = None

    @property
    def whole_count(self) -> int:
        """The number of targets, `len(targets)`, of the whole batch."""
        return len(self.targets) if self.part is None or self.part.dim else self.part.whole

    def taken(self, part: Part) -> Batch:
        """Returns the samples of `part`, views along its dimension."""
        start, stop = part.place
        if not all(isinstance(each, Tensor) and each.dim() > part.dim for each in (self.inputs, self.targets)):
            raise PluginError(
                "a batch whose inputs and targets are not tensors of samples cannot be shared by processes"
            )
        inputs, targets = (each.narrow(part.dim, start, stop - start) for each in (self.inputs, self.targets))
        return replace(self, inputs=inputs, targets=targets, part=part)


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


def loss_of(task: Any, net: Callable[[Any], Any], batch: Batch) -> Loss:
    """Returns the loss of `net` on `batch` by `task`; raises `PluginError` where it is not what a `Loss` holds."""
    with within(batch.part):
        loss = task.loss(net, batch)
    wrong = _wrong(loss)
    if wrong is not None:
        raise PluginError(f"task {task.name!r}: loss must return diffnas.Loss(value, correct, count): {wrong}")
    checked: Loss = loss
    return checked


def _wrong(loss: Any) -> str | None:
    """Returns what is wrong with what a task returns as its loss, None if nothing is."""
    if not isinstance(loss, Loss):
        return f"it returns {_kind(loss)}"
    for name, number in (("value", loss.value), ("weight_only", loss.weight_only)):
        if number is None and name == "weight_only":
            continue
        if not isinstance(number, Tensor) or number.dim() or not number.is_floating_point():
            return f"{name} must be a tensor [] float, such as a mean over the batch; it is {_kind(number)}"
    if not isinstance(loss.correct, Tensor) or loss.correct.dim():
        return f"correct must be a tensor [], the number of right answers (0 if none is); it is {_kind(loss.correct)}"
    if type(loss.count) is not int or loss.count < 1:
        return f"count must be the number of samples, a whole number from 1; it is {_kind(loss.count)}"
    return None


def _kind(thing: Any) -> str:
    """Describes a value: shape and type of a tensor, the value of a number, and the type of anything else."""
    if isinstance(thing, Tensor):
        return f"{list(thing.shape)} {str(thing.dtype).removeprefix('torch.')}"
    return repr(thing) if isinstance(thing, int | float | None) else type(thing).__name__
