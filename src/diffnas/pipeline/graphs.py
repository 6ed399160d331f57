"""Which searches and trainings repeat their steps as CUDA graphs, and why the others do not."""

from __future__ import annotations

import torch

from diffnas.engine.replay import CudaRecorder, Recorder, Replay, Steps
from diffnas.engine.search_steps import captured, draws
from diffnas.recipe.recipe import Recipe
from diffnas.runtime.console import log
from diffnas.runtime.distributed import world


def search_replays(recipe: Recipe, device: torch.device) -> bool:
    """Whether the steps of a search are replayed; a line says why not where that was asked for."""
    settings, method = recipe.search, recipe.method
    assert settings is not None and method is not None
    why = lack(device)
    if not why and captured(method) == "never":
        why = f"those of method {method.name} cannot be"
    elif not why and draws(method) and settings.draws == "host":
        why = f"method {method.name} draws on the host; set search.draws=device"
    elif not why and (_computed_otherwise(recipe, settings.accumulate) or settings.recompute):
        why = "not with float16, search.recompute, search.accumulate or several processes"
    return _asked("search.graph", settings.graph, why)


def training_replays(recipe: Recipe, device: torch.device) -> bool:
    """Whether the steps of a training are replayed; a line says why not where that was asked for."""
    settings = recipe.train
    assert settings is not None
    why = lack(device)
    if not why and _computed_otherwise(recipe, settings.accumulate):
        why = "not with float16, train.accumulate or several processes"
    return _asked("train.graph", settings.graph, why)


def lack(device: torch.device) -> str:
    """Returns why there can be no graphs on `device`, or nothing."""
    return "" if device.type == "cuda" else "there is no CUDA device"


def recorder(device: torch.device) -> Recorder:
    """Returns what records steps on `device`."""
    return CudaRecorder(device)


def replay(steps: Steps) -> Replay:
    """Returns `steps`, of which nothing is recorded yet: records belong to memory that a load or a new stage leaves behind."""
    return Replay(steps, recorder(steps.device))


def _computed_otherwise(recipe: Recipe, accumulate: int) -> bool:
    return recipe.precision == "float16" or accumulate > 1 or world().size > 1


def _asked(key: str, asked: str, why: str) -> bool:
    if why and asked == "on":
        log.warning("%s: steps are not captured: %s", key, why)
    return not why and asked != "off"
