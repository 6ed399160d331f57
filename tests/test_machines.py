"""What `make test-machines` runs, skips and holds float32 to."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

MACHINES = runpy.run_path(str(Path(__file__).parent / "machines.py"))
MARGINS = runpy.run_path(str(Path(__file__).parent / "margins.py"))


def test_every_set_of_instructions_runs_with_one_thread_and_with_two() -> None:
    rows = [row for row in MACHINES["ROWS"] if row.torch == "2.13.0"]
    assert len(rows) == 6
    for name in ("aten", "onednn"):
        values = {getattr(row, name) for row in rows}
        assert len(values) == 3
        assert {(getattr(row, name), row.threads) for row in rows} == {(v, n) for v in values for n in (1, 2)}
    assert {row.torch for row in MACHINES["ROWS"]} == {"2.13.0", "2.11.0", "newest"}


def test_what_the_machine_lacks_is_named_before_it_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    row, lacking = MACHINES["Row"], MACHINES["lacking"]
    assert lacking(row("2.13.0", "avx512", "AVX512_CORE"), "AVX2") == (
        "this CPU has no avx512, this CPU has no AVX512_CORE"
    )
    assert lacking(row("2.13.0", "avx2", "AVX2"), "AVX512") == lacking(row("2.11.0"), "DEFAULT") == ""
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert lacking(row("2.13.0", "default", "SSE41"), "SVE256") == "SSE41 is for x86-64"
    assert MACHINES["torch_of"](tmp_path / "no-python") == ("", "")
    outcome = MACHINES["Outcome"]("skipped: this torch was not to be had")
    assert "newest | as it is | as it is | 1 | skipped: this torch was not" in MACHINES["line"](
        8, row("newest"), outcome
    )
    assert not MACHINES["failed"](outcome)
    assert MACHINES["failed"](MACHINES["Outcome"]("", "2.13.0", {"passed": 0}))


def test_float32_is_held_to_a_tenth_of_its_limit() -> None:
    check = MARGINS["watched"](torch.allclose, {"rtol": 1e-5, "atol": 1e-8})
    one = torch.ones(3)
    assert check(one + 5e-7, one) and not check(one + 1e-3, one)
    with pytest.raises(pytest.fail.Exception, match=r"in float32 the error is 0\.\d+ of its limit"):
        check(one + 5e-6, one)
    assert check(one + 5e-6, one, rtol=0.0, atol=1e-4) and check(one + 5e-6, one, 1e-4)
    assert check(one.double() + 5e-6, one.double())
