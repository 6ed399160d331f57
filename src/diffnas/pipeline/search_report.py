"""Per-epoch metrics, log line, genotype and collapse warning of a search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffnas import draw
from diffnas.core.collapse import ADVICE, SKIP, collapsed, skips
from diffnas.core.genotype import Genotype
from diffnas.core.space import Space
from diffnas.engine import Search, largest_eigenvalue
from diffnas.engine.scoring import score
from diffnas.engine.stage import Stage, Transition
from diffnas.pipeline.environment import version_of
from diffnas.recipe.recipe import Recipe
from diffnas.recipe.schema import Search as Settings
from diffnas.runtime.console import log
from diffnas.runtime.files import write_text
from diffnas.runtime.run_folder import Part
from diffnas.tasks.base import Task

SAMPLES = 100  # cells drawn each epoch where a table knows how good they are


def validated(search: Search, settings: Settings, task: Task) -> dict[str, float]:
    """The supernet's metrics on the data of the architecture, not augmented, with running statistics."""
    if not _due(search, settings.validate_every):
        return {}
    feed = search.feeds["score"]
    scores = score(search, search.relax("eval").detach(), feed.epoch(0), norm="running")
    metrics = task.check_metrics(scores.loss.item(), scores.accuracy.item())
    return {f"score_{name}": value for name, value in metrics.items()}


def curvature(search: Search, settings: Settings) -> dict[str, float]:
    """The largest eigenvalue of the Hessian of the loss in the architecture, on the first batch of its half."""
    if not _due(search, settings.eigenvalue_every):
        return {}
    if not any(tensor.requires_grad for tensor in search.relax("eval").tensors()):
        return {}  # the method's choices are no smooth function of what it learns
    batch = search.feeds["score"].epoch(0)[0]
    return {"eigenvalue": largest_eigenvalue(search, batch, settings.arch.decay)}


def _due(search: Search, every: int) -> bool:
    return bool(every) and (search.clock.total + 1) % every == 0 and "score" in search.feeds


def strengths(search: Search) -> dict[str, list[list[float]]]:
    """The strengths [E, O] per kind, to six digits."""
    return {kind: [[round(v, 6) for v in row] for row in each.tolist()] for kind, each in search.strength().items()}


def facts(search: Search, genotype: Genotype) -> dict[str, Any]:
    """Skip connections of each kind of cell; where there is a table, what it says of the genotype and of cells drawn from
    what the search believes now."""
    cells = search.space.cells
    counts = {f"skips_{kind}": count for kind, count in skips(genotype).items() if SKIP in cells[kind].ops}
    entry = search.space.lookup(genotype)
    if entry is None:
        return counts
    drawn = search.method.samples(search, SAMPLES, search.fork("samples"))
    looked = [row for row in map(search.space.lookup, drawn) if row is not None]
    return {
        **counts,
        "table": entry,
        "sampled": {data: sorted(row[data]["test"] for row in looked) for data in entry},
    }


def warned(genotype: Genotype, epoch: int, before: bool) -> bool:
    """Warns once of a cell dominated by skip connections; returns whether it is."""
    reason = collapsed(genotype)
    if reason is not None and not before:
        log.warning("collapse: after epoch %d %s; %s", epoch, reason, ADVICE)
    return reason is not None


def early_stop(search: Search, stages: Sequence[Stage]) -> Transition | None:
    """Returns a stop of the search or its stage if the cell has just collapsed; selection stages are never stopped early."""
    clock = search.clock
    genotype = search.derive() if clock.stage_epoch and not stages[clock.stage].selects else None
    reason = None if genotype is None else collapsed(genotype)
    if reason is None:
        return None
    if any(stage.selects for stage in stages[clock.stage :]):
        log.info("stage %d ended after epoch %d: %s", clock.stage + 1, clock.total, reason)
        return Transition(next_stage=True)
    return Transition(stop=True, genotype_epoch=max(1, clock.total - 1), reason=reason)


def write_genotype(search: Search, recipe: Recipe, part: Part) -> Genotype | None:
    """Writes the current genotype with its provenance; returns None if the method has none yet."""
    genotype = search.derive()
    if genotype is None:
        return None
    epoch = search.clock.total
    provenance = {
        "method": search.method.name,
        "recipe": recipe.name,
        "seed": recipe.seed,
        "epoch": epoch,
        "diffnas": version_of("diffnas"),
    }
    derived = Genotype(genotype.space, genotype.cells, provenance)
    part.folder("genotypes")
    write_text(part.genotypes(epoch), derived.to_json())
    write_text(part.genotype, derived.to_json())
    return derived


def say_table(space: Space, genotype: Genotype, part: Part) -> None:
    """Logs the table's entry of the result, and draws the progress of the search."""
    entry = space.lookup(genotype)
    if entry is None:
        return
    for data, row in entry.items():
        text = "table: %s %.2f %% test accuracy, rank %d, %.2f below the best"
        log.info(text, data, row["test"], row["rank"], row["gap"])
    draw.write_progress(part.metrics(), part.path)
