"""`estimate`: what a recipe will take before it is begun: data found, sizes, time, memory, and the batch that fits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from diffnas.core.genotype import Genotype
from diffnas.core.published_genotypes import published
from diffnas.errors import RecipeError, ResourceError, UserError
from diffnas.recipe.plugins_used import require_named, used_by
from diffnas.recipe.recipe import Recipe
from diffnas.runtime.console import duration, log
from diffnas.runtime.room import in_words

Part = Literal["search", "train"]
EXAMPLES = {
    "darts-cnn": "darts-v2",
    "darts-rnn": "darts-rnn-v2",
    "nasbench201": "nb201-all-3x3",
    "shufflenet-blocks": "dsnas",
}
"""The published cell whose training is estimated where a recipe searches for its own."""
SECONDS = 10.0  # that the steps of a part are timed for
ROOM = 0.9  # share of the free memory that a batch may take


def estimate(
    recipe: Recipe, genotype: Genotype | None = None, parts: Sequence[Part] | None = None, seconds: float | None = None
) -> dict[str, Any]:
    """Estimates the `parts` of `recipe` (those that it has), by running a few steps of each in a process of its own.

    `{"recipe", "data", "device", "threads", "search": {...}, "train": {...}}`; a part has `weights`, `steps` (an epoch),
    `epochs`, `step_seconds`, `epoch_seconds`, `seconds` (in all), `peak_memory` and `free_memory` in bytes, `batch`,
    `timed_batch` (a smaller one, where a step takes long: times and memory are scaled from it), `batch_fits` and
    `largest_batch` (None: unknown).  Nothing is written.  Times are None where the batch does not fit.  `genotype` is what is
    trained (None: a published cell of the space); steps are timed for `seconds`.  Raises `UserError` as the commands do.
    """
    has: list[Part] = [part for part in ("search", "train") if getattr(recipe, part) is not None]
    missing = " or ".join([part for part in parts or ("search", "train") if part not in has])
    if missing and (parts or not has):
        raise RecipeError(f"the recipe has no {missing} section; there is nothing to estimate")
    require_named(recipe)
    found: dict[str, Any] = {"recipe": recipe.name}
    for part in parts or has:
        log.info("%s: a few steps are timed (some seconds)", part)
        cell = None if part == "search" else genotype or _example(recipe)
        learnt = _measured(recipe, part, cell, SECONDS if seconds is None else seconds)
        found |= {key: learnt[key] for key in ("data", "device", "threads", "reading_seconds")}
        found[part] = _facts(recipe, part, learnt)
        if cell is not None:
            found[part]["genotype"] = cell.provenance.get("name", "the given one")
    return found


def _example(recipe: Recipe) -> Genotype:
    """A published cell that the recipe could train."""
    usual = {"text": "darts-rnn", "images": "darts-cnn"}.get(recipe.modality, "of this recipe")
    space = recipe.space.name if recipe.space is not None else usual
    if space not in EXAMPLES:
        said = "no published cell is known; give the genotype whose training is to be estimated"
        raise RecipeError(f"space {space}: {said}")
    return published(EXAMPLES[space])


def _measured(recipe: Recipe, part: Part, genotype: Genotype | None, seconds: float) -> dict[str, Any]:
    """All that the measuring process said."""
    request = {
        "part": part,
        "genotype": None if genotype is None else genotype.to_json(),
        "plugins": [owner.file or owner.module for owner in used_by(recipe).values()],
        "seconds": seconds,
    }
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.yaml"
        file.write_text(recipe.to_yaml(), encoding="utf-8")
        done = subprocess.run(  # noqa: S603 (this program itself)
            [sys.executable, "-m", "diffnas.pipeline.measure"],
            input=json.dumps({**request, "recipe": str(file)}),
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            check=False,
        )
    learnt: dict[str, Any] = {"weighed": {}}
    for line in done.stdout.splitlines():
        learnt |= json.loads(line)
    if "refused" in learnt:
        raise UserError(*learnt["refused"])
    if "full" in learnt or done.returncode == -9:
        raise ResourceError(f"the memory is full after a step of {part}; lower {part}.batch or the size of the network")
    if "failed" in learnt:
        raise RuntimeError(f"{part} cannot be measured: {learnt['failed']}")
    if done.returncode:
        raise UserError(f"the process that measures {part} ended with code {done.returncode}; its message is above")
    return learnt


def _facts(recipe: Recipe, part: Part, learnt: dict[str, Any]) -> dict[str, Any]:
    """A part of the result, out of what was measured."""
    batch, peak, free = getattr(recipe, part).batch, learnt["peak_memory"], learnt["free_memory"]
    weighed = {int(size): count for size, count in learnt["weighed"].items()}
    stages = learnt.get("stages")
    facts: dict[str, Any] = {"batch": batch, "peak_memory": peak, "free_memory": free}
    facts |= {"batch_fits": not learnt["extrapolated"], "largest_batch": _largest(weighed, batch, peak, free)}
    facts["timed_batch"] = learnt.get("timed_batch")
    facts |= dict.fromkeys(("weights", "epochs", "steps", "step_seconds", "epoch_seconds", "seconds"))
    facts["stages"] = stages or []
    if stages:
        epochs = sum(stage["epochs"] for stage in stages)
        whole = sum(stage["epochs"] * (stage["steps"] * stage["step"] + stage["evaluation"]) for stage in stages)
        steps = sum(stage["epochs"] * stage["steps"] for stage in stages)
        stepping = sum(stage["epochs"] * stage["steps"] * stage["step"] for stage in stages)
        facts |= {"weights": stages[-1]["weights"], "epochs": epochs, "steps": round(steps / epochs)}
        facts |= {"step_seconds": stepping / max(1, steps), "epoch_seconds": whole / epochs, "seconds": whole}
    return facts


def _largest(weighed: dict[int, int], batch: int, peak: int, free: int | None) -> int | None:
    """The largest batch that memory has room for, on the straight line from the smallest batch weighed to the recipe's."""
    points = {**weighed, batch: peak}
    if free is None or len(points) < 2:
        return None
    low, high = min(points), max(points)
    each = (points[high] - points[low]) / (high - low)
    room = ROOM * (free + points[low]) - points[low]
    return int(low + room / each) if each > 0 else None


def described(found: dict[str, Any]) -> Iterator[str]:
    """Lines that say what was found."""
    data = found["data"]
    parts = ", ".join(
        f"{role} {said[unit]:,} {unit}"
        for role, said in data.items()
        for unit in ("images", "tokens", "samples")
        if isinstance(said, dict) and unit in said
    )
    yield f"data:    {data.get('path') or data.get('name')}: {parts}; read in {duration(found['reading_seconds'])}"
    yield f"device:  {found['device']}, {found['threads']} thread{'s' * (found['threads'] != 1)}"
    for part in ("search", "train"):
        if part in found:
            yield from _part_lines(part, found[part])


def _part_lines(part: str, facts: dict[str, Any]) -> Iterator[str]:
    head = f"{part}:".ljust(9)
    cell = f" of {facts['genotype']}" if "genotype" in facts else ""
    if facts["seconds"] is not None:
        yield f"{head}{facts['weights']:,} weights{cell}; {facts['epochs']} epochs of {facts['steps']:,} steps"
        step, epoch, whole = (facts[key] for key in ("step_seconds", "epoch_seconds", "seconds"))
        yield f"         a step takes {step:.3g} s, an epoch {duration(epoch)}, all of it {duration(whole)}"
        if facts["timed_batch"] not in (None, facts["batch"]):
            yield f"         timed at a batch of {facts['timed_batch']:,}; times and memory are scaled from that"
        if len(facts["stages"]) > 1:
            yield from _stage_lines(facts["stages"])
    free = "" if facts["free_memory"] is None else f" of {in_words(facts['free_memory'])} that are free"
    about = "" if facts["batch_fits"] and facts["timed_batch"] in (None, facts["batch"]) else "about "
    yield f"{head if facts['seconds'] is None else ' ' * 9}memory: {about}{in_words(facts['peak_memory'])} at most{free}"
    fits = f"a batch of {facts['batch']:,} {'fits' if facts['batch_fits'] else 'does not fit'}"
    largest = "" if facts["largest_batch"] is None else f"; the largest is about {facts['largest_batch']:,}"
    yield f"         {fits}{largest}"
    if not facts["batch_fits"]:
        yield f"         to make it fit: {_sparing(part, facts)}"


def _sparing(part: str, facts: dict[str, Any]) -> str:
    """The keys that spare memory, by name."""
    pieces = -(-facts["batch"] // max(2, facts["largest_batch"] or facts["batch"] // 2))
    ways = [f"-s {part}.accumulate={max(2, pieces)}", "-s precision=bfloat16"]
    ways += ["-s search.supernet=plain -s search.recompute=true"] if part == "search" else []
    return f"{', '.join(ways)}, or more devices (--devices)"


def _stage_lines(stages: list[dict[str, Any]]) -> Iterator[str]:
    for number, stage in enumerate(stages, 1):
        said = f"{stage['epochs']} epochs, {stage['weights']:,} weights, {stage['step']:.3g} s a step"
        yield f"         part {number}: {said}"
