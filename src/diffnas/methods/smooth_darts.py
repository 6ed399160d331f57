"""SmoothDARTS: Stabilizing Differentiable Architecture Search via Perturbation-based Regularization (Chen and Hsieh,
ICML 2020).

Weights that are trained under slightly wrong shares do well around the right ones: the validation loss becomes smooth in the
architecture, and less is lost when a cell is derived.  The shares of a weight step are moved at random (RS) or against the
training loss (ADV), by an epsilon that grows through the search; those of an architecture step are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from typing_extensions import override

from diffnas import engine
from diffnas.core.batch import Batch
from diffnas.core.constants import constant, to_device
from diffnas.core.mixture import Mix, Mixture
from diffnas.core.settings import setting
from diffnas.core.space import Size
from diffnas.engine.method import Capture
from diffnas.engine.search import Search
from diffnas.engine.stage import Clock, Use
from diffnas.methods.sampling import one_hot, uniform_noise
from diffnas.methods.wrapper import Wrapper


@dataclass(frozen=True)
class SmoothDARTS(Wrapper):
    """Train the weights of another method under perturbed shares: random ones (rs), or the worst found nearby (adv)."""

    name: ClassVar[str] = "smooth-darts"
    capture: ClassVar[Capture] = "epoch"
    draws: ClassVar[bool] = True

    perturbation: Literal["rs", "adv"] = setting("rs", "how shares are moved: at random, or to raise the training loss")
    epsilon_first: float = setting(0.03, "largest change of a share in the first epoch", ge=0)
    epsilon_last: float = setting(0.3, "largest change of a share after the last epoch; it grows linearly", ge=0)
    begins_anew: bool = setting(
        False,
        "around a method that selects (darts-pt): let epsilon grow anew then, instead of staying at its last",
        before=True,
    )
    steps: int = setting(7, "adv: steps of sign ascent, each of 2 epsilon / steps", ge=1)

    @override
    def check_stages(self, epochs: int, size: Size) -> list[tuple[str, str]]:
        """Checks that the base takes separate steps of the architecture."""
        problems, stages = super().check_stages(epochs, size), self.base.stages(epochs, size)
        if not any("valid" in phase.feeds for stage in stages if not stage.selects for phase in stage.phases):
            reason = (
                f"{self.base.name} has no architecture steps apart from weight steps, and only those may be perturbed"
            )
            problems.append(("base", reason))
        return problems

    def epsilon(self, clock: Clock) -> float:
        """epsilon_first + (epsilon_last - epsilon_first) e / E at epoch e of E; while the base selects, the last."""
        if clock.selecting and not self.begins_anew:
            return self.epsilon_last
        return self.epsilon_first + (self.epsilon_last - self.epsilon_first) * clock.epoch / clock.epochs

    @override
    def relax(self, search: Search, use: Use, batch: Batch | None = None) -> Mixture:
        """Returns the base's mixture; for a weight step detached, moved by at most epsilon, and projected.

        `adv` needs the `batch` whose loss it raises; without one nothing is moved.
        """
        mixture = super().relax(search, use, batch)
        if use != "weights" or (self.perturbation == "adv" and batch is None):
            return mixture
        clean, epsilon = mixture.detach(), self.epsilon(search.clock)
        noise = {kind: _uniform(mix.op, epsilon, search.draw) for kind, mix in clean.items()}
        moved = _moved(search, clean, clean, noise, epsilon)
        if self.perturbation == "rs" or batch is None:
            return moved
        before = engine.differentiate(search, clean, batch, set(), "running").loss.value
        for _ in range(self.steps):
            grads = _by_kind(moved, engine.differentiate(search, moved, batch, {"mixture"}, "running").mixture)
            rise = {kind: 2.0 * epsilon / self.steps * grad.sign() for kind, grad in grads.items()}
            moved = _moved(search, clean, moved, rise, epsilon)
        after = engine.differentiate(search, moved, batch, set(), "running").loss.value
        return _chosen(after > before, moved, clean)


def projected(moved_EO: Tensor, before_EO: Tensor, allowed: Tensor) -> Tensor:
    """[E, O]: `moved_EO` clamped to [0, 1] where `allowed`, 0 elsewhere, and scaled to the sums its rows had `before` (1 for
    shares of a softmax).  A row that is all 0 then gives its sum to the op whose moved share was the largest."""
    within = moved_EO.clamp(0.0, 1.0).masked_fill(~allowed, 0.0)
    total = within.sum(-1, keepdim=True)
    largest = one_hot(moved_EO, allowed).to(within)
    shares = torch.where(total > 0, within / total.clamp_min(torch.finfo(within.dtype).tiny), largest)
    return shares * before_EO.masked_fill(~allowed, 0.0).sum(-1, keepdim=True)


def _moved(search: Search, clean: Mixture, at: Mixture, by: Mapping[str, Tensor], epsilon: float) -> Mixture:
    """Moves `at` `by` [E, O] per kind, within `epsilon` of `clean`, and projects it; weights of edges stay."""
    mixes = {}
    for kind, cell in search.space.cells.items():
        mix, centre = at[kind], clean[kind].op
        allowed = constant(cell.allowed, torch.bool, centre.device)
        taking_part = allowed if mix.active is None else allowed & mix.active
        moved = centre + (mix.op + by[kind] - centre).clamp(-epsilon, epsilon)
        mixes[kind] = Mix(projected(moved, mix.op, taking_part), mix.edge, mix.active)
    return Mixture(mixes)


def _by_kind(mixture: Mixture, tensors: list[Tensor]) -> dict[str, Tensor]:
    """Picks from `tensors`, ordered like the mixture's tensors, those in the place of `op`, by kind."""
    places = {id(tensor): other for tensor, other in zip(mixture.tensors(), tensors, strict=True)}
    return {kind: places[id(mix.op)] for kind, mix in mixture.items()}


def _chosen(first: Tensor, one: Mixture, other: Mixture) -> Mixture:
    """Returns `one` if `first` [] bool is true, else `other`, without waiting for the device."""
    mixes = {k: Mix(torch.where(first, mix.op, other[k].op), mix.edge, mix.active) for k, mix in one.items()}
    return Mixture(mixes)


def _uniform(like: Tensor, epsilon: float, generator: torch.Generator | None) -> Tensor:
    """Draws U(-epsilon, epsilon) with the shape, dtype and device of `like`; a generator's are the same on every device."""
    noise = (2.0 * uniform_noise(like, generator) - 1.0) * epsilon
    return to_device(noise, like.device, like.dtype)
