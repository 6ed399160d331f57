"""RSWS: uniform cells, weights alone, and rounds of selection that are told what to expect."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch

from diffnas.core.batch import Batch
from diffnas.core.cell import Cell
from diffnas.core.genotype import Genotype, Nodes
from diffnas.core.space import Size
from diffnas.engine import Search
from diffnas.engine.stage import Phase
from diffnas.methods.discrete import TopK, chances, discrete, genotype_of, mixture_of
from diffnas.methods.rsws import RSWS

Build = Callable[..., Search]
DENSE = Cell.dense(("none", "a", "b"), 2, 2, in_degree=2, excluded=("none",))


def test_cells_are_drawn_uniformly(toy: Build) -> None:
    for draw, ops in (("all", [1 / 3] * 3), ("derivable", [0.0, 0.5, 0.5])):  # `none` is the first
        search = toy(RSWS(draw=draw), DENSE)  # type: ignore[arg-type]
        total = torch.zeros(5, 3, dtype=torch.float64)
        for _ in range(900):
            mix = search.relax("weights")["cell"]
            assert torch.equal(mix.active, mix.op > 0) and torch.equal(mix.edge, mix.op.sum(-1))
            assert mix.op[:2].sum() == 2 == mix.op[2:].sum() and mix.op.max() == 1
            total += mix.op
        row = torch.tensor(ops, dtype=torch.float64)
        expected = torch.stack([row] * 2 + [row * 2 / 3] * 3)
        assert torch.allclose(total / 900, expected, atol=0.06)
        assert torch.allclose(search.strength()["cell"].double(), row.expand(5, 3))
    assert torch.equal(chances(DENSE), torch.tensor([[0.0, 0.5, 0.5]] * 5))


def test_of_text_none_is_left_out(toy: Build) -> None:
    search: Any = toy(RSWS(), DENSE)
    object.__setattr__(search.space, "modality", "text")
    assert not any(search.relax("weights")["cell"].op[:, 0].any() for _ in range(50))


def test_only_weights_learn(toy: Build, table: Batch) -> None:
    search = toy(RSWS())
    assert not list(search.arch.parameters())
    assert list(search.method.step(search, {"train": table, "valid": table})) == ["train"]
    assert search.supernet.weight < 1.0


def test_stages() -> None:
    search, selection = RSWS(rounds=3, candidates=20, finalists=4).stages(150, Size(16, 8))
    assert search.phases == (Phase(("train",)),) and (search.epochs, selection.epochs) == (150, 3)
    assert selection.phases == (Phase(("valid",), 24, 10),) and not selection.fresh and selection.restart
    assert RSWS(rounds=3, candidates=20, finalists=4, batches=0).stages(9, Size(16, 8))[1].phases[0].feeds == ("score",)
    assert [key for key, _ in RSWS(candidates=5).check_settings()] == ["finalists"] and RSWS().check_settings() == []


def rounds(search: Search, steps: range, count: int = 7) -> None:
    """The steps of selection, `count` to a round."""
    for step in steps:
        search.advance(step=step % count, stage_epoch=step // count)
        assert search.method.step(search, {"score": search.feeds["score"].epoch(0)[0]}) == {}


def test_candidates_are_scored_on_the_batches_they_are_given(toy: Build, table: Batch) -> None:
    """The first candidate on two batches, the second on the next two; finalists on all of the architecture half."""
    draw = torch.Generator().manual_seed(3)
    tables = [torch.rand(2, 3, generator=draw, dtype=torch.float64) for _ in range(6)]
    method = RSWS(rounds=1, candidates=2, finalists=2, batches=2)
    search, twin = toy(method, score=[table.inputs]), toy(method)
    drawn, scores = [twin.relax("weights")["cell"].op for _ in range(2)], []
    for step in range(2):
        search.advance(step=step)
        seen = [Batch(tables[2 * step + k], table.targets) for k in range(2)]
        search.method.step(search, {"valid": seen[0], "valid.1": seen[1]})
        scores.append(sum((drawn[step] * batch.inputs).sum().item() for batch in seen) / 2)
    assert search.arch.finalists.accuracy.tolist() == pytest.approx(sorted(scores, reverse=True), rel=1e-6)
    for step in (2, 3):
        search.advance(step=step)
        search.method.step(search, {"valid": table, "valid.1": table})
    best = max((op * table.inputs).sum().item() for op in drawn)
    assert search.arch.winner.accuracy.item() == pytest.approx(best, rel=1e-6)


def test_a_round_may_have_one_batch(toy: Build, table: Batch) -> None:
    """One round on the first batch, one on the second; finalists are measured on both."""
    batches = [table.inputs, torch.tensor([[0.6, 0.0, 0.0], [0.0, 0.3, 0.0]], dtype=torch.float64)]
    method = RSWS(rounds=2, candidates=5, finalists=2, batches=0)
    search, twin = toy(method, score=batches), toy(method, score=batches)
    best, winners = None, []
    for turn in range(2):
        drawn = [twin.relax("weights")["cell"].op for _ in range(5)]
        ranked = sorted(drawn, key=lambda op: -(op * batches[turn]).sum().item())[:2]
        rounds(search, range(7 * turn, 7 * turn + 5))
        for place, op in enumerate(ranked):
            assert torch.equal(search.arch.finalists.best(place)["cell"].op, op)
        rounds(search, range(7 * turn + 5, 7 * turn + 7))
        winners += [((op * sum(batches)).sum().item() / 2, op) for op in ranked]
        best = max(winners, key=lambda pair: pair[0])
        assert search.arch.winner.accuracy.item() == pytest.approx(best[0], rel=1e-5)  # sums are float32
        assert torch.equal(search.relax("eval")["cell"].op, best[1])
    assert best is not None and search.derive() == genotype_of({"cell": discrete(best[1])}, "toy", search.space.cells)


def test_selection_resumes_between_candidates(toy: Build, table: Batch) -> None:
    method = RSWS(rounds=2, candidates=5, finalists=2)
    whole, first, second = (toy(method, score=[table.inputs], seed=seed) for seed in (0, 0, 5))
    rounds(whole, range(14))
    rounds(first, range(9))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    second.seed = 0
    rounds(second, range(9, 14))
    ours, theirs = second.arch.state_dict(), whole.arch.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_what_is_derived_before_there_is_a_winner(toy: Build, table: Batch) -> None:
    search = toy(RSWS(candidates=5, finalists=1), DENSE)
    state = search.shared.get_state()
    assert search.derive() == search.derive() and torch.equal(search.shared.get_state(), state)
    assert len({str(g.cells) for g in search.method.samples(search, 20, torch.Generator().manual_seed(0))}) > 10


def test_podium_keeps_the_best_in_order(toy: Build) -> None:
    cells = {"cell": DENSE}
    podium, made = TopK(cells, 2), RSWS().arch(toy(RSWS(), DENSE).space, torch.Generator())
    assert podium.best() is None and made.best() is None  # type: ignore[operator, union-attr]
    shares = [torch.full((5, 3), float(k)) for k in range(4)]
    for k, accuracy in enumerate((0.5, 0.7, 0.7, 0.1)):
        podium.insert({"cell": discrete(shares[k])}, torch.tensor(accuracy))
    assert podium.accuracy.tolist() == pytest.approx([0.7, 0.7])
    assert [float(podium.best(place)["cell"].op[0, 0]) for place in range(2)] == [1.0, 2.0]  # type: ignore[index]
    podium.clear()
    assert podium.best() is None


def test_genotypes_as_mixtures_and_back() -> None:
    nodes = ((("a", 0), ("a", 0)), (("b", 0), ("a", 2), ("b", 2)))
    genotype = Genotype("toy", {"cell": Nodes(nodes, (2, 3))})
    mixture: Any = mixture_of(genotype, {"cell": DENSE}, torch.zeros((), dtype=torch.float64))
    assert mixture["cell"].op.tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 1, 1]]
    assert mixture["cell"].edge.tolist() == [1, 0, 1, 0, 1] and mixture["cell"].op.dtype == torch.float64
    assert genotype_of(mixture, "toy", {"cell": DENSE}) == genotype
