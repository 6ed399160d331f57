"""The one evaluation of a supernet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffnas.core.batch import Batch
from diffnas.core.mixture import Mixture
from diffnas.engine.bilevel import Norm, normalisation
from diffnas.engine.search import Search


@dataclass(frozen=True)
class Scores:
    """Mean `loss` [] and `accuracy` [] (a share, 0 to 1), on the device."""

    loss: Tensor
    accuracy: Tensor


@torch.no_grad()
def score(search: Search, mixture: Mixture, batches: Iterable[Batch], norm: Norm = "batch") -> Scores:
    """How well `mixture` does on `batches`, without gradients and without a trace in the running statistics."""
    loss = torch.zeros((), device=search.device)
    correct = torch.zeros((), device=search.device)
    count = 0
    with normalisation(search, norm), search.autocast():
        for batch in batches:
            found = search.task.loss(lambda inputs: search.supernet(inputs, mixture), batch)
            loss += found.value * found.count
            correct += found.correct
            count += found.count
    return Scores(loss / count, correct / count)
