"""Steps replayed as one CUDA graph: captured once, then repeated on the same memory.

A GPU's step is tens of thousands of small launches, which the host cannot issue as fast as they are done; a graph issues
them all at once.  What Python decided while the graph was captured stays decided, so a graph serves one kind of step: of one
shape, at one weight decay, in a search with an architecture batch or without.  Rates are numbers of the device (see
`steady`).

Each graph is checked before it is used: the step it was captured from is taken eagerly as well, and both must move what is
trained alike.  Random numbers come from the device's own generator, which a graph advances as eager steps do; a step that
reads the device, or draws on the host, is not captured.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from diffnas.core.batch import Batch, Loss
from diffnas.engine.noise import Noise, noise_of, set_noise

Losses = dict[str, Loss]
WARM = 2  # eager steps of a kind before it is captured: libraries choose their algorithms, optimizers make their state
MOST = 64  # graphs; a kind of step beyond is taken eagerly
ALIKE = (
    1e-2  # how far the movements by graph and by eager step may lie apart, as a share: sums are taken in other orders
)


class Steps(Protocol):
    """The interface of what takes steps; `key` is that of the recipe which asks for graphs.

    `looks_ahead` says that passes of a step must draw the same noise, which those of a graph do not.
    """

    key: str
    device: torch.device
    looks_ahead: bool

    def take(self, batches: Mapping[str, Batch]) -> Losses:
        """Takes a step."""

    def changed(self) -> Iterator[Tensor]:
        """Yields all that a step changes."""

    def trained(self) -> Sequence[Sequence[Tensor]]:
        """Returns the groups of tensors whose movements tell whether a graph does what the eager step does."""

    def kind(self, batches: Mapping[str, Batch]) -> Any:
        """Returns what a graph depends on besides the numbers on the device and `period`."""

    def period(self) -> int | None:
        """Returns the time for which a graph holds: an epoch, or None for ever."""


class Recorder(Protocol):
    """The interface of what records a step: CUDA, or a stand-in for tests."""

    def record(self, work: Callable[[], Losses]) -> tuple[Losses, Callable[[], None]]:
        """Returns the outputs of `work`, and a function that does it again on the same memory.

        `work` may be done any number of times: its caller puts all that it changes back.
        """


class CudaRecorder:
    """Captures CUDA graphs on `device`, on a stream of their own; they share their memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        with torch.cuda.device(device):
            self.pool, self.stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()

    def record(self, work: Callable[[], Losses]) -> tuple[Losses, Callable[[], None]]:
        """Captures `work`, of which nothing is computed then, after it was done once on the same stream."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self.device):
            outside = torch.cuda.current_stream()
            self.stream.wait_stream(outside)
            try:
                with torch.cuda.stream(self.stream):  # torch.cuda.graph stays on its stream where a capture fails
                    work()  # makes what libraries keep for each stream
                    # other threads, such as those that pin memory, may go on
                    with torch.cuda.graph(graph, self.pool, self.stream, "thread_local"):
                        losses = work()
            finally:
                outside.wait_stream(self.stream)
        return losses, graph.replay


@dataclass(frozen=True)
class Recorded:
    """A step that was recorded: its inputs, its losses, and what does it again."""

    inputs: Mapping[str, Batch]
    losses: Losses
    again: Callable[[], None]


class Replay:
    """Steps, recorded by `recorder` where they can be; `off` says why none is any more."""

    def __init__(self, steps: Steps, recorder: Recorder) -> None:
        self.steps, self.recorder = steps, recorder
        self.seen: dict[Any, int] = {}
        self.recorded: dict[Any, Recorded] = {}
        self.off: str | None = None
        self.period: int | None = None

    def step(self, batches: Mapping[str, Batch]) -> Losses:
        """Takes a step."""
        if self.steps.period() != self.period:  # what was captured in an epoch that is over
            self.period = self.steps.period()
            self.recorded.clear()
        kind = (_shapes(batches), self.steps.kind(batches))
        if kind in self.recorded:
            return self._again(self.recorded[kind], batches)
        self.seen[kind] = self.seen.get(kind, 0) + 1
        if self.off is not None or self.seen[kind] <= WARM or len(self.recorded) >= MOST:
            return self.steps.take(batches)
        return self._record(kind, batches)

    def _record(self, kind: Any, batches: Mapping[str, Batch]) -> Losses:
        """Takes a step eagerly and by a graph from the same state, and keeps the graph where both agree."""
        steps = self.steps
        before, noise = self._copied(), noise_of(steps.device)
        losses = _kept(steps.take(batches))
        after, drawn = self._copied(), noise_of(steps.device)
        draws = any(not torch.equal(now, then) for now, then in zip(drawn, noise, strict=True))
        if draws and steps.looks_ahead:
            self._stop("the passes of a look-ahead must draw the same noise")
            return losses
        inputs = {name: _own(batch) for name, batch in batches.items()}
        self._back(before, noise)
        try:
            found, again = self.recorder.record(lambda: steps.take(inputs))
            self._back(before, noise)
            again()
        except RuntimeError as error:
            self._stop(str(error).splitlines()[0])
            self._back(after, drawn)
            return losses
        if not draws and (apart := self._apart(before, after)) > ALIKE:
            self._stop(f"the graph's step lies {apart:.0%} from the eager one")
            self._back(after, drawn)
            return losses
        self.recorded[kind] = Recorded(inputs, found, again)
        return _kept(found)

    def _copied(self) -> list[Tensor]:
        return [tensor.detach().clone() for tensor in self.steps.changed()]

    @torch.no_grad()
    def _back(self, state: list[Tensor], noise: Noise) -> None:
        for tensor, value in zip(self.steps.changed(), state, strict=True):
            tensor.copy_(value)
        set_noise(self.steps.device, noise)

    def _apart(self, before: list[Tensor], after: list[Tensor]) -> float:
        """How far what is trained lies from `after`, as a share of the way from `before`: of all groups the largest."""
        states = list(zip(self.steps.changed(), before, after, strict=True))
        shares = [0.0]
        for group in self.steps.trained():
            own = {id(tensor) for tensor in group}
            rows = [(now.detach(), then, eager) for now, then, eager in states if id(now) in own]
            if rows:
                way = torch.stack([(eager - then).float().norm() for _, then, eager in rows]).norm()
                error = torch.stack([(now - eager).float().norm() for now, _, eager in rows]).norm()
                shares.append(float(torch.where(error == 0, error, error / way.clamp_min(1e-30))))
        return max(share if share == share else 1.0 for share in shares)

    def _again(self, recorded: Recorded, batches: Mapping[str, Batch]) -> Losses:
        for name, batch in batches.items():
            own = recorded.inputs[name]
            own.inputs.copy_(batch.inputs)
            own.targets.copy_(batch.targets)
            if own.carry is not None:
                own.carry.copy_(batch.carry)
        recorded.again()
        return _kept(recorded.losses)

    def _stop(self, why: str) -> None:
        self.off = why
        self.recorded.clear()
        logging.getLogger("diffnas").warning("%s: steps are not captured: %s", self.steps.key, why)


def _shapes(batches: Mapping[str, Batch]) -> Any:
    return tuple(
        (name, batch.inputs.shape, batch.targets.shape, batch.carry is None) for name, batch in batches.items()
    )


def state_of(modules: Sequence[torch.nn.Module], optimizers: Sequence[torch.optim.Optimizer]) -> Iterator[Tensor]:
    """Yields the parameters and buffers of `modules`, and the tensors that `optimizers` keep."""
    for module in modules:
        yield from module.parameters()
        yield from module.buffers()
    for optimizer in optimizers:
        for slots in optimizer.state.values():
            yield from (value for value in slots.values() if isinstance(value, Tensor))


def decays_of(optimizers: Sequence[torch.optim.Optimizer]) -> tuple[float, ...]:
    """Returns the weight decays of all groups, which a graph holds as they are."""
    return tuple(group["weight_decay"] for optimizer in optimizers for group in optimizer.param_groups)


def _own(batch: Batch) -> Batch:
    carry = None if batch.carry is None else batch.carry.clone()
    return replace(batch, inputs=batch.inputs.clone(), targets=batch.targets.clone(), carry=carry)


def _kept(losses: Losses) -> Losses:
    """Copies: a graph writes over what it gave before."""
    return {name: _copy(loss) for name, loss in losses.items()}


def _copy(loss: Loss) -> Loss:
    copies = (None if t is None else t.detach().clone() for t in (loss.weight_only, loss.carry))
    return Loss(loss.value.detach().clone(), loss.correct.clone(), loss.count, *copies)
