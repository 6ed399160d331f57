"""RobustDARTS: where it stops on series of eigenvalues, and searches that stop or go back."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch

import diffnas
from diffnas import engine
from diffnas.core.batch import Batch
from diffnas.core.seeds import generator
from diffnas.engine import Search, largest_eigenvalue
from diffnas.engine.stage import Transition
from diffnas.errors import Interrupted
from diffnas.methods.robust_darts import RobustDARTS, grown
from diffnas.runtime.checkpoint import load_checkpoint

RISING = [0.2] * 8 + [0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]


def stop_by_hand(series: list[float], every: int = 2, first: int = 10) -> tuple[int, int] | None:
    """(epochs done, epoch of the result, counted from 1) by centred averages of five, written down index by index."""
    averages = {i: mean(series[i - 2 : i + 3]) for i in range(2, len(series) - 2)}
    for i in averages:
        if i - 4 in averages and every * (i - 4) >= first and averages[i] / averages[i - 4] > 1.3:
            return every * (i + 2) + 1, every * (i - 4) + 1
    return None


def build(make_search: Callable[..., Search], method: RobustDARTS) -> Search:
    search = make_search(method=method)
    search.arch = method.arch(search.space, generator(0, "arch"))
    search.feeds = {"score": _Feed()}
    return search


class _Feed:
    steps = 1

    def epoch(self, epoch: int) -> list[Batch]:
        draw = torch.Generator().manual_seed(4)
        return [Batch(torch.randn(4, 3, 8, 8, generator=draw), torch.randint(0, 10, (4,), generator=draw))]


def told(series: list[float], monkeypatch: Any) -> list[float]:
    """Makes the engine give these eigenvalues; the decays it was asked to add."""
    left, decays = list(series), []

    def given(search: Search, batch: Batch, decay: float) -> float:
        decays.append(decay)
        return left.pop(0)

    monkeypatch.setattr(engine, "largest_eigenvalue", given, raising=False)
    return decays


def turns(search: Search, epochs: int) -> tuple[int, Transition] | None:
    """The first turn that asks for something, and after how many epochs."""
    for done in range(epochs + 1):
        search.clock = replace(search.clock, epoch=done, stage_epoch=done, total=done)
        found = search.method.on_epoch_boundary(search, done)
        assert found == search.method.on_epoch_boundary(search, done)  # asked again
        if found != Transition():
            return done, found
    return None


@pytest.mark.parametrize("seed", range(6))
def test_it_stops_where_the_averages_say(make_search: Any, monkeypatch: Any, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    noise = 0.6 + 0.8 * torch.rand(25, generator=draw, dtype=torch.float64)
    series = [float(n) * (1.0 + 0.004 * seed * k * k) for k, n in enumerate(noise)]
    expected = stop_by_hand(series)
    told(series, monkeypatch)
    found = turns(build(make_search, RobustDARTS()), 50)
    assert (found and (found[0], found[1].genotype_epoch)) == expected
    assert (expected is None) == (seed == 0)  # the series are of both sorts


def test_a_series_worked_out() -> None:
    # averages: around index 8 mean(.2 .2 .25 .3 .4) = .27, around 4 .2: 1.35 > 1.3
    assert grown([*RISING[:11]], 5, 4) == pytest.approx(1.35)
    assert grown(RISING[:10], 5, 4) == pytest.approx(mean([0.2, 0.2, 0.2, 0.25, 0.3]) / 0.2)
    assert grown(RISING[:8], 5, 4) == 0.0 and grown([float("-inf")] * 9, 5, 4) == 0.0
    assert grown([-1.0] * 9, 5, 4) == 0.0 and grown([1.0, 2.0, 6.0], 1, 2) == 6.0


def test_no_genotype_of_before_epoch_ten(make_search: Any, monkeypatch: Any) -> None:
    for first, stop in ((0, (21, 9)), (8, (21, 9)), (9, (23, 11)), (10, (23, 11)), (12, (25, 13))):
        told(RISING, monkeypatch)
        done, turn = turns(build(make_search, RobustDARTS(first=first)), 28)
        assert (done, turn.genotype_epoch) == stop and turn.stop and stop_by_hand(RISING, first=first) == stop
    assert turn.reason == "the largest eigenvalue has grown to 1.95 times that around epoch 13"


def test_the_eigenvalue_is_that_of_the_first_batch_with_the_decay_of_alpha(make_search: Any) -> None:
    search = build(make_search, RobustDARTS(every=3))
    for done in range(5):
        search.clock = replace(search.clock, epoch=done, stage_epoch=done, total=done)
        state = search.shared.get_state()
        assert search.method.on_epoch_boundary(search, done) == Transition() and torch.equal(
            state, search.shared.get_state()
        )
    kept = search.arch.get_buffer("eigenvalues")
    assert kept.isinf().tolist() == [True] * 7 + [False] * 2 and kept.dtype == torch.float64  # after epochs 1 and 4
    assert kept[-1] == largest_eigenvalue(search, _Feed().epoch(0)[0], 1e-3)


def test_a_saved_series_goes_on(make_search: Any, monkeypatch: Any) -> None:
    decays = told(RISING, monkeypatch)
    first = build(make_search, RobustDARTS())
    assert turns(first, 12) is None and decays == [1e-3] * 6
    second = build(make_search, RobustDARTS())
    second.arch.load_state_dict(first.arch.state_dict())
    for done in range(13, 30):
        second.clock = replace(second.clock, epoch=done, stage_epoch=done, total=done)
        found = second.method.on_epoch_boundary(second, done)
        if found != Transition():
            break
    assert (done, found.genotype_epoch) == (23, 11)


def test_the_adaptive_form_goes_back_while_it_may(make_search: Any, monkeypatch: Any) -> None:
    for stops in (False, True):
        found = []
        for decay in (3e-4, 3e-3, 3e-2, 0.0):
            told(RISING, monkeypatch)
            search = build(make_search, RobustDARTS(adaptive=True, stop_at_largest=stops))
            search.weights_optimizer.param_groups[0]["weight_decay"] = decay
            found.append((turns(search, 28) or (28, Transition()))[1])
        assert [turn.rewind for turn in found] == [11, 11, None, None]
        assert [turn.stop for turn in found] == [False, False, stops, stops]  # published: the search goes on to its end
        assert found[0].decay_factor == 10.0 and found[2].genotype_epoch == (11 if stops else None)
    assert RobustDARTS().max_rewind == 0 and RobustDARTS(adaptive=True).max_rewind == 12
    assert RobustDARTS(RobustDARTS(adaptive=True, every=3)).max_rewind == 18


def test_what_the_method_within_asks_for_comes_first(make_search: Any, monkeypatch: Any) -> None:
    told([], monkeypatch)
    search = build(make_search, RobustDARTS())
    monkeypatch.setattr(type(search.method.base), "on_epoch_boundary", lambda *_: Transition(next_stage=True))
    search.clock = replace(search.clock, total=1)
    assert search.method.on_epoch_boundary(search, 1) == Transition(next_stage=True)
    assert "window" in dict(RobustDARTS(window=4).check_settings()) and RobustDARTS().check_settings() == []


# -- whole searches: an eigenvalue after every epoch, averages of one

TINY = ["space.channels=2", "space.layers=1", "space.nodes=1", "data.train_limit=128", "data.test_limit=100"]
QUICK = "name: robust-darts, every: 1, window: 1, delta: 2, first: 0, growth: 1.5"


def tiny(epochs: int, more: str = "") -> diffnas.Recipe:
    return diffnas.read_recipe("darts-digits-tiny", [*TINY, f"search.epochs={epochs}", f"method={{{QUICK}{more}}}"])


def by_epoch(values: dict[int, float], monkeypatch: Any) -> list[tuple[int, float]]:
    """Makes the eigenvalue one of the epochs done and the weights' decay; what was asked for."""
    asked = []

    def given(search: Search, batch: Batch, decay: float) -> float:
        weight_decay = search.weights_optimizer.param_groups[0]["weight_decay"]
        asked.append((search.clock.total, weight_decay))
        return values.get(search.clock.total, 1.0) if weight_decay < 1e-3 else 1.0

    monkeypatch.setattr(engine, "largest_eigenvalue", given, raising=False)
    return asked


def test_a_search_ends_with_the_genotype_of_before(tmp_path: Path, monkeypatch: Any, caplog: Any) -> None:
    caplog.set_level("INFO", logger="diffnas")
    by_epoch({4: 2.0}, monkeypatch)
    run = diffnas.search(tiny(9), tmp_path / "run")
    assert len(run.search.metrics()) == 4 and diffnas.load_genotype(run).provenance["epoch"] == 2
    assert run.search.genotype.read_text() == (run.search.path / "genotypes" / "epoch-002.json").read_text()
    assert any("stopped after epoch 4: the largest eigenvalue has grown to 2.00 times" in m for m in caplog.messages)
    assert not (run.search.path / "history").exists()
    again = diffnas.search(None, run.path, resume=True)
    assert diffnas.load_genotype(again).provenance["epoch"] == 2 and len(again.search.metrics()) == 4


def test_a_search_goes_back_and_on_with_more_decay(tmp_path: Path, monkeypatch: Any, caplog: Any) -> None:
    caplog.set_level("INFO", logger="diffnas")
    asked = by_epoch({5: 2.0}, monkeypatch)
    run = diffnas.search(tiny(6, ", adaptive: true"), tmp_path / "run")
    assert [epoch for epoch, _ in asked] == [1, 2, 3, 4, 5, 3, 4, 5, 6]
    assert [decay for _, decay in asked] == pytest.approx([3e-4] * 5 + [3e-3] * 4)
    assert any("back to epoch 3 with 10 times the weight decay" in m for m in caplog.messages)
    rows = run.search.metrics()
    assert [row["epoch"] for row in rows] == list(range(6))
    plain = diffnas.search(diffnas.read_recipe("darts-digits-tiny", [*TINY, "search.epochs=6"]), tmp_path / "plain")
    losses = [[row["train_loss"] for row in r.search.metrics()] for r in (run, plain)]
    assert losses[0][:3] == losses[1][:3] and losses[0][4] != losses[1][4]
    history = sorted(path.name for path in (run.search.path / "history").iterdir())
    assert history == ["epoch-0004.pt", "epoch-0005.pt", "epoch-0006.pt"]  # two back, and now


@pytest.mark.parametrize("at", [5, 11, 13])
def test_a_stopped_one_goes_on_bit_for_bit(at: int, tmp_path: Path, monkeypatch: Any) -> None:
    """Stopped before it goes back, as it does, and after (two steps an epoch)."""
    by_epoch({5: 2.0}, monkeypatch)
    recipe = tiny(6, ", adaptive: true")
    whole = diffnas.search(recipe, tmp_path / "whole")
    calls, inner = 0, RobustDARTS.step

    def stopping(self: RobustDARTS, search: Search, batches: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return inner(self, search, batches)

    monkeypatch.setattr(RobustDARTS, "step", stopping)
    with pytest.raises(Interrupted):
        diffnas.search(recipe, tmp_path / "part")
    part = diffnas.search(None, tmp_path / "part", resume=True)
    states = [load_checkpoint(run.search.checkpoints)["state"] for run in (whole, part)]
    assert states[0]["decay"] == states[1]["decay"] == 10.0
    for name in ("weights", "arch"):
        mine, other = (state["search"][name] for state in states)
        assert all(torch.equal(mine[key], other[key]) for key in mine)
    assert whole.search.genotype.read_text() == part.search.genotype.read_text()
    rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in r.search.metrics()] for r in (whole, part)]
    assert rows[0] == rows[1]
