"""What the parts of an outflow are built from: chunks, running statistics, shared images, sums and slopes of edges."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from diffnas.kernels.pointwise import Affine, rows
from diffnas.spaces.darts_cnn.fused.buffers import Chunk, EdgeGradients, EdgeOp, EdgeSums, State, Terms, chunked
from diffnas.spaces.darts_cnn.ops import OPS
from diffnas.spaces.statistics import RunningStatsUpdates


def terms_at(*places: tuple[int, int]) -> Terms:
    """Terms that stand at (column, edge)."""
    return tuple(EdgeOp.of(column, edge, nn.Identity()) for column, edge in places)


def image(*size: int) -> Tensor:
    return torch.randn(*size, dtype=torch.float64).to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (1, [(0, 1, 0), (1, 2, 1), (2, 3, 2), (3, 4, 2), (4, 5, 4), (5, 6, 5)]),
        (2, [(0, 2, 0), (2, 3, 2), (3, 4, 2), (4, 6, 4)]),
        (9, [(0, 3, 0), (3, 4, 2), (4, 6, 4)]),
    ],
)
def test_neighbouring_edges_of_one_op_share_a_chunk(width: int, expected: list[tuple[int, int, int]]) -> None:
    """A gap between edges or another column begins a new one."""
    chunks = chunked(terms_at((4, 0), (4, 1), (4, 2), (5, 2), (5, 4), (5, 5)), width)
    assert [tuple(chunk) for chunk in chunks] == expected
    assert sum(chunk.width for chunk in chunks) == 6 and chunked((), width) == ()


def test_a_term_lists_its_layers_in_order() -> None:
    op = OPS["sep_conv_3x3"](4, 1, False, "plain")
    term = EdgeOp.of(4, 1, op)
    assert [tuple(w.shape) for w in term.weights] == [(4, 1, 3, 3), (4, 4, 1, 1)] * 2
    assert term.norms == (op[3], op[7]) and (term.column, term.edge) == (4, 1)


def test_running_statistics_move_as_those_of_batch_norm(close) -> None:
    """Many layers at once, from a state that is not fresh; a layer that does not track keeps its own."""
    layers = [nn.BatchNorm2d(3, affine=False).double() for _ in range(3)]
    for layer in layers:
        layer(5.0 * image(4, 3, 2, 2) + 1.0)
    layers[2].track_running_stats = False
    before, expected = copy.deepcopy(layers[2].state_dict()), copy.deepcopy(layers)
    moves, images = RunningStatsUpdates(), [image(2, 3, 2, 3) for _ in layers]
    for layer, reference, x in zip(layers, expected, images, strict=True):
        moves.add([layer], rows(x).mean(0)[None], rows(x).var(0, correction=0)[None], len(rows(x)))
        reference(x)
    moves.take()
    for layer, reference in zip(layers[:2], expected, strict=False):
        close(layer.running_mean, reference.running_mean)
        close(layer.running_var, reference.running_var)
        assert layer.num_batches_tracked == reference.num_batches_tracked == 2
    assert all(torch.equal(before[name], t) for name, t in layers[2].state_dict().items())
    RunningStatsUpdates().take()  # nothing to do


def test_the_relu_of_a_state_is_repeated_and_its_gradients_gathered(close) -> None:
    x = image(2, 3, 4, 4)
    state = State(x)
    assert torch.equal(state.wide(2).x, torch.cat([x.relu()] * 2, 1)) and state.wide(2) is state.wide(2)
    assert torch.equal(state.wide(1).x, x.relu())
    narrow, wide, more = image(2, 3, 4, 4), image(2, 6, 4, 4), image(2, 6, 4, 4)
    expected = narrow + (wide + more).unflatten(1, (2, 3)).sum(1)
    close(state.gathered([narrow.clone(), None, wide.clone(), more.clone()]), expected)
    assert state.gathered([None, None]) is None


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("shifted", [True, False])
def test_sums_of_edges(apart: bool, shifted: bool, close) -> None:
    """Whichever op comes first begins an edge; an edge on which nothing flows is 0."""
    terms = terms_at((4, 0), (4, 1), (5, 1))
    chunks = chunked(terms, 1 if apart else 2)
    d, f, s = torch.randn(24, 9, dtype=torch.float64), torch.randn(24, 3, dtype=torch.float64), torch.rand(3).double()
    A, b = torch.randn(3, 3, 3, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    affine = Affine(A, b if shifted else None, b, b, b)
    sums = EdgeSums(torch.empty(2, 3, 3, 4, dtype=torch.float64), 24, 4, apart)
    sums.add_scaled(1, f, torch.tensor(0.5).double())
    sums.add_scaled(3, f, torch.arange(3).double())
    sums.add(terms, chunks, [d[:, 3 * c.first : 3 * c.last] for c in chunks], affine, s)
    flows = [s[i] * (d[:, 3 * i : 3 * i + 3] @ A[i].T + (b[i] if shifted else 0.0)) for i in range(3)]
    expected = [flows[0], 0.5 * f + flows[1] + flows[2], torch.zeros_like(f), f * torch.arange(3)]
    for mine, theirs in zip(sums.finished(), expected, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-12, atol=1e-12)


def test_slopes_of_edges_side_by_side_and_in_total() -> None:
    each = [torch.randn(5, 2) for _ in range(3)]
    slopes = EdgeGradients(each)
    assert slopes.of(Chunk(0, 1, 2)) is each[2]
    assert torch.equal(slopes.of(Chunk(0, 2, 1)), torch.cat(each[1:], 1))
    assert torch.equal(
        slopes.totals(terms_at((0, 1), (1, 1), (0, 2))), torch.stack([each[i].sum(0) for i in (1, 1, 2)])
    )
    half = EdgeGradients([torch.ones(3000, 1).bfloat16()]).totals(terms_at((0, 0)))
    assert half.dtype == torch.float32 and half.item() == 3000.0
