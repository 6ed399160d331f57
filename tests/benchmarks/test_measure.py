"""What benchmarks print, and that what they measure can be built; no time is asserted."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.build import OurStep
from benchmarks.measure import Alone, Comparison, Times
from benchmarks.peak import peak

from benchmarks import measure, originals, search

CPU = torch.device("cpu")


@pytest.fixture
def comparison() -> Comparison:
    return Comparison("a step", Times((6.2, 6.1, 6.4)), Times((1.0, 1.2, 1.1)), Alone(1000.0, 6.0), Alone(420.0, 0.9))


def test_times() -> None:
    times = Times((3.0, 1.0, 2.0))
    assert (times.best, times.median, times.spread) == (1.0, 2.0, 1.0)


def test_the_line_of_ratios(comparison: Comparison) -> None:
    assert comparison.line("plain", "fast") == "fast vs plain: time 6.1x, memory 0.42x"


def test_rows_fit_their_head(comparison: Comparison) -> None:
    head = measure.comparison_head("step", "plain", "fast")
    row = dict(zip(head, comparison.row(), strict=True))
    assert (row["plain min s"], row["fast median"], row["plain spread"]) == ("6.100", "1.100", "5%")
    assert (row["time"], row["memory"]) == ("6.10x", "0.42x")


def test_tables_are_aligned() -> None:
    assert measure.table(["name", "s"], [["a", "1.5"], ["longer", "10.0"]]).splitlines() == [
        "name       s",
        "------  ----",
        "a        1.5",
        "longer  10.0",
    ]


def test_the_environment_is_told() -> None:
    found = measure.environment(CPU)
    assert list(found) == ["machine", "torch", "python", "diffnas", "kernels", "commit"]
    assert found["torch"] == torch.__version__ and all(found.values())
    assert f"{torch.get_num_threads()} thread" in found["machine"]


def test_a_machine_without_a_list_of_processors_has_a_name(tmp_path: Path) -> None:
    assert measure.processor(str(tmp_path / "none"))
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU\n")
    assert measure.processor(str(tmp_path / "cpuinfo")) == "Some CPU"


def test_steps_take_turns() -> None:
    seen: list[str] = []
    times = measure.alternate([lambda: seen.append("a"), lambda: seen.append("b")], 2, CPU)
    assert seen == ["a", "b"] * 3
    assert [len(each.seconds) for each in times] == [2, 2]
    assert len(measure.alternate([lambda: None], 5, CPU, limit=0.0)[0].seconds) == 1


@pytest.mark.parametrize("method", [case.method for _, case in originals.CASES.values()])
def test_our_steps_run(method: object) -> None:
    for form in ("plain", "fast"):
        losses = OurStep(form, 4, 2, 2, partial=2, ops=("skip_connect", "sep_conv_3x3"), method=method)()()
        assert all(loss.value.isfinite() for loss in losses.values())


def test_clones_are_read_apart_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "genotypes.py").write_text("from operations import *\n")
    (tmp_path / "operations.py").write_text("import graphviz\nvalue = (3).cuda()\n")
    with originals.modules_of([tmp_path], CPU):
        from genotypes import value

        assert value == 3
    assert "operations" not in sys.modules and "genotypes" not in sys.modules
    assert sorted(path.name for path in tmp_path.iterdir()) == ["genotypes.py", "operations.py"]


def test_a_folder_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["originals", "--root", "not-there"])
    assert originals.main() == 2
    assert "not-there: is not a folder" in capsys.readouterr().out


def test_a_missing_clone_says_where_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["originals", "--root", str(tmp_path), "--threads", "1", "--only", "pc-darts"])
    assert originals.main() == 0
    assert "git clone https://github.com/yuhuixu1993/PC-DARTS" in capsys.readouterr().out


def test_the_summary_of_a_search() -> None:
    line = search.summary([{"seconds": 1800.0}, {"seconds": 1800.0}], 3 * 2**20)
    assert line == "search: 2 epochs in 1.00 h, 0.00056 epochs per second, peak 3 MiB"


def test_memory_is_what_lives_at_once() -> None:
    def build() -> Any:
        x = torch.empty(2**20, device="meta")  # 4 MiB

        def step() -> None:
            y = x + 1
            y = y * 2
            del y

        return step

    assert peak(build) == 12 / 1024  # x and both ends of a product, and all of it again


def test_a_step_has_its_memory() -> None:
    case = OurStep(channels=4, layers=2, batch=2, side=8, ops=("none", "sep_conv_3x3"), device="meta")
    assert 0 < peak(case) < peak(replace(case, batch=8))
