"""The fused recurrence: the plain cell's values, gradients and statistics without a graph of its thousands of small steps.

What waits for no hidden state is done before the loop over time (the words' part of the start) or after it (gradients of
weights, one product for all moments; running statistics, one weighted sum).  Within it, a node is one matrix product with all
k states that it reads, and each activation f is taken of all of them at once.  With [c, g] = s W and the shares p,

    d_j = sum_o p_jo f_o(g_j) - P_j s_j        node = sum_j P_j s_j + sigmoid(c_j) d_j        P_j = sum_o p_jo

so the backward pass needs sigmoid(c), d, the mixed derivative sum_o p_o f_o'(g) and, for the shares' gradient, all f_o(g).  It
writes over what it reads: once differentiable, and once only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.amp import is_autocast_available

from diffnas.core.cell import Cell
from diffnas.core.constants import constant
from diffnas.core.mixture import Mix
from diffnas.kernels.memory import keep_freed_memory
from diffnas.spaces.darts_rnn.layout import Dropouts
from diffnas.spaces.darts_rnn.ops import ACTIVATIONS, masked
from diffnas.spaces.darts_rnn.supernet import Live, MixedCell, Supernet

# f'(g) from f = f(g), in one pass
DERIVATIVES: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": lambda f: torch.addcmul(f.new_ones(()), f, f, value=-1),
    "relu": torch.sign,
    "sigmoid": lambda f: torch.addcmul(f, f, f, value=-1),
    "identity": torch.ones_like,
}


@dataclass(frozen=True)
class NodeReads:
    """What a node reads: `sources`, k states, by `edges`, their rows in the shares, through activations in columns `ops`."""

    sources: tuple[int, ...]
    edges: tuple[int, ...]
    ops: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Plan:
    """A cell as the recurrence reads it: its nodes, and the states whose mean it puts out."""

    nodes: tuple[NodeReads, ...]
    concat: tuple[int, ...]


@dataclass(frozen=True)
class Norm:
    """A normalisation without affine parameters, by given statistics [H] or by the batch's (None)."""

    eps: float
    mean: Tensor | None = None
    var: Tensor | None = None


def recur(
    plan: Plan,
    x: Tensor,
    hidden: Tensor,
    mask: Tensor | None,
    start: Tensor,
    weights: Sequence[Tensor],
    shares_EO: Tensor | None = None,
    norm: Norm | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Runs a cell through time: the hidden states [T, N, H], and means and variances [T, S, H] of its states over the batch.

    `x` [T, N, H] are its inputs, `hidden` [N, H] is its state before, `mask` [N, H] multiplies what nodes read of states.
    `start` [2 H, 2 H] and `weights` [H, 2 H] are those of `CellWeights`.  Without `shares_EO`, a node's one flow counts whole.
    """
    kind = x.device.type
    with torch.autocast(kind, enabled=False) if is_autocast_available(kind) else nullcontext():  # not on meta tensors
        own, before = start.split(hidden.shape[1])
        words = (x.flatten(0, 1) @ own).unflatten(0, x.shape[:2])
        outputs: tuple[Tensor, Tensor, Tensor] = _Recurrence.apply(
            plan, norm, mask, torch.is_grad_enabled(), words, hidden, before, shares_EO, *weights
        )
    return outputs


class _Flows:
    """One node at all moments: k states in, their mixed flows out, and what the way back needs of them."""

    def __init__(self, reads: NodeReads, shares_EO: Tensor | None, moments: int, keep: bool, like: Tensor) -> None:
        k, (batch, units) = len(reads.sources), like.shape
        self.reads, self.keep = reads, keep
        self.pick = _pick(reads.sources, like.device)
        self.shares: list[Tensor] = []
        if shares_EO is not None:
            rows = shares_EO.detach().index_select(0, constant(reads.edges, torch.int64, like.device))
            self.shares = [rows[:, o, None, None] for _, o in reads.ops]
        self.total = torch.stack(self.shares).sum(0) if self.shares else None
        self.gates = like.new_empty(moments, k, batch, 2 * units)
        self.rest = like.new_empty(moments, k, batch, units)
        self.values: list[list[Tensor]] | None = (
            [] if keep and shares_EO is not None and shares_EO.requires_grad else None
        )
        self.share_grads = [like.new_zeros(k) for _ in reads.ops]

    def mix(self, values: Sequence[Tensor]) -> Tensor:
        """sum_o p_o v_o."""
        if not self.shares:
            return values[0]
        total = values[0] * self.shares[0]
        for value, share in zip(values[1:], self.shares[1:], strict=True):
            total.addcmul_(value, share)
        return total

    def forward(self, t: int, source: Tensor, read: Tensor, weight: Tensor, words: Tensor | None = None) -> Tensor:
        """The node [N, H] from its states [k, N, H], those as its product reads them, and what to add to the product."""
        gates, flat = self.gates[t], self.gates[t].flatten(0, 1)
        if words is None:
            torch.mm(read.flatten(0, 1), weight, out=flat)
        else:
            torch.addmm(words, read.flatten(0, 1), weight, out=flat)
        if not self.reads.sources:
            return gates.new_zeros(gates.shape[1], gates.shape[2] // 2)
        c, g = gates.chunk(2, dim=-1)
        c.sigmoid_()
        values = [ACTIVATIONS[op](g) for op, _ in self.reads.ops]
        level = source if self.total is None else self.total * source
        rest = torch.sub(self.mix(values), level, out=self.rest[t])
        if self.values is not None:
            self.values.append([value.clone() if value is g else value for value in values])  # g is written over
        if self.keep:
            g.copy_(self.mix([DERIVATIVES[op](f) for (op, _), f in zip(self.reads.ops, values, strict=True)]))
        return torch.addcmul(level, c, rest).sum(0)

    def back(self, t: int, grad: Tensor, source: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """[k, N, H] twice: from the node's gradient [N, H] those of its states, directly and through its product."""
        gates = self.gates[t]
        c, g = gates.chunk(2, dim=-1)
        flow = c * grad
        stay = grad - flow
        if self.values is not None and self.reads.sources:
            common = _dots(stay, source)
            for total, value in zip(self.share_grads, self.values[t], strict=True):
                total += common + _dots(flow, value)
        g.mul_(flow)
        c.mul_(stay).mul_(self.rest[t])
        product = (gates.flatten(0, 1) @ weight.t()).view_as(stay)
        return (stay if self.total is None else stay.mul_(self.total)), product

    def weight_grad(self, read: Tensor) -> Tensor:
        """The weight's gradient [H, 2 H], from what its product read at all moments, [T, k, N, H]; after the way back."""
        return read.flatten(0, 2).t() @ self.gates.flatten(0, 2)


class _Scaling:
    """The normalisation of S states at all moments (none: they pass)."""

    def __init__(self, norm: Norm | None, moments: int, states: int, like: Tensor) -> None:
        self.norm = norm
        sizes = (moments, states, like.shape[1]) if norm is not None and norm.mean is None else (0,)
        self.mean, self.var, self.scale = (like.new_empty(sizes) for _ in range(3))
        self.given = None if norm is None or norm.var is None else (norm.var + norm.eps).rsqrt()

    def forward(self, t: int, i: int, x: Tensor) -> Tensor:
        """The normalised [N, H]."""
        if self.norm is None:
            return x
        if self.given is not None and self.norm.mean is not None:
            return (x - self.norm.mean) * self.given
        centred = x - torch.mean(x, 0, out=self.mean[t, i])
        torch.mean(centred.square(), 0, out=self.var[t, i])
        return centred.mul_(torch.add(self.var[t, i], self.norm.eps, out=self.scale[t, i]).rsqrt_())

    def back(self, t: int, i: int, grad: Tensor, found: Tensor) -> Tensor:
        """Returns the gradient before normalising from that after it and the normalised values."""
        if self.norm is None:
            return grad
        if self.given is not None:
            return grad * self.given
        centred = grad - grad.mean(0)
        return centred.addcmul_(found, (grad * found).mean(0), value=-1).mul_(self.scale[t, i])


class _Recurrence(torch.autograd.Function):
    """`recur`, given the words' part of the start."""

    @staticmethod
    def forward(
        ctx: Any,
        plan: Plan,
        norm: Norm | None,
        mask: Tensor | None,
        graph: bool,
        words: Tensor,
        hidden: Tensor,
        start: Tensor,
        shares_EO: Tensor | None,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The hidden states, means and variances."""
        keep = graph and any(ctx.needs_input_grad)
        (moments, batch, _), units, count = words.shape, hidden.shape[1], 1 + len(plan.nodes)
        kept = moments if keep else 1
        first = _Flows(NodeReads((0,), (), (("tanh", 0),)), None, kept, keep, hidden)
        nodes = [_Flows(reads, shares_EO, kept, keep, hidden) for reads in plan.nodes]
        scaling = _Scaling(norm, moments, count, hidden)
        states_TS = hidden.new_empty(kept, count, batch, units)
        reads_TS = states_TS if mask is None else torch.empty_like(states_TS)
        outputs, part = hidden.new_empty(moments, batch, units), _mean_of(plan.concat, count, hidden)
        for moment in range(moments):
            t = moment if keep else 0
            states, reads = states_TS[t], reads_TS[t]
            before = (hidden if moment == 0 else outputs[moment - 1])[None]
            for i in range(count):
                if i == 0:
                    value = first.forward(t, before, masked(before, mask), start, words[moment])
                else:
                    node = nodes[i - 1]
                    value = node.forward(t, _take(states, node.pick), _take(reads, node.pick), weights[i - 1])
                states[i] = scaling.forward(moment, i, value)
                if mask is not None:
                    torch.mul(states[i], mask, out=reads[i])
            torch.mv(states.view(count, -1).t(), part, out=outputs[moment].view(-1))
        ctx.mark_non_differentiable(scaling.mean, scaling.var)
        if keep:
            ctx.save_for_backward(hidden, start, outputs, mask, *weights)
            ctx.walk, ctx.part, ctx.shape = (first, nodes, scaling, states_TS, reads_TS), part, shares_EO
        return outputs, scaling.mean, scaling.var

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grads: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients, in the order of what `forward` takes."""
        hidden, start, outputs, mask, *weights = ctx.saved_tensors
        if ctx.walk is None:
            raise RuntimeError("a fast recurrence goes back once; take the plain supernet to differentiate again")
        (first, nodes, scaling, states_TS, reads_TS), ctx.walk = ctx.walk, None
        carried = torch.zeros_like(hidden)
        for t in reversed(range(len(outputs))):
            pull = ctx.part[:, None, None] * (grads[t] + carried)
            for i in reversed(range(len(pull))):
                grad = scaling.back(t, i, pull[i], states_TS[t, i])
                if i == 0:
                    before = (outputs[t - 1] if t else hidden)[None]
                    direct, product = first.back(t, grad, before, start)
                    carried = (direct + masked(product, mask))[0]
                else:
                    node = nodes[i - 1]
                    direct, product = node.back(t, grad, _take(states_TS[t], node.pick), weights[i - 1])
                    _put(pull, node.pick, direct.add_(masked(product, mask)))
        wanted = ctx.needs_input_grad
        before = torch.cat([hidden[None], outputs[:-1]])[:, None]
        return (
            *(None,) * 4,
            first.gates[:, 0] if wanted[4] else None,
            carried if wanted[5] else None,
            first.weight_grad(masked(before, mask)) if wanted[6] else None,
            _share_grads(nodes, ctx.shape) if wanted[7] else None,
            *(
                node.weight_grad(_take(reads_TS, node.pick, dim=1)) if want else None
                for node, want in zip(nodes, wanted[8:], strict=True)
            ),
        )


def _share_grads(nodes: Sequence[_Flows], shares_EO: Tensor) -> Tensor:
    """The shares' gradient [E, O]."""
    found = torch.zeros_like(shares_EO)
    for node in nodes:
        rows = constant(node.reads.edges, torch.int64, found.device)
        for (_, o), grad in zip(node.reads.ops, node.share_grads, strict=True):
            found[:, o].index_add_(0, rows, grad)
    return found


def _dots(a: Tensor, b: Tensor) -> Tensor:
    """The inner products of k pairs [k, N, H]: [k]."""
    dots: Tensor = torch.linalg.vecdot(
        a.flatten(1), b.flatten(1)
    )  # on a CPU fifteen times as fast as a product of matrices
    return dots


def _mean_of(concat: Sequence[int], states: int, like: Tensor) -> Tensor:
    """[S]: what each state counts in the mean of those in `concat`."""
    return constant(tuple(concat.count(i) / len(concat) for i in range(states)), like.dtype, like.device)


def _pick(sources: tuple[int, ...], device: torch.device) -> slice | Tensor:
    """How to take `sources`: as a view where they are neighbours."""
    if sources and sources == tuple(range(sources[0], sources[-1] + 1)):
        return slice(sources[0], sources[-1] + 1)
    return constant(sources, torch.int64, device)


def _take(x: Tensor, pick: slice | Tensor, dim: int = 0) -> Tensor:
    if isinstance(pick, slice):
        return x.narrow(dim, pick.start, pick.stop - pick.start)
    return x.index_select(dim, pick)


def _put(x: Tensor, pick: slice | Tensor, values: Tensor) -> None:
    """Adds `values` to what `pick` takes of `x`."""
    if isinstance(pick, slice):
        x[pick] += values
    else:
        x.index_add_(0, pick, values)


class FusedCell(MixedCell):
    """A `MixedCell` by the fused recurrence."""

    def __init__(self, cell: Cell, units: int) -> None:
        super().__init__(cell, units)
        closed = None if all(map(all, cell.allowed)) else ~torch.tensor(cell.allowed)
        self.register_buffer("closed", closed, persistent=False)
        self._whole = self._plan(None)

    # Its recurrence is a function with a way back of its own, which a tracer cannot follow.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, x: Tensor, hidden: Tensor, mask: Tensor | None, mix: Mix) -> Tensor:
        """Inputs [T, N, H], first hidden state [N, H], mask [N, H] of what is read of states -> hidden states [T, N, H]."""
        shares_EO = mix.shares() if mix.edge is None else mix.shares() * mix.edge[:, None]
        if self.closed is not None:
            shares_EO = shares_EO.masked_fill(self.get_buffer("closed"), 0.0)
        layer, own = self.norm, self.norm.training
        if own and len(hidden) < 2:
            raise ValueError(f"the normalisation of a search needs at least 2 sequences per batch; got {len(hidden)}")
        norm = Norm(layer.eps) if own else Norm(layer.eps, layer.running_mean, layer.running_var)
        plan = self._whole if mix.live is None else self._plan(mix.live)
        states, mean, var = recur(plan, x, hidden, mask, self.start, tuple(self.nodes), shares_EO, norm)
        if own and layer.track_running_stats:
            self._follow(mean.flatten(0, 1), var.flatten(0, 1) * (len(hidden) / (len(hidden) - 1)))
        return states

    def _plan(self, live: Live) -> Plan:
        nodes = []
        for node in self.cell.nodes:
            running = {e: found for e in self.cell.edges_into(node) if (found := self.running(e, live))}
            ops = {op: o for found in running.values() for op, o in found.items()}
            nodes.append(NodeReads(tuple(self.cell.edges[e][0] for e in running), tuple(running), tuple(ops.items())))
        return Plan(tuple(nodes), self.cell.concat)

    @torch.no_grad()
    def _follow(self, mean: Tensor, var: Tensor) -> None:
        """Moves the running statistics by all moments' [T S, H] at once, as if by each in turn."""
        count, momentum = len(mean), self.norm.momentum
        assert momentum is not None
        powers = torch.arange(count - 1, -1, -1, dtype=mean.dtype, device=mean.device)
        weights = momentum * (1.0 - momentum) ** powers
        for name, found in (("running_mean", mean), ("running_var", var)):
            self.norm.get_buffer(name).mul_((1.0 - momentum) ** count).add_(weights @ found)
        self.norm.get_buffer("num_batches_tracked").add_(count)


class FusedSupernet(Supernet):
    """The supernet of the fast cell."""

    cell_class = FusedCell

    def __init__(self, cell: Cell, vocabulary: int, units: int, dropouts: Dropouts) -> None:
        super().__init__(cell, vocabulary, units, dropouts)
        keep_freed_memory()
