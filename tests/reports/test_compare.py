"""The comparison of several runs: its numbers, what is apart, and what has no result."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import diffnas
from diffnas.cli.main import main
from diffnas.reports.compare import Group, Outcome, compared
from diffnas.reports.tables import latex, markdown, terminal

from .conftest import write

Make = Callable[..., Path]


def group(*values: float, measure: str = "test accuracy, %") -> Group:
    outcomes = [Outcome(f"run{k}", "train", "r", "d", measure, v, "finished", {}) for k, v in enumerate(values)]
    return Group("r", "d", measure, outcomes)


def test_statistics() -> None:
    facts = group(1.0, 2.0, 3.0).facts()
    assert (facts["n"], facts["mean"], facts["std"], facts["best"], facts["best_run"]) == (3, 2.0, 1.0, 3.0, "run2")
    half = 4.302652729911275 / 3**0.5  # the 97.5 % quantile of Student's t with two degrees of freedom
    assert facts["interval"] == pytest.approx([2.0 - half, 2.0 + half])
    assert group(5.0, 4.0, measure="test perplexity").facts()["best"] == 4.0
    alone = group(7.0).facts()
    assert (alone["std"], alone["interval"]) == (None, None)
    assert (group().facts()["mean"], group().facts()["best"]) == (None, None)


def test_runs_without_a_result_are_counted(make_run: Make, tmp_path: Path) -> None:
    make_run("a", accuracy=97.0)
    make_run("b", accuracy=98.0)
    (make_run("not-tested") / "train/main/test.json").unlink()
    (make_run("stopped") / "train/main/weights.safetensors").unlink()
    make_run("diverged", attempts=[{"diverged": "at step 3"}])
    for name in ("test.json", "weights.safetensors"):
        (tmp_path / "diverged/train/main" / name).unlink()
    (make_run("spoilt") / "train/main/recipe.yaml").write_bytes(b"\xff")
    found = {(each["recipe"], each["n"]): each["counts"] for each in diffnas.compare(tmp_path)}
    counts = found[("darts-cifar10 of pdarts", 2)]
    assert counts == {"finished": 2, "not tested": 1, "not finished": 1, "diverged": 1, "unreadable": 0}
    assert found[("unnamed of pdarts", 0)]["unreadable"] == 1


def test_another_text_of_a_plug_in_is_another_experiment(make_run: Make, tmp_path: Path) -> None:
    for k, digest in enumerate(["ab" * 32, "ab" * 32, "cd" * 32]):
        make_run(f"own{k}", plugins=[{"kind": "method", "name": "own", "digest": digest}])
    make_run("without")
    groups = compared([tmp_path])
    assert [len(each.values) for each in groups] == [3, 1]
    assert [each.differing for each in groups] == [["plug-in method own=abababab…"], ["plug-in method own=cdcdcdcd…"]]


def test_other_settings_stand_apart_and_other_seeds_do_not(make_run: Make, tmp_path: Path) -> None:
    for seed in range(2):
        make_run(f"usual{seed}", overrides=(f"seed={seed}", f"data.path=/data{seed}"))
    make_run("short", overrides=("train.epochs=5",))
    groups = compared([tmp_path])
    assert [len(each.values) for each in groups] == [1, 2]
    assert [each.differing for each in groups] == [["train.epochs=5"], ["train.epochs=600"]]


def test_keys_of_later_versions_do_not_split_a_group(make_run: Make, tmp_path: Path) -> None:
    make_run("new")
    for path in make_run("old").rglob("recipe.yaml"):
        path.write_text("".join(line for line in path.read_text().splitlines(True) if "smoothing" not in line))
    assert [len(each.values) for each in compared([tmp_path])] == [2]


def test_searches_with_a_table(make_run: Make, tmp_path: Path) -> None:
    run = make_run("nb", accuracy=None, recipe="nb201-drnas")
    row = {"epoch": 0, "table": {"cifar10": {"test": 94.36, "rank": 2, "gap": 0.01}}, "sampled": {"cifar10": [90.0]}}
    write(run / "search/metrics.jsonl", json.dumps(row) + "\n")
    (facts,) = diffnas.compare(run)
    assert (facts["data"], facts["measure"], facts["mean"]) == ("cifar10", "test accuracy in the table, %", 94.36)


def test_tables_escape() -> None:
    evil = Group(r"a|b_*<script>\x & 50% $x^2$ {~}", "d", "m", group(1.0).outcomes)
    assert r"a\|b\_\*&lt;script&gt;\\x &amp; 50%" in markdown([evil])
    said = latex([evil])
    assert r"a\textbar{}b\_*\textless{}script\textgreater{}\textbackslash{}x \& 50\% \$x\textasciicircum{}2\$" in said
    assert r"\{\textasciitilde{}\}" in said


def test_the_command(make_run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(make_run(name, accuracy=value)) for name, value in (("a", 97.0), ("b", 98.0))]
    assert main(["compare", *runs, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == diffnas.compare(runs)
    for option in ([], ["--markdown"], ["--latex"]):
        assert main(["compare", str(tmp_path), *option]) == 0
        assert "97.50" in capsys.readouterr().out
    assert main(["compare", *runs, "--latex", "--json"]) == 2
    assert "choose one" in capsys.readouterr().err
    assert main(["compare", str(tmp_path / "absent")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main(["report", runs[0]]) == 0
    assert capsys.readouterr().out.strip() == f"report: {runs[0]}/report.html"
    assert main(["report", *runs]) == 2
    capsys.readouterr()


def test_a_report_can_be_the_table(make_run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = str(make_run("a")), tmp_path / "table.tex"
    for option, begins in (("--markdown", "| recipe |"), ("--latex", "\\begin{tabular}")):
        assert main(["report", run, option]) == 0
        assert capsys.readouterr().out.startswith(begins)
    assert main(["report", run, "--latex", "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == f"table: {out}" and out.read_text().endswith("\\end{tabular}\n")
    assert not (tmp_path / "a/report.html").exists()
    for wrong, said in (
        (["--latex", "--markdown"], "choose one"),
        (["--latex", "--out", str(tmp_path)], "is a folder"),
    ):
        assert main(["report", run, *wrong]) == 2
        assert said in capsys.readouterr().err


def test_runs_of_one_name_are_told_apart(make_run: Make, tmp_path: Path) -> None:
    for name in ("first/seed0", "second/seed0", "third/seed1"):
        make_run(name)
    (both,) = diffnas.compare(tmp_path)
    assert [each["run"] for each in both["runs"]] == ["first/seed0", "second/seed0", "third/seed1"]
    (both,) = diffnas.compare([tmp_path / "first/seed0", tmp_path / "third"])
    assert [each["run"] for each in both["runs"]] == ["seed0", "seed1"]


def test_a_table_fits_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffnas.reports.tables.WIDEST", 80)
    values = (97.25, 96.5, 97.0)
    outcomes = [
        Outcome(f"drnas-cifar10-20261128-{k:06d}", "train", "r", "d", "m", v, "finished", {})
        for k, v in enumerate(values)
    ]
    lines = terminal([Group("drnas-cifar10", "cifar10", "accuracy of the supernet, %", outcomes)])
    assert max(map(len, lines)) <= 80
    assert [line.strip() for line in lines[-3:]] == [
        "cifar10",
        "accuracy of the supernet, %",
        "best: drnas-cifar10-20261128-000000",
    ]


def test_cells_that_the_search_did_not_find_stand_apart(make_run: Make, tmp_path: Path) -> None:
    """As the demo trains random cells beside the one it found."""
    run = make_run("demo", accuracy=98.0)
    found = json.loads((run / "search/genotype.json").read_text())
    for name, provenance, accuracy in (("main", {}, 98.0), ("random-0", {"source": "random"}, 97.0)):
        if name != "main":
            shutil.copytree(run / "train/main", run / "train" / name)
        cells = {**found, "provenance": provenance}
        if provenance:
            kind = next(iter(cells["cells"]))
            cells["cells"] = {**cells["cells"], kind: {**cells["cells"][kind], "concat": [2]}}
        write(run / "train" / name / "genotype.json", cells)
        result = json.loads((run / "train" / name / "test.json").read_text())
        write(run / "train" / name / "test.json", {**result, "accuracy": accuracy})
    means = {each["recipe"]: each["mean"] for each in diffnas.compare(run)}
    assert means["darts-cifar10"] == 98.0 and means["darts-cifar10 of random cells"] == 97.0
