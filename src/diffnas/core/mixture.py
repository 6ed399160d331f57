"""The one value that passes between a method and a supernet: how much of each op flows along each edge.

Letters mean one thing everywhere (tensor names end in them where shapes change):

    E edges of a cell   O ops   N batch   C channels   H height   W width   S states

A mixture's shares are any finite numbers; nothing downstream normalises them.  Entries that a cell does not allow are 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from diffnas.core.cell import Cell


@dataclass(frozen=True)
class Mix:
    """The mixture of one kind of cell.

    `op` [E, O] is the share of each op on each edge; `edge` [E] scales whole edges (None: 1); `active` [E, O] bool is a
    promise: a False entry adds neither value nor gradient, so a supernet skips it, running statistics included (None: all
    active).  Where the cells of a kind are to differ, `op` is [I, E, O], a row for each in the order of the chain;
    `edge` and `active` may then be [I, E] and [I, E, O].
    """

    op: Tensor
    edge: Tensor | None = None
    active: Tensor | None = None

    @cached_property
    def live(self) -> Any:
        """`active` on the host as nested tuples, read once (None: all active)."""
        return None if self.active is None else _rows(self.active)

    def cell(self, index: int) -> Mix:
        """The mixture [E, O] of one cell, the one at `index` among those of its kind."""
        if self.op.dim() == 2:
            return self
        edge = self.edge if self.edge is None or self.edge.dim() == 1 else self.edge[index]
        if self.active is None or self.active.dim() == 2:
            return with_live(Mix(self.op[index], edge, self.active), self.live)
        return with_live(Mix(self.op[index], edge, self.active[index]), self.live[index])

    def shares(self) -> Tensor:
        """[E, O]: `op` with the inactive entries set to 0, their gradient cut."""
        return self.op if self.active is None else torch.where(self.active, self.op, 0.0)


class Mixture(Mapping[str, Mix]):
    """`{kind: Mix}`, frozen.  Supernets read a plain `{kind: Mix}` as well; hooks return a `Mixture`."""

    def __init__(self, mixes: Mapping[str, Mix]) -> None:
        self._mixes = dict(mixes)

    def __getitem__(self, kind: str) -> Mix:
        return self._mixes[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._mixes)

    def __len__(self) -> int:
        return len(self._mixes)

    def __repr__(self) -> str:
        return f"Mixture({self._mixes})"

    def tensors(self) -> list[Tensor]:
        """Returns the float tensors in a fixed order: per kind `op`, then `edge` where there is one."""
        return [tensor for mix in self.values() for tensor in (mix.op, mix.edge) if tensor is not None]

    def map(self, change: Callable[[Tensor], Tensor]) -> Mixture:
        """The mixture with `change` applied to every float tensor; `active` stays, and is read for all kinds at once."""
        self._read()
        mixes = {}
        for kind, mix in self.items():
            changed = Mix(change(mix.op), None if mix.edge is None else change(mix.edge), mix.active)
            mixes[kind] = with_live(changed, mix.live)
        return Mixture(mixes)

    def _read(self) -> None:
        """Reads what is active to the host, all kinds at once."""
        read_together([self])

    def detach(self) -> Mixture:
        """Returns a copy detached from the graph."""
        return self.map(Tensor.detach)

    def by_cell(self, kinds: Sequence[str]) -> Mixture:
        """The same mixture with entries of its own for every cell of a chain whose cells are of `kinds`."""
        counts, mixes = Counter(kinds), {}
        for kind, mix in self.items():
            op = mix.op if mix.op.dim() == 3 else mix.op.expand(counts[kind], *mix.op.shape)
            mixes[kind] = with_live(Mix(op, mix.edge, mix.active), mix.live)
        return Mixture(mixes)

    def leaves(self) -> Mixture:
        """Returns a copy whose tensors are leaves that require gradients: `differentiate` cuts the graph here."""
        return self.map(lambda tensor: tensor.detach().requires_grad_())


def read_together(mixtures: Sequence[Mapping[str, Mix]]) -> None:
    """Reads what is active in `mixtures` to the host, all at once: every copy waits for all that a GPU has yet to do."""
    every = [mix for mixture in mixtures for mix in mixture.values()]
    unread = [(mix, mix.active) for mix in every if mix.active is not None and "live" not in vars(mix)]
    if not unread:
        return
    host = torch.cat([active.flatten() for _, active in unread]).cpu()
    parts = host.split([active.numel() for _, active in unread])
    for (mix, active), part in zip(unread, parts, strict=True):
        with_live(mix, _rows(part.view_as(active)))


def by_cell(mixture: Mapping[str, Mix], kinds: Sequence[str]) -> Iterator[Mix]:
    """The mixture [E, O] of every cell of a chain whose cells are of `kinds`, in order."""
    seen: Counter[str] = Counter()
    for kind in kinds:
        yield mixture[kind].cell(seen[kind])
        seen[kind] += 1


def _rows(active: Tensor) -> Any:
    rows = active.tolist()
    return tuple(map(tuple, rows)) if active.dim() == 2 else tuple(tuple(map(tuple, cell)) for cell in rows)


def with_live(mix: Mix, live: Any) -> Mix:
    """Returns `mix`, whose `active` the host knows as `live`: rows of rows."""
    if mix.active is not None:
        vars(mix)["live"] = live  # where `cached_property` keeps it
    return mix


def allowed_mask(cell: Cell) -> Tensor:
    """[E, O] bool: which ops each edge of `cell` may carry."""
    return torch.tensor(cell.allowed, dtype=torch.bool)


def softmax_allowed(logits_EO: Tensor, allowed: Tensor) -> Tensor:
    """[E, O]: the softmax over the allowed ops of each edge; 0 elsewhere, and for an edge that allows none."""
    shares = logits_EO.masked_fill(~allowed, -torch.inf).softmax(dim=-1)
    return shares.masked_fill(~allowed, 0.0)
