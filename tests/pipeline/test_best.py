"""`diffnas lookup --best`: the best cells by a table, as text, data and a function."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import diffnas
from diffnas.cli.main import main
from diffnas.errors import UserError
from diffnas.spaces.nasbench201 import table as nb


def test_the_best_cells(capsys: pytest.CaptureFixture[str]) -> None:
    cells = diffnas.best_cells("cifar100", 3)
    means = nb.packaged().mean("cifar100")
    assert [cell.rank for cell in cells] == [1, 2, 3] and cells[0].index == 9930
    assert [cell.accuracy for cell in cells] == sorted(means, reverse=True)[:3]
    assert cells[0].text == nb.format_cell(nb.ops_at(9930)) and (cells[0].params, cells[0].macs) == nb.size(
        nb.ops_at(9930), "cifar100"
    )
    assert main(["lookup", "--best", "3", "--data", "cifar100"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "test accuracy after 200 epochs on cifar100"
    assert shown[2].split() == ["rank", "accuracy", "index", "parameters", "multiply-adds", "cell"]
    assert shown[3].split()[:4] == ["1", "73.51", "%", "9930"] and shown[3].endswith(cells[0].text)
    assert len(shown) == 8 and shown[-1].startswith("accuracies: ")


def test_json_and_validation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lookup", "--best", "2", "--by", "valid", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["data"], found["measure"]) == ("cifar10", "valid_12")  # the packaged table has no other
    best = [diffnas.lookup(cell["index"]).results["cifar10"].valid_12 for cell in found["cells"]]
    assert [cell["accuracy"] for cell in found["cells"]] == [measured.mean for measured in best if measured]
    assert diffnas.best_cells("cifar10", 2, "valid_12") == diffnas.best_cells("cifar10", 2, "valid")


def test_equals_share_the_better_rank_and_all_can_be_listed() -> None:
    cells = diffnas.best_cells("imagenet16-120", nb.CELLS)
    assert len(cells) == nb.CELLS
    means = np.array([cell.accuracy for cell in cells])
    ranks = np.array([cell.rank for cell in cells])
    assert (np.diff(means) <= 0).all() and ((np.diff(means) == 0) == (np.diff(ranks) == 0)).all()
    ties = np.flatnonzero(np.diff(means) == 0)
    assert len(ties) and all(cells[k].index < cells[k + 1].index for k in ties)


def test_a_table_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("index,cifar10_valid_200_mean\n9930,50\n3,60.5\n7,\n")
    assert [(cell.rank, cell.index) for cell in diffnas.best_cells("cifar10", 10, "valid", path)] == [(1, 3), (2, 9930)]
    assert main(["lookup", "--best", "9", "--by", "valid", "--table", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"accuracies: {path}: means over the seeds in it"
    with pytest.raises(UserError, match="the table has no test_200 or test_12 on cifar10; it has valid_200"):
        diffnas.best_cells("cifar10", 1, "test", path)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--best", "0"], "--best 0: must be 1 to 15625"),
        (["--best", "15626"], "--best 15626: must be 1 to 15625"),
        (["--best", "3", "--data", "cifar"], "--data cifar: the table knows cifar10, cifar100, imagenet16-120"),
        (["--best", "3", "--by", "best"], "--by best: must be one of test, valid, test_200"),
        (
            ["--best", "3", "--by", "valid_200"],
            "--by valid_200: the table has no valid_200 on cifar10; it has test_200",
        ),
        (["9930", "--best", "3"], "--best lists cells by accuracy: it takes no cell"),
        (["--best", "3", "--latency", "a.csv"], "it takes no cell and no --latency"),
        (["9930", "--data", "cifar10"], "--data and --by choose among the cells of --best N"),
        ([], "name a cell, or --best N"),
    ],
)
def test_what_is_refused(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lookup", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and said in shown.err and len(shown.err.splitlines()) == 1
