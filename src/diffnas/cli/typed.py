"""What was typed: the genotypes, recipes and runs that it stands for, and what is said of them."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffnas.errors import RunError, UserError
from diffnas.runtime.terminal import say

if TYPE_CHECKING:
    from diffnas.core.genotype import Genotype
    from diffnas.recipe.recipe import Recipe
    from diffnas.runtime.run_folder import Run


def typed_genotype(typed: str) -> Genotype:
    """Reads the genotype that was typed, named, or written to standard input."""
    from diffnas.api import load_genotype
    from diffnas.core.genotype import named
    from diffnas.interop.genotypes import is_text, read_genotype

    text = typed_name(typed)
    if typed == "-" and is_text(text):
        return read_genotype(text, "standard input")
    with named(short(typed)):
        return load_genotype(text)


def typed_name(genotype: str) -> str:
    """Returns the genotype that was typed, or the text on standard input for `-`."""
    if genotype != "-":
        return genotype
    from diffnas.interop.genotypes import LARGEST_TEXT, decoded

    return decoded(sys.stdin.buffer.read(LARGEST_TEXT + 1), "standard input").strip()


def origin(provenance: Mapping[str, Any]) -> Iterator[str]:
    """Returns where a genotype comes from, as far as its provenance says."""
    said = ", ".join(str(provenance[key]) for key in ("source", "from") if key in provenance)
    if said:
        yield f"source: {said}"


def stem(genotype: str) -> str:
    """Returns the file stem for pictures: the name or file of the genotype, or `cell` for a string of ops."""
    from diffnas.api import file_choice

    if genotype == "-":
        return "genotype"
    file, choice = file_choice(genotype)
    if file is not None:
        return file.stem if choice is None else f"{file.stem}-{choice}"
    return "cell" if "~" in genotype else Path(short(genotype)).stem or "genotype"


def short(genotype: str) -> str:
    """Returns a short name of a genotype for messages and pictures: its name or path, not its text."""
    if genotype == "-":
        return "standard input"
    return "genotype" if len(genotype) > 100 or set(genotype) & set("({[|=\n") else genotype


def required(value: str | None, name: str, other: str = "go on with a run: --resume RUN") -> str:
    """Returns `value`; raises `UserError` where it was not typed."""
    if value is None:
        raise UserError(f"name a {name}, or {other}")
    return value


def only_one(*others: Any) -> None:
    """Raises `UserError` where something was typed that a resumed run has already."""
    if any(other is not None for other in others):
        raise UserError(
            "--resume RUN needs nothing else: the recipe and the genotype are in the folder (--set may raise limits)"
        )


def resumable(recipe: Path, command: str) -> Path:
    """Returns the file of the recipe to resume; raises `RunError` where there is none."""
    if not recipe.is_file():
        raise RunError(
            f"{recipe.parent}: there is nothing to resume (no recipe.yaml); start with: diffnas {command} ..."
        )
    return recipe


def recipe_of(run: Path | None) -> str:
    """Reads the recipe in a run folder."""
    if run is None:
        raise UserError("name a recipe to train by: --recipe cifar10-train (diffnas list recipes)")
    from diffnas.recipe.recipe import read_recipe
    from diffnas.runtime.run_folder import open_run

    part = open_run(run).main()
    read_recipe(part.recipe)  # a damaged one is refused, ...
    part.warn_of_recipe()  # ... one that has changed is said
    return str(part.recipe)


def say_unfinished(genotype: str) -> None:
    """Prints a line if the search of a genotype has not finished."""
    from diffnas.pipeline.finished import unfinished
    from diffnas.runtime.files import is_folder

    with contextlib.suppress(UserError):  # a cell can be shown whatever is wrong beside it
        epochs = unfinished(Path(genotype)) if is_folder(genotype) else None
        if epochs is not None:
            say(f"run {genotype}: its search has not finished ({epochs[0]} of {epochs[1]} epochs)", error=True)


def say_changed_plugins(genotype: str) -> None:
    """Prints a line for each plug-in of a run whose file has changed."""
    from diffnas.pipeline.environment import changed_plugins
    from diffnas.recipe.recipe import read_recipe
    from diffnas.runtime.files import is_folder
    from diffnas.runtime.run_folder import Run

    with contextlib.suppress(UserError):  # a cell can be shown whatever is wrong beside it
        part = Run(Path(genotype)).search
        if is_folder(genotype) and part.recipe.is_file():
            for line in changed_plugins(part, read_recipe(part.recipe)):
                say(line, error=True)


def loading(plugins: Sequence[str] | None) -> list[str]:
    """Returns the options that load `plugins`."""
    return [word for name in plugins or () for word in ("--plugin", name)]


def after_search(recipe: Recipe, run: Run, plugins: Sequence[str] | None = None) -> str:
    """Returns the command that uses the genotype of a search, which was made with `plugins`."""
    from diffnas.core.genotype import read_genotype_file

    genotype = read_genotype_file(run.search.genotype) if run.search.genotype.is_file() else None
    if recipe.space is not None and genotype is not None and recipe.space.lookup(genotype) is not None:
        return shlex.join(["diffnas", "lookup", str(run.path)])
    by = [] if recipe.train is not None else ["--recipe", "RECIPE"]
    return shlex.join(["diffnas", "train", str(run.path), *by, *loading(plugins)]) + (
        "  (diffnas list recipes)" if by else ""
    )
