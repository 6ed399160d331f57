"""Predicting the next word: negative log-likelihood, and what keeps hidden states small and slow.

S. Merity et al., Revisiting activation regularization for language RNNs (ICML workshop, 2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from diffnas.core.batch import Batch, LanguageModelOutput, Loss
from diffnas.core.settings import setting
from diffnas.tasks.base import Task


@dataclass(frozen=True)
class LanguageTask(Task):
    """Predict the next word: -mean log p(target); for weights alone plus `alpha` mean(d_t^2) + `beta` mean((h_t+1 - h_t)^2).

    h [T, N, H] are the hidden states, d the same after the output's dropout.  The defaults are those of DARTS.
    """

    name: ClassVar[str] = "language"
    modalities: ClassVar[tuple[str, ...]] = ("text",)
    of_section: ClassVar[Mapping[str, str]] = {"alpha": "activation_penalty", "beta": "temporal_penalty"}

    alpha: float = setting(0.0, "factor of the mean square of the output (AR)", ge=0)
    beta: float = setting(1e-3, "factor of the mean square of the change of hidden states (TAR)", ge=0)

    @override
    def loss(self, net: Callable[[tuple[Tensor, Any]], LanguageModelOutput], batch: Batch) -> Loss:
        """Returns the mean loss over the T N tokens of `batch`; `net` maps (tokens [T, N], carry) to its predictions.

        The carry that goes out is cut from the graph, so the next window's gradient ends where that window begins.
        """
        outputs = net((batch.inputs, batch.carry))
        log_probs, targets = outputs.log_probs.flatten(0, 1), batch.targets.flatten()
        value = F.nll_loss(log_probs, targets)
        # by the largest value, which is several times faster to find than its place; a tie counts as right
        answers = log_probs.detach()
        correct = (answers.gather(1, targets[:, None])[:, 0] == answers.amax(1)).sum()
        return Loss(value, correct, len(targets), self._regularisers(outputs), outputs.carry.detach())

    @override
    def reward(self, loss: Tensor, accuracy: Tensor) -> Tensor:
        """[]: what selections maximise, 80 / perplexity: the reward of ENAS on text (Pham et al., 2018, section 3.1)."""
        return 80.0 * (-loss).exp()

    @override
    def metrics(self, loss: float, accuracy: float) -> dict[str, float]:
        """Returns the metrics: the mean loss of a token, its exponential, and the accuracy (given as a share) in percent."""
        return {"loss": loss, "perplexity": _exp(min(loss, 700.0)), "accuracy": 100.0 * accuracy}

    @override
    def format_metrics(self, name: str, row: Mapping[str, float]) -> str:
        """Formats `{NAME_perplexity}` for a progress bar."""
        return f"{name} {row[f'{name}_perplexity']:.2f}"

    def _regularisers(self, outputs: LanguageModelOutput) -> Tensor | None:
        total = None
        if self.alpha:
            total = self.alpha * outputs.dropped.square().mean()
        if self.beta and len(outputs.states) > 1:  # a window of one row has no differences
            slowness = self.beta * (outputs.states[1:] - outputs.states[:-1]).square().mean()
            total = slowness if total is None else total + slowness
        return total


@dataclass(frozen=True)
class Perplexity:
    """exp of the mean `loss` of a token over `n` tokens, with its 95 % interval `low` to `high`."""

    loss: float
    value: float
    low: float
    high: float
    n: int


def perplexity(losses: Sequence[float], counts: Sequence[int]) -> Perplexity:
    """The perplexity of a text from the mean loss of each of its windows and the tokens of each, [B] both.

    Windows, not tokens, count as independent draws, since words that follow one another do not: with shares w_b = n_b / n,
    mean m = sum w_b x_b and variance B / (B - 1) sum w_b^2 (x_b - m)^2 of m, the interval is exp(m +- 1.96 s).  It says how
    much the result depends on the text; one window alone says nothing of that (0 to infinity).
    """
    n = sum(counts)
    mean = math.fsum(x * count for x, count in zip(losses, counts, strict=True)) / n
    if len(losses) < 2:
        return Perplexity(mean, _exp(mean), 0.0, math.inf, n)
    spread = math.fsum((count / n * (x - mean)) ** 2 for x, count in zip(losses, counts, strict=True))
    half = 1.959964 * math.sqrt(len(losses) / (len(losses) - 1) * spread)
    return Perplexity(mean, _exp(mean), _exp(mean - half), _exp(mean + half), n)


def _exp(x: float) -> float:
    """Returns e^x, or infinity if that is too large for a float."""
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf
