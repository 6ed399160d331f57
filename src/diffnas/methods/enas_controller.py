"""ENAS's controller: an LSTM that writes a cell down choice by choice."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from diffnas.core.cell import Cell
from diffnas.core.constants import to_device
from diffnas.core.mixture import Mix, Mixture
from diffnas.methods.sampling import gumbel
from diffnas.methods.selection import TopK, discrete

BIAS, LEAN = 10.0, 0.25  # favoured ops: their bias in the beginning, and the lead they keep for good (others fall back)


class Child(Mixture):
    """A cell that the controller wrote, with the log-probability [] and the entropy [] of its choices."""

    def __init__(self, mixes: Mapping[str, Mix], log_prob: Tensor, entropy: Tensor) -> None:
        super().__init__(mixes)
        self.log_prob, self.entropy = log_prob, entropy


class Reinforce(Mixture):
    """No cell, but what the controller's step descends, `loss` []: it passes through `penalty_step` to the penalty."""

    def __init__(self, loss: Tensor) -> None:
        super().__init__({})
        self.loss = loss


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

    def forward(self, generator: torch.Generator | None) -> Child:
        """A child drawn by `generator`, or the greedy one: the likeliest choice every time."""
        pen = _Pen(self, generator)
        mixes = {kind: self._write(cell, pen, kind in self.leads) for kind, cell in self.cells.items()}
        return Child(mixes, pen.log_prob, pen.entropy)

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
                o = pen.choose((logits + self.lean if leads else logits)[columns], eligible[e])
                counts[e][o] += 1.0
                x = self.op_inputs[columns[o]][None]
            anchors.append(pen.move(x))
            keys.append(self.key(anchors[-1]))
        return discrete(to_device(torch.tensor(counts), self.start.device, self.start.dtype))

    def _squash(self, logits: Tensor, bound: float) -> Tensor:
        return bound * torch.tanh(logits / self.temperature)


class _Pen:
    """One pass of the controller: its memory, and the sums over its choices."""

    def __init__(self, controller: Controller, generator: torch.Generator | None) -> None:
        self.layers, self.generator = controller.lstm, generator
        blank = torch.zeros_like(controller.start)
        self.memory = [(blank, blank) for _ in controller.lstm]
        self.log_prob = self.entropy = controller.start.new_zeros(())

    def move(self, x: Tensor) -> Tensor:
        """One step of the LSTM on `x` [1, H]: the state of its last layer, [1, H]."""
        for k, layer in enumerate(self.layers):
            self.memory[k] = layer(x, self.memory[k])
            x = self.memory[k][0]
        return x

    def choose(self, logits: Tensor, open_to: Sequence[bool] | None = None) -> int:
        """One of the [K] that is `open_to` choice; its log-probability and the entropy are added up."""
        if open_to is not None:
            shut = torch.tensor([not is_open for is_open in open_to], device=logits.device)
            logits = logits.masked_fill(shut, -torch.inf)
        log_p = logits.log_softmax(-1)
        noise = 0.0 if self.generator is None else gumbel(log_p, self.generator)
        picked = int((log_p.detach() + noise).argmax())
        self.log_prob = self.log_prob + log_p[picked]
        self.entropy = self.entropy - (log_p.exp() * log_p.masked_fill(log_p == -torch.inf, 0.0)).sum()
        return picked
