"""DARTS-PT: Rethinking Architecture Selection in Differentiable NAS (Wang, Cheng, Chen, Tang and Hsieh, ICLR 2021).

How large an op's share is says little of how much the supernet needs it.  So, after the search of another method, edges are
decided one at a time: each op of the edge is taken out in turn, and the one that is missed most stays.  In between, the
supernet is tuned.  Then every node with too many edges loses those that are missed least.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from diffnas import engine
from diffnas.core.batch import Batch, Loss
from diffnas.core.cell import Cell
from diffnas.core.genotype import Genotype
from diffnas.core.mixture import Mixture
from diffnas.core.settings import setting
from diffnas.core.space import Size, Space
from diffnas.engine.scoring import score, score_batches
from diffnas.engine.search import Search
from diffnas.engine.stage import Clock, Stage, Transition, Use
from diffnas.errors import Diverged
from diffnas.methods.wrapper import Wrapper


@dataclass(frozen=True)
class DARTSPT(Wrapper):
    """Search by another method, then decide edge after edge by the supernet's loss of accuracy without each op."""

    name: ClassVar[str] = "darts-pt"

    interval: int = setting(5, "epochs from one decision to the next; the last may be due before the last epoch", ge=1)
    tuning: int = setting(81, "epochs of the stage that decides (DARTS space: 81; NAS-Bench-201: 25)", ge=1, le=9999)
    rate: float = setting(0.1, "factor of the first learning rate in that stage", gt=0)
    falling: bool = setting(
        False,
        "let that rate fall by the recipe's schedule (published: a scheduler is made and never stepped)",
        before=True,
    )
    among: Literal["all", "left"] = setting(
        "all",
        "a node's edges that are there when each of them is measured: all (published), or what earlier deletions left",
        before="left",
    )
    criterion: Literal["accuracy", "loss"] = setting(
        "accuracy", "what on the architecture half tells how much is missed"
    )
    blank: bool = setting(False, "leave the architecture at its initial value, and train weights only")

    @override
    def check_settings(self) -> list[tuple[str, str]]:
        """Refuses a base that holds darts-pt itself: an architecture is decided once."""
        nested = [("base", f"holds {self.name} itself; name the method that it is put around")]
        within = self.base
        while isinstance(within, Wrapper) and not isinstance(within, DARTSPT):
            within = within.base
        return super().check_settings() + nested * isinstance(within, DARTSPT)

    @override
    def check_stages(self, epochs: int, size: Size) -> list[tuple[str, str]]:
        """Checks that the base's last stage trains weights."""
        problems, last = super().check_stages(epochs, size), self.base.stages(epochs, size)[-1]
        if any("train" in phase.feeds for phase in last.phases):
            return problems
        reason = "ends with a selection of its own; tuning needs a method that trains to its end"
        return [*problems, ("base", f"{self.base.name} {reason}")]

    @override
    def check_space(self, space: Space) -> list[tuple[str, str]]:
        """Checks that the tuning stage is long enough for all decisions, which are made for all kinds of cell at once."""
        problems, needed = super().check_space(space), max(map(decisions, space.cells.values()))
        if sum(due(epoch, self.interval, self.tuning) for epoch in range(self.tuning)) >= needed:
            return problems
        epochs = (needed - 1) * self.interval + 1
        return [
            *problems,
            ("name", f"has {needed} decisions to make: set method.tuning to {epochs}, not {self.tuning}"),
        ]

    @property
    @override
    def uses_score_feed(self) -> bool:
        return True

    @override
    def stages(self, epochs: int, size: Size) -> tuple[Stage, ...]:
        """Returns the base's stages, and one that decides, with a new weight optimizer and a smaller rate."""
        own = super().stages(epochs, size)
        tuning = Stage(self.tuning, own[-1].size, fresh=False, restart=True, rate=self.rate, phases=own[-1].phases)
        return (*own, replace(tuning, constant=not self.falling))

    @override
    def arch(self, space: Space, generator: torch.Generator) -> nn.Module:
        """Builds the base's architecture parameters, with a buffer of decisions per kind of cell."""
        module = super().arch(space, generator)
        register(module, space.cells)
        return module.requires_grad_(False) if self.blank else module

    @override
    def relax(self, search: Search, use: Use, batch: Batch | None = None) -> Mixture:
        """Returns the base's mixture; a decided edge has one op, a deleted one nothing."""
        with search.at(before_tuning(search.clock)):
            mixture = super().relax(search, use, batch)
        return decided(search, mixture) if search.clock.selecting else mixture

    @override
    def strength(self, search: Search) -> dict[str, Tensor]:
        with search.at(before_tuning(search.clock)):
            return super().strength(search)

    @override
    def penalty(self, search: Search, mixture: Mixture) -> Tensor | None:
        with search.at(before_tuning(search.clock)):
            return super().penalty(search, mixture)

    @override
    def supernet_buffers(self, clock: Clock) -> dict[str, float]:
        """Returns the base's values, which keep their last value while the tuning lasts."""
        return super().supernet_buffers(before_tuning(clock))

    @override
    def step(self, search: Search, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        """Takes the base's step; with `blank`, its weight step alone."""
        return super().step(search, {name: b for name, b in batches.items() if not (self.blank and name == "valid")})

    @override
    def on_epoch_boundary(self, search: Search, epoch: int) -> Transition:
        """Decides an edge or a node of every kind of cell when one is due; a repeated call does nothing."""
        if not search.clock.selecting:
            asked = super().on_epoch_boundary(search, epoch)  # where the base stops, deciding begins
            return replace(asked, stop=False, next_stage=True, genotype_epoch=None) if asked.stop else asked
        if due(epoch, self.interval, self.tuning):
            decide_once(search, self.criterion, self.among)
        return Transition()

    @override
    def derive(self, search: Search) -> Genotype | None:
        """Derives the decided cell; where more than one op or too many edges are left, the strongest of them."""
        if not search.clock.selecting:
            return super().derive(search)
        cells = {kind: search.space.cells[kind].keep(rows.tolist()) for kind, rows in left(search).items()}
        strength = search.strength()
        return Genotype(search.space.name, {kind: engine.strongest(cells[kind], strength[kind]) for kind in cells})


# -- What DARTS-PT decides, kept in buffers of the architecture: the op of an edge, and the edges of a node.

T = TypeVar("T")
Criterion = Literal["accuracy", "loss"]
Among = Literal["all", "left"]
OPEN, GONE = -1, -2
"""What `choice_KIND` [E] holds for an edge that is undecided or deleted; for a decided one it is the column of its op."""


def register(arch: nn.Module, cells: Mapping[str, Cell]) -> None:
    """Adds the buffers: nothing is decided."""
    for kind, cell in cells.items():
        arch.register_buffer(f"choice_{kind}", torch.full((len(cell.edges),), OPEN))
    arch.register_buffer("decided_at", torch.tensor(-1))


def left(search: Search) -> dict[str, Tensor]:
    """[E, O] bool per kind: the entries that the decisions have left."""
    remaining = {}
    for kind, cell in search.space.cells.items():
        choice_E1 = _choice(search, kind)[:, None]
        remaining[kind] = (choice_E1 == OPEN) | (choice_E1 == torch.arange(len(cell.ops), device=choice_E1.device))
    return remaining


def decided(search: Search, mixture: Mixture) -> Mixture:
    """Returns `mixture` with a share of 1 for the op of every decided edge, and 0 for all ops that were removed."""
    mixes = {}
    for kind, left_EO in left(search).items():
        mix, undecided = mixture[kind], _choice(search, kind)[:, None] == OPEN
        op = torch.where(undecided, mix.op, left_EO.to(mix.op))
        active = left_EO if mix.active is None else left_EO & (mix.active | ~undecided)
        mixes[kind] = replace(mix, op=op, active=active)
    return Mixture(mixes)


def decide_once(search: Search, criterion: Criterion, among: Among) -> None:
    """Makes the next decision for every kind of cell in turn, unless this epoch's was made already."""
    decided_at, draw = search.arch.get_buffer("decided_at"), search.fork("decision")
    if int(decided_at) == search.clock.total:
        return
    decided_at.fill_(search.clock.total)
    for kind, cell in search.space.cells.items():
        chosen = _choice(search, kind).tolist()
        edges = [e for e in range(len(cell.edges)) if chosen[e] == OPEN and cell.eligible(e)]
        degree = len(cell.edges) if cell.in_degree is None else cell.in_degree
        inputs = [[e for e in cell.edges_into(node) if chosen[e] >= 0] for node in cell.nodes]
        crowded = [edges for edges in inputs if len(edges) > degree]
        if edges:
            decide_edge(search, kind, _one_of(edges, draw), criterion)
        elif crowded:
            decide_node(search, kind, _one_of(crowded, draw), degree, criterion, among)


def decide_edge(search: Search, kind: str, edge: int, criterion: Criterion) -> None:
    """Decides `edge` for the op without which the supernet is worst.  Of equals the first counts."""
    ops = search.space.cells[kind].eligible(edge)
    rewards = score_without(search, kind, [(edge, o) for o in ops], criterion)
    _choice(search, kind)[edge] = ops[rewards.index(min(rewards))]


def decide_node(
    search: Search, kind: str, edges: list[int], degree: int, criterion: Criterion, among: Among = "all"
) -> None:
    """Deletes the `edges` of a node without which the supernet is best, until `degree` are left.

    Every edge is measured `among` all of them, and of equals the last is deleted first; or among those that are left, anew
    after every deletion, and of equals the first is deleted.
    """
    edges = list(edges)
    if among == "all":
        rewards = score_without(search, kind, edges, criterion)
        for i in sorted(range(len(edges)), key=lambda i: (-rewards[i], -i))[: len(edges) - degree]:
            _choice(search, kind)[edges[i]] = GONE
        return
    while len(edges) > degree:
        rewards = score_without(search, kind, edges, criterion)
        _choice(search, kind)[edges.pop(rewards.index(max(rewards)))] = GONE


def score_without(
    search: Search, kind: str, entries: Sequence[int | tuple[int, int]], criterion: Criterion
) -> list[float]:
    """The supernet's accuracy (text: 80 / perplexity), or its loss times -1, without each of `entries` in turn, which are
    edges, or edges and ops.

    What stays keeps its share: rows are not scaled up.  Normalisation is by the batch, and leaves no trace.  Raises `Diverged`
    where a loss is not finite.
    """
    mixture = search.relax("eval").detach()
    rewards, losses = [], []
    for entry in entries:
        op = mixture[kind].op.clone()
        op[entry] = 0.0
        scores = score(search, Mixture({**mixture, kind: replace(mixture[kind], op=op)}), score_batches(search))
        rewards.append(scores.reward if criterion == "accuracy" else -scores.loss)
        losses.append(scores.loss)
    if not torch.stack(losses).isfinite().all():
        raise Diverged(
            f"after epoch {search.clock.total} the loss without an op is not finite: the search has diverged"
        )
    return [float(reward) for reward in torch.stack(rewards).tolist()]


def _choice(search: Search, kind: str) -> Tensor:
    """[E] int64: what is decided of every edge."""
    return search.arch.get_buffer(f"choice_{kind}")


def _one_of(items: list[T], draw: torch.Generator) -> T:
    return items[int(torch.randint(len(items), (1,), generator=draw))]


# -- When DARTS-PT decides, and how often.


def decisions(cell: Cell) -> int:
    """Returns the number of decisions: one per edge, and one per node that has more edges than it keeps."""
    edges = [e for e in range(len(cell.edges)) if cell.eligible(e)]
    degrees = [len(set(edges).intersection(cell.edges_into(node))) for node in cell.nodes]
    return len(edges) + sum(cell.in_degree is not None and degree > cell.in_degree for degree in degrees)


def due(epoch: int, interval: int, tuning: int) -> bool:
    """Whether something is decided before this epoch of the tuning stage."""
    return epoch < tuning and (epoch % interval == 0 or epoch == tuning - 1)


def before_tuning(clock: Clock) -> Clock:
    """Returns `clock`; in the tuning stage, the end of the stage before, where schedules have reached their end."""
    if not clock.selecting:
        return clock
    epochs = max(1, clock.total - clock.stage_epoch)
    return replace(clock, stage=clock.stage - 1, stage_epoch=epochs - 1, epoch=epochs, epochs=epochs, selecting=False)
