"""Options that several commands have, and how results are printed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffnas.errors import UserError
from diffnas.runtime.rows import plain_json
from diffnas.runtime.terminal import lost_output, say

if TYPE_CHECKING:
    pass

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="Set a recipe key, e.g. search.epochs=10; may be repeated. `diffnas list keys` shows all.",
    ),
]


RunPath = Annotated[
    Path | None, typer.Option("--run", metavar="FOLDER", help="The run folder (default: runs/RECIPE-DATE-TIME).")
]


Resume = Annotated[Path | None, typer.Option("--resume", metavar="RUN", help="Resume this run after a stop or a kill.")]


Note = Annotated[str | None, typer.Option("--note", metavar="TEXT", help="A note about this run, for its report.")]


Log = Annotated[
    list[str] | None,
    typer.Option(
        "--log", metavar="PROGRAM", help="Send metrics to tensorboard, wandb or mlflow too (may be repeated)."
    ),
]


DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Run a few steps, print what it will take (see estimate), and write nothing.")
]


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only warnings and the result.")]


def _load_plugins(names: list[str] | None) -> list[str] | None:
    if names:
        from diffnas.plugins import load_plugins

        load_plugins(names)
    return names


Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="FILE|MODULE",
        callback=_load_plugins,
        is_eager=True,
        help="Load methods, spaces, data sets or ops of your own (may be repeated; see docs/plugins.md).",
    ),
]


TrainName = Annotated[
    str | None, typer.Option("--train", metavar="NAME", help="The training of the run, if it has several.")
]


Runs = Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders, or folders of runs.")]


def print_lines(*lines: object, kept: str = "") -> None:
    """Prints results; if that fails, names the file or folder that has them, or raises `UserError` if there is none."""
    say(*lines)
    lost = lost_output()
    if lost is not None and not kept:
        raise UserError(f"standard output: {lost}; the result is not printed")
    if lost is not None:
        say(f"diffnas: standard output: {lost}; the result is in {kept}", error=True)


def json_lines(result: Any) -> list[str]:
    """The lines of `result` as JSON."""
    return plain_json(result, indent=1).splitlines()
