"""Training of a supernet's weights: by SGD on a cosine (images), or at a constant rate (text)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import nn
from typing_extensions import override

from diffnas.core.schedules import cosine, restarted, warm
from diffnas.engine.stage import Clock, Stage
from diffnas.engine.steady import sgd
from diffnas.recipe.schema import TextWeights, Weights


class SupernetWeights(ABC):
    """The weights' optimizer and its rate at every moment of a search.

    `clip` is the norm that gradients are clipped to, `ahead_clip` that where a method looks ahead (None: not clipped).
    """

    ahead_clip: float | None = None  # as published for images
    by_steps = False  # whether the rate moves within an epoch

    def __init__(self, decay: float, clip: float | None) -> None:
        self.decay, self.clip = decay, clip

    @abstractmethod
    def optimizer(
        self, parameters: Iterable[nn.Parameter], decay: float, steady: bool = False
    ) -> torch.optim.Optimizer:
        """An optimizer of fresh weights, with that decay; a `steady` one can be replayed by a CUDA graph."""

    @abstractmethod
    def rate(self, stage: Stage, clock: Clock, done: float = 0.0) -> float:
        """The rate of the epoch at `clock`; where it moves by steps, that after the share `done` of the epoch."""


class CosineSGD(SupernetWeights):
    """SGD with momentum whose rate falls on a cosine, or on one after another, after a warm-up."""

    def __init__(self, settings: Weights) -> None:
        super().__init__(settings.decay, settings.clip)
        self.settings, self.by_steps = settings, settings.rate_per == "step"

    @override
    def optimizer(
        self, parameters: Iterable[nn.Parameter], decay: float, steady: bool = False
    ) -> torch.optim.Optimizer:
        """Builds SGD with the recipe's momentum."""
        settings = self.settings
        return sgd(parameters, settings.lr, settings.momentum, decay, steady, settings.nesterov)

    @override
    def rate(self, stage: Stage, clock: Clock, done: float = 0.0) -> float:
        """Returns the cosine's rate after the warm-up, or its first rate throughout a stage of constant rate."""
        settings, first = self.settings, self.settings.lr * stage.rate
        if stage.constant:
            return first
        if not self.by_steps:
            to_first = settings.warmup_to == "first" and clock.epoch < settings.warmup
            rate = first if to_first else self._curve(first, clock.epoch, clock.epochs)
            return rate * warm(clock.epoch, settings.warmup)
        epoch, warmup = clock.epoch + done, settings.warmup
        if epoch < warmup:
            return settings.warmup_lr + (first - settings.warmup_lr) * epoch / warmup
        return self._curve(first, epoch - warmup, clock.epochs - warmup, warmup)

    def _curve(self, first: float, epoch: float, epochs: int, warmup: int = 0) -> float:
        """The cosine, or the cosines; `warmup` epochs of the first are spent already."""
        settings, last = self.settings, min(first, self.settings.lr_min)
        length = max(1, epochs if settings.cosine_epochs is None else settings.cosine_epochs - warmup)
        if settings.cosine_growth is not None:
            return restarted(epoch, length, settings.cosine_growth, first, last)
        return cosine(epoch, length, first, last)


class ConstantSGD(SupernetWeights):
    """Plain SGD at a constant rate, which a step scales by the length of its window."""

    def __init__(self, settings: TextWeights) -> None:
        super().__init__(settings.decay, settings.clip)
        self.settings, self.ahead_clip = settings, settings.clip  # as published for recurrent cells

    @override
    def optimizer(
        self, parameters: Iterable[nn.Parameter], decay: float, steady: bool = False
    ) -> torch.optim.Optimizer:
        """Builds SGD without momentum."""
        return sgd(parameters, self.settings.lr, 0.0, decay, steady)

    @override
    def rate(self, stage: Stage, clock: Clock, done: float = 0.0) -> float:
        """Returns the recipe's rate times the stage's factor."""
        return self.settings.lr * stage.rate
