"""Whose threads run a phase."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("numba")

from diffnas.kernels.native import team
from diffnas.kernels.native.crowded import CROWDED

SKLEARN = "/site/scikit_learn.libs/libgomp-a34b3233.so.1.0.0"
SYSTEM = "/usr/lib/x86_64-linux-gnu/libgomp.so.1.0.0"


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ((), None),
        (("/site/torch/lib/libgomp.so.1", SKLEARN, SYSTEM), "/site/torch/lib/libgomp.so.1"),
        (("/site/torch.libs/libgomp-24e2ab19.so.1.0.0", SKLEARN), "/site/torch.libs/libgomp-24e2ab19.so.1.0.0"),
        ((SYSTEM, SKLEARN), SYSTEM),
        ((SKLEARN,), None),
        (("/usr/lib/libgomp.so.1", "/opt/lib/libgomp.so.1"), None),
    ],
)
def test_the_library_of_torch_among_others(paths: tuple[str, ...], expected: str | None) -> None:
    assert team._torchs(set(paths), "/site/torch/__init__.py") == expected


def test_a_link_to_torch_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real" / "torch" / "lib").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    mapped = str(tmp_path / "real" / "torch" / "lib" / "libgomp.so.1")
    assert team._torchs({mapped, SKLEARN}, str(tmp_path / "link" / "torch" / "__init__.py")) == mapped


def test_a_fork_has_threads_of_its_own() -> None:
    assert team._pool(1, os.getpid()) is team._pool(1, os.getpid())
    assert team._pool(1, os.getpid()) is not team._pool(1, os.getpid() + 1)


@pytest.mark.parametrize("crowded", [False, True])
def test_a_phase_has_one_thread_while_other_programs_need_the_cpus(
    crowded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[int, int, int]] = []
    monkeypatch.setattr(team, "_called", lambda name: lambda *where: called.append(where))
    monkeypatch.setattr(team, "_openmp", lambda: None)
    monkeypatch.setattr(CROWDED, "is_set", lambda: crowded)
    team.run("first", 5, 2)
    assert sorted(called) == ([(5, 0, 1)] if crowded else [(5, 0, 2), (5, 1, 2)])
