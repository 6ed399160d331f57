"""A search from recipe to genotype: what it leaves, that it can be killed, and what stages do."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

import diffnas
from diffnas.core.space import Size
from diffnas.engine import Search
from diffnas.engine.method import Method
from diffnas.engine.stage import Phase, Stage, Transition
from diffnas.errors import CheckpointError, Diverged, Interrupted, RecipeError, RunError
from diffnas.methods.darts import DARTS
from diffnas.methods.darts_pt import DARTSPT
from diffnas.recipe.recipe import Recipe
from diffnas.runtime.checkpoint import load_checkpoint, save_checkpoint
from diffnas.runtime.lock import only_one

TINY = ["space.channels=2", "space.layers=1", "space.nodes=1", "data.train_limit=128", "data.test_limit=100"]


def tiny(*overrides: str) -> Recipe:
    return diffnas.read_recipe("darts-digits-tiny", [*TINY, *overrides])


def outcome(run: diffnas.Run) -> tuple[Any, ...]:
    """All that must be identical: tensors, rows without timings, genotypes."""
    state = load_checkpoint(run.search.checkpoints)
    assert state is not None
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in run.search.metrics()]
    genotypes = [path.read_text() for path in sorted((run.search.path / "genotypes").iterdir())]
    return flat(state["state"]["search"]), rows, genotypes, run.search.genotype.read_text()


def flat(value: Any) -> Any:
    """Nested state with tensors as bytes, so that equality is identity of bits."""
    if isinstance(value, torch.Tensor):
        return value.contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return {key: flat(item) for key, item in value.items()}
    return value


class Stopper(DARTS):
    """DARTS that sends a signal to its own process in the middle of an epoch."""

    at: ClassVar[int] = -1
    number: ClassVar[signal.Signals] = signal.SIGTERM
    seen: ClassVar[int] = 0

    def step(self, search: Search, batches: Any) -> Any:
        Stopper.seen += 1
        if Stopper.seen == Stopper.at:
            os.kill(os.getpid(), Stopper.number)
        return super().step(search, batches)


def test_what_a_search_leaves(tmp_path: Path) -> None:
    run = diffnas.search(tiny(), tmp_path / "run")
    names = {str(path.relative_to(run.path)) for path in run.path.rglob("*") if path.is_file()}
    wanted = {"recipe.yaml", "environment.json", "metrics.jsonl", "genotype.json", "cells.svg", "cells.png"}
    wanted |= {"genotypes/epoch-001.json", "genotypes/epoch-002.json"}
    assert {f"search/{name}" for name in wanted} <= names
    rows = run.search.metrics()
    assert [row["epoch"] for row in rows] == [0, 1] and rows[1]["lr"] == pytest.approx(0.013)
    assert all(len(row["strength"]["reduce"]) == 2 for row in rows)
    genotype = diffnas.load_genotype(run.path)
    assert genotype.provenance["epoch"] == 2 and genotype.provenance["method"] == "darts"
    assert genotype == diffnas.load_genotype(run.search.path / "genotypes" / "epoch-002.json")
    assert diffnas.read_recipe(run.search.recipe) == tiny()
    environment = json.loads((run.search.path / "environment.json").read_text())
    assert environment["torch"] == torch.__version__ and len(environment["attempts"]) == 1
    with pytest.raises(RunError, match="is not empty; go on with: diffnas search --resume"):
        diffnas.search(tiny(), tmp_path / "run")


def test_the_same_seed_gives_the_same_search(tmp_path: Path) -> None:
    first, again = (diffnas.search(tiny(), tmp_path / name) for name in ("a", "b"))
    other = diffnas.search(tiny("seed=1"), tmp_path / "c")
    assert outcome(first) == outcome(again)
    assert outcome(first)[0]["weights"] != outcome(other)[0]["weights"]


BY_STEPS = [f"search.weights.{text}" for text in ("rate_per=step", "warmup=1", "warmup_lr=1e-3", "cosine_epochs=3")]
EXTRAS = ["space.drop_path=0.3", "space.drop_path_grows=true", "space.dropout=0.2"]
KINDS = {"first": ["seed=0"], "second": ["method.unrolled=true"], "steps": BY_STEPS + EXTRAS}


@pytest.mark.parametrize("order", KINDS)
@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_stopped_search_goes_on_bit_for_bit(order: str, at: int, tmp_path: Path, monkeypatch: Any) -> None:
    """Stopped within the first epoch, at its end, and within the second (two steps an epoch)."""
    recipe = tiny(*KINDS[order])
    whole = diffnas.search(recipe, tmp_path / "whole")
    stopper = Stopper(unrolled=order == "second")
    monkeypatch.setattr(Stopper, "seen", 0)
    monkeypatch.setattr(Stopper, "at", at)
    object.__setattr__(recipe, "method", stopper)
    with pytest.raises(Interrupted, match="diffnas search --resume .*part"):
        diffnas.search(recipe, tmp_path / "part")
    resumed = diffnas.search(None, tmp_path / "part", resume=True)
    assert outcome(resumed) == outcome(whole)
    environment = json.loads((resumed.search.path / "environment.json").read_text())
    assert len(environment["attempts"]) == 2


def test_a_second_resumption_changes_nothing(tmp_path: Path) -> None:
    run = diffnas.search(tiny(), tmp_path / "run")
    before = outcome(run)
    assert outcome(diffnas.search(None, run.path, resume=True)) == before


def test_only_limits_may_change_on_resume(tmp_path: Path) -> None:
    run = diffnas.search(tiny("search.epochs=1"), tmp_path / "run")
    with pytest.raises(RecipeError, match="search.batch differs from the run's"):
        diffnas.search(tiny("search.batch=16"), run.path, resume=True)
    longer = diffnas.search(tiny("search.epochs=3"), run.path, resume=True)
    assert [row["epoch"] for row in longer.search.metrics()] == [0, 1, 2]
    assert longer.search.metrics()[2]["lr"] < longer.search.metrics()[1]["lr"]


@pytest.mark.parametrize("began", ["fast", "plain"])
def test_the_supernets_may_be_exchanged_on_resume(began: str, tmp_path: Path) -> None:
    run = diffnas.search(tiny(f"search.supernet={began}", "search.epochs=1"), tmp_path / "begun")
    found = {}
    for form in ("fast", "plain"):
        shutil.copytree(run.path, tmp_path / form)
        on = diffnas.search(tiny(f"search.supernet={form}"), tmp_path / form, resume=True)
        state = load_checkpoint(on.search.checkpoints)
        assert state is not None
        found[form] = state["state"]["search"]["arch"], on.search.genotype.read_text()
    assert found["fast"][1] == found["plain"][1]
    for name, alpha in found["plain"][0].items():
        torch.testing.assert_close(found["fast"][0][name], alpha, rtol=1e-3, atol=1e-6)


def test_the_fast_supernet_is_refused_where_a_method_differentiates_twice(tmp_path: Path) -> None:
    twice = ("method.unrolled=true", "method.exact=true")
    with pytest.raises(RecipeError, match=r"search.supernet: must be plain: method darts .* differentiates twice"):
        tiny(*twice)
    diffnas.search(tiny(*twice, "search.supernet=plain", "search.epochs=1"), tmp_path / "run")


@dataclass(frozen=True)
class Staged(Method):
    """Three stages: the first with a warm-up, the second narrower on the same weights, the third fresh and deeper."""

    name: ClassVar[str] = "staged"

    def stages(self, epochs: int, size: Size) -> tuple[Stage, ...]:
        alone = (Phase(("train",), 1), Phase(("valid",), 2))
        return (
            Stage(2, size, warmup=1),
            Stage(1, size, fresh=False, keep=3),
            Stage(2, Size(size.channels, 2), keep=2, phases=alone),
        )

    def on_epoch_boundary(self, search: Search, epoch: int) -> Transition:
        return Transition(stop=search.clock.stage == 2 and epoch == 1)


def staged(tmp_path: Path, name: str) -> tuple[diffnas.Run, list[Search]]:
    recipe, seen = tiny(), []

    @dataclass(frozen=True)
    class Watched(Staged):
        def derive(self, search: Search) -> Any:
            seen.append(search)
            return super().derive(search)

    object.__setattr__(recipe, "method", Watched())
    return diffnas.search(recipe, tmp_path / name), seen


def test_stages_narrow_go_on_and_start_afresh(tmp_path: Path) -> None:
    run, seen = staged(tmp_path, "run")
    rows = run.search.metrics()
    assert [row["stage"] for row in rows] == [0, 0, 1, 2]  # the turn stopped the third stage after one epoch
    assert "valid_loss" not in rows[0] and "valid_loss" in rows[1]  # warm-up trains weights only
    allowed = [[sum(edge) for edge in search.space.cells["reduce"].allowed] for search in seen]
    assert allowed[0] == [8, 8] and allowed[2] == [3, 3] and allowed[3] == [2, 2]
    assert seen[0] is not seen[2] and seen[2] is not seen[3]
    assert len(seen[3].supernet.cells) == 2
    assert rows[2]["lr"] < rows[1]["lr"] and rows[3]["lr"] == rows[0]["lr"]  # a fresh stage starts its schedule anew


def test_a_narrowed_stage_keeps_weights_and_momentum(tmp_path: Path) -> None:
    recipe, seen = tiny(), {}

    @dataclass(frozen=True)
    class Watched(Staged):
        def on_epoch_boundary(self, search: Search, epoch: int) -> Transition:
            momenta = search.weights_optimizer.state_dict()["state"]
            seen[search.clock.stage, epoch] = (flat(search.supernet.state_dict()), len(momenta), flat(momenta.get(0)))
            return super().on_epoch_boundary(search, epoch)

        def step(self, search: Search, batches: Any) -> Any:
            key = (search.clock.stage, "first step")
            if key not in seen:
                momenta = search.weights_optimizer.state_dict()["state"]
                seen[key] = (flat(search.supernet.state_dict()), len(momenta), flat(momenta.get(0)))
            return super().step(search, batches)

    object.__setattr__(recipe, "method", Watched())
    diffnas.search(recipe, tmp_path / "run")
    before, after = seen[0, 2], seen[1, "first step"]
    assert set(after[0]) < set(before[0])  # pruned ops are gone, ...
    assert all(before[0][name] == tensor for name, tensor in after[0].items())  # ... the rest is untouched
    assert after[1] > 0 and after[2] == before[2]
    assert seen[2, "first step"][1] == 0  # a fresh stage has no momentum


def test_a_dial_that_the_supernet_lacks_is_refused_by_name(tmp_path: Path) -> None:
    class Dialled(DARTS):
        def supernet_buffers(self, clock: Any) -> dict[str, float]:
            return {"skip_dropout": 0.5}

    recipe = tiny()
    object.__setattr__(recipe, "method", Dialled())
    with pytest.raises(RecipeError, match="space darts-cnn has no skip_dropout in its supernet"):
        diffnas.search(recipe, tmp_path / "run")


def test_names_serve_as_well_as_values(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(tiny("search.epochs=1", "train.epochs=1").to_yaml())
    run = diffnas.search(path, str(tmp_path / "run"))
    assert diffnas.load_genotype(run) == diffnas.load_genotype(str(run.path))
    trained = diffnas.train(run, str(path), run)
    assert diffnas.test(trained)["n"] == 100 and trained == run
    assert diffnas.build_network(run.search.genotype, channels=4, layers=2) is not None


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="holds other things"):
        diffnas.search(tiny(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    run = diffnas.search(tiny("search.epochs=1"), tmp_path / "run")
    with only_one(run.search.path), pytest.raises(RunError, match="another process is working in it"):
        diffnas.search(None, run.path, resume=True)


def test_a_search_that_diverges_says_so(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="the valid loss of epoch 1 is not finite: .* lower the learning rate"):
        diffnas.search(tiny("search.weights.lr=1e30", "search.weights.clip=null"), tmp_path / "run")
    assert diffnas.Run(tmp_path / "run").search.metrics() == []


@pytest.mark.parametrize(
    "forge",
    [
        lambda c: c["state"]["search"]["clock"].update(stage=7),
        lambda c: c["state"]["search"]["clock"].update(step=-1),
        lambda c: c["state"]["search"]["clock"].update(epoch="x"),
        lambda c: c["state"]["search"]["weights"].popitem(),
        lambda c: c["state"].pop("search"),
        lambda c: c.update(rng=torch.zeros(3, dtype=torch.uint8)),
        lambda c: c.update(meter=3),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(forge: Any, tmp_path: Path) -> None:
    run = diffnas.search(tiny("search.epochs=1"), tmp_path / "run")
    checkpoint = load_checkpoint(run.search.checkpoints)
    assert checkpoint is not None
    forge(checkpoint)
    save_checkpoint(run.search.checkpoints, 10**12, checkpoint)
    with pytest.raises(CheckpointError, match="does not fit the recipe beside it"):
        diffnas.search(tiny("search.epochs=2"), run.path, resume=True)


def test_the_api_refuses_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no search section"):
        diffnas.search(diffnas.read_recipe("cifar10-train"), tmp_path / "run")
    with pytest.raises(RunError, match="name the run folder"):
        diffnas.search(None, resume=True)
    with pytest.raises(RunError, match="nothing to resume"):
        diffnas.search(None, tmp_path, resume=True)


def test_a_refusal_that_only_the_supernet_can_tell_leaves_no_folder_behind(tmp_path: Path) -> None:
    recipe = tiny("method={name: budget, unit: params, limit: 1}")
    for _ in range(2):
        with pytest.raises(RecipeError, match="method.limit: must be at least"):
            diffnas.search(recipe, tmp_path / "run")
        assert not (tmp_path / "run" / "search").exists()


def test_early_stop_ends_with_the_epoch_before_the_collapse(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Collapsing(DARTS):
        def strength(self, search: Search) -> dict[str, torch.Tensor]:
            op = "skip_connect" if search.clock.total >= 3 else "sep_conv_3x3"
            shares = torch.zeros(2, 8)
            shares[:, search.space.cells["normal"].ops.index(op)] = 1.0
            return {"normal": shares, "reduce": shares}

    caplog.set_level("INFO", logger="diffnas")
    stopped, ended = (tiny("search.epochs=5", f"search.early_stop={switch}") for switch in ("true", "false"))
    for recipe in (stopped, ended):
        object.__setattr__(recipe, "method", Collapsing())
    run = diffnas.search(stopped, tmp_path / "stopped")
    assert [row["skips_normal"] for row in run.search.metrics()] == [0, 0, 2]
    assert "skip_connect" not in diffnas.load_genotype(run).cells["normal"].ops
    assert diffnas.load_genotype(run).provenance["epoch"] == 2
    assert "stopped after epoch 3: 2 of the 2 ops of cell normal are skip connections" in caplog.messages
    run = diffnas.search(ended, tmp_path / "ended")
    assert len(run.search.metrics()) == 5 and set(diffnas.load_genotype(run).cells["normal"].ops) == {"skip_connect"}
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert sum(line.startswith("collapse: after epoch 3 2 of the 2 ops") for line in warnings) == 2  # once per search


def test_early_stop_goes_on_to_the_stage_that_selects_and_leaves_that_alone(tmp_path: Path) -> None:
    class Collapsing(DARTSPT):
        def strength(self, search: Search) -> dict[str, torch.Tensor]:
            shares = torch.zeros(2, 8)
            shares[:, search.space.cells["normal"].ops.index("skip_connect")] = 1.0
            return {"normal": shares, "reduce": shares}

    recipe = tiny("search.epochs=5", "search.early_stop=true")
    object.__setattr__(recipe, "method", Collapsing(tuning=3, interval=1))
    run = diffnas.search(recipe, tmp_path / "run")
    assert [row["stage"] for row in run.search.metrics()] == [0, 1, 1, 1]


def test_the_eigenvalue_is_recorded_on_request_and_shifts_nothing(tmp_path: Path) -> None:
    plain, watched = (
        diffnas.search(tiny(f"search.eigenvalue_every={every}"), tmp_path / str(every)) for every in (0, 2)
    )
    assert "eigenvalue" not in watched.search.metrics()[0] and watched.search.metrics()[1]["eigenvalue"] > 0
    assert plain.search.genotype.read_text() == watched.search.genotype.read_text()
    assert [r["train_loss"] for r in plain.search.metrics()] == [r["train_loss"] for r in watched.search.metrics()]


def test_a_stage_may_widen_and_restart(tmp_path: Path) -> None:
    seen: list[tuple[int, dict[str, torch.Tensor], dict[str, Any]]] = []

    @dataclass(frozen=True)
    class Growing(DARTS):
        def stages(self, epochs: int, size: Size) -> tuple[Stage, ...]:
            wide = Size(size.channels, size.layers, 1)
            return (
                Stage(1, Size(size.channels, size.layers, 2)),
                Stage(1, wide, fresh=False),
                Stage(2, wide, fresh=False, restart=True, rate=0.1),
            )

        def step(self, search: Search, batches: Any) -> Any:
            if len(seen) <= search.clock.stage:
                momenta = search.weights_optimizer.state_dict()["state"]
                weights = {name: t.clone() for name, t in search.supernet.state_dict().items()}
                seen.append((search.clock.stage, weights, dict(momenta)))
            return super().step(search, batches)

    recipe = tiny("space.channels=4")
    object.__setattr__(recipe, "method", Growing())
    run = diffnas.search(recipe, tmp_path / "run")
    name = "cells.0.edges.0.ops.sep_conv_3x3.1.weight"
    assert [weights[name].shape[0] for _, weights, _ in seen] == [4, 8, 8]  # the only cell is a reduction: 8 channels
    copies = {tuple(row.tolist()) for row in seen[1][1][name].flatten(1)}
    assert len(copies) == 4  # what is new copies what was there
    assert seen[1][2] and not seen[2][2]  # momentum goes on, or begins anew
    rates = [row["lr"] for row in run.search.metrics()]
    assert rates[1] < rates[0] and rates[2] == pytest.approx(0.1 * 0.025)


class Taster(Method):
    """Writes down which batches each step reads, and at which learning rate."""

    seen: ClassVar[list[Any]] = []

    def stages(self, epochs: int, size: Size) -> tuple[Stage, ...]:
        return (Stage(epochs, size, phases=(Phase(("train",)), Phase(("valid",), 3, each=2))),)

    def step(self, search: Search, batches: Any) -> Any:
        (lr,) = {group["lr"] for group in search.weights_optimizer.param_groups}
        Taster.seen.append(({name: batch.targets.tolist() for name, batch in batches.items()}, lr))
        return {}


def test_a_step_may_read_several_batches_of_a_feed(tmp_path: Path, monkeypatch: Any) -> None:
    recipe = tiny("search.epochs=1", "search.batch=16", "data.split=0.5", "search.weights.rate_per=step")
    object.__setattr__(recipe, "method", Taster())
    monkeypatch.setattr(Taster, "seen", [])
    diffnas.search(recipe, tmp_path / "run")
    steps, rates = zip(*Taster.seen, strict=True)
    assert [list(step) for step in steps] == [["train"]] * 4 + [["valid", "valid.1"]] * 3
    found = [step[name] for step in steps[4:] for name in ("valid", "valid.1")]
    assert found[:2] == found[4:] and len({str(batch) for batch in found[:4]}) == 4  # an epoch has four of them
    assert rates[0] == 0.025 and list(rates[:4]) == sorted(set(rates[:4]), reverse=True)


def test_the_learning_rate_warms_up(tmp_path: Path) -> None:
    run = diffnas.search(tiny("search.epochs=4", "search.weights.warmup=2"), tmp_path / "run")
    plain = diffnas.search(tiny("search.epochs=4"), tmp_path / "plain")
    factors = [a["lr"] / b["lr"] for a, b in zip(run.search.metrics(), plain.search.metrics(), strict=True)]
    assert factors == pytest.approx([0.5, 1.0, 1.0, 1.0])


def test_graphs_that_cannot_be_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    diffnas.search(tiny("search.graph=on", "search.epochs=1", "device=cpu"), tmp_path / "run")
    lines = [line for line in caplog.messages if "search.graph" in line]
    assert lines == ["search.graph: steps are not captured: there is no CUDA device"]
