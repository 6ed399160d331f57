"""The steps of a training, taken one by one or as `engine.replay` takes them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffnas.core.batch import Batch, Loss, loss_of
from diffnas.core.genotype import Genotype
from diffnas.engine.precision import LossScale
from diffnas.engine.replay import decays_of, state_of
from diffnas.engine.whole import each_piece, scaled, statistics_of, whole_of
from diffnas.pipeline.sources.base import Training
from diffnas.recipe.recipe import Recipe
from diffnas.runtime.compiling import Compiled, no_compiler
from diffnas.runtime.console import log
from diffnas.runtime.device import PRECISIONS
from diffnas.runtime.distributed import world


class TrainSteps:
    """The steps of a training of `network` on batches named "train", at the rate that its optimizer is set to."""

    key, looks_ahead = "train.graph", False

    def __init__(
        self,
        recipe: Recipe,
        network: nn.Module,
        training: Training,
        batch_dim: int,
        device: torch.device,
        compiled: Compiled | None = None,
    ) -> None:
        """`compiled` computes batches of the recipe's size (None: nothing does)."""
        assert recipe.train is not None
        self.compiled, self.said = compiled, False
        self.settings, self.precision = recipe.train, PRECISIONS[recipe.precision]
        self.network, self.training, self.batch_dim, self.device = network, training, batch_dim, device
        self.weights = [p for p in network.parameters() if p.requires_grad]
        self.norms, self.loss_scale = list(network.modules()), LossScale(self.precision)

    def take(self, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        """Takes one step of the weights, the gradient clipped as the recipe says."""
        began, compiled = time.monotonic(), self._compiled(batches["train"])
        loss = self._differentiated(batches["train"], compiled or self.network)
        if self.settings.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.weights, self.settings.clip, foreach=True)
        self.training.optimizer.step()
        if compiled is not None and not self.said:
            self.said = True
            compiled.said(time.monotonic() - began)
        return {"train": loss}

    def _compiled(self, batch: Batch) -> Compiled | None:
        """Returns what computes `batch` instead of the network; a shorter last batch would be compiled for itself."""
        return self.compiled if len(batch.targets) == self.settings.batch else None

    def changed(self) -> Iterator[Tensor]:
        """Yields the state of the network and of its optimizer."""
        return state_of((self.network,), (self.training.optimizer,))

    def trained(self) -> Sequence[Sequence[Tensor]]:
        """Returns the weights."""
        return (self.weights,)

    def kind(self, batches: Mapping[str, Batch]) -> Any:
        """Returns the weight decays."""
        return decays_of((self.training.optimizer,))

    def period(self) -> int | None:
        """Returns None: what changes from epoch to epoch is on the device."""
        return None

    def _differentiated(self, batch: Batch, network: Callable[[Any], Any]) -> Loss:
        """Leaves the gradients of the whole batch in the weights; its loss."""
        reached: list[Tensor] = []

        def computed(scale: float) -> tuple[Loss, list[Tensor]]:
            losses = []
            self.training.optimizer.zero_grad(set_to_none=True)
            for piece in each_piece(batch, self.settings.accumulate, self.batch_dim):
                with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
                    loss = loss_of(self.training.task, network, piece)
                total = scaled(loss.total(), piece)
                (total if scale == 1.0 else total * scale).backward()
                losses.append((piece, loss.detach()))
            reached[:] = [weight for weight in self.weights if weight.grad is not None]
            grads = [weight.grad for weight in reached if weight.grad is not None]
            return whole_of(batch, losses, grads, statistics_of(self.norms))

        loss, grads = self.loss_scale.found(computed, self.device)
        for weight, grad in zip(reached, grads, strict=True):
            weight.grad = grad
        return loss


def compiled_network(recipe: Recipe, genotype: Genotype, network: nn.Module, device: torch.device) -> Compiled | None:
    """What computes `network` compiled, None where the recipe does not ask for it, or with a line where it cannot be."""
    train = recipe.train
    if getattr(train, "compile", "off") == "off":
        return None
    why = no_compiler(device)
    if why is None and (train.accumulate > 1 or world().size > 1):
        why = "not with train.accumulate or several processes"
    if why is not None:
        log.warning("train.compile: %s; the training goes on without", why)
        return None
    makers = [genotype.to_json(), train.network_settings(), train.batch, recipe.precision, str(recipe.shape)]
    return Compiled(network, json.dumps([*makers, str(device)], default=str))
