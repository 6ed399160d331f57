"""What a run folder holds, as far as it can be read: its search, its trainings, and what is missing or damaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from diffnas.core.genotype import Genotype
from diffnas.reports.cells import Frame, read_frames, read_one
from diffnas.reports.find_runs import labels
from diffnas.reports.recipe_facts import RecipeFacts, read_recipe_facts
from diffnas.reports.values import Metrics, entries, mapping, number, read_json, read_metrics, sequence, text, whole
from diffnas.runtime.files import is_file, is_folder
from diffnas.runtime.run_folder import METRICS, Part, open_run

MOST_TRAININGS = 100
ReadMetrics = Callable[[Path, list[str]], Metrics]
"""Reads the rows at a path and adds what is wrong with them to a list."""


@dataclass(frozen=True)
class PartFacts:
    """One command's folder of a run; `problems` say what is missing or damaged in it."""

    name: str
    recipe: RecipeFacts
    environment: dict[str, Any]
    metrics: Metrics
    genotype: Genotype | None
    sizes: list[dict[str, Any]]
    touched: str
    problems: list[str] = field(default_factory=list)

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """Every start and resumption."""
        return [mapping(attempt) for attempt in sequence(self.environment.get("attempts"))]

    @property
    def diverged(self) -> str:
        """How the last attempt diverged, empty where it did not."""
        return text(self.attempts[-1].get("diverged")) if self.attempts else ""

    @property
    def device(self) -> str:
        """The device it ran on."""
        return text(self.environment.get("device")) or "unknown device"

    @property
    def is_text(self) -> bool:
        """Whether it reads text rather than images."""
        return any(key in self.recipe.values for key in ("train.units", "search.bptt"))

    @property
    def seed(self) -> str:
        """Its seed."""
        return self.recipe.get("seed") or text(self.environment.get("seed"))


@dataclass(frozen=True)
class SearchFacts(PartFacts):
    """A search, with the genotypes of its epochs."""

    frames: list[Frame] = field(default_factory=list)
    finished: dict[str, Any] = field(default_factory=dict)
    drawn: bool = False

    @property
    def status(self) -> str:
        """`finished`, `diverged` or `not finished`."""
        if self.finished or self.drawn:  # earlier versions ended by drawing the cells
            return "finished"
        return "diverged" if self.diverged else "not finished"

    @property
    def epoch(self) -> int | None:
        """The epoch that the genotype is from."""
        return whole(self.genotype.provenance.get("epoch")) if self.genotype else None

    @cached_property
    def last_row(self) -> dict[str, Any]:
        """The last row of metrics, empty where there is none."""
        return self.metrics.rows[-1] if self.metrics.rows else {}

    def table(self) -> dict[str, dict[str, float]]:
        """What a table said of the result: {data: {test, rank, gap}}; empty where there was no table."""
        rows = [row for row in self.metrics.rows if self.epoch is None or row["epoch"] < self.epoch]
        said = mapping(rows[-1].get("table")) if rows else {}
        plain = {text(data, 40): {k: number(v) for k, v in mapping(row).items()} for data, row in said.items()}
        return {data: {k: v for k, v in row.items() if v is not None} for data, row in plain.items() if row.get("test")}


@dataclass(frozen=True)
class TrainFacts(PartFacts):
    """A training, with its test."""

    test: dict[str, Any] = field(default_factory=dict)
    trained: bool = False

    @property
    def status(self) -> str:
        """`tested`, `finished`, `diverged` or `not finished`."""
        if self.trained:
            return "tested" if self.result is not None else "finished"
        return "diverged" if self.diverged else "not finished"

    @property
    def result(self) -> float | None:
        """What the test measured (see `quantity`); None where it was not tested."""
        return number(self.test.get(self.quantity))

    @property
    def quantity(self) -> str:
        """What a test measures: the accuracy in percent, the perplexity of text, or the loss of a task without accuracy."""
        if self.is_text:
            return "perplexity"
        measured = self.test or (self.metrics.rows[-1] if self.metrics.rows else {})
        names = {key.removeprefix("test_").removeprefix("valid_") for key in measured}
        return "loss" if "accuracy" not in names and {"loss", "train_loss"} & names else "accuracy"

    @property
    def cell_name(self) -> str:
        """The published name of the cell it trains, empty where it has none."""
        return text(self.genotype.provenance.get("name"), 80) if self.genotype else ""


@dataclass(frozen=True)
class RunFacts:
    """A run: its folder, its search (None where it has none) and its trainings."""

    path: Path
    search: SearchFacts | None
    trainings: list[TrainFacts]
    problems: list[str]
    label: str = ""

    @property
    def name(self) -> str:
        """Its label, or the name of the folder."""
        return text(self.label or self.path.absolute().name or str(self.path), 100)


def read_run(path: str | Path, metrics: ReadMetrics = read_metrics, frames: bool = True) -> RunFacts:
    """What the run folder at `path` holds; raises `RunError` where there is none, and for nothing within it.

    `metrics` reads rows of metrics; without `frames` the cells of all epochs are left out.
    """
    run = open_run(path)
    problems: list[str] = []
    folders = [path for path in entries(run.path / "train", problems) if is_folder(path) and entries(path, problems)]
    names = [path.name for path in folders]
    if len(names) > MOST_TRAININGS:
        problems.append(f"train/ holds {len(names)} trainings; the first {MOST_TRAININGS} are shown")
    search = _search(run.search, metrics, frames) if is_folder(run.search.path) else None
    if search is None:
        problems.append("it has no search of its own")
    trainings = [_training(Part(run.path / "train" / name), metrics) for name in names[:MOST_TRAININGS]]
    return RunFacts(run.path, search, trainings, problems)


def read_runs(runs: Sequence[Path]) -> list[RunFacts]:
    """What each of the run folders `runs` holds, under names that tell them apart."""
    return [replace(read_run(run), label=label) for run, label in zip(runs, labels(runs), strict=True)]


def _common(part: Part, read: ReadMetrics) -> dict[str, Any]:
    """What a search and a training have alike."""
    problems: list[str] = []
    recipe = read_recipe_facts(part.recipe, problems)
    environment = read_json(part.path / "environment.json", problems)
    metrics = read(part.path / METRICS, problems)
    genotype = read_one(part.genotype, problems)
    if not environment:
        problems.append("environment.json is missing or damaged: versions, device and times are not known")
    if not metrics.rows:
        begins = genotype is None and not is_file(part.path / METRICS)
        said = "no epoch has ended yet, so that " if begins else ""
        problems.append(f"{said}{METRICS} has no rows: there are no curves")
    sizes = sequence(read_json(part.path / "sizes.json", problems).get("sizes"))
    return {
        "name": text(part.path.name, 150),
        "recipe": recipe,
        "environment": environment,
        "metrics": metrics,
        "genotype": genotype,
        "sizes": [mapping(size) for size in sizes[:10]],
        "touched": _touched(part.path / METRICS),
        "problems": problems,
    }


def _search(part: Part, metrics: ReadMetrics, with_frames: bool) -> SearchFacts:
    common = _common(part, metrics)
    problems = common["problems"]
    if common["genotype"] is None and (common["metrics"].rows or is_file(part.genotype)):
        problems.append("genotype.json is missing or damaged: there is no cell to show")
    frames = read_frames(part.path / "genotypes", problems) if with_frames else []
    finished = read_json(part.path / "finished.json", problems)
    return SearchFacts(**common, frames=frames, finished=finished, drawn=is_file(part.path / "cells.svg"))


def _training(part: Part, metrics: ReadMetrics) -> TrainFacts:
    common = _common(part, metrics)
    test = read_json(part.path / "test.json", common["problems"])
    return TrainFacts(**common, test=test, trained=is_file(part.weights))


def _touched(path: Path) -> str:
    """When the file at `path` was last written, in words."""
    try:
        return f"{datetime.fromtimestamp(path.stat().st_mtime, UTC):%Y-%m-%d %H:%M} UTC"
    except (OSError, ValueError, OverflowError):
        return ""
