"""Says where the genotype of a training comes from."""

from __future__ import annotations

import logging
from pathlib import Path

from diffnas.core.genotype import Genotype, read_genotype_file
from diffnas.core.published_genotypes import PUBLISHED
from diffnas.errors import GenotypeError
from diffnas.runtime.files import is_file, is_folder
from diffnas.runtime.run_folder import Part, Run

log = logging.getLogger("diffnas")


def origin_of(genotype: Genotype, given: Genotype | Run | str | Path | None) -> str:
    """Says where `genotype` was read from, `given` being the caller's name for it."""
    given = given.path if isinstance(given, Run) else given
    if given is None or isinstance(given, Genotype):
        return "given as a value"
    if isinstance(given, str) and given in PUBLISHED:
        return f"published as {given}"
    if is_folder(given):
        return _origin_in(Run(Path(given)), genotype)
    return f"file {given}" if is_file(given) else "given as text"


def folder_of(given: Genotype | Run | str | Path | None) -> Path | None:
    """Returns the run folder that `given` is or names, or None."""
    given = given.path if isinstance(given, Run) else given
    if given is None or isinstance(given, Genotype) or given in PUBLISHED:
        return None
    return Path(given) if is_folder(given) else None


def _origin_in(run: Run, genotype: Genotype) -> str:
    """Says the same of a run's genotype: each epoch of a search leaves a copy of its genotype."""
    if not is_folder(run.search.path):
        return f"a training of {run.path}"
    if is_found(run.search, genotype):
        return f"search of {run.path}, epoch {genotype.provenance['epoch']}"
    return f"{run.search.genotype}, which is not what the search found"


def is_found(search: Part, genotype: Genotype) -> bool:
    """Whether `search` found `genotype` after the epoch that it names."""
    epoch = genotype.provenance.get("epoch")
    return type(epoch) is int and readable(search.genotypes(epoch)) == genotype


def warn_unless_found(search: Part, genotype: Genotype) -> None:
    """A line where the genotype in the folder of `search` is not what it found."""
    if not is_found(search, genotype):
        log.warning("%s: is not what the search found; it is taken as it is", search.genotype)


def readable(path: Path) -> Genotype | None:
    """The genotype at `path`, None where there is none that can be read."""
    try:
        return read_genotype_file(path) if is_file(path) else None
    except GenotypeError:
        return None
