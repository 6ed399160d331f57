"""What the board knows of a folder: read once, read on when it changes, and nothing from outside."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from diffnas.boards import pages
from diffnas.boards.library import Library, Reader, key_of
from diffnas.boards.summary import said_progress
from diffnas.boards.survey import strays
from diffnas.reports.compare import groups
from diffnas.runtime.lock import only_one

from .conftest import EVIL, Make, put


def look(folder: Path) -> Library:
    library = Library(folder)
    library.refresh()
    return library


def age(run: Path, seconds: float = 3600) -> None:
    """Lets all of `run` have been written long ago."""
    then = time.time() - seconds
    for path in [run, *run.rglob("*")]:
        if not path.is_symlink():
            os.utime(path, (then, then))


def test_an_empty_folder(runs: Path) -> None:
    page = pages.listing(look(runs), "", "")
    assert "There are no runs in this folder yet" in page
    assert "are being read" in pages.listing(Library(runs), "", "")


def test_a_run_of_an_earlier_version(make_run: Make, runs: Path) -> None:
    age(make_run("old"))
    library = look(runs)
    (line,) = library.lines()
    assert (line.state, line.method, line.data) == ("finished", "darts", "digits")
    assert line.tested.endswith("%") and line.done == 1.0
    page = pages.run_page(library, line)
    assert "The cell" in page and "Curves of the search" in page and "Training" in page


def test_states(make_run: Make, runs: Path) -> None:
    search = {"search/cells.svg": None}
    for path in (make_run("stopped", **search), make_run("broken", **{"search/recipe.yaml": "{["})):
        age(path)
    diverged = make_run("diverged", **search)
    facts = json.loads((diverged / "search/environment.json").read_text())
    facts["attempts"][-1]["diverged"] = "the train loss is not finite"
    put(diverged / "search/environment.json", facts)
    age(diverged)
    (runs / "no run").mkdir()
    (runs / "a file").write_text("")
    states = {line.name: line.state for line in look(runs).lines()}
    assert states == {"stopped": "not finished", "broken": "broken", "diverged": "diverged"}


def test_a_run_that_works(make_run: Make, runs: Path) -> None:
    run = make_run("live", **{"search/cells.svg": None})
    put(run / "search/progress.json", {"epoch": 2, "epochs": 9, "step": 3, "steps": 8, "left": 65.0})
    library = look(runs)
    (line,) = library.lines()
    assert line.state == "running" and line.now == "epoch 2 of 9, step 3 of 8, 1m05s left"  # written just now
    age(run)
    library.refresh()
    assert library.lines()[0].state == "not finished"
    if not Path("/proc/locks").exists():
        return
    with only_one(run / "search"):
        library.refresh()
        assert library.lines()[0].state == "running"  # however long a step takes


def test_a_link_to_another_s_progress_is_not_followed(make_run: Make, runs: Path, tmp_path: Path) -> None:
    run = make_run("live", **{"search/cells.svg": None})
    put(tmp_path / "secret", {"epoch": 2, "epochs": 9, "step": 3, "steps": 8})
    (run / "search/progress.json").symlink_to(tmp_path / "secret")
    assert look(runs).lines()[0].now == ""


@pytest.mark.parametrize("facts", [{}, {"epoch": EVIL}, {"epoch": -1, "epochs": 2, "step": 1, "steps": 1}])
def test_a_damaged_progress_says_nothing(facts: dict[str, Any]) -> None:
    assert said_progress(facts) == ""


def test_only_what_changed_is_read_again(make_run: Make, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(4):
        make_run(f"r{k}")
    read, plain = list[str](), Reader.read

    def note(reader: Reader, path: Path, frames: bool) -> Any:
        read.append(path.name)
        return plain(reader, path, frames)

    monkeypatch.setattr(Reader, "read", note)
    library = look(runs)
    library.refresh()
    assert sorted(read) == ["r0", "r1", "r2", "r3"]
    read.clear()
    put(runs / "r2/train/main/test.json", None)
    with (runs / "r1/search/metrics.jsonl").open("a") as file:
        file.write('{"epoch": 99, "train_loss": 1.0}\n')
    shutil.rmtree(runs / "r3")
    changed = {path.name for path in runs.iterdir() if path.name in {"r1", "r2"}}
    library.refresh()
    assert "r1" in read and set(read) <= changed and [line.name for line in library.lines() if "r3" in line.name] == []
    read.clear()
    first = library.page("r1")
    assert library.page("r1") is first and read == ["r1"]  # the page is kept as well


def test_one_run_takes_no_other_off_the_board(make_run: Make, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run("good")
    make_run("odd")
    plain = Reader.read

    def fail(reader: Reader, path: Path, frames: bool) -> Any:
        return plain(reader, path, frames) if path.name == "good" else 1 / 0

    monkeypatch.setattr(Reader, "read", fail)
    lines = {line.name: line for line in look(runs).lines()}
    assert lines["good"].recipe and (lines["odd"].state, lines["odd"].note) == (
        "broken",
        "ZeroDivisionError: division by zero",
    )


def test_a_huge_file_keeps_nobody_waiting(make_run: Make, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffnas.boards.library.AT_ONCE", 500)
    row = json.dumps({"train_loss": 1.0, "seconds": 2.0, "strength": {"normal": [[0.5, 0.5]]}})
    rows = [f'{{"epoch": {epoch}, {row[1:]}\n' for epoch in range(60)]
    make_run("huge", **{"search/metrics.jsonl": "".join(rows)})
    make_run("other")
    library = Library(runs)
    seen = []
    for _ in range(30):
        library.refresh()
        seen.append({line.name: line for line in library.lines()})
    assert "other" in seen[0] and seen[0]["huge"].seconds != seen[-1]["huge"].seconds
    facts = library.facts(["huge"])[0]
    assert facts.search is not None and facts.search.metrics.epochs == 60 and facts.search.metrics.seconds == 120.0


def test_answers_wait_for_no_file(make_run: Make, runs: Path) -> None:
    for k in range(12):
        make_run(f"r{k}")
    library = look(runs)
    library.page("r3")
    shutil.rmtree(runs)
    page = pages.listing(library, "", "")
    assert page.count('name="run"') == 12 and library.page("r3") is not None


def test_the_list_is_filtered(make_run: Make, runs: Path) -> None:
    make_run("alpha")
    make_run("beta", **{"search/recipe.yaml": "{["})
    library = look(runs)
    assert pages.listing(library, "ALPHA digits", "").count('name="run"') == 1
    assert pages.listing(library, "", "broken").count('name="run"') == 1
    assert "No run fits" in pages.listing(library, EVIL, "")


def test_runs_are_compared(make_run: Make, runs: Path) -> None:
    make_run("a")
    make_run("b")
    page = pages.comparison(look(runs), ["a", "b", "gone", "a"])
    assert "2 runs" in page and "1 of the chosen runs cannot be read" in page
    assert "Loss of the search, train (weights)" in page and "test accuracy, %" in page
    assert "Choose runs" in pages.comparison(Library(runs), [])


def test_a_run_has_one_colour_in_all_charts(make_run: Make, runs: Path) -> None:
    make_run("a", **{"search/metrics.jsonl": '{"epoch": 0, "train_loss": 1.0}\n'})
    make_run("b", **{"search/metrics.jsonl": '{"epoch": 0, "train_loss": 1.0, "train_perplexity": 9.0}\n'})
    whole = look(runs).whole(["a", "b"])
    charts = [pages.overlay(whole, "search", "train", quantity) for quantity in ("loss", "perplexity")]
    assert [[(line.name, line.colour) for line in chart.lines] for chart in charts if chart] == [
        [("a", 1), ("b", 2)],
        [("b", 2)],
    ]


@pytest.mark.parametrize("place", ["search/metrics.jsonl", "search/genotypes/epoch-001.json", "search", "train", ""])
def test_nothing_outside_is_read(make_run: Make, runs: Path, tmp_path: Path, place: str) -> None:
    run, secret = make_run("run"), tmp_path / "secret"
    whole = run / place if place else run
    shutil.move(whole, secret)
    whole.symlink_to(secret)
    library = look(runs)
    (line,) = library.lines()
    assert line.state == "not read" and "leads outside the folder" in line.note
    assert library.page("run") is None and library.whole(["run"]) == []
    assert "leads outside" in pages.run_page(library, line)


def test_a_link_that_appears_later(make_run: Make, runs: Path, tmp_path: Path) -> None:
    run = make_run("run")
    library = look(runs)
    assert library.page("run") is not None
    put(tmp_path / "secret", {"device": "secret"})
    put(run / "search/environment.json", None)
    (run / "search/environment.json").symlink_to(tmp_path / "secret")
    assert library._read_whole(run) is None
    library.refresh()
    assert library.lines()[0].state == "not read"


def test_links_within_the_folder_are_fine(make_run: Make, runs: Path, tmp_path: Path) -> None:
    run = make_run("run")
    (runs / "latest").symlink_to(run)
    (tmp_path / "other").symlink_to(runs)
    shutil.move(run / "train", tmp_path / "weights")  # far away, but what is read is not there
    assert strays(runs / "latest", runs) == []
    assert [line.state for line in look(tmp_path / "other").lines()] != ["not read"] * 2
    (run / "search/loop").symlink_to(run / "search/loop")
    assert strays(run, runs) == []


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("search/metrics.jsonl", '{"epoch": 0, "train_loss": 1}\n{"epo'),
        ("search/metrics.jsonl", f"{json.dumps({'epoch': 0, EVIL: EVIL, 'train_loss': EVIL, 'skips_' + EVIL: 3})}\n"),
        ("search/metrics.jsonl", "[" * 100_000),
        ("search/recipe.yaml", json.dumps({"name": EVIL, "data": {"name": EVIL}, "method": {"name": EVIL}})),
        ("search/environment.json", json.dumps({"notes": 3, "attempts": EVIL, "device": EVIL})),
        (
            "search/environment.json",
            json.dumps({"notes": [EVIL], "plugins": [{"file": "evil.py"}]}),
        ),
        ("search/genotype.json", json.dumps({"space": EVIL})),
        ("search/progress.json", json.dumps({"epoch": 1, "epochs": EVIL})),
        ("train/main/test.json", json.dumps({"accuracy": EVIL, "classes": [EVIL], "confusion": [[1]]})),
    ],
)
def test_whatever_a_run_holds(make_run: Make, runs: Path, path: str, content: str) -> None:
    run = make_run("run")
    put(run / path, content)
    put(run / "evil.py", "open('owned', 'w')")
    library = look(runs)
    (line,) = library.lines()
    for page in (pages.listing(library, "", ""), pages.run_page(library, line), pages.comparison(library, ["run"])):
        assert "<script>" not in page and "<img" not in page and "\x1b" not in page
        assert not Path("owned").exists()


def test_names_that_no_address_can_have(runs: Path, make_run: Make) -> None:
    names = ["<img src=x onerror=alert(1)>", "..%2f", "a b", "ünïcode", "a?b#c"]
    for name in names:
        make_run(name)
    library = look(runs)
    assert {line.name for line in library.lines()} == set(names)
    assert all(line.key.startswith("~") and library.page(line.key) is not None for line in library.lines())
    assert key_of("run-1") == "run-1" and key_of(".") != "." and key_of("..") != ".."
    assert "<img" not in pages.listing(library, "", "")


def test_runs_in_folders_of_folders(make_run: Make, runs: Path, tmp_path: Path) -> None:
    for name in ("exp1/seed0", "exp2/seed0", "a/b/c", "too/deep/for/it", ".hidden/run"):
        make_run(name)
    shutil.copytree(runs / "exp1", tmp_path / "elsewhere")
    (runs / "exp3").symlink_to(tmp_path / "elsewhere")
    (runs / "exp4").symlink_to(runs)
    (runs / "exp1/latest").symlink_to(runs / "exp1/seed0")
    (runs / "images/train/cat").mkdir(parents=True)
    put(runs / "images/train/cat/1.png", "")
    library = look(runs)
    lines = {line.name: line for line in library.lines()}
    assert set(lines) == {"exp1/seed0", "exp1/latest", "exp2/seed0", "a/b/c"}
    assert lines["exp1/seed0"].key == "exp1~seed0" and library.page("a~b~c") is not None
    (compared,) = groups(library.facts(["exp1~seed0", "exp2~seed0"]))
    assert [outcome.run for outcome in compared.outcomes] == ["exp1/seed0", "exp2/seed0"]


def test_a_folder_that_becomes_a_link_to_elsewhere(make_run: Make, runs: Path, tmp_path: Path) -> None:
    run = make_run("exp1/seed0")
    library = look(runs)
    (runs / "exp1").rename(tmp_path / "elsewhere")
    (runs / "exp1").symlink_to(tmp_path / "elsewhere")
    assert strays(run, runs) == ["exp1/seed0"] and library.page("exp1~seed0") is None
    library.refresh()
    assert library.lines() == []


def test_what_was_opened_does_not_pile_up(make_run: Make, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffnas.boards.library.MOST_OPEN", 2)
    for k in range(4):
        make_run(f"r{k}")
    library = look(runs)
    library.whole(["r0", "r1", "r2", "r3"])
    assert {path.relative_to(runs).parts[0] for path in library._opened._files} == {"r2", "r3"}


def test_recipes_are_parsed_once(make_run: Make, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run("a")
    make_run("b")
    library = look(runs)
    monkeypatch.setattr("diffnas.reports.recipe_facts.parse_yaml", lambda *_: pytest.fail("parsed again"))
    assert "2 runs" in pages.comparison(library, ["a", "b"])


def test_it_watches_while_it_is_looked_at(make_run: Make, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffnas.boards.library.EVERY", 0.01)
    library, stop = Library(runs), threading.Event()
    thread = threading.Thread(target=library.watch, args=(stop,))
    thread.start()
    make_run("new")
    until = time.monotonic() + 20
    while not library.lines() and time.monotonic() < until:
        time.sleep(0.01)
    stop.set()
    thread.join(20)
    assert not thread.is_alive() and [line.name for line in library.lines()] == ["new"]
