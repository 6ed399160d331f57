"""Much that was never compiled is compiled by two processes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numba")

from diffnas.kernels.native import ahead, compiled

KEYS = tuple((name, 4, 4) for name in ("centre", "centred", "column_sums", "turned"))


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The cache folder of a fresh user, on a machine of two CPUs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(ahead.os, "cpu_count", lambda: 2)
    caches = (compiled.kernel, compiled.cache_folder, ahead.prepare)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def test_half_of_it_in_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    mine: list[str] = []
    monkeypatch.setattr(ahead, "MANY", 4)
    monkeypatch.setattr(ahead, "kernel", lambda name, *rest: mine.append(name))
    ahead.prepare(KEYS)
    assert mine == ["centred", "turned"]
    assert [compiled.is_kept(*key) for key in KEYS] == [True, False, True, False]


def test_a_little_is_left_to_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    ahead.prepare(KEYS)
    assert not any(compiled.is_kept(*key) for key in KEYS)


def test_no_other_process_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(ahead, "MANY", 4)
    monkeypatch.setattr(subprocess, "Popen", fails)
    ahead.prepare(KEYS)
    assert compiled.kernel(*KEYS[0]) > 0
