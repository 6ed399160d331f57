"""Several runs in a table: what each recipe came to, how much it varies with the seed, and what did not come to an end."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scipy.special import stdtrit

from diffnas.reports.find_runs import find_runs
from diffnas.reports.run_facts import RunFacts, SearchFacts, TrainFacts, read_runs
from diffnas.reports.values import mapping, number, sequence, text

NOT_COMPARED = {"name", "about", "source", "seed", "device", "data.path"}
NOT_COMPARED_ENDS = (
    ".checkpoint_every",
    ".supernet",
    ".compile",
    ".eigenvalue_every",
    ".validate_every",
    ".test_every",
)
COUNTED = ("not tested", "not finished", "diverged", "unreadable")
MOST_SETTINGS = 6


@dataclass(frozen=True)
class Outcome:
    """What one search or training came to: `value`, None where `status` says why not."""

    run: str
    part: str
    recipe: str
    data: str
    measure: str
    value: float | None
    status: str
    settings: dict[str, str]
    seed: str = ""


@dataclass
class Group:
    """The outcomes of one recipe with the same settings, on the same data; `differing` are settings that tell it apart."""

    recipe: str
    data: str
    measure: str
    outcomes: list[Outcome]
    differing: list[str] = field(default_factory=list)

    @property
    def values(self) -> list[float]:
        """The values of the outcomes that have one."""
        return [outcome.value for outcome in self.outcomes if outcome.value is not None]

    @property
    def mean(self) -> float | None:
        """Their mean."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Their sample standard deviation (n - 1), None for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean by Student's t, None for fewer than two."""
        if self.mean is None or self.std is None:
            return None
        n = len(self.values)
        half = float(stdtrit(n - 1, 0.975)) * self.std / math.sqrt(n)
        return self.mean - half, self.mean + half

    @property
    def best(self) -> Outcome | None:
        """The best outcome: the lowest perplexity or loss, or the highest accuracy."""
        ranked = [outcome for outcome in self.outcomes if outcome.value is not None]
        lower = "perplexity" in self.measure or "loss" in self.measure
        return min(ranked, key=lambda o: (o.value or 0.0) if lower else -(o.value or 0.0), default=None)

    def count(self, status: str) -> int:
        """How many outcomes have that status."""
        return sum(outcome.status == status for outcome in self.outcomes)

    @property
    def missing(self) -> str:
        """Those without a value, counted by the reason."""
        return ", ".join(f"{self.count(status)} {status}" for status in COUNTED if self.count(status))

    def facts(self) -> dict[str, Any]:
        """The group as plain data."""
        best = self.best
        return {
            "recipe": self.recipe,
            "settings": self.differing,
            "data": self.data,
            "measure": self.measure,
            "n": len(self.values),
            "mean": self.mean,
            "std": self.std,
            "interval": None if self.interval is None else list(self.interval),
            "best": None if best is None else best.value,
            "best_run": None if best is None else best.run,
            "counts": {status: self.count(status) for status in ("finished", *COUNTED)},
            "runs": [
                {"run": o.run, "part": o.part, "seed": o.seed, "status": o.status, "value": o.value}
                for o in self.outcomes
            ],
        }


def compared(paths: Sequence[str | Path]) -> list[Group]:
    """The outcomes of the runs at `paths`, grouped; a folder of runs stands for those in it."""
    return groups(read_runs(find_runs(paths)))


def groups(runs: Sequence[RunFacts]) -> list[Group]:
    """The outcomes of `runs`, grouped by recipe, data, measure and settings, in the order in which they come."""
    listed: list[Group] = []
    for outcome in (outcome for run in runs for outcome in outcomes(run)):
        group = next((group for group in listed if _belongs(outcome, group)), None)
        if group is None:
            group = Group(outcome.recipe, outcome.data, outcome.measure, [])
            listed.append(group)
        group.outcomes.append(outcome)
    for group in listed:
        group.differing = _differing(group, [other for other in listed if other.recipe == group.recipe])
    return listed


def _belongs(outcome: Outcome, group: Group) -> bool:
    """Whether `outcome` is of the same recipe and settings; keys that only one of them has were added between versions."""
    if (outcome.recipe, outcome.data, outcome.measure) != (group.recipe, group.data, group.measure):
        return False
    return not _unlike(outcome.settings, group.outcomes[0].settings)


def _unlike(ours: dict[str, str], theirs: dict[str, str]) -> set[str]:
    """The keys that have two values."""
    return {key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]}


def _differing(group: Group, others: Sequence[Group]) -> list[str]:
    """The settings of `group` that are others in another group of its recipe on its data."""
    settings = group.outcomes[0].settings
    keys = [_unlike(settings, other.outcomes[0].settings) for other in others if other.data == group.data]
    own = [f"{key}={settings[key]}" for key in sorted(set().union(*keys))]
    return own if len(own) <= MOST_SETTINGS else [*own[:MOST_SETTINGS], f"{len(own) - MOST_SETTINGS} more"]


def outcomes(run: RunFacts) -> Iterator[Outcome]:
    """What the trainings of `run` came to; what its search came to where a table tells, or where there is no training."""
    for training in run.trainings:
        yield _of_training(run, training)
    if run.search is not None:
        yield from _of_search(run, run.search)


def _of_training(run: RunFacts, training: TrainFacts) -> Outcome:
    recipe = training.recipe
    status = {"tested": "finished", "finished": "not tested"}.get(training.status, training.status)
    if not recipe.values:
        status = "unreadable"
    sections = ["train.", "data.", "precision"]
    settings = _settings(recipe.values, sections) | _plugins(training.environment)
    label = recipe.name
    if training.cell_name:
        label += f" of {training.cell_name}"
    elif _is_of_another_cell(run, training):
        label += " of random cells" if _source(training) == "random" else " of other cells"
    elif run.search is not None:
        settings |= _settings(run.search.recipe.values, ["space.", "method.", "search."])
        settings |= _plugins(run.search.environment)
        label += "" if run.search.recipe.name == recipe.name else f" after {run.search.recipe.name}"
    measure = f"test {training.quantity}{', %' if training.quantity == 'accuracy' else ''}"
    value = training.result if status == "finished" else None
    data = recipe.get("data.name") or "unknown"
    return Outcome(run.name, training.name, label, data, measure, value, status, settings, training.seed)


def _is_of_another_cell(run: RunFacts, training: TrainFacts) -> bool:
    """Whether `training` trains another cell than the search of its run found, as the demo does for comparison."""
    if run.search is None or run.search.genotype is None or training.genotype is None:
        return False
    return training.genotype.cells != run.search.genotype.cells


def _source(training: TrainFacts) -> Any:
    return training.genotype.provenance.get("source") if training.genotype else None


def _of_search(run: RunFacts, search: SearchFacts) -> Iterator[Outcome]:
    recipe, table, row = search.recipe, search.table(), search.last_row
    status = search.status if recipe.values else "unreadable"
    common: dict[str, Any] = {
        "run": run.name,
        "part": "search",
        "recipe": recipe.name,
        "status": status,
        "settings": _settings(recipe.values, ["space.", "method.", "search.", "data.", "precision"])
        | _plugins(search.environment),
        "seed": search.seed,
    }
    for data, said in table.items():
        value = said["test"] if status == "finished" else None
        yield Outcome(**common, data=data, measure="test accuracy in the table, %", value=value)
    if not table and not run.trainings:
        usual = "perplexity" if search.is_text else "accuracy"
        quantity = usual if f"score_{usual}" in row or "score_loss" not in row else "loss"
        value = number(row.get(f"score_{quantity}")) if status == "finished" else None
        unit = ", %" if quantity == "accuracy" else ""
        data = recipe.get("data.name") or "unknown"
        yield Outcome(**common, data=data, measure=f"{quantity} of the supernet{unit}", value=value)


def _plugins(environment: Mapping[str, Any]) -> dict[str, str]:
    """The first digits of the digests of the plug-ins that a part was made with: another text is another experiment."""
    return {
        text(f"plug-in {entry.get('kind')} {entry.get('name')}", 100): text(entry.get("digest"), 8)
        for entry in map(mapping, sequence(environment.get("plugins")))
        if entry.get("digest")
    }


def _settings(values: Mapping[str, Any], sections: Sequence[str]) -> dict[str, str]:
    """The settings of these sections that a result depends on."""
    return {
        text(key, 100): text(value, 100)
        for key, value in values.items()
        if key.startswith(tuple(sections)) and key not in NOT_COMPARED and not key.endswith(NOT_COMPARED_ENDS)
    }
