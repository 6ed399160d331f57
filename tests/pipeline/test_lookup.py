"""`diffnas lookup`: what it prints, as text and as JSON, with tables and latencies in files, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import diffnas
from diffnas.cli.main import main
from diffnas.core.genotype import parse_edges
from diffnas.errors import DataError, GenotypeError
from diffnas.pipeline.lookup import latencies, read_table
from diffnas.spaces.nasbench201 import table as nb

SHARED = Path(os.environ.get("DIFFNAS_SHARED", Path(__file__).parents[2] / "../shared")) / "data"
BEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
SKIPS = nb.format_cell(["skip_connect"] * 6)
Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command that must be refused in one line."""

    def check(*arguments: str) -> str:
        capsys.readouterr()
        assert main(list(arguments)) == 2
        shown = capsys.readouterr()
        assert shown.out == "" and len(shown.err.splitlines()) == 1
        return shown.err.strip().removeprefix("diffnas: ")

    return check


def rows(text: str) -> dict[str, list[str]]:
    """The table that is printed, by the title of its rows."""
    split = (re.split(r"  +", line.strip()) for line in text.splitlines())
    return {first: others for first, *others in split}


def test_the_collapsed_cell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lookup", SKIPS]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"cell 1835 of 15625: {SKIPS}\n")
    found = rows(shown)
    assert found["test accuracy after 200 epochs"] == ["54.30 %", "15.61 %", "16.32 %"]
    assert found["parameters"] == ["73,306", "79,156", "80,456"] and found["multiply-adds"] == ["7.8M", "7.8M", "2.0M"]
    assert "one to three after 200 epochs (the table does not say how many)" in shown
    assert max(map(len, shown.splitlines())) < 200


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lookup", BEST, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["index"], found["text"], found["same_function"]) == (9930, BEST, [])
    assert found["results"]["cifar100"]["test_200"]["rank"] == 1
    assert found["results"]["cifar100"]["test_200"]["mean"] == pytest.approx(73.51333)


def test_genotypes_from_files_runs_and_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    genotype = parse_edges(BEST)
    path = tmp_path / "run" / "search" / "genotype.json"
    path.parent.mkdir(parents=True)
    path.write_text(genotype.to_json())
    for source in (path, str(path), tmp_path / "run", genotype, BEST, genotype.to_json()):
        assert diffnas.lookup(source).index == 9930
    assert main(["lookup", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["index"] == 9930
    with pytest.raises(GenotypeError):
        diffnas.lookup("darts-v2")


def test_indices_and_numbers(tmp_path: Path) -> None:
    (tmp_path / "cell.txt").write_text("9930\n")
    (tmp_path / "wrapped.txt").write_text(f"Structure(4 nodes with {BEST})\n".replace("+", "+\n"))
    (tmp_path / "log.txt").write_text(f"epoch 1: {SKIPS}\nepoch 2: {BEST}\n")
    for cell in (9930, "9930", "(2, 2, 0, 2, 2, 2)", *tmp_path.iterdir(), f"{tmp_path}/log.txt:2"):
        assert diffnas.lookup(cell).index == 9930
    assert diffnas.lookup(f"{tmp_path}/log.txt:1").index == 1835 == diffnas.lookup("all_idnt").index
    assert diffnas.lookup("ResNet").text == nb.format_cell(diffnas.load_genotype("nb201-resnet").cells["cell"].ops)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("15625", "index 15625 is not one of 0 to 15624"),
        ("222022", "index 222022 is not one of 0 to 15624"),
        ("8:8:8:8:8", "this is a size of NATS-Bench"),
        ("64-41414-1_02_333", "this is a network of TransNAS-Bench-101"),
        ("[2, 2, 0, 2, 2]", "5 numbers; six op numbers are a cell"),
        ("|none~0|", "has 1 nodes and 1 inputs, not 3 and 1"),
        (BEST.replace("skip_connect", "sep_conv_3x3"), "op 'sep_conv_3x3' is unknown"),
        (BEST.replace("~2", "~1"), "node 3 reads 1 twice"),
        (BEST[:-1], "is not a block of a cell"),
        ("darts-v2", "darts-v2: is of the space darts-cnn"),
        ("darts-v3", "is no published name"),
        ("nor_conv_3x3~0", "is no published name"),
    ],
)
def test_what_is_no_cell(cell: str, said: str, refused: Refused) -> None:
    assert said in refused("lookup", cell)


# -- tables and latencies in files


def csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_another_table(tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: Refused) -> None:
    path = csv(
        tmp_path / "mine.csv",
        "arch_str,index,cifar10_test_200_mean,cifar10_test_200_std,cifar10_test_200_seeds,other",
        f"{BEST},9930,94.5,0.25,3,x",
        f"{SKIPS},1835,50.0,,1,y",
    )
    assert main(["lookup", BEST, "--table", str(path)]) == 0
    shown = capsys.readouterr().out
    found = rows(shown)
    assert found["test accuracy after 200 epochs"] == ["94.50 %", "-", "-"] and found["rank"] == ["1 of 2", "-", "-"]
    assert found["seeds"] == ["3", "-", "-"] and found["deviation"] == ["0.25", "-", "-"]
    assert "validation" not in shown and str(path) in shown
    assert diffnas.lookup(SKIPS, path).results["cifar10"].test_200 == nb.Measured(50.0, 2, 2, 44.5, 1, None)
    other = nb.format_cell(["none"] * 6)
    assert refused("lookup", other, "--table", str(path)).startswith(f"{path}: has nothing on cell ")


def test_latencies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = csv(tmp_path / "fast.csv", "index,latency_ms_phone,latency_ms_desk", "9930,30.5,1", "1835,20,1", "3,25,")
    assert latencies(path, 9930) == {
        "phone": {"ms": 30.5, "rank": 3, "of": 3},
        "desk": {"ms": 1.0, "rank": 1, "of": 2},
    }
    assert list(latencies(path, 3)) == ["phone"] and latencies(path, 4) == {}
    assert main(["lookup", BEST, "--latency", str(path)]) == 0
    assert rows(capsys.readouterr().out)["phone"] == ["30.500 ms", "3 of 3"]
    assert main(["lookup", BEST, "--latency", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["latency"]["desk"]["ms"] == 1.0


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["latency_ms_a", "1"], "needs a column index or arch_str; it has latency_ms_a"),
        (["index", "1"], "has no column named latency_ms_DEVICE"),
        ([""], "needs a column index or arch_str; it has none"),
        (["index,latency_ms_a", "1"], "row 1: has 1 values for 2 columns"),
        (["index,latency_ms_a", "1,2", "15625,2"], "row 2: index 15625 is not one of 0 to 15624"),
        (["index,latency_ms_a", "x,2"], "row 1: invalid literal"),
        (["index,latency_ms_a", "1,fast"], "row 1: latency_ms_a is 'fast', not a number"),
        (["index,latency_ms_a", "1,inf"], "row 1: latency_ms_a is 'inf', not a number"),
        (["index,latency_ms_a", "1,2", "1,3"], "lists a cell twice"),
        (["arch_str,latency_ms_a", "|none~0|,3"], "row 1: has 1 nodes and 1 inputs"),
        (["index,arch_str,latency_ms_a", f"7,{BEST},3"], "row 1: index 7 is another cell"),
    ],
)
def test_files_that_are_no_latencies(lines: list[str], said: str, tmp_path: Path, refused: Refused) -> None:
    path = csv(tmp_path / "a.csv", *lines)
    line = refused("lookup", BEST, "--latency", str(path))
    assert line.startswith(str(path)) and said in line


def test_files_that_are_no_tables(tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(name: str, content: bytes | None) -> str:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        return refused("lookup", BEST, "--table", str(tmp_path / name)).removeprefix(f"{tmp_path / name}: ")

    assert said("none.csv", None) == "there is no such file"
    assert said("a.csv", b"index,x\n1,2\n") == "has no column such as cifar10_test_200_mean"
    assert said("b.csv", b"\xff\xfe\x00").startswith("is no csv file (")
    assert said("c.csv", b'index,"x\n1,2').startswith("is no csv file (")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert said("d.parquet", b"PAR1") == "reading parquet needs pyarrow (pip install pyarrow); or write it as csv"


def test_parquet(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"index": [9930, 3], "latency_ms_a": [2.5, None]}), path)
    assert latencies(path, 9930) == {"a": {"ms": 2.5, "rank": 1, "of": 1}} and latencies(path, 3) == {}
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="is no whole parquet file"):
        read_table(path)


def test_the_collected_latencies() -> None:
    pytest.importorskip("pyarrow.parquet")
    path = SHARED / "nasbench201-latency.parquet"
    if not path.is_file():
        pytest.skip("the collected latencies are not at hand")
    found: dict[str, Any] = latencies(path, 9930)
    assert len(found) == 27 and all(1 <= device["rank"] <= device["of"] == nb.CELLS for device in found.values())
