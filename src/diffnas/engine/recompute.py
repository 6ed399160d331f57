"""Cells that keep only what they read, and compute again on the way back: less memory for a forward pass more.

The second pass is the first one again: its random numbers, its part of the batch, the mode of every layer and what was asked
for are those of then, although they may have changed meanwhile; running statistics move once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from diffnas.core.parts import Part, current, within


def recompute_cells(supernet: nn.Module) -> bool:
    """Makes the cells of a supernet compute again on the way back; returns whether it has cells that can."""
    cells = getattr(supernet, "cells", None)
    if not isinstance(cells, nn.ModuleList):
        return False
    for cell in cells:
        cell.forward = partial(_kept_small, cell, cell.forward)
    return True


def _kept_small(cell: nn.Module, forward: Callable[..., Any], *inputs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    modes = [(layer, layer.training, _tracks(layer)) for layer in cell.modules()]
    asked = [(weight, weight.requires_grad) for weight in cell.parameters()]
    second = partial(_as_then, modes, asked, current())
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), second()))


@contextlib.contextmanager
def _as_then(
    modes: list[tuple[nn.Module, bool, bool]], asked: list[tuple[nn.Parameter, bool]], part: Part | None
) -> Iterator[None]:
    """Runs a block with layers and weights as they were; running statistics move in copies that are thrown away."""
    now = [(layer, layer.training, _tracks(layer)) for layer, _, _ in modes]
    asked_now = [(weight, weight.requires_grad) for weight, _ in asked]
    norms = [layer for layer, _, _ in modes if isinstance(layer, _BatchNorm)]
    buffers = [dict(layer._buffers) for layer in norms]
    try:
        _set(modes, asked)
        for layer, own in zip(norms, buffers, strict=True):
            layer._buffers.update({name: None if t is None else t.clone() for name, t in own.items()})
        with within(part):
            yield
    finally:
        _set(now, asked_now)
        for layer, own in zip(norms, buffers, strict=True):
            layer._buffers.update(own)


def _set(modes: list[tuple[nn.Module, bool, bool]], asked: list[tuple[nn.Parameter, bool]]) -> None:
    for layer, training, tracks in modes:
        layer.training = training
        if isinstance(layer, _BatchNorm):
            layer.track_running_stats = tracks
    for weight, gradient in asked:
        weight.requires_grad_(gradient)


def _tracks(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm) and layer.track_running_stats
