"""Compiled code is kept where only this user can write, and is made anew where it cannot be used."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("numba")

from diffnas.kernels.native import compiled


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Path]:
    """The cache folder of a fresh user; what is said can be read."""
    monkeypatch.setattr(logging.getLogger("diffnas"), "propagate", True)
    caplog.set_level("INFO", logger="diffnas")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for cached in (compiled.kernel, compiled.cache_folder, compiled._say_that_it_compiles):
        cached.cache_clear()
    yield tmp_path / "diffnas" / "kernels"
    for cached in (compiled.kernel, compiled.cache_folder, compiled._say_that_it_compiles):
        cached.cache_clear()


def compiles(caplog: pytest.LogCaptureFixture) -> bool:
    """Whether a kernel that is asked for afresh has to be compiled."""
    caplog.clear()
    compiled.kernel.cache_clear()
    compiled.cache_folder.cache_clear()
    compiled._say_that_it_compiles.cache_clear()
    assert compiled.kernel("centre", 4, 4) > 0
    return any("compiling kernels" in line for line in caplog.messages)


def test_what_is_compiled_is_kept(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert compiles(caplog) and str(folder) in caplog.text
    (kept,) = folder.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700 and kept.stat().st_mode & 0o077 == 0
    assert not compiles(caplog)


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"\x80\x04N."])
def test_a_damaged_file_is_made_anew(content: bytes, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    compiles(caplog)
    (kept,) = folder.iterdir()
    kept.write_bytes(content)
    assert compiles(caplog) and not compiles(caplog)


def test_what_others_may_write_to_is_not_read(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    compiles(caplog)
    (kept,) = folder.iterdir()
    kept.chmod(0o622)
    assert compiles(caplog)
    folder.chmod(0o777)
    assert compiles(caplog) and "in memory only" in caplog.text
    folder.chmod(0o700)
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to(folder.with_name("elsewhere"))
    assert compiles(caplog) and "in memory only" in caplog.text


def test_a_cache_that_cannot_be_made_is_no_failure(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "diffnas").write_text("a file in its place")
    assert compiles(caplog) and "in memory only" in caplog.text


def test_another_source_or_version_is_another_file(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = ("triple", "cpu", "features")
    first = compiled._made_from(machine)
    assert first != compiled._made_from(("triple", "other cpu", "features"))
    compiled._made_from.cache_clear()
    monkeypatch.setattr(compiled.numba, "__version__", "9.9")
    try:
        assert first != compiled._made_from(machine)
    finally:
        compiled._made_from.cache_clear()


def test_without_numba_nothing_is_missed() -> None:
    """A process that has no numba computes by torch, and says why."""
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "from diffnas.kernels import native\n"
        "print(native.usable(), native.form(), native.described())\n"
        "from diffnas.core.space import Shape\n"
        "from diffnas.spaces.darts_cnn.space import DartsCNN\n"
        "DartsCNN(channels=4, layers=1, nodes=1).supernet(Shape(2, 3, 8), form='fast')"
    )
    env = {**os.environ, "DIFFNAS_KERNELS": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stdout.strip() == "False torch torch alone: numba is not installed"


def test_the_variable_leaves_them_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from diffnas.kernels import native

    monkeypatch.setenv("DIFFNAS_KERNELS", "torch")
    assert not native.usable() and native.described() == "torch alone: DIFFNAS_KERNELS=torch"
    monkeypatch.setenv("DIFFNAS_KERNELS", "numba")
    assert native.usable() and native.form() == "numba" and "numba" in native.described()


def test_lanes_divide_the_channels() -> None:
    for size in (4, 8):
        for channels in range(4, 65, 4):
            lanes = compiled.lanes(channels, size)
            assert channels % lanes == 0 and 4 <= lanes <= max(4, compiled.register_bytes() // size)
