"""Evaluation of a supernet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from diffnas.core.batch import Batch, loss_of
from diffnas.core.mixture import Mixture
from diffnas.engine.gradients import Norm, normalisation
from diffnas.engine.search import Search
from diffnas.runtime.distributed import world


@dataclass(frozen=True)
class Scores:
    """Mean `loss` [] and `accuracy` [] (a share, 0 to 1), and `reward` [], what the task maximises, on the device."""

    loss: Tensor
    accuracy: Tensor
    reward: Tensor


@torch.no_grad()
def score(search: Search, mixture: Mixture, batches: Iterable[Batch], norm: Norm = "eval_batch_stats") -> Scores:
    """Evaluates `mixture` on `batches`, without gradients and without changing the running statistics.

    A hidden state begins at zero and goes on from batch to batch.
    """
    loss = correct = torch.zeros((), device=search.device)
    count, carry, shared = 0, None, False
    with normalisation(search, norm), search.autocast():
        for batch in batches:
            batch_loss = loss_of(
                search.task, lambda inputs: search.supernet(inputs, mixture), replace(batch, carry=carry)
            )
            carry = batch_loss.carry
            shared = shared or batch.part is not None
            if batch.part is not None and not batch.part.count:
                continue
            loss = loss + batch_loss.value * batch_loss.count
            correct = correct + batch_loss.correct
            count += batch_loss.count
    total: Tensor | int = count
    if shared:
        loss, correct, total = world().sum(
            [loss, correct, torch.tensor(count, dtype=torch.float64, device=search.device)]
        )
    loss, accuracy = loss / total, correct / total
    return Scores(loss, accuracy, search.task.reward(loss, accuracy))


def score_batches(search: Search) -> Any:
    """Returns the batches of the feed "score", by step: the architecture's half, unaugmented and in order.

    Raises `ValueError` where the search was built without it.
    """
    if "score" not in search.feeds:
        raise ValueError(
            f"method {search.method.name} measures the supernet on batches of their own: build the Search with"
            ' feeds={"score": ...}'
        )
    return search.feeds["score"].epoch(0)
