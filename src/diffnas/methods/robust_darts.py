"""RobustDARTS: Understanding and Robustifying Differentiable Architecture Search (Zela, Elsken, Saikia, Marrakchi, Brox and
Hutter, ICLR 2020).

Before a search collapses, the validation loss turns sharp in the architecture: the largest eigenvalue of its Hessian grows.
DARTS-ES watches it, and stops with the genotype of before the growth.  DARTS-ADA goes back to that epoch instead, and goes
on from there with more weight decay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from typing_extensions import override

from diffnas import engine
from diffnas.core.settings import setting
from diffnas.core.space import Space
from diffnas.engine.method import Capture
from diffnas.engine.scoring import score_batches
from diffnas.engine.search import Search
from diffnas.engine.stage import Transition
from diffnas.methods.wrapper import Wrapper


@dataclass(frozen=True)
class RobustDARTS(Wrapper):
    """Stop another method (DARTS), or go back, when the largest eigenvalue of the Hessian in the architecture grows."""

    name: ClassVar[str] = "robust-darts"
    capture: ClassVar[Capture] = "throughout"

    every: int = setting(2, "epochs from one eigenvalue to the next; the first is taken after the first epoch", ge=1)
    window: int = setting(5, "eigenvalues in a local average, which is centred: an odd number", ge=1)
    delta: int = setting(4, "eigenvalues from the older average to the newer one", ge=1)
    growth: float = setting(1.3, "the newer average may be this many times the older, and no more", gt=0)
    first: int = setting(10, "first epoch, counted from 0, whose genotype may be the result", ge=0)
    adaptive: bool = setting(False, "DARTS-ADA: go back and raise the weights' decay, instead of stopping (DARTS-ES)")
    factor: float = setting(10.0, "adaptive: what multiplies the weights' decay", gt=1)
    decay_max: float = setting(0.03, "adaptive: largest decay, where further growth of the eigenvalue is ignored", gt=0)
    stop_at_largest: bool = setting(
        False, "adaptive: stop where the decay would pass its largest, instead of searching to the end", before=True
    )

    @override
    def check_settings(self) -> list[tuple[str, str]]:
        """Checks that the window of the average is centred."""
        even = [("window", f"must be odd, so that an average has a middle; got {self.window}")]
        return super().check_settings() + even * (self.window % 2 == 0)

    @property
    @override
    def uses_score_feed(self) -> bool:
        return True

    @property
    @override
    def max_rewind(self) -> int:
        """The number of epochs that the older average lies back."""
        return max(super().max_rewind, self._lag if self.adaptive else 0)

    @override
    def arch(self, space: Space, generator: torch.Generator) -> nn.Module:
        """Builds the base's architecture parameters, and a buffer [window + delta] of eigenvalues, newest last."""
        module = super().arch(space, generator)
        module.register_buffer("eigenvalues", torch.full((self.window + self.delta,), -torch.inf, dtype=torch.float64))
        module.register_buffer("evaluated_at", torch.tensor(-1))
        return module

    @override
    def on_epoch_boundary(self, search: Search, epoch: int) -> Transition:
        """Computes an eigenvalue when one is due, and stops or goes back if it has grown too much."""
        asked, done = super().on_epoch_boundary(search, epoch), search.clock.total
        if asked != Transition() or epoch == 0 or (done - 1) % self.every:
            return asked
        older = done - self._lag
        growth = grown(self._eigenvalues(search), self.window, self.delta)
        if not growth > self.growth or older <= self.first:
            return asked
        decay = search.weights_optimizer.param_groups[0]["weight_decay"]
        may_grow = 0 < decay * self.factor <= self.decay_max * (1 + 1e-9)
        if self.adaptive and not may_grow and not self.stop_at_largest:
            return asked
        reason = f"the largest eigenvalue has grown to {growth:.2f} times that around epoch {older}"
        if self.adaptive and may_grow:
            return Transition(rewind=older, decay_factor=self.factor, reason=reason)
        return Transition(stop=True, genotype_epoch=older, reason=reason)

    @property
    def _lag(self) -> int:
        """The number of epochs from the middle of the older average to the newest eigenvalue."""
        return self.every * (self.window // 2 + self.delta)

    def _eigenvalues(self, search: Search) -> list[float]:
        """Returns the last eigenvalues including the current one; a resumed search asks again and gets the same."""
        series, evaluated_at = search.arch.get_buffer("eigenvalues"), search.arch.get_buffer("evaluated_at")
        if int(evaluated_at) != search.clock.total:
            decay = search.arch_optimizer.param_groups[0]["weight_decay"]
            newest = engine.largest_eigenvalue(search, score_batches(search)[0], decay)
            series.copy_(series.roll(-1))
            series[-1] = newest
            evaluated_at.fill_(search.clock.total)
        return [float(value) for value in series.tolist()]


def grown(series: Sequence[float], window: int, delta: int) -> float:
    """The mean of the last `window` of `series` over that of the `window` that lie `delta` before them.

    0 while there are too few of them (minus infinity stands for none), and where the older mean is not above 0.
    """
    if len(series) < window + delta:
        return 0.0
    newer, older = (sum(series[len(series) - window - back :][:window]) for back in (0, delta))
    return newer / older if older > 0 else 0.0
