"""What each of the processes of `test_processes.py` runs: every method, on its part of every batch, against one process.

Usage: pair.py RESULT [CASES]; with CASES only those are walked that have this in their names.

The processes compute the reference, the whole batch by one process, of every other case each.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

sys.path.insert(0, str(Path(__file__).parent))
from test_contract import NEEDS, SMALL, Own  # type: ignore[import-not-found]

from diffnas import engine
from diffnas.core.batch import Batch
from diffnas.core.parts import part_of
from diffnas.core.seeds import generator
from diffnas.core.space import Form, Shape, Space, TextShape
from diffnas.engine import Search, gradients
from diffnas.engine.norms import over_all
from diffnas.engine.stage import Clock, Stage
from diffnas.registry import METHODS, choice_class
from diffnas.runtime.distributed import World, joined, world
from diffnas.tasks.classification import Classification
from diffnas.tasks.language import LanguageTask
from diffnas.testing.cases import EPOCHS

IMAGES, COLUMNS = 7, 5  # which two processes cannot share equally
NOISY: dict[str, dict[str, Any]] = {
    "darts-cnn": {"drop_path": 0.3, "dropout": 0.2},
    "darts-rnn": {"dropout": 0.5, "dropouth": 0.3, "dropoutx": 0.3, "dropouti": 0.2, "dropoute": 0.1},
    "nasbench201": {},
    "own-cells": {},
    "shufflenet-blocks": {"dropout": 0.3},
}
"""Everything that draws numbers while a supernet is trained."""
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Case:
    """A method on a space; `norm` says how its steps normalise: frozen, running (which drops nothing) or all."""

    method: str
    space: str = "darts-cnn"
    settings: tuple[tuple[str, Any], ...] = ()
    form: Form = "plain"
    norm: str = "frozen"
    pieces: int = 1  # in which each process computes its part

    def __str__(self) -> str:
        said = ",".join(f"{key}={value}" for key, value in self.settings)
        pieces = f"{self.pieces}-pieces" if self.pieces > 1 else ""
        return "-".join(filter(None, [self.method, said, self.space, self.form, self.norm, pieces]))


def cases() -> list[Case]:
    """Every method on images and on text, its variants, and every other space."""
    spaces = [Case(method, space) for method in METHODS for space in ("darts-cnn", "darts-rnn")]
    variants: list[tuple[str, tuple[tuple[str, Any], ...]]] = [
        ("darts", (("unrolled", True),)),
        ("darts", (("unrolled", True), ("exact", True))),
        ("smooth-darts", (("perturbation", "adv"), ("steps", 2))),
    ]
    spaces += [Case(method, space, settings) for method, settings in variants for space in ("darts-cnn", "darts-rnn")]
    spaces += [Case("darts", space) for space in ("nasbench201", "shufflenet-blocks", "own-cells")]
    spaces += [Case("darts", space, (), "fast", "running") for space in ("darts-cnn", "darts-rnn", "nasbench201")]
    spaces += [
        Case("darts", space, settings, norm="all")
        for space in ("darts-cnn", "darts-rnn")
        for settings in ((), (("unrolled", True), ("exact", True)))
    ]
    spaces += [Case("darts", space, (("unrolled", True),), pieces=2) for space in ("darts-cnn", "darts-rnn")]
    return [case for case in spaces if not method_of(case).check_space(space_of(case))]


def method_of(case: Case) -> Any:
    """The method with its settings."""
    return choice_class("method", case.method)(**dict(case.settings))


def space_of(case: Case) -> Space:
    """The small space, set as the method needs it, with all that draws numbers."""
    cls = Own if case.space == Own.name else choice_class("space", case.space)
    found: Space = cls(**SMALL[case.space] | NOISY[case.space] | NEEDS.get(case.method, {}).get(case.space, {}))
    return found


@dataclass(frozen=True)
class Feed:
    """The same batches every epoch, whole or in parts."""

    first: int
    text: bool
    shared: bool
    steps: int = 2

    def epoch(self, epoch: int) -> list[Batch]:
        return [batch(self.first + step, self.text, self.shared) for step in range(self.steps)]


def batch(number: int, text: bool, shared: bool) -> Batch:
    """Random images or words; `shared`: the part of this process."""
    draw = torch.Generator().manual_seed(number)
    if text:
        words = torch.randint(0, 9, (7, COLUMNS), generator=draw)
        made, count, dim = Batch(words[:-1], words[1:]), COLUMNS, 1
    else:
        images = torch.randn(IMAGES, 1, 8, 8, generator=draw, dtype=torch.float64)
        made, count, dim = Batch(images, torch.randint(0, 4, (IMAGES,), generator=draw)), IMAGES, 0
    return made.taken(part_of(count, world().rank, world().size, dim)) if shared else made


def built(case: Case, shared: bool) -> Search:
    """The search in float64, its first stage begun, after the warm-up."""
    method, space = method_of(case), space_of(case)
    stage, text = method.stages(EPOCHS, space.size)[0], space.modality == "text"
    torch.manual_seed(0)
    shape = TextShape(9) if text else Shape(4, 1, 8)
    supernet = space.supernet(shape, stage.size, case.form).double()
    for layer in supernet.modules():
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None and layer.running_var is not None:
            torch.nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(layer.running_var, 0.5, 1.5)
    if case.norm == "all":
        over_all(supernet)
    elif case.norm == "frozen":
        freeze(supernet)
    arch = method.arch(space, generator(0, "arch")).double()
    task = LanguageTask(alpha=0.5, beta=0.1) if text else Classification()
    search = Search(
        method=method,
        space=space,
        supernet=supernet,
        arch=arch,
        weights_optimizer=torch.optim.SGD(supernet.parameters(), 0.05, 0.9, weight_decay=3e-4),
        arch_optimizer=torch.optim.SGD([{"params": list(arch.parameters())}], 0.1, weight_decay=1e-3),
        task=task,
        clip=5.0,
        clock=Clock(epochs=stage.epochs, epoch=stage.warmup, stage_epoch=stage.warmup, total=stage.warmup),
        feeds={name: Feed(first, text, shared) for name, first in (("train", 100), ("valid", 200), ("score", 300))},
        shape=shape,
        pieces=case.pieces if shared else 1,
        batch_dim=int(text),
    )
    fill(search)
    return search


def fill(search: Search) -> None:
    """Sets the supernet's buffers as the loop does."""
    buffers = dict(search.supernet.named_buffers(recurse=False))
    for name, value in search.method.supernet_buffers(search.clock).items():
        buffers[name].fill_(value)


class Frozen(_BatchNorm):
    """A normalisation that is always in evaluation mode, whatever the rest is in."""

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        if mean is None:
            return x
        return F.batch_norm(x, mean, var, self.weight, self.bias, eps=self.eps)


def freeze(supernet: torch.nn.Module) -> None:
    """Puts every normalisation into evaluation mode for good."""
    for layer in supernet.modules():
        if isinstance(layer, _BatchNorm):
            layer.__class__ = Frozen


@contextlib.contextmanager
def normalised(case: Case) -> Iterator[None]:
    """Runs a block in which supernets whose kernels know their normalisations run in evaluation mode."""
    before: Callable[..., Any] = gradients.normalisation
    if case.norm == "running":
        gradients.normalisation = lambda search, norm: before(search, "running")  # type: ignore[assignment]
    try:
        yield
    finally:
        gradients.normalisation = before  # type: ignore[assignment]


def walked(case: Case, shared: bool) -> dict[str, Tensor]:
    """Three steps of the first stage and a turn; two steps of a stage that selects; everything that came of it."""
    search, found = built(case, shared), {}
    search.reseed()
    with normalised(case):
        stages = search.method.stages(EPOCHS, search.space.size)
        found |= stepped(search, stages[0], 3, shared)
        clock = search.clock
        search.advance(stage_epoch=clock.stage_epoch + 1, epoch=clock.epoch + 1, total=clock.total + 1)
        search.method.on_epoch_boundary(search, search.clock.stage_epoch)
        for index, stage in enumerate(stages[1:], 1):
            if stage.selects:
                search.advance(stage=index, stage_epoch=0, epoch=0, epochs=stage.epochs, step=0, selecting=True)
                search.method.on_epoch_boundary(search, 0)
                found |= stepped(search, stage, 2, shared, "select")
        if case.method == "robust-darts":
            score = search.feeds["score"].epoch(0)[0]
            found["eigenvalue"] = torch.tensor(engine.largest_eigenvalue(search, score, steps=3))
    state = search.state_dict()
    return (
        found
        | {f"weights.{k}": v for k, v in state["weights"].items()}
        | {f"arch.{k}": v for k, v in state["arch"].items()}
    )


def stepped(search: Search, stage: Stage, steps: int, shared: bool, name: str = "step") -> dict[str, Tensor]:
    """Steps of every phase of the stage, and their losses; a hidden state goes on from one to the next."""
    text, found, carries = search.space.modality == "text", {}, {}
    for step in range(steps):
        search.advance(step=step)
        for phase in stage.phases:
            names = [f"{feed}.{k}" if k else feed for feed in phase.feeds for k in range(min(phase.each, 2))]
            given = {
                feed: replace(batch(10 * step + at, text, shared), carry=carries.get(feed))
                for at, feed in enumerate(names)
            }
            for feed, loss in search.method.step(search, given).items():
                found |= {f"{name}{step}.{feed}.loss": loss.value, f"{name}{step}.{feed}.correct": loss.correct}
                found[f"{name}{step}.{feed}.count"] = torch.tensor(loss.count)
                carries[feed] = loss.carry
    return found


def distance(found: dict[str, Tensor], expected: dict[str, Tensor]) -> tuple[float, str]:
    """The largest difference over the size of its tensor (at least 1e-3), and where it is."""
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    worst, where = 0.0, ""
    for name, value in expected.items():
        a, b = found[name].double(), value.double()
        finite = b.isfinite()
        assert a.shape == b.shape and torch.equal(finite, a.isfinite()), name
        if not finite.any():
            continue
        off = float((a - b)[finite].abs().max()) / max(float(b[finite].abs().max()), 1e-3)
        if not off <= worst:
            worst, where = off, name
    return worst, where


def main(result: Path, only: str = "") -> None:
    """Walks all cases and writes {case: [largest difference, where, seconds]}."""
    torch.set_num_threads(1)
    rows: dict[str, Any] = {}
    with joined() as processes:
        assert isinstance(processes, World) and processes.size > 1
        for number, case in enumerate(case for case in cases() if only in str(case)):
            began = time.monotonic()
            shared = walked(case, True)
            if number % processes.size == processes.rank:
                try:
                    rows[str(case)] = [*distance(shared, walked(case, False)), time.monotonic() - began]
                except Exception:  # noqa: BLE001 (the other cases are walked all the same)
                    rows[str(case)] = [float("inf"), traceback.format_exc(), 0.0]
        every = processes.all(rows)
    if processes.first:
        result.write_text(json.dumps({name: row for each in every for name, row in each.items()}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
