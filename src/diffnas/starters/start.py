"""Writes such a file, its test, and the commands to try it with."""

from __future__ import annotations

import keyword
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from string import Template
from typing import Literal

from diffnas.data import DATA
from diffnas.errors import UserError
from diffnas.registry import METHODS, SPACES
from diffnas.registry_checks import NAMING, is_name
from diffnas.runtime.files import write_text

Kind = Literal["method", "space", "data"]
TAKEN = {"method": METHODS, "space": SPACES, "data": DATA}
CHOSEN = {
    "method": "method={{name: {name}}}",
    "space": "space={{name: {name}, channels: 4, layers: 3, nodes: 2}}",
    "data": "data={{name: {name}}}",
}


@dataclass(frozen=True)
class Started:
    """The files that were written, and the commands that try them."""

    files: tuple[Path, ...]
    commands: tuple[str, ...]


def start(kind: Kind, name: str, folder: str | Path = ".") -> Started:
    """Writes a file to start from into `folder`, and a test where there is one.

    Raises `UserError` for a name that cannot be taken, and rather than overwrite a file.
    """
    folder, module = Path(folder), name.replace("-", "_")
    mistakes = _mistakes(kind, name, module, folder)
    if mistakes:
        raise UserError(*mistakes)
    names = {"name": name, "module": module, "Class": "".join(word.capitalize() for word in module.split("_"))}
    written = {folder / f"{module}.py": f"{kind}.txt"}
    if kind != "data":
        written[folder / f"test_{module}.py"] = f"test_{kind}.txt"
    there = [path for path in written if path.exists()]
    if there:
        raise UserError(*(f"{path} exists already; take another name, or another folder by --out" for path in there))
    for path, template in written.items():
        text = files("diffnas.starters").joinpath(template).read_text(encoding="utf-8")
        write_text(path, Template(text).substitute(names, test=f"test_{module}.py"))
    return Started(tuple(written), _commands(kind, name, list(written)))


def described(started: Started) -> list[str]:
    """The lines that say what was written, and what to do next."""
    return [*(f"written: {path}" for path in started.files), "next:", *(f"  {line}" for line in started.commands)]


def _mistakes(kind: Kind, name: str, module: str, folder: Path) -> list[str]:
    """Returns why nothing can be written under this name, a line each."""
    if not is_name(name):
        return [f"{name!r:.80}: {NAMING}"]
    if name in TAKEN[kind]:
        return [f"{kind} {name!r} exists already in diffnas; take another name"]
    if not folder.is_dir():
        return [f"{folder}: there is no such folder; make it first"]
    if keyword.iskeyword(module) or (not (folder / f"{module}.py").exists() and find_spec(module) is not None):
        return [f"{module}.py would hide the Python module {module}; take another name"]
    return []


def _commands(kind: Kind, name: str, written: list[Path]) -> tuple[str, ...]:
    """The commands that test the file, search with it at the smallest size, train, test and report."""
    plugin, run = f"--plugin {quote(str(written[0]))}", f"runs/{name}"
    tested = [f"pytest {quote(str(path))}" for path in written[1:]]
    return (
        *tested,
        f'diffnas search darts-digits-tiny {plugin} -s "{CHOSEN[kind].format(name=name)}" --run {run}',
        f"diffnas train {run} {plugin}",
        f"diffnas test {run} {plugin}",
        f"diffnas report {run}",
    )
