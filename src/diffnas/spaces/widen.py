"""Wider ops that go on from narrower ones: which old channel each new one copies (Chen et al., DrNAS, 2021, section 3.3).

As the published code does it: new channels are copies of old ones drawn at random; a convolution's copied outputs, the
inputs of what follows and the statistics of its normalisation copy the same channels.  Copied inputs are not divided by the
number of their copies, so what is computed changes a little.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Copies = tuple[Tensor | None, ...]
"""Per leading dimension of a tensor, the old indices to take [new size]; None: all, as they are."""


def channel_copies(old: Mapping[str, Tensor], new: nn.Module, generator: torch.Generator) -> dict[str, Copies]:
    """Returns for every op tensor of `new` that is wider than in the state dict `old` the channels it copies, by name."""
    copies_of: dict[str, Copies] = {}
    for name, ops in new.named_modules():
        if isinstance(ops, nn.ModuleDict):
            for op_name, op in ops.items():
                copies_of |= _of_op(f"{name}.{op_name}", op, old, generator)
    return {
        name: copies
        for name, copies in copies_of.items()
        if name in old and any(index is not None and len(index) != old[name].shape[k] for k, index in enumerate(copies))
    }


def widened(tensor: Tensor, copies: Copies) -> Tensor:
    """Returns `tensor` with its copied channels."""
    for dim, index in enumerate(copies):
        if index is not None:
            tensor = tensor.index_select(dim, index.to(tensor.device))
    return tensor


def _of_op(prefix: str, op: nn.Module, old: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Copies]:
    copies: dict[str, Copies] = {}
    flowing: Tensor | None = None  # what the channels copy at this point of the op
    branches: list[Tensor] = []  # the outputs of convolutions that read one input side by side
    for name, layer in _layers(prefix, op):
        key = f"{name}.weight"
        if isinstance(layer, nn.Conv2d) and key in old:
            before, after = old[key].shape, layer.weight.shape
            if layer.groups > 1:
                flowing = _copies(before[0], after[0], generator) if flowing is None else flowing
                copies[key] = (flowing,)
                continue
            read = _copies(before[1], after[1], generator) if flowing is None else flowing
            out = _copies(before[0], after[0], generator)
            copies[key] = (out, read)
            if _parallel(op):
                branches.append(out + sum(old[f"{prefix}.even.weight"].shape[:1]) * len(branches))
                flowing = read if len(branches) == 1 else torch.cat(branches)
            else:
                flowing = out
        elif isinstance(layer, _BatchNorm):
            statistic = f"{name}.running_mean"
            if flowing is None and statistic in old:
                flowing = _copies(len(old[statistic]), layer.num_features, generator)
            if flowing is not None:
                copies |= {f"{name}.{part}": (flowing,) for part in ("running_mean", "running_var", "weight", "bias")}
    return copies


def _parallel(op: nn.Module) -> bool:
    """Whether `op` has two convolutions side by side (`FactorizedReduce`)."""
    return hasattr(op, "even") and hasattr(op, "odd")


def _layers(prefix: str, op: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, layer in op.named_modules(prefix=prefix):
        if not list(layer.children()):
            yield name, layer


def _copies(before: int, after: int, generator: torch.Generator) -> Tensor:
    """[after]: the old channels, then copies of some, drawn at random."""
    kept = torch.arange(min(before, after))
    return torch.cat([kept, torch.randint(before, (max(0, after - before),), generator=generator)])
