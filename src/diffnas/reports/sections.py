"""What the page says of a search and of a training: charts, tables and sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from diffnas.reports.cells import Frame, skip_counts
from diffnas.reports.charts import Band, Chart, Line, Points
from diffnas.reports.heatmap import Strengths, entropy
from diffnas.reports.run_facts import PartFacts, SearchFacts, TrainFacts
from diffnas.reports.values import Metrics, mapping, number, sequence, text, whole
from diffnas.runtime.console import duration

LEVELS = {"train": 1, "valid": 2, "score": 3, "test": 4}
QUANTITIES = {"loss": ("Loss", ""), "accuracy": ("Accuracy", "%"), "perplexity": ("Perplexity", "")}
SAID = {
    "train": "train (weights)",
    "valid": "valid (architecture)",
    "score": "score (validation, not augmented)",
    "test": "test",
}
MOST_STAGES, MOST_ATTEMPTS, MOST_TABLES, MOST_DRAWN_STAGES = 30, 20, 6, 4
Facts = list[tuple[str, str]]


def facts(part: PartFacts) -> Facts:
    """What ran, as (name, value) pairs; what is not known is left out."""
    environment, recipe = part.environment, part.recipe
    data = mapping(environment.get("data"))
    pairs = [
        ("recipe", " ".join(filter(None, [recipe.name, f"({recipe.get('about')})" if recipe.get("about") else ""]))),
        ("method", recipe.get("method.name") if isinstance(part, SearchFacts) else ""),
        ("space", recipe.get("space.name") or (text(part.genotype.space) if part.genotype else "")),
        ("data", _data(recipe.get("data.name"), data)),
        ("seed", part.seed),
        ("status", status(part)),
        ("device", f"{part.device}, threads: {text(environment.get('threads')) or 'not recorded'}"),
        ("time", time(part)),
        ("peak memory", _memory(mapping(environment.get("peak_memory")))),
        ("started", text(environment.get("started"))),
        ("diffnas", " ".join(filter(None, [text(environment.get("diffnas")), _commit(environment)]))),
        ("torch, Python", ", ".join(filter(None, [text(environment.get("torch")), text(environment.get("python"))]))),
        ("platform", text(environment.get("platform"))),
        ("command", text(environment.get("command"), 1000)),
    ]
    pairs += [("note", text(note, 2000)) for note in sequence(environment.get("notes"))[:20]]
    return [(name, value) for name, value in pairs if value]


def _memory(peak: dict[str, Any]) -> str:
    """`1.25 GiB (process)`."""
    size = number(peak.get("bytes"))
    return "" if not size else f"{size / 2**30:,.2f} GiB ({text(peak.get('of'), 40)})"


def _commit(environment: dict[str, Any]) -> str:
    commit = text(environment.get("commit"))
    return f"commit {commit}" if commit else ""


def _data(name: str, data: dict[str, Any]) -> str:
    """The data set, and how many images there were."""
    counts = [(role, whole(mapping(data.get(role)).get("images"))) for role in ("train", "valid", "test")]
    said = ", ".join(f"{role} {count:,} images" for role, count in counts if count)
    classes = len(sequence(data.get("classes")))
    return ": ".join(filter(None, [name, f"{classes} classes, {said}" if said and classes else said]))


def status(part: SearchFacts | TrainFacts | PartFacts) -> str:
    """How far it came, in a sentence."""
    epochs = f"after {part.metrics.epochs:,} epoch{'s' if part.metrics.epochs != 1 else ''}"
    if part.diverged:
        return f"diverged {epochs}: {part.diverged}"
    if isinstance(part, SearchFacts) and part.status == "finished":
        reason = text(part.finished.get("reason"))
        return f"finished {epochs}" + (f": {reason}" if reason else "")
    if isinstance(part, TrainFacts) and part.trained:
        return f"finished {epochs}"
    asked = part.recipe.get("search.epochs" if isinstance(part, SearchFacts) else "train.epochs")
    of = f" of {asked}" if asked else ""
    touched = f"; metrics last written {part.touched}" if part.touched else ""
    return f"not finished: {part.metrics.epochs:,}{of} epochs{touched}"


def time(part: PartFacts) -> str:
    """How long it took, and as days of the device."""
    seconds = part.metrics.seconds
    if not seconds:
        return ""
    kind = "CPU-days" if part.device == "cpu" else "GPU-days"
    days = f"{seconds / 86400:.3f}" if seconds > 86.4 else "under 0.001"
    return f"{duration(seconds)} in epochs, {days} {kind} on {part.device}"


def attempts(part: PartFacts) -> list[str]:
    """Each start and resumption in words, where there were several."""
    listed = part.attempts
    if len(listed) < 2:
        return []
    said = []
    for attempt in listed[-MOST_ATTEMPTS:]:
        keys = ("started", "at", "device", "torch", "diverged")
        said.append(", ".join(text(attempt.get(key)) for key in keys if attempt.get(key)))
    more = [f"{len(listed) - MOST_ATTEMPTS} earlier ones"] if len(listed) > MOST_ATTEMPTS else []
    return [*more, *said]


def marks(metrics: Metrics) -> tuple[tuple[int, str], ...]:
    """The epochs after which another stage began."""
    boundaries, before = [], None
    for row in metrics.rows:
        stage = whole(row.get("stage"), 1000)
        if before is not None and stage is not None and stage != before[1]:
            boundaries.append((before[0], f"stage {stage + 1} begins"))
        before = before if stage is None else (row["epoch"] + 1, stage)
    return tuple(boundaries[:MOST_STAGES])


def stages(search: SearchFacts) -> list[tuple[str, ...]]:
    """(stage, epochs, time, losses at its end, strongest measure at its end) of a search in several stages."""
    spans: dict[int, list[dict[str, Any]]] = {}
    for row in search.metrics.rows:
        stage = whole(row.get("stage"), 1000)
        if stage is not None:
            spans.setdefault(stage + 1, []).append(row)
    listed = [_stage(stage, rows) for stage, rows in sorted(spans.items())]
    return listed[:MOST_STAGES] if len(listed) > 1 else []


def _stage(stage: int, rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    last = rows[-1]
    seconds = sum(number(row.get("seconds")) or 0.0 for row in rows)
    said = {level: _all_levels(last, level) for level in ("loss", "accuracy", "perplexity")}
    measure = said["accuracy"] or said["perplexity"]
    return str(stage), f"{rows[0]['epoch'] + 1} to {last['epoch'] + 1}", duration(seconds), said["loss"], measure


def _all_levels(row: dict[str, Any], quantity: str) -> str:
    """`train 1.234, score 1.345` of a row."""
    pairs = [(level, number(row.get(f"{level}_{quantity}"))) for level in LEVELS]
    return ", ".join(f"{level} {value:.4g}" for level, value in pairs if value is not None)


def stage_ends(search: SearchFacts) -> list[tuple[str, Frame]]:
    """(`stage 1, 5 cells, epoch 25`, its cell) at the end of each stage of a search in several stages."""
    last = {whole(row.get("stage"), 1000): row for row in search.metrics.rows}
    ends = []
    for stage, row in sorted((stage, row) for stage, row in last.items() if stage is not None):
        epoch, layers = row["epoch"] + 1, whole(row.get("layers"))
        frame = next((frame for frame in search.frames if frame.first <= epoch <= frame.last), None)
        size = f"{layers} cells, " if layers else ""
        if frame is not None:
            ends.append((f"stage {stage + 1}, {size}epoch {epoch}", frame))
    return ends[:MOST_DRAWN_STAGES] if len(ends) > 1 else []


def depth(search: SearchFacts) -> Iterator[Chart]:
    """The number of cells of the supernet, epoch by epoch, beside that of the network that is trained (P-DARTS: depth gap)."""
    searched, trained = search.metrics.column("layers"), whole(_number_of(search.recipe.get("train.layers")))
    if not searched or trained is None:
        return
    ends = [(searched[0][0], float(trained)), (searched[-1][0], float(trained))]
    lines = (Line("supernet", searched, 1), Line("network that is trained", ends, 5, dashed=True))
    gap = trained - searched[-1][1]
    yield Chart("Depth", "cells", lines, marks(search.metrics), note=f"depth gap at the end: {gap:g} cells")


def _number_of(value: str) -> int | None:
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else None


def curves(metrics: Metrics) -> Iterator[Chart]:
    """Loss and accuracy or perplexity of every level, and the gap between what trains the weights and what does not."""
    at = marks(metrics)
    for quantity, (title, unit) in QUANTITIES.items():
        lines = [
            Line(SAID[level], points, colour, dashed=level == "valid")
            for level, colour in LEVELS.items()
            if (points := metrics.column(f"{level}_{quantity}"))
        ]
        if lines:
            yield Chart(title, unit, tuple(lines), at, log=quantity == "perplexity")
    held = next((level for level in ("score", "valid", "test") if metrics.column(f"{level}_loss")), None)
    if held is not None and (gap := _gap(metrics, held)):
        last = f"at the end {gap[-1][1]:+.3f}"
        yield Chart("Gap of the loss", "", (Line(f"{SAID[held]} less train", gap, 5),), at, note=last)
    if rate := metrics.column("lr"):
        yield Chart("Learning rate of the weights", "", (Line("learning rate", rate, 6),), at)


def _gap(metrics: Metrics, held: str) -> Points:
    train = dict(metrics.column("train_loss"))
    return [(epoch, value - train[epoch]) for epoch, value in metrics.column(f"{held}_loss") if epoch in train]


def signs(search: SearchFacts, strengths: Sequence[Strengths]) -> Iterator[Chart]:
    """Charts of what tells of a collapse: skip connections, the eigenvalue, and how decided the strengths are."""
    at, metrics = marks(search.metrics), search.metrics
    kinds = [key for key in search.last_row if key.startswith("skips_")][:6]
    counts: Mapping[str, Points] = {text(key[6:], 40): metrics.column(key) for key in kinds}
    if lines := _lines(counts or skip_counts(search.frames)):
        yield Chart("Skip connections in the cell", "", lines, at)
    if eigenvalue := metrics.column("eigenvalue"):
        line = Line("largest eigenvalue", eigenvalue, 5)
        yield Chart("Largest eigenvalue of the Hessian in the architecture", "", (line,), at, log=True)
    if lines := _lines({each.kind: entropy(each) for each in strengths}):
        note = "1: all ops of an edge are equally strong; 0: one op has all"
        yield Chart("Entropy of the strengths, as a share of the largest", "", lines, at, note=note)


def _lines(named: Mapping[str, Points]) -> tuple[Line, ...]:
    listed = [(name, points) for name, points in named.items() if points][:6]
    return tuple(Line(name, points, k + 1, dashed=bool(k % 2)) for k, (name, points) in enumerate(listed))


def sampled(search: SearchFacts) -> Iterator[Chart]:
    """Where a table knows all cells: the accuracy of the choice, and the range of cells that the search would sample."""
    rows = [row for row in search.metrics.rows if mapping(row.get("table"))]
    names = list(mapping(rows[-1].get("table")))[:MOST_TABLES] if rows else []
    for name in names:
        choice, middle, low, high = (list[tuple[int, float]]() for _ in range(4))
        for row in rows:
            epoch, test = row["epoch"] + 1, number(mapping(mapping(row["table"]).get(name)).get("test"))
            drawn = [v for v in map(number, sequence(mapping(row.get("sampled")).get(name))) if v is not None]
            choice += [(epoch, test)] if test is not None else []
            middle += [(epoch, sorted(drawn)[len(drawn) // 2])] if drawn else []
            low += [(epoch, min(drawn))] if drawn else []
            high += [(epoch, max(drawn))] if drawn else []
        lines = (Line("the choice", choice, 5), Line("median of sampled cells", middle, 1, dashed=True))
        band = Band("range of sampled cells", low, high)
        title = f"True test accuracy on {text(name, 40)}"
        yield Chart(title, "%", tuple(line for line in lines if line.points), marks(search.metrics), band)


def warnings(frames: Sequence[Frame]) -> list[str]:
    """The epochs whose cell has collapsed, and how."""
    collapses = [(frame.title, frame.collapse) for frame in frames if frame.collapse]
    if not collapses:
        return []
    said = [f"{title}: {reason}" for title, reason in collapses[:3]]
    return said + ([f"and in {len(collapses) - 3} later cells"] if len(collapses) > 3 else [])
