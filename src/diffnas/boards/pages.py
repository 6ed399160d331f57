"""The pages of the board as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from diffnas.boards.library import Library
from diffnas.boards.summary import STATES, Summary
from diffnas.reports import tables
from diffnas.reports.charts import Chart, Line
from diffnas.reports.compare import groups
from diffnas.reports.page import asset
from diffnas.reports.run_facts import RunFacts
from diffnas.reports.sections import QUANTITIES, SAID
from diffnas.reports.templating import environment
from diffnas.reports.values import text

MOST_CURVES = 6  # as many as there are colours
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#0b63a5"/>'
    '<path d="M3 12C7 12 6 4 13 4M3 12C8 13 9 10 13 11" fill="none" stroke="#fff" stroke-width="1.6"/></svg>'
)


def style() -> str:
    """The style of all pages: that of the report, and what the board adds."""
    return f"{asset('style.css')}\n{_own('board.css')}"


def script() -> str:
    """The script of all pages: that of the report's slides, and what follows running searches."""
    return f"{asset('slides.js')}\n{_own('board.js')}"


def _own(name: str) -> str:
    return (files("diffnas.boards") / "templates" / name).read_text(encoding="utf-8")


def _render(name: str, title: str, **values: Any) -> str:
    template = environment("diffnas.boards").get_template(name)
    return template.render(title=title, version=version("diffnas"), **values)


def listing(library: Library, query: str, state: str) -> str:
    """The list of runs that have all words of `query`, in `state` where one is given."""
    lines = library.lines()
    shown = [line for line in lines if line.matches(query.lower().split(), state)]
    return _render(
        "list.html",
        "Runs",
        folder=text(str(library.folder.absolute()), 400),
        lines=shown,
        all=len(lines),
        looked=library.looked,
        query=query[:200],
        state=state,
        states=[(each, sum(line.state == each for line in lines)) for each in STATES],
    )


def run_page(library: Library, line: Summary) -> str:
    """The page of a run."""
    return _render("run_page.html", line.name, line=line, parts=library.page(line.key))


def comparison(library: Library, keys: Sequence[str]) -> str:
    """The page that compares the runs of those keys: a table, and their curves over one another."""
    chosen = list(dict.fromkeys(keys))
    facts = library.facts(chosen)
    whole = library.whole(chosen[:MOST_CURVES])
    return _render(
        "compare.html",
        f"{len(facts)} runs",
        heads=tables.HEADS,
        rows=[tables.cells(group) for group in groups(facts)],
        missing=len(chosen) - len(facts),
        charts=[chart for chart in (overlay(whole, *each) for each in _overlays()) if chart is not None],
        left_out=max(0, len(facts) - MOST_CURVES),
        runs=[line for line in map(library.line, chosen) if line is not None],
    )


def _overlays() -> list[tuple[str, str, str]]:
    """(part, level, quantity) of every chart that several runs may share."""
    levels = {"search": ("score", "valid", "train"), "train": ("test", "valid", "train")}
    return [(part, level, quantity) for part in levels for quantity in QUANTITIES for level in levels[part]]


def overlay(runs: Sequence[RunFacts], part: str, level: str, quantity: str) -> Chart | None:
    """The curves of one quantity of all `runs` in one chart, None where no run has it; a run has one colour in all charts."""
    lines = list[Line]()
    for k, run in enumerate(runs):
        parts = [run.search] if part == "search" else run.trainings[:1]
        points = parts[0].metrics.column(f"{level}_{quantity}") if parts and parts[0] is not None else []
        if points:
            lines.append(Line(run.name, points, k + 1, dashed=bool(k % 2)))
    if not lines:
        return None
    title, unit = QUANTITIES[quantity]
    return Chart(f"{title} of the {'search' if part == 'search' else 'training'}, {SAID[level]}", unit, tuple(lines))


def not_found() -> str:
    """The page where there is none."""
    return _render("not_found.html", "Not found")
