"""The command `diffnas new`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffnas.cli.options import json_lines, print_lines

if TYPE_CHECKING:
    pass


class Starter(StrEnum):
    """What `diffnas new` writes."""

    method = "method"
    space = "space"
    data = "data"


def new(
    kind: Annotated[Starter, typer.Argument(help="What to write.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, as in recipes: small letters, digits and -.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder to write into.")] = Path("."),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Write a method, space or data set of your own to start from, with a test, and say what to do next.

    The file works at once; nothing is overwritten.

    [bold]diffnas new method sharp-softmax[/bold]  writes sharp_softmax.py and test_sharp_softmax.py
    """
    from diffnas.starters.start import described, start

    started = start(kind.value, name, out)
    facts = {"files": [str(path) for path in started.files], "commands": list(started.commands)}
    print_lines(*(json_lines(facts) if as_json else described(started)), kept=str(out))
