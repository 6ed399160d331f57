"""The test kit: three lines test a method or a space, and each promise that is broken is named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import diffnas
from diffnas import engine, testing
from diffnas.core.mixture import Mix
from diffnas.methods.darts import DARTS
from diffnas.methods.darts_minus import DARTSMinus
from diffnas.spaces.cells.modules import Supernet


@dataclass(frozen=True)
class Cells(diffnas.CellSpace):
    """A small space."""

    name: ClassVar[str] = "kit-cells"
    channels: int = diffnas.setting(2, "channels")
    layers: int = diffnas.setting(4, "cells")
    nodes: int = diffnas.setting(1, "nodes")
    ops: tuple[str, ...] = diffnas.setting(("none", "skip", "conv"), "candidate ops")

    def op(self, name: str, channels: int, stride: int, affine: bool) -> nn.Module:
        if name == "skip" and stride == 1:
            return nn.Identity()
        layers = nn.Conv2d(channels, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels, affine=affine)
        return nn.Sequential(nn.ReLU(), *layers)


test_cells = testing.space_tests(Cells())
test_darts = testing.method_tests(DARTS(), [Cells()])


class Eager(diffnas.Method):
    def step(self, search: Any, batches: Mapping[str, Any]) -> dict[str, Any]:
        return {"train": engine.joint_step(search, search.relax("arch"), batches["train"])}


class Shifting(diffnas.Method):
    def derive(self, search: Any) -> Any:
        torch.rand(1, generator=search.shared)
        return super().derive(search)


class Remembering(diffnas.Method):
    steps: ClassVar[list[int]] = []

    def step(self, search: Any, batches: Mapping[str, Any]) -> dict[str, Any]:
        self.steps.append(1)
        if "valid" in batches:
            with torch.no_grad():
                search.arch.alpha["normal"].add_(len(self.steps))
        return super().step(search, batches)


class Flat(diffnas.Method):
    def strength(self, search: Any) -> dict[str, Tensor]:
        return {kind: mix.op.detach().mean(1) for kind, mix in search.arch().items()}

    def derive(self, search: Any) -> Any:
        return None


class Stopping(diffnas.Method):
    def on_epoch_boundary(self, search: Any, epoch: int) -> Any:
        return diffnas.Transition(stop=True)


class Abroad(diffnas.Method):
    def derive(self, search: Any) -> Any:
        return diffnas.Genotype("elsewhere", super().derive(search).cells)


@dataclass(frozen=True)
class Mute(diffnas.Method):
    strictness: float = 1.0


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (Eager(), "given no validation batch moved the architecture"),
        (Shifting(), "draw from search.shared"),
        (Remembering(), "after resuming these differ: .*alpha.normal.*; keep all state in what arch returns"),
        (Flat(), r"strength gives \[2\] for normal, not \[2, 3\]|derive gave None"),
        (Stopping(), "on_epoch_boundary stops the search"),
        (Abroad(), "derive gave Genotype.*elsewhere"),
        (Mute(), "strictness: say what it means"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_method_that_breaks_a_promise_is_told(method: Any, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        testing.check_method(method, [Cells()])


class OneForAll(Supernet):
    def forward(self, x: Tensor, mixture: Mapping[str, Mix]) -> Tensor:
        return super().forward(x, {kind: mix.cell(0) for kind, mix in mixture.items()})


class Careless(Supernet):
    def forward(self, x: Tensor, mixture: Mapping[str, Mix]) -> Tensor:
        return super().forward(x, {kind: Mix(mix.op + 0.1) for kind, mix in mixture.items()})


class Growing(Supernet):
    def forward(self, x: Tensor, mixture: Mapping[str, Mix]) -> Tensor:
        self.passes = getattr(self, "passes", 0.0) + 1.0
        return super().forward(x, mixture) * self.passes


def building(plain: type[Supernet], fast: type[Supernet] | None = None) -> dict[str, Any]:
    """A `supernet` of a space that builds these."""

    def supernet(self: Any, shape: Any, size: Any = None, form: str = "plain") -> nn.Module:
        return ((fast or plain) if form == "fast" else plain)(self, shape, size or self.size)

    return {"supernet": supernet}


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (building(OneForAll), "cells .* do not read"),
        (building(Careless), "idle"),
        (building(Growing), "remembers the pass"),
        (building(Supernet, Careless), "losses of the two forms"),
        ({"narrow": lambda self, keep: self}, "narrow kept other entries"),
        ({"fixed_cost": lambda self, shape, unit, size=None: 0.0}, "costs and fixed_cost say"),
        ({"chain": lambda self, size=None: ("normal", "other")}, "kinds that cells lacks: other"),
        ({"check_size": lambda self, shape, size=None: [("layers", "no")]}, "check_size"),
        ({"excluded": diffnas.setting(("none", "skip", "conv"), "all")}, "no op may be derived"),
    ],
)
def test_a_space_that_breaks_a_promise_is_told(broken: dict[str, Any], said: str) -> None:
    values = {**broken, "__annotations__": {"excluded": "tuple[str, ...]"} if "excluded" in broken else {}}
    space = dataclass(frozen=True)(type("Broken", (Cells,), values))()
    with pytest.raises(AssertionError, match=said):
        testing.check_space(space)


def test_what_must_be_given_is_asked_for() -> None:
    with pytest.raises(ValueError, match="darts-minus refuses space kit-cells: ops: must hold auxiliary_skip"):
        testing.method_tests(DARTSMinus(), [Cells()])
    other = type("Tensors", (Cells,), {"modality": "tensors"})()
    with pytest.raises(ValueError, match=r"give the shape of its data \(shape=...\)"):
        testing.check_space(other)


def test_three_lines_of_pytest(tmp_path: Path) -> None:
    """A file of a stranger's, run by a pytest of its own."""
    passed = []

    class Counting:
        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.when == "call" and report.passed:
                passed.append(report.nodeid)

    path = tmp_path / "test_mine.py"
    lines = ["import diffnas.testing", "from diffnas.methods.darts import DARTS", ""]
    path.write_text("\n".join([*lines, "test_darts = diffnas.testing.method_tests(DARTS())"]))
    found = pytest.main(["-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(path)], [Counting()])
    assert found == 0 and len(passed) == len(testing.METHOD_CHECKS) + 1
    assert any("darts-cnn-resumes_exactly" in name for name in passed)
