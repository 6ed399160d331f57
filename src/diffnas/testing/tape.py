"""A stand-in for CUDA graphs on any device: a tape of what torch computes.

It does everything again with the same tensors and numbers, so that what a graph would fix (a rate, a choice, an address) is
fixed too, and what a graph refuses is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from diffnas.engine.replay import Losses


class Tape(TorchDispatchMode):
    """Records calls; `again` does them once more, and writes what was new to where it first stood."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call,unused-ignore]
        self.calls: list[tuple[Any, Any, Any, list[Tensor], list[bool]]] = []

    def record(self, work: Callable[[], Losses]) -> tuple[Losses, Callable[[], None]]:
        """Returns the outputs of `work`, and a function that does it again on the same memory."""
        self.calls = []
        with self:
            losses = work()
        calls = self.calls

        @torch.no_grad()
        def again() -> None:
            for function, args, kwargs, outs, fresh in calls:
                found = [t for t in tree_leaves(function(*args, **kwargs)) if isinstance(t, Tensor)]
                for out, new, is_fresh in zip(outs, found, fresh, strict=True):
                    if is_fresh:
                        out.copy_(new)

        return losses, again

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Does and records a call."""
        kwargs = kwargs or {}
        if function is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("the step reads a number")
        if any(isinstance(leaf, torch.Generator) for leaf in tree_leaves((args, kwargs))):
            raise RuntimeError("the step draws on the host")
        # aliases with the axes of now: an op in place may turn a tensor's axes later
        own_args, own_kwargs = tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, (args, kwargs))
        out = function(*args, **kwargs)
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        outs = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        fresh = [t.untyped_storage()._cdata not in given for t in outs]
        if any(fresh) or (function._schema.is_mutable and "squeeze_" not in str(function)):
            self.calls.append((function, own_args, own_kwargs, [t.detach() for t in outs], fresh))
        return out


class Watched(TorchDispatchMode):
    """Changes nothing; torch takes a few ops (a normalisation's mean) apart under any mode, which rounds otherwise."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Does a call."""
        return function(*args, **(kwargs or {}))
