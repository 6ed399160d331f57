"""The learning rate of a supernet's weights at every moment of a search."""

from __future__ import annotations

from diffnas.core.schedules import cosine, restarted, warm
from diffnas.engine.stage import Clock, Stage
from diffnas.recipe.schema import TextWeights, Weights


def rate(weights: Weights | TextWeights, stage: Stage, clock: Clock, done: float = 0.0) -> float:
    """The rate of the epoch at `clock`; where it moves by steps, that after the share `done` of the epoch."""
    first = weights.lr * stage.rate
    if stage.constant:
        return first
    if weights.rate_per == "epoch":
        return _curve(weights, first, clock.epoch, clock.epochs) * warm(clock.epoch, weights.warmup)
    epoch, warmup = clock.epoch + done, weights.warmup
    if epoch < warmup:
        return weights.warmup_lr + (first - weights.warmup_lr) * epoch / warmup
    return _curve(weights, first, epoch - warmup, clock.epochs - warmup, warmup)


def _curve(weights: Weights | TextWeights, first: float, epoch: float, epochs: int, warmup: int = 0) -> float:
    """The cosine, or the cosines; `warmup` epochs of the first are spent already."""
    last = min(first, weights.lr_min)
    length = max(1, epochs if weights.cosine_epochs is None else weights.cosine_epochs - warmup)
    if weights.cosine_growth is not None:
        return restarted(epoch, length, weights.cosine_growth, first, last)
    return cosine(epoch, length, first, last)
