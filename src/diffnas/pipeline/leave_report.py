"""What a command leaves for people to look at: the page of the run, and the sizes that stand on it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from diffnas.core.genotype import Genotype
from diffnas.core.space import AnyShape
from diffnas.pipeline.environment import NAME as ENVIRONMENT
from diffnas.pipeline.environment import record
from diffnas.pipeline.sizes import size_facts
from diffnas.recipe.recipe import Recipe
from diffnas.reports.page import NAME, write_report
from diffnas.runtime.console import log
from diffnas.runtime.device import peak_memory
from diffnas.runtime.distributed import world
from diffnas.runtime.files import sweep_file
from diffnas.runtime.run_folder import Part, Run

SIZES, FORMAT = "sizes.json", "diffnas-sizes-1"


def record_memory(part: Part, device: torch.device) -> None:
    """Adds the most memory that this attempt has used; warns where that cannot be written."""
    _try(f"{part.path / ENVIRONMENT}", lambda: record(part, peak_memory=peak_memory(device)))


def record_sizes(part: Part, genotype: Genotype, recipe: Recipe, shape: AnyShape) -> None:
    """Writes how large the network of `genotype` is; warns where that cannot be counted."""
    _try(
        f"{part.path / SIZES}",
        lambda: part.write_json(SIZES, {"format": FORMAT, **size_facts(genotype, recipe, shape)}),
    )


def sweep_report(run: Run) -> None:
    """Removes what a report that was cut short has left in `run`."""
    sweep_file(run.path / NAME)


def leave_report(run: Run) -> None:
    """Writes report.html into `run`; warns where that fails, for the run itself is done."""
    if world().first:
        _try(f"{run.path / NAME}", lambda: log.info("report: %s", write_report([run.path])))


def _try(what: str, write: Callable[[], object]) -> None:
    try:
        write()
    except Exception as error:  # noqa: BLE001 (a picture of a run must never cost the run)
        log.warning("%s: not written: %s: %s", what, type(error).__name__, error)
