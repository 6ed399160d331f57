"""What several processes make of the parts of a batch: the loss and the gradients of the whole.

With samples n_r of N in process r, losses and gradients are means, so L = sum_r n_r / N L_r, and likewise every gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from diffnas.core.batch import Batch, Loss
from diffnas.runtime.distributed import world


def share_of(batch: Batch) -> float | None:
    """What a loss on `batch` is multiplied by before it is differentiated; None where nothing is shared."""
    return None if batch.part is None or world().size == 1 else batch.part.weight


def whole_of(
    batch: Batch, loss: Loss, grads: Sequence[Tensor], statistics: Sequence[Tensor] = ()
) -> tuple[Loss, list[Tensor]]:
    """The loss of the whole batch, and its gradients: the sums of those of all processes, which `share_of` has scaled.

    `statistics` become, in place, the means of the processes', by their samples.
    """
    share = share_of(batch)
    loss = loss.detach()
    if share is None:
        return loss, list(grads)
    counted = [loss.value * share, loss.correct if share else torch.zeros_like(loss.correct)]
    counted += [] if loss.weight_only is None else [loss.weight_only * share]
    summed = world().sum([*grads, *counted, *(each * share for each in statistics)])
    value, correct, *rest = summed[len(grads) :]
    weight_only = None if loss.weight_only is None else rest.pop(0)
    if statistics:
        torch._foreach_copy_(list(statistics), rest)
    whole = Loss(value, correct, _whole_count(batch, loss), weight_only, loss.carry)
    return whole, summed[: len(grads)]


def statistics_of(norms: Sequence[nn.Module]) -> list[Tensor]:
    """The running statistics of normalisations that each process keeps of its own samples."""
    kept = [norm for norm in norms if isinstance(norm, _BatchNorm) and not getattr(norm, "over_all", False)]
    return [t for norm in kept for t in (norm.running_mean, norm.running_var) if t is not None]


def _whole_count(batch: Batch, loss: Loss) -> int:
    """How many the loss counts in the whole batch, where it counts the same for every sample."""
    assert batch.part is not None
    return loss.count * batch.part.whole // batch.targets.shape[batch.part.dim]
