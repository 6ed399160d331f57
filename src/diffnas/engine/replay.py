"""Steps of a search replayed as one CUDA graph: captured once, then repeated on the same memory.

A GPU's step is tens of thousands of small launches, which the host cannot issue as fast as they are done; a graph issues
them all at once.  What Python decided while the graph was captured stays decided, so a graph serves one kind of step: with
an architecture batch or without, of one shape, at one weight decay.  Rates are numbers of the device (see `steady`).

Each graph is checked before it is used: the step it was captured from is taken eagerly as well, and both must move weights
and architecture alike.  A method whose step reads the device, or draws on the host, is not captured.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from diffnas.core.batch import Batch, Loss
from diffnas.engine.method import Capture, Method
from diffnas.engine.noise import Noise, noise_of, set_noise
from diffnas.engine.search import Search

Losses = dict[str, Loss]
WARM = 2  # eager steps of a kind before it is captured: libraries choose their algorithms, optimizers make their state
MOST = 16  # graphs; a kind of step beyond is taken eagerly
ALIKE = (
    1e-2  # how far the movements by graph and by eager step may lie apart, as a share: sums are taken in other orders
)


def captured(method: Method) -> Capture:
    """Whether the steps of `method` may be captured, as its own class says."""
    found: Capture = vars(type(method)).get("capture", "never")
    return found


class Recorder(Protocol):
    """The interface of what records a step: CUDA, or a stand-in for tests."""

    def record(self, work: Callable[[], Losses]) -> tuple[Losses, Callable[[], None]]:
        """Returns the outputs of `work`, and a function that does it again on the same memory."""


class CudaRecorder:
    """Captures CUDA graphs, which share their memory."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], Losses]) -> tuple[Losses, Callable[[], None]]:
        """Captures `work`, of which nothing is computed yet."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            losses = work()
        return losses, graph.replay


@dataclass(frozen=True)
class Recorded:
    """A step that was recorded: its inputs, its losses, and what does it again."""

    inputs: Mapping[str, Batch]
    losses: Losses
    again: Callable[[], None]


class Replay:
    """The steps of a search, recorded by `recorder` where they can be.

    `off` says why none is any more; what is learned must be in `search` and nowhere else.
    """

    def __init__(self, search: Search, recorder: Recorder) -> None:
        self.search, self.recorder = search, recorder
        self.seen: dict[Any, int] = {}
        self.recorded: dict[Any, Recorded] = {}
        self.off: str | None = None
        self.epoch: int | None = None

    def step(self, batches: Mapping[str, Batch]) -> Losses:
        """Takes the method's step."""
        kind = self._kind(batches)
        if kind[-1] != self.epoch:  # what was captured in an epoch that is over
            self.epoch = kind[-1]
            self.recorded.clear()
        if kind in self.recorded:
            return self._again(self.recorded[kind], batches)
        self.seen[kind] = self.seen.get(kind, 0) + 1
        if self.off is not None or self.seen[kind] <= WARM or len(self.recorded) >= MOST:
            return self.search.method.step(self.search, batches)
        return self._record(kind, batches)

    def _kind(self, batches: Mapping[str, Batch]) -> Any:
        """What a graph depends on besides the numbers on the device."""
        shapes = tuple(
            (name, batch.inputs.shape, batch.targets.shape, batch.scale, batch.carry is None)
            for name, batch in batches.items()
        )
        groups = (*self.search.weights_optimizer.param_groups, *self.search.arch_optimizer.param_groups)
        epoch = self.search.clock.epoch if captured(self.search.method) == "epoch" else None
        return shapes, tuple(group["weight_decay"] for group in groups), epoch

    def _record(self, kind: Any, batches: Mapping[str, Batch]) -> Losses:
        """Takes a step eagerly and by a graph from the same state, and keeps the graph where both agree."""
        search = self.search
        before, noise = _copied(search), noise_of(search.device)
        losses = _kept(search.method.step(search, batches))
        after = _copied(search)
        drawn = noise_of(search.device)
        draws = any(not torch.equal(now, then) for now, then in zip(drawn, noise, strict=True))
        if draws and search.method.uses_lookahead:
            self._stop("the passes of a look-ahead must draw the same noise")
            return losses
        inputs = {name: _own(batch) for name, batch in batches.items()}
        _write(search, before)
        try:
            found, again = self.recorder.record(lambda: search.method.step(search, inputs))
            self._back(before, noise)
            again()
        except RuntimeError as error:
            self._stop(str(error).splitlines()[0])
            self._back(after, drawn)
            return losses
        if not draws and (apart := _apart(search, before, after)) > ALIKE:
            self._stop(f"the graph's step lies {apart:.0%} from the eager one")
            self._back(after, drawn)
            return losses
        self.recorded[kind] = Recorded(inputs, found, again)
        return _kept(found)

    def _back(self, state: list[Tensor], noise: Noise) -> None:
        _write(self.search, state)
        set_noise(self.search.device, noise)

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
        logging.getLogger("diffnas").warning("search.graph: steps are not captured: %s", why)


def _state(search: Search) -> Iterator[Tensor]:
    """All that a step changes."""
    for module in (search.supernet, search.arch):
        yield from module.parameters()
        yield from module.buffers()
    for optimizer in (search.weights_optimizer, search.arch_optimizer):
        for slots in optimizer.state.values():
            yield from (value for value in slots.values() if isinstance(value, Tensor))


def _copied(search: Search) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in _state(search)]


@torch.no_grad()
def _write(search: Search, values: list[Tensor]) -> None:
    for tensor, value in zip(_state(search), values, strict=True):
        tensor.copy_(value)


def _apart(search: Search, before: list[Tensor], after: list[Tensor]) -> float:
    """How far the state lies from `after`, as a share of the way from `before`: of weights or architecture, the larger."""
    trained = {id(p) for p in search.weights}, {id(p) for p in search.arch.parameters()}
    shares = [0.0]
    for group in trained:
        rows = [
            (tensor.detach(), b, a)
            for tensor, b, a in zip(_state(search), before, after, strict=True)
            if id(tensor) in group
        ]
        if rows:
            way = torch.stack([(a - b).float().norm() for _, b, a in rows]).norm()
            error = torch.stack([(t - a).float().norm() for t, _, a in rows]).norm()
            shares.append(float(torch.where(error == 0, error, error / way.clamp_min(1e-30))))
    return max(share if share == share else 1.0 for share in shares)


def _own(batch: Batch) -> Batch:
    carry = None if batch.carry is None else batch.carry.clone()
    return replace(batch, inputs=batch.inputs.clone(), targets=batch.targets.clone(), carry=carry)


def _kept(losses: Losses) -> Losses:
    """Copies: a graph writes over what it gave before."""
    return {name: _copy(loss) for name, loss in losses.items()}


def _copy(loss: Loss) -> Loss:
    copies = (None if t is None else t.detach().clone() for t in (loss.weight_only, loss.carry))
    return Loss(loss.value.detach().clone(), loss.correct.clone(), loss.count, *copies)
