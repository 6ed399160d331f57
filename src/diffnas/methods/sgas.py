"""SGAS: Sequential Greedy Architecture Search (Li, Qian, Delgadillo, Mueller, Thabet and Ghanem, CVPR 2020).

Instead of deriving a cell at the end, the search fixes one edge of every kind of cell at a time: the one that is most surely
an edge, and most sure of its op.  The fixed edge keeps that op only; a node that has all its edges loses the others.  So the
supernet turns into the network that is derived from it, and gets cheaper as it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from diffnas.core.cell import Cell
from diffnas.core.mixture import Mix, Mixture, softmax_allowed, with_live
from diffnas.core.settings import setting
from diffnas.core.space import Space
from diffnas.engine.method import Method
from diffnas.engine.search import Alphas, Search
from diffnas.engine.stage import Transition


@dataclass(frozen=True)
class SGAS(Method):
    """Fix one edge of every kind of cell every few epochs, the clearest first, and drop the edges its node no longer needs."""

    name: ClassVar[str] = "sgas"

    criterion: Literal[1, 2] = setting(1, "what ranks edges: importance times certainty (1), times stability (2)")
    first: int = setting(9, "epoch, counted from 0, after which the first edge is fixed", ge=0)
    every: int = setting(5, "epochs from one edge to the next (published: 8 edges, then 5 epochs: 50 in all)", ge=1)
    history: int = setting(4, "epochs before that stability compares with", ge=1)

    @override
    def arch(self, space: Space, generator: torch.Generator) -> nn.Module:
        """Builds alpha, the edges fixed or dropped so far, and the shares of the last epochs."""
        return Decisions(space.cells, generator, self.history)

    @override
    def on_epoch_boundary(self, search: Search, epoch: int) -> Transition:
        """Scores every edge after every epoch, and fixes one per kind when one is due."""
        decisions, last = search.arch, epoch - 1  # the epoch that has ended, counted from 0
        assert isinstance(decisions, Decisions)
        if last < 0 or not decisions.first_time(search.clock.total):
            return Transition()
        for kind, cell in search.space.cells.items():
            scores = decisions.scores(kind, stable=self.criterion == 2)
            decisions.remember(kind)
            if last >= self.first and (last - self.first) % self.every == 0:
                decisions.fix(kind, cell, scores)
        return Transition()


# -- What SGAS learns and has decided: alpha, the edges still open, the ops of the fixed ones, and the shares of late.


class Decisions(Alphas):
    """Per kind: alpha [E, O]; `open` [E], the edges neither fixed nor dropped; `chosen` [E, O], the ops of the fixed edges;
    `past` [T, E, O], the shares among real ops after the last T epochs, newest last, 0 before the first."""

    turned: Tensor

    def __init__(self, cells: Mapping[str, Cell], generator: torch.Generator, history: int) -> None:
        super().__init__(cells, generator)
        for kind, cell in cells.items():
            real = torch.tensor([op != "none" and op not in cell.excluded for op in cell.ops])
            real = real & self.get_buffer(f"allowed_{kind}")
            self.register_buffer(f"real_{kind}", real, persistent=False)
            self.register_buffer(f"open_{kind}", real.any(dim=-1))
            self.register_buffer(f"chosen_{kind}", torch.zeros_like(real))
            self.register_buffer(f"past_{kind}", torch.zeros(history, *real.shape))
        self.register_buffer("turned", torch.tensor(-1))
        self.known: dict[str, tuple[Any, Mix | None]] = {}

    def forward(self) -> Mixture:
        """The softmax where an edge is open, one op where it is fixed, nothing where it is dropped."""
        return Mixture({kind: self._mix(kind) for kind in self.alpha})

    def _mix(self, kind: str) -> Mix:
        allowed, chosen = self.get_buffer(f"allowed_{kind}"), self.get_buffer(f"chosen_{kind}")
        shares, decided = softmax_allowed(self.alpha[kind], allowed), self._decided(kind)
        if decided is None:
            return Mix(shares)
        undecided = self.get_buffer(f"open_{kind}")[:, None]
        op = torch.where(undecided, shares, chosen.to(shares))
        return with_live(Mix(op, active=decided.active), decided.live)

    def _decided(self, kind: str) -> Mix | None:
        """What is fixed or dropped, with the ops that are left, None before there is anything.

        It is read to the host when it has changed, not in every step.
        """
        allowed, chosen, undecided = (self.get_buffer(f"{name}_{kind}") for name in ("allowed", "chosen", "open"))
        made = [(id(tensor), tensor._version, tensor.device) for tensor in (allowed, chosen, undecided)]
        if kind not in self.known or self.known[kind][0] != made:
            some = Mix(chosen, active=(undecided[:, None] & allowed) | chosen) if chosen.any() else None
            self.known[kind] = (made, some)
        return self.known[kind][1]

    def first_time(self, total: int) -> bool:
        """Whether this is the first time that the end of epoch `total` is told; a search that resumes tells it again."""
        before = int(self.turned)
        self.turned.fill_(max(total, before))
        return total > before

    @torch.no_grad()
    def measures(self, kind: str) -> Tensor:
        """[3, E], section 3.2: importance, the share of all real ops; certainty, 1 - their entropy over its maximum; and
        stability, the mean intersection of their shares with those of past epochs."""
        real, past = self.get_buffer(f"real_{kind}"), self.get_buffer(f"past_{kind}")
        shares = softmax_allowed(self.alpha[kind], self.get_buffer(f"allowed_{kind}"))
        importance = 1.0 - shares.masked_fill(real, 0.0).sum(dim=-1)
        among = self._among(kind)
        largest = real.sum(dim=-1).clamp_min(2).to(among).log()
        certainty = 1.0 - torch.special.entr(among).sum(dim=-1) / largest
        epochs = past.any(dim=-1).sum(dim=0).clamp_min(1)
        stability = torch.minimum(past, among).sum(dim=(0, 2)) / epochs
        return torch.stack([importance, certainty, stability])

    def scores(self, kind: str, stable: bool) -> Tensor:
        """[E]: the product of the measures, each stretched to 0 ... 1 over all edges; with `stable`, stability is one."""
        return _stretched(self.measures(kind)[: 3 if stable else 2]).prod(dim=0)

    @torch.no_grad()
    def remember(self, kind: str) -> None:
        """Adds the shares of now to the past."""
        past = self.get_buffer(f"past_{kind}")
        past.copy_(torch.cat([past[1:], self._among(kind)[None]]))

    @torch.no_grad()
    def fix(self, kind: str, cell: Cell, scores: Tensor) -> None:
        """Fixes the best open edge to its strongest real op, and drops the open edges of a node that has enough."""
        undecided, chosen = self.get_buffer(f"open_{kind}"), self.get_buffer(f"chosen_{kind}")
        candidates = [e for e, is_open in enumerate(undecided.tolist()) if is_open]
        if not candidates:
            return
        edge = max(candidates, key=scores.tolist().__getitem__)
        chosen[edge, self._among(kind)[edge].argmax()] = True
        undecided[edge] = False
        arriving = list(cell.edges_into(cell.edges[edge][1]))
        if cell.in_degree is not None and int(chosen[arriving].sum()) >= cell.in_degree:
            undecided[arriving] = False

    def _among(self, kind: str) -> Tensor:
        """[E, O]: the softmax over the real ops alone: neither `none` nor what is never derived."""
        return softmax_allowed(self.alpha[kind], self.get_buffer(f"real_{kind}"))


def _stretched(measures: Tensor) -> Tensor:
    """[M, E]: every row from 0 to 1; all 1 where a row is constant, so that the others decide."""
    low, high = measures.amin(dim=-1, keepdim=True), measures.amax(dim=-1, keepdim=True)
    return torch.where(high > low, (measures - low) / (high - low), 1.0)
