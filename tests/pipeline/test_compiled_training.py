"""A training whose network is compiled: the same numbers, a line about the time, and nothing lost where it cannot be.

The backend is one that needs no compiler of C++ and rounds as torch does.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import diffnas
from diffnas.pipeline import train_steps
from diffnas.runtime import compiling

SETS = [
    "data.train_limit=40",
    "data.test_limit=20",
    "train.layers=1",
    "train.channels=2",
    "train.batch=16",
    "train.epochs=2",
    "train.drop_path=0.5",
    "device=cpu",
]


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Path:
    """A cache of the test's own, and a compiler that is there."""
    monkeypatch.setattr("diffnas.draw.write.draw_png", lambda genotype: b"")
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    monkeypatch.setattr(train_steps, "no_compiler", lambda device: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    caplog.set_level(logging.INFO, logger="diffnas")
    torch._dynamo.reset()
    return tmp_path / "cache" / "diffnas" / "compiled"


def trained(run: Path, *more: str) -> dict[str, Any]:
    recipe = diffnas.read_recipe("darts-digits-tiny", [*SETS, *more])
    return load_file(diffnas.train("darts-v2", recipe, run).training().weights)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line for line in caplog.messages if line.startswith("train.compile")]


def test_whole_batches_are_compiled_and_the_numbers_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    call = compiling.Compiled.__call__
    monkeypatch.setattr(compiling.Compiled, "__call__", lambda self, x: sizes.append(len(x)) or call(self, x))
    compiled, plain = trained(tmp_path / "a", "train.compile=on"), trained(tmp_path / "b")
    assert all(torch.equal(value, plain[name]) for name, value in compiled.items())
    assert sizes == [16] * 4  # two of the three batches of each epoch
    (line,) = lines(caplog)
    assert line.startswith("train.compile: the first step took ") and line.endswith(" s, compilation included")


def test_what_was_compiled_is_kept_and_taken_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    read = []
    monkeypatch.setattr(torch.compiler, "save_cache_artifacts", lambda: (b"made", None))
    monkeypatch.setattr(torch.compiler, "load_cache_artifacts", lambda content: read.append(content) or "something")
    for name in ("a", "b"):
        trained(tmp_path / name, "train.compile=on", "train.epochs=1")
    (kept,) = place.iterdir()
    assert read == [b"made"] and kept.read_bytes() == b"made" and kept.stat().st_mode & 0o77 == 0
    assert [line.rpartition(" s, ")[2] for line in lines(caplog)] == [
        "compilation included",
        "with parts that an earlier compilation has left",
    ]
    kept.chmod(0o666)  # whoever wrote this then, it is not read
    trained(tmp_path / "c", "train.compile=on", "train.epochs=1")
    assert read == [b"made"]


@pytest.mark.parametrize("how", ["damaged", "no folder", "no artifacts"])
def test_a_cache_of_no_use_is_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, place: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise RuntimeError("stale")

    place.parent.mkdir(parents=True)
    if how == "no folder":
        place.write_text("in its place")
    if how == "damaged":
        monkeypatch.setattr(torch.compiler, "save_cache_artifacts", lambda: (b"\0nonsense", None))
        trained(tmp_path / "a", "train.compile=on", "train.epochs=1")
        assert len(list(place.iterdir())) == 1
    if how == "no artifacts":
        monkeypatch.setattr(torch.compiler, "save_cache_artifacts", fails)
    caplog.clear()
    trained(tmp_path / "run", "train.compile=on", "train.epochs=1")
    (line,) = lines(caplog)
    assert line.endswith("compilation included")


def test_a_network_that_cannot_be_compiled_is_trained_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(graph: Any, inputs: Any) -> Any:
        raise ValueError("the backend is broken")

    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **_: compile(network, backend=refuses))
    compiled, plain = trained(tmp_path / "a", "train.compile=on"), trained(tmp_path / "b")
    assert all(torch.equal(value, plain[name]) for name, value in compiled.items())
    (line,) = lines(caplog)
    assert "the backend is broken" in line and line.endswith("; the training goes on without")


def test_pieces_are_not_compiled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained(tmp_path / "run", "train.compile=on", "train.accumulate=2", "train.epochs=1")
    assert lines(caplog) == [
        "train.compile: not with train.accumulate or several processes; the training goes on without"
    ]
