"""The command line.  Each command is a thin function: read what was typed, call the library, print the result.

Results go to standard output, all other output to standard error.  The exit codes are those of
docs/errors.md: 0 done, 1 failed or diverged, 2 wrong input, 130 stopped by a signal.
torch is loaded only by commands that compute, so that help and error messages are immediate.
"""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from diffnas.cli.board import board
from diffnas.cli.data import data_app
from diffnas.cli.failures import USAGE, mistyped, refused, unforeseen
from diffnas.cli.launching import remember
from diffnas.cli.options import Plugins, json_lines, print_lines
from diffnas.cli.reading import convert, lookup, predict, show
from diffnas.cli.reporting import compare, report
from diffnas.cli.running import estimate, search, test, train
from diffnas.cli.starting import new
from diffnas.errors import Diverged, Interrupted, ProcessLost, UserError
from diffnas.runtime.launched import LAUNCHER, LOST, noted, place_of
from diffnas.runtime.terminal import say, steady_streams

if TYPE_CHECKING:
    pass

app = typer.Typer(
    name="diffnas",
    help="Search for a small network by gradient descent, train it from scratch, and test it.",
    epilog="First try: diffnas search darts-digits, which prints its folder RUN; then diffnas train RUN, diffnas test RUN,"
    " diffnas show RUN --stats; RUN/report.html tells all of it,"
    " and diffnas board FOLDER shows all runs live. Where something does not work: diffnas doctor.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

for each in (search, train, test, estimate, predict, show, report, compare, convert, lookup, new):
    app.command()(each)
app.command()(board)
app.add_typer(data_app, name="data")


class Goal(StrEnum):
    """What `diffnas list recipes --for` chooses by."""

    cifar10 = "cifar10"
    imagenet = "imagenet"
    text = "text"
    folder = "folder"
    nasbench201 = "nasbench201"


class Listing(StrEnum):
    """The lists that `diffnas list` offers."""

    methods = "methods"
    spaces = "spaces"
    tasks = "tasks"
    data = "data"
    recipes = "recipes"
    genotypes = "genotypes"
    keys = "keys"


@app.command(name="list")
def list_(
    what: Annotated[Listing, typer.Argument(help="What to list.")],
    section: Annotated[
        str | None, typer.Argument(help="Of keys, those of a section (search.weights), a method or a space.")
    ] = None,
    goal: Annotated[Goal | None, typer.Option("--for", help="Of recipes, those for this data or benchmark.")] = None,
    plugins: Plugins = None,
) -> None:
    """List methods, spaces, tasks, data sets, recipes, published genotypes, or every recipe key.

    [bold]diffnas list recipes --for folder[/bold]  what to search with on your own images

    [bold]diffnas list keys search[/bold]  the settings of a search; [bold]diffnas list keys drnas[/bold] those of a method
    """
    from diffnas.cli.listing import listing

    print_lines(*listing(what.value, section, None if goal is None else goal.value))


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Check what is installed, whether each device computes, and which features lack a package.

    Runs a tiny step of a search on every device. The exit code is 1 if something required does not work.
    """
    from diffnas.checkup.findings import check_all, described

    result = check_all()
    print_lines(*(json_lines(result) if as_json else described(result)))
    if not result["works"]:
        raise typer.Exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        from diffnas import __version__

        print_lines(f"diffnas {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    no_plugins: Annotated[bool, typer.Option("--no-plugins", help="Load no plug-ins of installed packages.")] = False,
) -> None:
    """Differentiable neural architecture search: search, derive, train, test."""
    if no_plugins:
        from diffnas.plugins import leave_out_installed

        leave_out_installed()


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line on `arguments` (default: the process's) and returns the exit code."""
    with steady_streams():
        return _exit_code(arguments)


def _exit_code(arguments: list[str] | None) -> int:
    try:
        remember(sys.argv[1:] if arguments is None else arguments)
        if place_of().rank:  # the first of several processes prints what they found
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the process ends)
        code = app(args=arguments, prog_name="diffnas", standalone_mode=False)
        if code == 130:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(bool(leaving.code))
    except USAGE as error:
        return mistyped(error)
    except UserError as error:
        return error.exit_code if noted(type(error).__name__, error.lines) else refused(error.shown)
    except (Diverged, Interrupted, ProcessLost) as error:
        if not noted(type(error).__name__, [str(error)]):
            say(f"diffnas: {error}", error=True)
        return LOST if isinstance(error, ProcessLost) and LAUNCHER in os.environ else error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        say("diffnas: stopped", error=True)
        return Interrupted.exit_code
    except Exception as error:  # noqa: BLE001 (a person gets a line and a file, not a traceback)
        return unforeseen(error)
