"""A command on several processes of this machine, from Python: they run the command line, and what it finds comes back."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffnas import errors
from diffnas.core.genotype import Genotype
from diffnas.errors import DiffnasError, PluginError, RecipeError, RunError, UserError
from diffnas.plugins import PREFIX
from diffnas.recipe.recipe import Recipe, flat_values, read_recipe
from diffnas.registry import OWNERS
from diffnas.runtime.launch import Launch, free_port
from diffnas.runtime.launched import FAILURES, place_of
from diffnas.runtime.run_folder import Part, Run, new_run


def are_asked_for(devices: int) -> bool:
    """Whether `devices` means processes that must be started; raises `UserError` for what is no number of them."""
    if not isinstance(devices, int) or isinstance(devices, bool) or not 1 <= devices <= 1024:
        raise UserError(f"devices: must be a whole number from 1 to 1024; got {devices!r:.40}")
    return devices > 1 and place_of().size == 1


def search(
    recipe: Recipe | None,
    run: str | Path | None,
    resume: bool,
    note: str | None,
    sinks: Sequence[str],
    devices: int,
    progress: object,
) -> Run:
    """Searches as `pipeline.search` does, on several processes."""
    folder = _folder(recipe, run, resume)
    given = options(note=note, log=list(sinks))
    if resume:
        return _done(
            ["search", "--resume", folder, *_changes(Run(Path(folder)).search, recipe), *given],
            folder,
            devices,
            progress,
        )
    assert recipe is not None
    with file_of(recipe.to_yaml(), "recipe.yaml") as path:
        return _done(["search", path, "--run", folder, *given], folder, devices, progress)


def train(
    genotype: Genotype | str | Path | None,
    recipe: Recipe | None,
    run: str | Path | None,
    resume: bool,
    name: str | None,
    partial: bool,
    init: str | Path | None,
    note: str | None,
    sinks: Sequence[str],
    devices: int,
    progress: object,
) -> Run:
    """Trains as `pipeline.train` does, on several processes; `genotype` is a cell or what stands for one."""
    folder = _folder(recipe, run, resume)
    given = options(note=note, log=list(sinks), train=name)
    if resume:
        changes = _changes(Run(Path(folder)).training(name), recipe)
        return _done(["train", "--resume", folder, *changes, *given], folder, devices, progress)
    assert recipe is not None
    if genotype is None:
        raise RunError("nothing to train: give a genotype")
    given += options(partial=partial, init=init)
    cell = genotype.to_json() if isinstance(genotype, Genotype) else ""
    with file_of(recipe.to_yaml(), "recipe.yaml") as path, file_of(cell, "genotype.json") as own:
        what = own if cell else str(genotype)
        return _done(["train", what, "--recipe", path, "--run", folder, *given], folder, devices, progress)


def _folder(recipe: Recipe | None, run: str | Path | None, resume: bool) -> str:
    """The run folder of a command: `run`, or a new one."""
    if resume and run is None:
        raise RunError("to resume, name the run folder")
    if recipe is None and not resume:
        raise RecipeError("there is no recipe; name one (diffnas list recipes)")
    return str(new_run(run, "" if recipe is None else recipe.name).path)


def _changes(part: Part, recipe: Recipe | None) -> list[str]:
    """The options by which `recipe` differs from the one that `part` was begun with."""
    if recipe is None or not part.recipe.is_file():
        return []
    before = flat_values(read_recipe(part.recipe))
    return [
        w for key, value in flat_values(recipe).items() if before.get(key) != value for w in ("--set", f"{key}={value}")
    ]


@contextmanager
def file_of(text: str, name: str) -> Iterator[str]:
    """Writes `text` to a file of that name for a block, and yields its path."""
    with tempfile.TemporaryDirectory(prefix="diffnas-given-") as folder:
        path = Path(folder) / name
        path.write_text(text, encoding="utf-8")
        yield str(path)


def run_command(words: Sequence[str], devices: int, progress: object = True) -> str:
    """Runs the command line `words` on so many processes and returns what it prints.

    Plug-ins that are loaded here are loaded there.  Raises what the command raises in one process, and `ProcessLost`.
    """
    if not isinstance(progress, bool):
        raise UserError("progress: must be True or False on several processes; they cannot call a function of this one")
    quiet = [] if progress or words[0] == "test" else ["--quiet"]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryDirectory(prefix="diffnas-failures-") as folder:
        launch = Launch(
            [*words, *_plugins(), *quiet],
            devices,
            devices,
            0,
            "127.0.0.1",
            free_port(),
            f"--devices {devices}",
            out,
            {FAILURES: folder, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        code = launch.wait()
        if code:
            raise _failure(Path(folder), code)
        out.seek(0)
        return out.read().decode()


def _done(words: Sequence[str], folder: str, devices: int, progress: object) -> Run:
    """Runs a command on several processes and returns the folder that it worked in."""
    run_command(words, devices, progress)
    return Run(Path(folder))


def tested(words: Sequence[str], devices: int) -> dict[str, Any]:
    """Runs a test on several processes and returns its result."""
    found: dict[str, Any] = json.loads(run_command(["test", *words, "--json"], devices))
    return found


def options(**given: object) -> list[str]:
    """The words of options that are given: `note="x"` is --note x, a True stands alone, a list repeats its option."""
    words: list[str] = []
    for name, value in given.items():
        for each in value if isinstance(value, list | tuple) else [value]:
            if each is not None and each is not False:
                words += [f"--{name}"] if each is True else [f"--{name}", str(each)]
    return words


def _plugins() -> list[str]:
    """The options that load what is registered here."""
    owners = dict.fromkeys(OWNERS.values())
    homeless = [name for (_, name), owner in OWNERS.items() if owner.module == "__main__"]
    if homeless:
        raise PluginError(
            f"{', '.join(homeless)}: registered in the program itself, which several processes cannot load; register it in a"
            " file of its own, and import that"
        )
    names = [owner.file if owner.module.startswith(PREFIX) and owner.file else owner.module for owner in owners]
    return [word for name in names for word in ("--plugin", name)]


def _failure(folder: Path, code: int) -> DiffnasError:
    """The error by which the first of the processes says that it failed."""
    for path in sorted(folder.glob("*.json")):
        said = json.loads(path.read_text(encoding="utf-8"))
        kind = getattr(errors, said["kind"], DiffnasError)
        found: DiffnasError = kind(*said["lines"])
        return found
    return DiffnasError(f"the processes have ended with code {code}, after what they said on the standard error")
