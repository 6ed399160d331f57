"""The page of a run: whole, self-contained, and safe whatever the run folder holds."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffnas.errors import RunError, UserError
from diffnas.reports import values
from diffnas.reports.figures import write_figures
from diffnas.reports.find_runs import find_runs
from diffnas.reports.page import render, write_report
from diffnas.reports.run_facts import read_run

from .conftest import Page, write

Make = Callable[..., Path]
EVIL = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b[31m\u202e\ud800{{7*7}}"


def page_of(*runs: Path) -> Page:
    return Page(render([read_run(run) for run in runs]))


def sound(page: Page) -> None:
    """Nothing is requested, and nothing runs but the page's own script."""
    assert page.active == []
    assert page.tags.count("script") == page.tags.count("style") == 1
    assert not re.search(r"@import|url\(|https?://(?!www\.w3\.org/2000/svg)", page.html)
    policy = re.search(r"script-src '(sha256-[^']+)'", page.html)
    script = re.search(r"<script>(.*?)</script>", page.html, re.S)
    assert policy and script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert policy[1] == f"sha256-{digest}"
    odd = re.findall(r".{0,60}[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069].{0,9}", page.html)
    assert not odd


def test_it_tells_the_whole_story(make_run: Make) -> None:
    run = make_run(overrides=("seed=7", "search.epochs=6"), notes=["a note"])
    test = json.loads((run / "train/main/test.json").read_text())
    write(run / "train/main/test.json", test | {"classes": ["cat", "dog"], "confusion": [[40, 10], [5, 45]]})
    page = page_of(run)
    sound(page)
    for said in (
        "What differs from the recipe darts-cifar10 of the package",
        "seed 7 2 --set seed",
        "search.epochs 6 50",
        "NVIDIA H100",
        "1h26m in epochs, 0.060 GPU-days on NVIDIA H100",
        "commit abc",
        "a note",
        "pdarts",
        "normal 2 = skip_connect(0) + dil_conv_3x3(1)",
        "Largest eigenvalue",
        "Entropy of the strengths",
        "Strengths over time: normal cell",
        "13 → ",
        "6 different cells",
        "97.00 % (95 % interval 96.00 to 98.00)",
        "3,300,000",
        "published (quoted, not measured here) Liu et al., 2019, Table 1: 3.00 +- 0.14 %",
        "cat taken for dog: 10",
        "@inproceedings{darts,",
        "Learning Multiple Layers of Features from Tiny Images",
    ):
        assert said in page.text or said == "13 → ", said
    assert page.html.count('class="heat"') == 28


def test_a_long_search_fits(make_run: Make) -> None:
    page = page_of(make_run(epochs=50, accuracy=None))
    sound(page)
    assert len(page.html) < 1.5e6


@pytest.mark.parametrize("name", ["finished", "interrupted"])
def test_runs_of_earlier_versions(golden: Callable[[str], Path], name: str) -> None:
    run = golden(name)
    page = page_of(run)
    sound(page)
    assert "darts-digits-tiny" in page.text and "b1f9577" in page.text
    assert "were not recorded" in page.text  # sizes, which came later
    said = {"finished": "It was not tested", "interrupted": "not finished: 1 of 3 epochs"}[name]
    assert said in page.text


def test_nothing_is_injected(make_run: Make) -> None:
    run = make_run(EVIL.replace("/", "|")[:60], command=EVIL, device=EVIL, notes=[EVIL, {EVIL: EVIL}], commit=[EVIL])
    for path in run.rglob("recipe.yaml"):
        values_ = "{name: %s, about: %s, source: %s, data: {%s: %s}, space: {ops: [%s, b]}}"
        path.write_text(values_ % ((json.dumps(EVIL),) * 6))
    rows = [
        {"epoch": e, "stage": e, f"train_{EVIL}": 1.0, "train_loss": 1.0, f"skips_{EVIL}": 1, "seconds": EVIL}
        | {
            "strength": {EVIL: [[0.5, 0.5]]},
            "table": {EVIL: {"test": 90.0, "rank": EVIL}},
            "sampled": {EVIL: [1.0, EVIL]},
        }
        for e in range(3)
    ]
    write(run / "search/metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    genotype = json.loads((run / "search/genotype.json").read_text())
    genotype["provenance"] = {"name": EVIL, "source": EVIL, "recipe": EVIL, "epoch": 3}
    genotype["space"] = EVIL
    for place in ("search/genotype.json", "search/genotypes/epoch-003.json", "train/main/genotype.json"):
        write(run / place, genotype)
    write(run / "search/finished.json", {"reason": EVIL})
    write(run / "search/sizes.json", {"sizes": [{"size": EVIL, "params": EVIL}]})
    test = {"accuracy": 90.0, "classes": [EVIL, "b"], "confusion": [[1, 2], [3, 4]], "interval": [EVIL, 1]}
    write(run / "train/main/test.json", test)
    page = page_of(run)
    sound(page)
    assert "<img" not in page.html and "49" not in re.findall(r"\{\{.*?\}\}", page.html)
    assert page.text.count("alert(1)") > 20  # it is shown, as text
    assert page.html.count("&lt;/script&gt;&lt;") > page.html.count("</script>") == 1
    assert re.search(r'<text [^>]*class="best">&lt;/script&gt;', page.html)  # an op beside its strengths
    sound(page_of(run, make_run("other")))


@pytest.mark.parametrize(
    "name", ["recipe.yaml", "environment.json", "metrics.jsonl", "genotype.json", "finished.json", "genotypes"]
)
@pytest.mark.parametrize("how", ["missing", "damaged", "other type"])
def test_whatever_is_missing_is_said(make_run: Make, name: str, how: str) -> None:
    run = make_run(epochs=2)
    for path in run.glob(f"*/{name}"), run.glob(f"train/*/{name}"):
        for each in path:
            shutil.rmtree(each) if each.is_dir() else each.unlink()
            if how != "missing":
                each.write_bytes(b'{"a": \xff' if how == "damaged" else b"[1, 2]\n")
    page = page_of(run)
    sound(page)
    if name not in {"finished.json", "genotypes"}:
        assert "What is missing" in page.text
        assert name in page.text


def test_an_almost_empty_run(tmp_path: Path) -> None:
    (tmp_path / "run/search").mkdir(parents=True)
    page = page_of(tmp_path / "run")
    sound(page)
    for said in ("recipe.yaml is missing", "no epoch has ended yet", "metrics.jsonl has no rows", "There is no cell"):
        assert said in page.text


def test_odd_metrics(make_run: Make) -> None:
    run = make_run(epochs=2)
    whole = '{"epoch": 0, "train_loss": 1e308, "lr": 0, "score_loss": -1e99, "seconds": 1}\n'
    odd = [
        '{"epoch": 1, "train_loss": 1' + "0" * 400 + ', "train_accuracy": "high"}',
        '{"epoch": 2, "strength": {"normal": [[1, 2], [3]]}, "stage": -4}',
        '{"epoch": 3, "strength": [], "sampled": 3, "table": 7, "train_loss": null}',
        '{"epoch": 1' + "0" * 30 + "}",
        '{"epoch": -1}',
        "[" * 5000,
        '{"epoch": 4, "score_loss": 1e99',  # the row that is being written
    ]
    (run / "search/metrics.jsonl").write_text(whole + "\n".join(odd))
    page = page_of(run)
    sound(page)
    assert "metrics.jsonl has 4 damaged or unfinished rows" in page.text
    assert not re.search(r"\b(nan|inf)\b", page.html)


def test_a_huge_file_is_read_in_part(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(epochs=2)
    rows = "".join(f'{{"epoch": {e}, "train_loss": {1 / (e + 1)}, "seconds": 1}}\n' for e in range(9000))
    (run / "search/metrics.jsonl").write_text(rows)
    page = page_of(run)
    assert "has 9,000 rows" in page.text and "2h30m in epochs" in page.text
    assert len(page.html) < 1e6
    monkeypatch.setattr(values, "LARGEST_METRICS", 100_000)
    page = page_of(run)
    sound(page)
    assert "its beginning was read" in page.text


def test_a_cell_too_large_to_draw(make_run: Make) -> None:
    run = make_run()
    genotype = json.loads((run / "search/genotype.json").read_text())
    genotype["cells"]["normal"]["inputs"] = [[["sep_conv_3x3", 0]] * 64] * 60
    write(run / "search/genotype.json", genotype)
    assert "too many to draw" in page_of(run).text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(make_run: Make) -> None:
    run = make_run(epochs=2)
    for name in ("metrics.jsonl", "environment.json", "genotype.json", "recipe.yaml"):
        (run / "search" / name).unlink()
        os.mkfifo(run / "search" / name)
    sound(page_of(run))


def test_no_code_of_a_run_is_loaded_and_no_torch(make_run: Make, tmp_path: Path) -> None:
    run = make_run()
    plugin = tmp_path / "plugin.py"
    plugin.write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\n")
    for path in run.rglob("recipe.yaml"):
        path.write_text(f"plugins: [{plugin}]\n" + path.read_text().replace("name: darts ", f"name: {plugin} "))
    code = f"import sys, diffnas; diffnas.report({str(run)!r}); diffnas.compare({str(run)!r}); print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"
    assert not (tmp_path / "executed").exists()
    sound(Page((run / "report.html").read_text()))


def test_several_runs_begin_with_the_comparison(make_run: Make, tmp_path: Path) -> None:
    runs = [make_run(f"seed{seed}", accuracy=97.0 + seed / 10, overrides=(f"seed={seed}",)) for seed in range(5)]
    out = tmp_path / "out.html"
    assert write_report([tmp_path], out) == out
    page = Page(out.read_text())
    sound(page)
    assert "Comparison" in page.text and "5 97.20 0.16 97.00 to 97.40 97.40 (seed4)" in page.text
    assert page.html.count("<article") == 5
    assert 'class="heat"' not in page.html  # many runs: each has its own page for that
    assert 'class="heat"' in page_of(*runs[:2]).html


def test_where_it_goes(make_run: Make, tmp_path: Path) -> None:
    run = make_run(epochs=1)
    assert write_report([run, run]) == run / "report.html"
    with pytest.raises(UserError, match="2 runs: say where"):
        write_report([run, make_run("other", epochs=1)])
    with pytest.raises(UserError, match="is a folder"):
        write_report([run], tmp_path)
    with pytest.raises(RunError, match="there is no folder"):
        write_report([run], tmp_path / "absent" / "a.html")
    with pytest.raises(RunError, match="does not exist"):
        find_runs([tmp_path / "absent"])


def test_text(make_run: Make) -> None:
    run = make_run(recipe="darts-ptb", accuracy=50.0)
    test: dict[str, Any] = {"perplexity": 57.5, "interval": [56.0, 59.0], "n": 82430, "params": 23e6, "macs": 23e6}
    write(run / "train/main/test.json", test)
    page = page_of(run)
    sound(page)
    assert "test perplexity 57.50 (95 % interval 56.00 to 59.00)" in page.text
    assert "tokens 82,430" in page.text and "Penn Treebank" in page.text


def test_a_collapse_is_told(make_run: Make) -> None:
    run = make_run(epochs=3)
    genotype = json.loads((run / "search/genotype.json").read_text())
    genotype["cells"]["normal"]["inputs"] = [[["skip_connect", 0], ["skip_connect", 1]]] * 4
    write(run / "search/genotypes/epoch-002.json", genotype)
    assert "epoch 2: 8 of the 8 ops of cell normal are skip connections" in page_of(run).text


def test_stages_stand_side_by_side_and_the_depth_gap_is_told(make_run: Make) -> None:
    """As in the pictures of P-DARTS."""
    run = make_run(epochs=3, recipe="pdarts-cifar10", accuracy=None)
    rows = [{"epoch": e, "stage": e, "layers": layers, "train_loss": 1.0} for e, layers in enumerate((5, 11, 17))]
    (run / "search" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = Page(render([read_run(run)]))
    for said in ("stage 1, 5 cells, epoch 1", "stage 2, 11 cells, epoch 2", "stage 3, 17 cells, epoch 3"):
        assert said in page.text
    assert "Stages side by side" in page.text and "depth gap at the end: 3 cells" in page.text
    names = {path.name for path in write_figures([run], run / "figures")}
    assert {"search-stages.svg", "search-stages.pdf", "search-depth.svg"} <= names
    plain = Page(render([read_run(make_run("plain"))]))
    assert "Stages side by side" not in plain.text and "depth gap" not in plain.text


def test_a_page_of_many_runs_is_not_too_large(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [read_run(make_run(f"run{k}")) for k in range(4)]
    whole = render(runs)
    assert "Strengths over time" in whole and "room for the table" not in whole
    monkeypatch.setattr("diffnas.reports.page.LARGEST", len(whole) - 1)
    plain = render(runs)
    assert "Strengths over time" not in plain and plain.count("<article") == 4
    monkeypatch.setattr("diffnas.reports.page.LARGEST", len(plain) // 2)
    few = render(runs)
    sound(Page(few))
    assert len(few) <= len(plain) // 2 and 0 < few.count("<article") < 3
    assert f"Of {4 - few.count('<article')} more runs there is room for the table alone" in few
    monkeypatch.setattr("diffnas.reports.page.LARGEST", 1)
    assert render(runs).count("<article") == 1
