"""The process behind `estimate`: it builds one part of a recipe as its command does, and times and weighs a few steps.

    python -m diffnas.pipeline.measure < REQUEST     JSON: recipe (a file), part, genotype, plugins, seconds

It prints JSON, a line for each thing that it learns: what was found, the memory at small batches, and the whole.  A process of
its own has a peak of memory of its own, and may be ended where there is too little.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import io
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from diffnas import draw
from diffnas.core.genotype import Genotype, parse_genotype
from diffnas.core.published_genotypes import published
from diffnas.engine.optim import set_learning_rate
from diffnas.engine.scoring import score
from diffnas.errors import UserError
from diffnas.pipeline.environment import record_attempt
from diffnas.pipeline.leave_report import leave_report
from diffnas.pipeline.search_state import SearchState
from diffnas.pipeline.sources.base import Source
from diffnas.pipeline.sources.load import load_source
from diffnas.pipeline.train_steps import TrainSteps
from diffnas.pipeline.trainer import Job
from diffnas.plugins import load_plugins
from diffnas.recipe.recipe import Recipe, read_recipe
from diffnas.runtime.device import peak_memory, pick_device
from diffnas.runtime.room import free_memory, lack_of_room
from diffnas.runtime.run_folder import Run
from diffnas.runtime.sharing import fitted_threads

SHORTEST = 2.0  # seconds after which so many steps of a kind are enough:
ENOUGH = 20
LONGEST = 24.0  # seconds that two steps of all kinds may be expected to take on a CPU
LARGEST_PROBE = 16  # images, or columns of text, of the first batch that is weighed
ROOM = 0.9  # share of the free memory that a batch may be expected to take
Say = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Stage:
    """What a stretch of epochs of one kind costs: `steps` an epoch of `step` seconds each, then an evaluation."""

    epochs: int
    steps: int
    step: float
    evaluation: float
    weights: int


@dataclass(frozen=True)
class Sized:
    """A recipe at a batch of its own, and its data; `share` is this batch as a part of the one that is asked about.

    Steps of a kind are timed for `seconds`; of 0 seconds there is one, and no evaluation of a network.
    """

    recipe: Recipe
    source: Source
    seconds: float
    share: float = 1.0

    def steps(self, count: int) -> int:
        """The steps of an epoch at the batch that is asked about, of `count` at this one."""
        return math.ceil(count * self.share)


def measure(recipe: Recipe, part: str, genotype: Genotype | None, seconds: float, say: Say) -> None:
    """Measures `part` ("search" or "train") of `recipe` and says what it learns; timed steps take `seconds` or few more."""
    device, started = pick_device(recipe.device), time.monotonic()
    source = load_source(recipe)
    section, reading = recipe.search if part == "search" else recipe.train, time.monotonic() - started
    assert section is not None
    _load_the_rest(recipe, genotype, device)
    about = {key: value for key, value in source.about.items() if key != "classes"}
    about["words" if recipe.modality == "text" else "classes"] = len(source.names)
    say({"data": about, "reading_seconds": reading, "device": str(device), "threads": torch.get_num_threads()})
    one = _search if part == "search" else _train
    weighed: dict[int, int] = {}
    spent, kinds = 0.0, 1
    batch, few = section.batch, min(LARGEST_PROBE, max(2, section.batch // 16))
    for small in (few, 2 * few) if 2 * few < batch else ():
        _clear(device)
        tried = list(one(_sized(recipe, part, source, small, 0.0), device, genotype))
        weighed[small] = peak_memory(device).get("bytes", 0)
        spent, kinds = sum(stage.step for stage in tried) * batch / small, len(tried)
    say({"weighed": weighed})
    expected, free = extrapolated(weighed, batch), _free(device)
    if free is not None and expected is not None and expected > ROOM * (free + min(weighed.values())):
        say({"peak_memory": expected, "extrapolated": True, "free_memory": free})
        return
    _clear(device)
    timed = batch if device.type == "cuda" or not weighed else timed_batch(batch, spent, min(batch, 4 * few))
    stages = list(one(_sized(recipe, part, source, timed, seconds / kinds), device, genotype))
    peak = peak_memory(device).get("bytes", 0)
    if timed < batch:
        peak = extrapolated({**weighed, timed: peak}, batch) or peak
    say({"stages": [vars(stage) for stage in stages], "peak_memory": peak, "timed_batch": timed})
    say({"free_memory": free, "extrapolated": False})


def timed_batch(batch: int, seconds: float, least: int) -> int:
    """The batch whose steps are timed: `batch`, or a part of it, not below `least`, where its steps take too long.

    `seconds` is what a step of each kind is expected to take in all.  Times may be scaled then, since what a long step on a
    CPU takes is in proportion to the batch.
    """
    parts = math.ceil(2 * seconds / LONGEST)
    return batch if parts < 2 else max(least, -(-batch // parts))


def _sized(recipe: Recipe, part: str, source: Source, batch: int, seconds: float) -> Sized:
    """The recipe and its data, which are read already, at another batch."""
    whole = (recipe.search if part == "search" else recipe.train).batch
    sized = recipe if batch == whole else _with_batch(recipe, part, batch)
    data: Any = copy.copy(source)
    data.recipe = sized
    return Sized(sized, data, seconds, batch / whole)


def _load_the_rest(recipe: Recipe, genotype: Genotype | None, device: torch.device) -> None:
    """Does what the command does besides computing, for the memory of the libraries that it loads."""
    with tempfile.TemporaryDirectory() as folder:
        part = Run(Path(folder)).search
        part.path.mkdir(parents=True)
        record_attempt(part, device, recipe.seed, "", {})
        for example in (genotype, published("darts-v2")):
            if example is not None:
                draw.write_cells(example, part.path)
        leave_report(Run(Path(folder)))


def extrapolated(weighed: dict[int, int], batch: int) -> int | None:
    """The memory at `batch`, on the straight line through two smaller ones; None where there are no two."""
    if len(weighed) < 2:
        return None
    (low, less), (high, more) = min(weighed.items()), max(weighed.items())
    return int(more + max(0, more - less) / (high - low) * (batch - high))


def _with_batch(recipe: Recipe, part: str, batch: int) -> Recipe:
    if part == "search":
        return replace(recipe, search=replace(recipe.search, batch=batch))
    return replace(recipe, train=replace(recipe.train, batch=batch))


def _clear(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _free(device: torch.device) -> int | None:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()


def _timed(step: Callable[[int], object], device: torch.device, seconds: float) -> float:
    """The mean time of steps after the first, at least one, for `seconds`, or less where many take no longer."""
    step(0)
    done, started, spent = 0, _now(device), 0.0
    while not done or spent < (seconds if done < ENOUGH else min(seconds, SHORTEST)):
        step(done + 1)
        done += 1
        spent = _now(device) - started
    return spent / done


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic()


# -- a search


def _search(sized: Sized, device: torch.device, genotype: Genotype | None) -> Iterator[Stage]:
    """Every stage of the search: its epochs of weights alone, then the others."""
    source = sized.source
    state = SearchState(sized.recipe, source, source.search_task(), source.search_feeds(device), device)
    state.begin(None, None)  # type: ignore[arg-type]  # there is no checkpoint
    for index, stage in enumerate(state.stages):
        if index:
            state.next_stage()
        warm = min(stage.warmup, stage.epochs)
        for epochs, begin in ((warm, 0), (stage.epochs - warm, warm)):
            if epochs and stage.phases:
                state.search.advance(stage_epoch=begin)
                yield _stretch(state, epochs, begin < stage.warmup, device, sized)


def _stretch(state: SearchState, epochs: int, warm: bool, device: torch.device, sized: Sized) -> Stage:
    """Epochs of one kind: their phases, one after another, and the evaluation."""
    search, settings = state.search, state.settings
    set_learning_rate(search.weights_optimizer, 1e-6)  # so that nothing diverges
    steps, spent = 0, 0.0
    for phase in state.stage.phases:
        feeds = {
            name: state.feeds[name].epoch(0)
            for name in phase.feeds
            if name == "train" or not (warm and name == "valid")
        }
        carries: dict[str, Any] = {}

        def step(k: int, feeds: Any = feeds, each: int = phase.each, carries: dict[str, Any] = carries) -> None:
            names = {
                (f"{name}.{n}" if n else name): (feed, k * each + n)
                for name, feed in feeds.items()
                for n in range(each)
            }
            batches = {
                name: replace(feed[at % len(feed)], carry=carries.get(name)) for name, (feed, at) in names.items()
            }
            for name, loss in state.method.step(search, batches).items():
                carries[name] = loss.carry

        count = phase.steps or sized.steps(len(feeds["train"]))
        mean = _timed(step, device, sized.seconds / len(state.stage.phases)) / sized.share
        steps, spent = steps + count, spent + count * mean
    every = settings.validate_every if "score" in search.feeds else 0
    evaluation = _scoring(state, device, sized.seconds) / every if every else 0.0
    weights = sum(p.numel() for p in search.supernet.parameters())
    return Stage(epochs, steps, spent / max(1, steps), evaluation, weights)


def _scoring(state: SearchState, device: torch.device, seconds: float) -> float:
    """The time of an evaluation of the supernet, from that of a few of its batches."""
    search = state.search
    feed = search.feeds["score"].epoch(0)
    mixture = search.relax("eval").detach()

    def step(k: int) -> None:
        score(search, mixture, [feed[k % len(feed)]], norm="running").loss.item()

    return len(feed) * _timed(step, device, min(seconds, len(feed)) / 4)


# -- a training


def _train(sized: Sized, device: torch.device, genotype: Genotype | None) -> Iterator[Stage]:
    """The epochs of the training of `genotype`."""
    recipe = sized.recipe
    assert genotype is not None and recipe.train is not None
    job = Job(genotype, recipe, sized.source, device)
    training, settings = job.training, recipe.train
    steps_of = TrainSteps(recipe, job.network, training, job.batch_dim, device)
    training.begin(0)
    set_learning_rate(training.optimizer, 1e-6)  # so that nothing diverges
    job.network.train()
    batches = training.feed.epoch(0)
    carry: list[Any] = [None]

    def step(k: int) -> None:
        batch = replace(batches[k % len(batches)], carry=carry[0])
        carry[0] = steps_of.take({"train": batch})["train"].carry

    mean = _timed(step, device, sized.seconds) / sized.share
    evaluation = _evaluating(job, device, sized.seconds) if sized.seconds else 0.0
    every = getattr(settings, "test_every", 1)
    share = 1 / every if every else 1 / settings.epochs
    steps = sized.steps(len(batches))
    yield Stage(settings.epochs, steps, mean, evaluation * share, sum(p.numel() for p in steps_of.weights))


def _evaluating(job: Job, device: torch.device, seconds: float) -> float:
    """The time of an evaluation of the network, from that of a few of its batches."""
    watched: Any = getattr(job.training, "watched", None) or getattr(job.training, "valid", None)
    if watched is None:
        return 0.0
    feed, network = watched.epoch(0), job.network.eval()

    @torch.no_grad()
    def step(k: int) -> None:
        job.training.task.loss(network, replace(feed[k % len(feed)], carry=None)).value.item()

    return len(feed) * _timed(step, device, min(seconds, len(feed)) / 4)


def main() -> None:
    """Reads a request and answers it."""
    request = json.load(sys.stdin)
    answers = sys.stdout

    def say(learnt: dict[str, Any]) -> None:
        answers.write(json.dumps(learnt, default=str) + "\n")
        answers.flush()

    try:
        with contextlib.redirect_stdout(io.StringIO()), fitted_threads():
            load_plugins(request["plugins"])
            genotype = None if request["genotype"] is None else parse_genotype(request["genotype"])
            measure(read_recipe(request["recipe"]), request["part"], genotype, request["seconds"], say)
    except UserError as error:
        say({"refused": list(error.lines)})
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 (the process that asked says it)
        said = {"full": True} if lack_of_room(error) else {"failed": f"{type(error).__name__}: {error}"}
        say(said)


if __name__ == "__main__":
    main()
