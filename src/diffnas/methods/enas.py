"""ENAS: Efficient Neural Architecture Search via Parameter Sharing (Pham, Guan, Zoph, Le and Dean, ICML 2018).

A controller writes children; every batch trains the shared weights through a new one.  After each pass over the training
half the controller is trained by REINFORCE: the reward R of a child is its accuracy on a validation batch of its own (of
text: 80 / perplexity) plus a little entropy, the baseline b a running mean, and what is descended is the mean of
-(R - b) log p(child).
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from diffnas import engine
from diffnas.core.batch import Batch, Loss
from diffnas.core.cell import Cell
from diffnas.core.constants import constant
from diffnas.core.genotype import Genotype
from diffnas.core.mixture import Mix, Mixture
from diffnas.core.settings import setting
from diffnas.core.space import Size, Space
from diffnas.engine.method import Method
from diffnas.engine.scoring import score_batches
from diffnas.engine.search import Search
from diffnas.engine.stage import Phase, Stage, Use
from diffnas.methods.discrete import TopK, discrete, genotype_of, on_device
from diffnas.methods.sampling import gumbel


@dataclass(frozen=True)
class ENAS(Method):
    """Train shared weights on children that an LSTM controller writes, and the controller by REINFORCE on their accuracy."""

    name: ClassVar[str] = "enas"

    units: int = setting(64, "units of the controller's LSTM (NAS-Bench-201: 32)", ge=1, le=4096)
    layers: int = setting(2, "layers of the controller's LSTM", ge=1, le=64)
    temperature: float = setting(1.0, "divides the controller's logits (NAS-Bench-201: 5)", gt=0)
    tanh_constant: float = setting(1.1, "bound of the controller's logits (NAS-Bench-201: 2.5)", gt=0)
    op_tanh_reduce: float = setting(2.5, "divides that bound for ops (NAS-Bench-201: 1)", gt=0)
    favoured: tuple[str, ...] = setting(
        ("sep_conv_3x3", "sep_conv_5x5"), "ops that the controller begins with a liking for, where the space has them"
    )
    lead: Literal["first", "every"] = setting(
        "first",
        "kinds of cell in whose choices favoured ops keep a fixed lead: the first (published: the normal cell), or every",
        before="every",
    )
    controller_steps: int = setting(
        30, "steps of the controller after each pass of the weights (NAS-Bench-201: 50)", ge=1
    )
    aggregate: int = setting(10, "children of each of these steps (NAS-Bench-201: 20)", ge=1)
    entropy_weight: float = setting(1e-4, "weight of the entropy of a child's choices in its reward", ge=0)
    baseline_decay: float = setting(0.99, "how much of the baseline stays when a reward comes in", ge=0, lt=1)
    batches: Literal["own", "shared"] = setting(
        "own",
        "validation batches: one for every child (published), or one for the children of a step, and for all candidates",
        before="shared",
    )
    candidates: int = setting(
        100, "children that compete by a validation batch in the end (0: the greedy child is derived)", ge=0
    )
    evaluate: Literal["argmax", "sample"] = setting(
        "sample", "child that evaluations take before there is a winner: the greedy one or a sample"
    )

    @override
    def stages(self, epochs: int, size: Size) -> tuple[Stage, ...]:
        """Returns a stage that trains weights and controller in turns, then the selection, a step per candidate."""
        each = self.aggregate if self.batches == "own" else 1
        search = Stage(epochs, size, phases=(Phase(("train",)), Phase(("valid",), self.controller_steps, each)))
        selection = Stage(1, size, fresh=False, restart=True, phases=(Phase(("score",), self.candidates),))
        return (search, selection) if self.candidates else (search,)

    @override
    def arch(self, space: Space, generator: torch.Generator) -> nn.Module:
        """Builds the controller, with its baseline and the winner of the selection."""
        bounds = (self.temperature, self.tanh_constant, self.op_tanh_reduce)
        leads = list(space.cells)[: 1 if self.lead == "first" else None]
        return Controller(space.cells, generator, self.units, self.layers, *bounds, self.favoured, leads)

    @override
    def relax(self, search: Search, use: Use, batch: Batch | None = None) -> Mixture:
        """Samples a new child; for use "eval", returns the winner, if there is one."""
        controller = _controller(search)
        if use == "arch":
            return controller.forward(search.shared)
        with torch.no_grad():
            if use == "weights":
                return controller.forward(search.shared)
            return controller.winner.best() or controller(search.fork("eval") if self.evaluate == "sample" else None)

    @override
    def strength(self, search: Search) -> dict[str, Tensor]:
        """[E, O] per kind: how often the winner chooses each op, or the greedy child before there is a winner."""
        return {kind: mix.op for kind, mix in _controller(search).found().items()}

    @override
    def step(self, search: Search, batches: Mapping[str, Batch]) -> dict[str, Loss]:
        """Trains a new child's weights on `train` and the controller on `valid`; in the last stage, scores one child."""
        losses = {}
        if "train" in batches:
            losses["train"] = engine.weight_step(search, search.relax("weights", batches["train"]), batches["train"])
        if "valid" in batches:
            names = [name for name in batches if name.partition(".")[0] == "valid"]
            losses["valid"] = self._controller_step(search, [batches[name] for name in names])
        if "score" in batches:
            self._select(search)
        return losses

    def _controller_step(self, search: Search, batches: list[Batch]) -> Loss:
        """Takes one step of REINFORCE on `aggregate` children, each on the next batch; returns mean loss and accuracy."""
        baseline, terms, scores = _controller(search).baseline, [], []
        for k in range(self.aggregate):
            batch = batches[k % len(batches)]
            child = search.relax("arch", batch)
            assert isinstance(child, Child)
            scores.append(engine.score(search, child, [batch]))
            reward = scores[-1].reward + self.entropy_weight * child.entropy.detach()
            baseline.copy_(self.baseline_decay * baseline + (1.0 - self.baseline_decay) * reward)
            terms.append(-(reward - baseline) * child.log_prob)  # the baseline knows the reward already, as published
        engine.arch_loss_step(search, torch.stack(terms).mean())
        loss, accuracy = (torch.stack(of).mean() for of in zip(*((s.loss, s.accuracy) for s in scores), strict=True))
        count = sum(batch.whole_count for batch in batches)
        return Loss(loss, accuracy * count, count)

    def _select(self, search: Search) -> None:
        """Scores one more child, on the next batch of the architecture's half, or on the first batch like all others."""
        batches, controller = score_batches(search), _controller(search)
        batch = batches[search.clock.step % len(batches) if self.batches == "own" else 0]
        (child,) = controller.write(1, search.shared)
        controller.winner.insert(child, engine.score(search, child, [batch]).reward)

    @override
    def samples(self, search: Search, count: int, generator: torch.Generator) -> list[Genotype]:
        """Samples children of the controller."""
        children = _controller(search).write(count, generator)
        return [genotype_of(child, search.space.name, search.space.cells) for child in children]

    @override
    def derive(self, search: Search) -> Genotype:
        """Derives the winner of the selection, or the greedy child before there is one."""
        return genotype_of(_controller(search).found(), search.space.name, search.space.cells)


def _controller(search: Search) -> Controller:
    assert isinstance(search.arch, Controller)
    return search.arch


# -- ENAS's controller: an LSTM that writes a cell down choice by choice.

BIAS, LEAN = 10.0, 0.25  # favoured ops: their bias in the beginning, and the lead they keep for good (others fall back)


class Child(Mixture):
    """A cell that the controller wrote: its choices, `picks`, with their log-probability [] and entropy []."""

    def __init__(self, mixes: Mapping[str, Mix], log_prob: Tensor, entropy: Tensor, picks: Sequence[int]) -> None:
        super().__init__(mixes)
        self.log_prob, self.entropy, self.picks = log_prob, entropy, picks


class Controller(nn.Module):
    """Writes the cells of all kinds, one after another; H = `units`.

    For every node it chooses `in_degree` inputs, by attention over what it remembers of earlier states, then an op for
    each, among those that may be derived; the same input may be chosen twice.  Where nodes keep all edges it chooses ops
    only.  Logits are `tanh` tanh(logits / `temperature`), those of ops `tanh` / `op_reduce` instead.  `favoured` ops begin
    with a higher bias, and keep a lead in the kinds of cell `leads` (None: in all).  `baseline` is the mean reward and
    `winner` the best cell of the final selection.
    """

    baseline: Tensor
    lean: Tensor

    def __init__(
        self,
        cells: Mapping[str, Cell],
        generator: torch.Generator,
        units: int = 64,
        layers: int = 2,
        temperature: float = 1.0,
        tanh: float = 1.1,
        op_reduce: float = 2.5,
        favoured: Sequence[str] = (),
        leads: Collection[str] | None = None,
    ) -> None:
        super().__init__()
        self.leads = cells.keys() if leads is None else leads
        self.cells, self.temperature, self.tanh, self.op_reduce = dict(cells), temperature, tanh, op_reduce
        self.ops = tuple(dict.fromkeys(op for cell in cells.values() for op in cell.ops))
        self.lstm = nn.ModuleList(nn.LSTMCell(units, units, bias=False) for _ in range(layers))
        self.start = nn.Parameter(torch.empty(1, units))
        self.op_inputs = nn.Parameter(torch.empty(len(self.ops), units))
        self.op_head = nn.Linear(units, len(self.ops), bias=False)
        self.key, self.query = nn.Linear(units, units, bias=False), nn.Linear(units, units, bias=False)
        self.attention = nn.Linear(units, 1, bias=False)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1, generator)
        liked = torch.tensor([op in favoured for op in self.ops])
        self.op_bias = nn.Parameter(BIAS * liked.float())
        self.register_buffer("lean", torch.where(liked, LEAN, -LEAN * bool(liked.any())), persistent=False)
        self.register_buffer("baseline", torch.zeros(()))
        self.winner = TopK(cells)
        self.twin: tuple[Controller, list[int]] | None = None

    def forward(self, generator: torch.Generator | None) -> Child:
        """A child drawn by `generator`, or the greedy one: the likeliest choice every time."""
        if self.start.device.type == "cpu":
            return self.told(generator)
        return self.told(None, self.on_host().told(generator).picks)

    def told(self, generator: torch.Generator | None, picks: Sequence[int] | None = None) -> Child:
        """A child drawn by `generator`, or the greedy one; with `picks`, the one of these choices."""
        pen = _Pen(self, generator, picks)
        mixes = {kind: self._write(cell, pen, kind in self.leads) for kind, cell in self.cells.items()}
        return Child(mixes, pen.log_prob, pen.entropy, pen.made)

    @torch.no_grad()
    def on_host(self) -> Controller:
        """The same controller on the host, where every choice decides what follows; read when it has changed, all at once."""
        own = [*self.parameters(), self.lean]
        made = [tensor._version for tensor in own]
        twin, known = self.twin or (copy.deepcopy(self).to_empty(device="cpu"), [])
        if made != known:
            values = torch.cat([tensor.flatten() for tensor in own]).cpu()
            theirs = [*twin.parameters(), twin.lean]
            for tensor, value in zip(theirs, values.split([t.numel() for t in theirs]), strict=True):
                tensor.copy_(value.view_as(tensor))
        self.twin = (twin, made)
        return twin

    @torch.no_grad()
    def write(self, count: int, generator: torch.Generator) -> list[Child]:
        """`count` children drawn by `generator`, without a graph."""
        return [self(generator) for _ in range(count)]

    @torch.no_grad()
    def found(self) -> Mixture:
        """The winner, or the greedy child."""
        return self.winner.best() or self(None)

    def _write(self, cell: Cell, pen: _Pen, leads: bool) -> Mix:
        """The choices of one cell; `leads`: favoured ops are ahead in it."""
        eligible = [
            [a and op not in cell.excluded for a, op in zip(row, cell.ops, strict=True)] for row in cell.allowed
        ]
        columns = [self.ops.index(op) for op in cell.ops]
        places = constant(tuple(columns), torch.int64, self.start.device)
        anchors = [torch.zeros_like(self.start) for _ in range(cell.inputs)]  # what each state is remembered by
        keys = [self.key(pen.move(self.start)) for _ in anchors]
        counts = [[0.0] * len(cell.ops) for _ in cell.edges]
        for node in cell.nodes:
            x: Tensor = self.start
            chosen = edges = [e for e in cell.edges_into(node) if any(eligible[e])]
            if cell.in_degree is not None and edges:
                chosen, sources = [], [cell.edges[e][0] for e in edges]
                for _ in range(cell.in_degree):
                    match = torch.tanh(torch.cat([keys[s] for s in sources]) + self.query(pen.move(x)))
                    picked = pen.choose(self._squash(self.attention(match)[:, 0], self.tanh))
                    chosen.append(edges[picked])
                    x = anchors[sources[picked]]
            for e in chosen:
                logits = self._squash(self.op_head(pen.move(x))[0] + self.op_bias, self.tanh / self.op_reduce)
                o = pen.choose((logits + self.lean if leads else logits)[places], eligible[e])
                counts[e][o] += 1.0
                x = self.op_inputs[columns[o]][None]
            anchors.append(pen.move(x))
            keys.append(self.key(anchors[-1]))
        return on_device(discrete(torch.tensor(counts)), self.start)

    def _squash(self, logits: Tensor, bound: float) -> Tensor:
        return bound * torch.tanh(logits / self.temperature)


class _Pen:
    """The state of one pass of the controller: its memory, and the sums over its choices."""

    def __init__(
        self, controller: Controller, generator: torch.Generator | None, picks: Sequence[int] | None = None
    ) -> None:
        self.layers, self.generator, self.picks, self.made = controller.lstm, generator, picks, list[int]()
        blank = torch.zeros_like(controller.start)
        self.memory = [(blank, blank) for _ in controller.lstm]
        self.log_prob = self.entropy = controller.start.new_zeros(())

    def move(self, x: Tensor) -> Tensor:
        """Steps the LSTM on `x` [1, H] and returns the state of its last layer, [1, H]."""
        for k, layer in enumerate(self.layers):
            self.memory[k] = layer(x, self.memory[k])
            x = self.memory[k][0]
        return x

    def choose(self, logits: Tensor, open_to: Sequence[bool] | None = None) -> int:
        """Samples one of the [K] choices that are `open_to`; adds its log-probability and the entropy to the sums."""
        if open_to is not None:
            shut = constant(tuple(not is_open for is_open in open_to), torch.bool, logits.device)
            logits = logits.masked_fill(shut, -torch.inf)
        log_p = logits.log_softmax(-1)
        picked = self._picked(log_p.detach()) if self.picks is None else self.picks[len(self.made)]
        self.made.append(picked)
        self.log_prob = self.log_prob + log_p[picked]
        self.entropy = self.entropy - (log_p.exp() * log_p.masked_fill(log_p == -torch.inf, 0.0)).sum()
        return picked

    def _picked(self, log_p: Tensor) -> int:
        noise = 0.0 if self.generator is None else gumbel(log_p, self.generator)
        return int((log_p + noise).argmax())
