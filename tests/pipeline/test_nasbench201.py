"""Tables built from the official per-cell files, and the one that is packaged."""

from __future__ import annotations

import bz2
import csv
import os
import pickle
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import diffnas
from diffnas.cli.main import main
from diffnas.errors import DataError
from diffnas.pipeline.nasbench201 import pack_table
from diffnas.spaces.nasbench201 import table as nb

SHARED = Path(os.environ.get("DIFFNAS_SHARED", Path(__file__).parents[2] / "../shared")) / "data"


def result(epochs: int, **accuracies: float) -> dict[str, Any]:
    named = {f"{name.replace('_', '-')}@{epochs - 1}": value for name, value in accuracies.items()}
    return {"epochs": epochs, "eval_acc1es": named}


def write_cell(folder: Path, index: int, *, text: str | None = None) -> Path:
    """A cell in the layout of NATS-Bench: three seeds on CIFAR-10, one on CIFAR-100."""
    head = {"arch_index": index, "arch_str": text or nb.format_cell(nb.ops_at(index))}
    long = {("cifar10", seed): result(200, ori_test=float(seed % 10 + index)) for seed in (777, 888, 999)}
    long |= {("cifar10-valid", 777): result(200, x_valid=61.5)}
    long |= {("cifar100", 777): result(200, x_test=40.0, x_valid=39.0, ori_test=1.0)}
    short = {("ImageNet16-120", 777): result(12, x_test=10.0, x_valid=11.0)}
    stored = {"200": {**head, "all_results": long}, "12": {**head, "all_results": short}}
    path = folder / f"{index:06d}.pickle.pbz2"
    path.write_bytes(bz2.compress(pickle.dumps(stored, 4)))
    return path


def rows_of(path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(path).read_text().splitlines()))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    found = tmp_path / "NATS-tss-v1_0-3ffb9-simple"
    found.mkdir()
    (found / "meta.pickle.pbz2").write_bytes(b"not a cell")
    for index in (5, 7, 9):
        write_cell(found, index)
    return found


def test_a_table_that_lookup_reads(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "nasbench201", str(folder), "--quiet"]) == 0
    assert capsys.readouterr().out == "table: nasbench201.csv (3 of 15,625 cells)\n"
    rows = rows_of("nasbench201.csv")
    assert [row["index"] for row in rows] == ["5", "7", "9"] and len(rows[0]) == 2 + 3 * 4 * 3
    assert rows[1]["cifar10_test_200_mean"] == f"{statistics.mean((14, 15, 16)):.6f}"
    assert rows[1]["cifar10_test_200_std"] == "1.000000" and rows[1]["cifar10_test_200_seeds"] == "3"
    assert (rows[1]["cifar100_test_200_std"], rows[1]["cifar100_test_200_seeds"]) == ("", "1")
    assert rows[1]["cifar10_test_12_mean"] == rows[1]["cifar10_test_12_seeds"] == ""
    entry = diffnas.lookup(nb.format_cell(nb.ops_at(7)), "nasbench201.csv")
    assert entry.results["cifar10"].test_200 == nb.Measured(15.0, 2, 3, 2.0, 3, 1.0)
    assert entry.results["cifar10"].valid_200 == nb.Measured(61.5, 1, 3, 0.0, 1)
    assert entry.results["cifar100"].valid_200 == nb.Measured(39.0, 1, 3, 0.0, 1)
    assert entry.results["imagenet16-120"].valid_12 == nb.Measured(11.0, 1, 3, 0.0, 1)
    assert entry.results["imagenet16-120"].test_200 is None


def test_damaged_files_are_named_and_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = folder / "000007.pickle.pbz2"
    cut.write_bytes(cut.read_bytes()[:-30])
    other = write_cell(folder, 8, text=nb.format_cell(["none"] * 6))
    assert main(["data", "nasbench201", str(folder.parent), "--out", "deep/t.csv", "--quiet"]) == 2
    shown = capsys.readouterr()
    assert shown.out == "table: deep/t.csv (2 of 15,625 cells)\n"
    first, second, last = shown.err.splitlines()
    assert first.startswith(f"{cut}: damaged or cut short")
    assert second.startswith(f"{other}: holds '|none~0|+") and second.endswith("is not the official cell 8")
    assert last == "diffnas: 2 of 4 files could not be used and were left out of deep/t.csv"
    assert [row["index"] for row in rows_of("deep/t.csv")] == ["5", "9"]


def test_nothing_is_written_where_nothing_can_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in folder.glob("0*"):
        path.write_bytes(b"")
    assert main(["data", "nasbench201", str(folder), "--quiet"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("none of the 3 files can be used; nothing was written")
    assert not Path("nasbench201.csv").exists()
    assert main(["data", "nasbench201", str(folder), "--out", str(folder)]) == 2
    assert "is a folder; name a file for the table" in capsys.readouterr().err
    assert main(["data", "nasbench201", str(folder / "none")]) == 2
    assert "there is no such folder" in capsys.readouterr().err


def test_the_packaged_table_can_be_made_again(tmp_path: Path) -> None:
    source = SHARED / "nasbench201.parquet"
    pytest.importorskip("pyarrow.parquet")
    if not source.is_file():
        pytest.skip("the collected table is not at hand")
    pack_table(source, tmp_path / "table.npz")
    with np.load(tmp_path / "table.npz", allow_pickle=False) as new, np.load(nb.PACKAGED, allow_pickle=False) as old:
        assert set(new) == set(old) and all(np.array_equal(new[name], old[name]) for name in old)


def test_what_cannot_be_packed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("index,arch_str\n")
    with pytest.raises(DataError, match="lacks the columns cifar10_test_acc_200_mean, cifar100_"):
        pack_table(path, tmp_path / "table.npz")
