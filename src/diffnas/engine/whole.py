"""The loss and the gradients of a whole batch, from its parts in several processes and its pieces within one.

With samples n_k of N in part k, losses and gradients are means, so L = sum_k n_k / N L_k, and likewise every gradient.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from diffnas.core.batch import Batch, Loss
from diffnas.core.parts import Part, part_of
from diffnas.runtime.distributed import world


def scaled(loss: Tensor, batch: Batch) -> Tensor:
    """The loss times the share that `batch` has in the whole one."""
    return loss if batch.part is None else loss * batch.part.weight


def pieces_of(batch: Batch, count: int, dim: int) -> list[Batch]:
    """`batch` in `count` pieces along the dimension `dim` of samples, two or more samples each; a hidden state with them."""
    size, part = batch.targets.shape[dim], batch.part
    if count == 1 or (part is not None and not part.count):
        return [batch]
    first, whole = (0, size) if part is None else (part.start, part.whole)
    pieces = []
    for own in (part_of(size, k, count, dim) for k in range(count)):
        if own.count:
            carry = batch.carry
            carry = carry[:, own.start : own.start + own.count] if isinstance(carry, Tensor) else carry
            place = Part(first + own.start, own.count, whole, dim)
            pieces.append(replace(batch.taken(own), part=place, carry=carry))
    return pieces


def each_piece(batch: Batch, count: int, dim: int) -> Iterator[Batch]:
    """Yields the pieces of `batch`; whatever is drawn for one is drawn by the same numbers for all (`core.parts`)."""
    pieces, device = pieces_of(batch, count, dim), batch.targets.device
    for k, piece in enumerate(pieces):
        last = k + 1 == len(pieces)
        with contextlib.nullcontext() if last else torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield piece


def whole_of(
    batch: Batch, losses: Sequence[tuple[Batch, Loss]], grads: Sequence[Tensor], statistics: Sequence[Tensor] = ()
) -> tuple[Loss, list[Tensor]]:
    """The loss of the whole batch from those of the pieces, and its gradients, which are summed over pieces already.

    `batch` may be the part of a process: then sums are over all processes, and `statistics` become, in place, the means of
    theirs, by samples.
    """
    loss, part = _summed(losses), batch.part
    if part is None or world().size == 1:
        return loss, list(grads)
    counted = [loss.value, loss.correct, *([] if loss.weight_only is None else [loss.weight_only])]
    shares = torch._foreach_mul(list(statistics), part.weight) if statistics else ()
    summed = world().sum([*grads, *counted, *shares])
    value, correct, *rest = summed[len(grads) :]
    weight_only = None if loss.weight_only is None else rest.pop(0)
    if statistics:
        torch._foreach_copy_(list(statistics), rest)
    return Loss(value, correct, loss.count, weight_only, loss.carry), summed[: len(grads)]


def _summed(losses: Sequence[tuple[Batch, Loss]]) -> Loss:
    """The losses of pieces, each times its share; the count is that of the whole batch."""
    piece, loss = losses[0]
    part = piece.part
    if part is None:
        return loss.detach()
    value = sum(scaled(each.value.detach(), own) for own, each in losses)
    extra = [scaled(each.weight_only.detach(), own) for own, each in losses if each.weight_only is not None]
    correct = sum(each.correct * (own.part is not None and own.part.count > 0) for own, each in losses)
    count = loss.count * part.whole // piece.targets.shape[part.dim]
    carries = [each.carry for _, each in losses]
    carry = torch.cat(carries, dim=1) if len(carries) > 1 and carries[0] is not None else carries[0]
    return Loss(
        torch.as_tensor(value), torch.as_tensor(correct), count, sum(extra[1:], extra[0]) if extra else None, carry
    )


def statistics_of(norms: Sequence[nn.Module]) -> list[Tensor]:
    """The running statistics of normalisations that each process keeps of its own samples."""
    kept = [norm for norm in norms if isinstance(norm, _BatchNorm) and not getattr(type(norm), "over_all", False)]
    found = [norm._buffers[name] for norm in kept for name in ("running_mean", "running_var")]  # the quick way to them
    return [buffer for buffer in found if buffer is not None]
