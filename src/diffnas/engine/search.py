"""The state of a search: everything a method may touch, and everything a checkpoint must hold."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from diffnas.core.batch import Batch, Loss
from diffnas.core.cell import Cell
from diffnas.core.genotype import Genotype
from diffnas.core.mixture import Mix, Mixture, allowed_mask, softmax_allowed
from diffnas.core.seeds import generator, stream_seed
from diffnas.core.space import AnyShape, Shape, Space
from diffnas.engine.op_weights import Place, op_weights
from diffnas.engine.optim import load_optimizer_state, optimizer_state
from diffnas.engine.precision import LossScale, full_float32
from diffnas.engine.stage import Clock, Use

if TYPE_CHECKING:
    from diffnas.engine.method import Method


class Task(Protocol):
    """The interface of a task: its loss and its reward; `tasks/` holds the implementations."""

    def loss(self, net: Any, batch: Batch) -> Loss:
        """The loss of `net` (a function of the inputs) on `batch`."""

    def reward(self, loss: Tensor, accuracy: Tensor) -> Tensor:
        """[]: what selections maximise, above 0, given the mean loss [] and the share of right answers [] of a mixture."""


class Feed(Protocol):
    """Batches by epoch, as `data.feeds.Feed` and `data.windows.TextFeed` give them."""

    steps: int

    def epoch(self, epoch: int) -> Any:
        """The batches of `epoch`, by step."""


class Alphas(nn.Module):
    """alpha [E, O] per kind of cell, 1e-3 N(0, 1); called, it gives the mixture of their softmax over allowed ops."""

    def __init__(self, cells: Mapping[str, Cell], generator: torch.Generator, scale: float = 1e-3) -> None:
        super().__init__()
        alphas = {
            kind: nn.Parameter(scale * torch.randn(len(cell.edges), len(cell.ops), generator=generator))
            for kind, cell in cells.items()
        }
        self.alpha = nn.ParameterDict(alphas)
        for kind, cell in cells.items():
            self.register_buffer(f"allowed_{kind}", allowed_mask(cell), persistent=False)

    def forward(self) -> Mixture:
        """The mixture softmax(alpha), `Mix.op` [E, O] per kind."""
        shares = {k: softmax_allowed(a, self.get_buffer(f"allowed_{k}")) for k, a in self.alpha.items()}
        return Mixture({kind: Mix(op) for kind, op in shares.items()})


class Search:
    """The state of a search.

    `supernet(inputs, mixture)` computes with mixtures, and `arch` holds the architecture's parameters; `weights_optimizer`
    and `arch_optimizer` update them.  `feeds` are the batches: `train`, `valid`, and `score` (the architecture's half,
    unaugmented and in order); `shape` is their shape.  `clip` and `arch_clip` bound the gradient norms (None: no bound),
    `ahead_clip` those within a lookahead.  A batch is computed in `pieces` along its dimension `batch_dim` of samples.

    Random numbers come from `shared` (architecture draws; with `device_draws` from the device's generator), from `fork(name)`
    (side work that must not shift the search) and from torch's global generator (dropout), which is reseeded every epoch.
    """

    def __init__(
        self,
        *,
        method: Method,
        space: Space,
        supernet: nn.Module,
        arch: nn.Module,
        weights_optimizer: torch.optim.Optimizer,
        arch_optimizer: torch.optim.Optimizer,
        task: Task,
        seed: int = 0,
        clip: float | None = None,
        arch_clip: float | None = None,
        precision: torch.dtype = torch.float32,
        clock: Clock | None = None,
        feeds: Mapping[str, Feed] | None = None,
        shape: AnyShape | None = None,
        ahead_clip: float | None = None,
        pieces: int = 1,
        batch_dim: int = 0,
        device_draws: bool = False,
    ) -> None:
        self.method, self.space, self.task, self.seed = method, space, task, seed
        self.supernet, self.arch = supernet, arch
        self.weights_optimizer, self.arch_optimizer = weights_optimizer, arch_optimizer
        self.clip, self.arch_clip, self.ahead_clip, self.precision = clip, arch_clip, ahead_clip, precision
        self.clock, self.feeds, self.shape = clock or Clock(), dict(feeds or {}), shape or Shape(10)
        self.pieces, self.batch_dim, self.loss_scale = pieces, batch_dim, LossScale(precision)
        self.shared, self.device_draws = generator(seed, "shared"), device_draws
        self.weights = [p for p in supernet.parameters() if p.requires_grad]
        self.norms = [m for m in supernet.modules() if isinstance(m, _BatchNorm)]
        self.device = self.weights[0].device

    @cached_property
    def op_weights(self) -> dict[Place, tuple[int, ...]]:
        """The places in `weights` of the weights of every op that has some, by cell, edge and column."""
        return op_weights(self.space, self.supernet, self.weights)

    # -- hooks: a method's hooks call one another through these

    def relax(self, use: Use, batch: Batch | None = None) -> Mixture:
        """The method's mixture for `use`."""
        return self.method.relax(self, use, batch)

    def strength(self) -> dict[str, Tensor]:
        """The method's noise-free strengths, [E, O] per kind."""
        with torch.no_grad():
            return self.method.strength(self)

    def penalty(self, mixture: Mixture) -> Tensor | None:
        """The method's penalty for `mixture`."""
        return self.method.penalty(self, mixture)

    def weight_penalty(self, mixture: Mixture) -> Tensor | None:
        """The method's penalty on the weights for `mixture`."""
        return self.method.weight_penalty(self, mixture)

    def derive(self) -> Genotype | None:
        """Returns the method's current genotype."""
        return self.method.derive(self)

    # -- randomness and precision

    @property
    def draw(self) -> torch.Generator | None:
        """What steps draw by: `shared`, or None for the device's own generator, torch's global one."""
        return None if self.device_draws else self.shared

    def fork(self, name: str) -> torch.Generator:
        """A fresh generator for side work (derivation, pictures); asking for it never shifts the search."""
        return generator(self.seed, name, self.clock.stage, self.clock.epoch)

    def reseed(self) -> None:
        """Seeds torch's global generator for the current epoch."""
        torch.manual_seed(stream_seed(self.seed, "noise", self.clock.stage, self.clock.epoch))

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The precision forward passes run in."""
        if self.precision == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.precision)

    @contextlib.contextmanager
    def differencing(self) -> Iterator[None]:
        """Runs a block in full float32: a difference of passes in bfloat16 or TF32 is mostly rounding."""
        precision, self.precision = self.precision, torch.float32
        try:
            with full_float32():
                yield
        finally:
            self.precision = precision

    # -- time and state

    @contextlib.contextmanager
    def at(self, clock: Clock) -> Iterator[None]:
        """Runs a block in which the clock stands at `clock`, for hooks that are to answer as of another moment."""
        now, self.clock = self.clock, clock
        try:
            yield
        finally:
            self.clock = now

    def advance(self, **changes: Any) -> None:
        """Moves the clock."""
        self.clock = replace(self.clock, **changes)

    def state_dict(self) -> dict[str, Any]:
        """Returns everything needed to resume, tensors under plain names."""
        return {
            "clock": asdict(self.clock),
            "weights": self.supernet.state_dict(),
            "arch": self.arch.state_dict(),
            "weights_optimizer": optimizer_state(self.weights_optimizer, self.supernet),
            "arch_optimizer": optimizer_state(self.arch_optimizer, self.arch),
            "shared": self.shared.get_state(),
            "loss_scale": self.loss_scale.value,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state`; the supernet must be that of the same stage."""
        self.clock = Clock(**state["clock"])
        self.supernet.load_state_dict(state["weights"])
        self.arch.load_state_dict(state["arch"])
        load_optimizer_state(self.weights_optimizer, self.supernet, state["weights_optimizer"])
        load_optimizer_state(self.arch_optimizer, self.arch, state["arch_optimizer"])
        self.shared.set_state(state["shared"])
        self.loss_scale.value = float(state.get("loss_scale", self.loss_scale.value))  # once there was none
