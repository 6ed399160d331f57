"""The report: one HTML file that needs nothing else, of one run or of several."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from diffnas.errors import RunError, UserError
from diffnas.reports import sections, tables
from diffnas.reports.cells import legend, picture, shown
from diffnas.reports.compare import groups
from diffnas.reports.confusion import read_confusion
from diffnas.reports.find_runs import find_runs
from diffnas.reports.heatmap import strengths_of
from diffnas.reports.references import bibtex
from diffnas.reports.run_facts import RunFacts, SearchFacts, TrainFacts, read_runs
from diffnas.reports.templating import environment
from diffnas.reports.values import number, text, whole
from diffnas.runtime.files import is_folder, write_text

MOST_DETAILED = 4  # runs on a page with heat maps and all cells; of more, each run's own page has them
LARGEST = 3_000_000  # bytes of a page of several runs
NAME = "report.html"


def write_report(paths: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Writes the page of the runs at `paths` to `out` (of one run by default RUN/report.html) and returns its path.

    Raises `RunError` where there is no run, `UserError` where it is not said where the page of several goes.
    """
    runs = find_runs(paths)
    if out is None and len(runs) != 1:
        raise UserError(f"{len(runs)} runs: say where their page goes, with --out FILE")
    path = place_of(runs[0] / NAME if out is None else Path(out))
    write_text(path, render(read_runs(runs)))
    return path


def place_of(path: Path) -> Path:
    """Returns `path` where a file can be written there; raises `UserError` or `RunError` where none can."""
    if is_folder(path):
        raise UserError(f"--out {path}: is a folder; name a file")
    if not is_folder(path.parent):
        raise RunError(f"--out {path}: there is no folder {path.parent}")
    return path


def render(runs: Sequence[RunFacts]) -> str:
    """The page of `runs`; where it would be larger than `LARGEST`, with less of each, then of fewer of them."""
    detailed = len(runs) <= MOST_DETAILED
    parts = [run_parts(run, detailed) for run in runs]
    page = _page(runs, parts, detailed)
    if detailed and len(runs) > 1 and len(page.encode()) > LARGEST:
        parts = [_plain(part) for part in parts]
        page = _page(runs, parts, False)
    while len(parts) > 1 and (size := len(page.encode())) > LARGEST:
        parts = parts[: max(1, len(parts) * LARGEST // (size + size // 20))]
        page = _page(runs, parts, False)
    return page


def _plain(part: dict[str, Any]) -> dict[str, Any]:
    """What the page shows of a run, without what takes most room."""
    return part | {"search": part["search"] and part["search"] | {"strengths": [], "frames": [], "stage_cells": []}}


def _page(runs: Sequence[RunFacts], parts: Sequence[dict[str, Any]], detailed: bool) -> str:
    """The page that compares `runs` and has all `parts`, which are of the first of them."""
    style, script = asset("style.css"), asset("slides.js")
    return (
        environment()
        .get_template("report.html")
        .render(
            style=Markup(style),
            script=Markup(script),
            style_hash=_hash(style),
            script_hash=_hash(script),
            title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
            written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            version=version("diffnas"),
            heads=tables.HEADS,
            comparison=[tables.cells(group) for group in groups(runs)] if len(runs) > 1 else [],
            detailed=detailed,
            runs=parts,
            left_out=len(runs) - len(parts),
        )
    )


@cache
def asset(name: str) -> str:
    """The text of the style or script of that name."""
    return (files("diffnas.reports") / "templates" / name).read_text(encoding="utf-8").strip()


def _hash(content: str) -> str:
    """What the page's policy lets in: this style or script and no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def run_parts(run: RunFacts, detailed: bool = True) -> dict[str, Any]:
    """What the page shows of a run, for the template `run.html`."""
    search = run.search
    names = [part.recipe.get("data.name") for part in (search, *run.trainings) if part is not None]
    if search is not None:
        keys = ("method.name", "method.base", "space.name")
        names = [*(search.recipe.get(key) for key in keys), *names]
    names += [training.genotype.space for training in run.trainings if training.genotype is not None]
    return {
        "name": run.name,
        "path": text(str(run.path.absolute()), 400),
        "problems": run.problems,
        "search": None if search is None else _search(search, detailed),
        "trainings": [_training(training, search) for training in run.trainings],
        "bibtex": bibtex(names),
    }


def _common(part: SearchFacts | TrainFacts, search: SearchFacts | None) -> dict[str, Any]:
    before = None if search is None or search is part else search.recipe
    return {
        "facts": sections.facts(part),
        "attempts": sections.attempts(part),
        "recipe": part.recipe.name,
        "packaged": part.recipe.packaged,
        "differences": part.recipe.differences(before),
        "published": part.recipe.get("source"),
        "curves": list(sections.curves(part.metrics)),
        "cell": _cell(part),
        "sizes": _sizes(part),
        "problems": part.problems,
    }


def _search(search: SearchFacts, detailed: bool) -> dict[str, Any]:
    strengths = strengths_of(search.metrics.rows, search.recipe.values)
    return _common(search, None) | {
        "status": search.status,
        "stages": sections.stages(search),
        "stage_cells": [(title, frame.picture) for title, frame in sections.stage_ends(search)] if detailed else [],
        "depth": list(sections.depth(search)),
        "signs": list(sections.signs(search, strengths)),
        "judged": any(frame.skips for frame in search.frames),
        "warnings": sections.warnings(search.frames),
        "sampled": list(sections.sampled(search)),
        "table": search.table(),
        "strengths": strengths if detailed else [],
        "frames": shown(search.frames) if detailed else [],
        "all_frames": len(search.frames),
    }


def _training(training: TrainFacts, search: SearchFacts | None) -> dict[str, Any]:
    test = training.test
    confusion = read_confusion(test, training.problems)
    same = search is not None and search.genotype == training.genotype
    provenance = training.genotype.provenance if training.genotype else {}
    return _common(training, search) | {
        "name": training.name,
        "status": training.status,
        "same_cell": same,
        "cell_source": text(provenance.get("source")),
        "result": _result(test),
        "confusion": confusion,
    }


def _cell(part: SearchFacts | TrainFacts) -> dict[str, Any] | None:
    """The genotype of a part: name, epoch, picture, legend and text."""
    genotype = part.genotype
    if genotype is None:
        return None
    provenance = genotype.provenance
    epoch = whole(provenance.get("epoch"))
    name = text(provenance.get("name") or provenance.get("recipe") or genotype.space, 80)
    return {
        "name": name,
        "epoch": epoch,
        "epochs": part.metrics.epochs,
        "picture": picture(genotype),
        "legend": legend(genotype),
        "text": genotype.to_text(),
    }


def _sizes(part: SearchFacts | TrainFacts) -> list[tuple[str, str, str]]:
    """(of what size, parameters, multiply-adds), as far as they were recorded."""
    test = part.test if isinstance(part, TrainFacts) else {}
    rows = [test | {"size": "as tested"}] if "params" in test else part.sizes
    return [(text(row.get("size")), _count(row.get("params")), _count(row.get("macs"))) for row in rows]


def _count(value: Any) -> str:
    count = number(value)
    return "not recorded" if count is None else f"{count:,.0f}"


def _result(test: dict[str, Any]) -> list[tuple[str, str]]:
    """What a test found, as (name, value) pairs."""
    interval = test.get("interval")
    low, high = map(number, interval) if isinstance(interval, list) and len(interval) == 2 else (None, None)
    between = "" if low is None or high is None else f"95 % interval {low:.2f} to {high:.2f}"
    said = {
        "accuracy": ("test accuracy", "{:.2f} %"),
        "perplexity": ("test perplexity", "{:.2f}"),
        "error": ("test error", "{:.2f} %"),
        "top5": ("top-5 accuracy", "{:.2f} %"),
        "loss": ("test loss", "{:.4f}"),
        "unigram_perplexity": ("perplexity of word frequencies alone", "{:.2f}"),
        "n": ("tokens" if "perplexity" in test else "samples" if "task" in test else "images", "{:,.0f}"),
    }
    values = [(key, number(test.get(key))) for key in said]
    pairs = [(said[key][0], said[key][1].format(value)) for key, value in values if value is not None]
    if pairs and between:
        pairs[0] = (pairs[0][0], f"{pairs[0][1]} ({between})")
    return pairs
