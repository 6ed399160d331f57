"""The command `board`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffnas.runtime.terminal import say


def board(
    folder: Annotated[Path, typer.Argument(help="A folder of runs; what is added to it shows up by itself.")],
    host: Annotated[
        str, typer.Option(metavar="HOST", help="The address to serve at; one that others can reach asks for a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", help="The port; 0 takes a free one.", min=0, max=65535)] = 8321,
    token: Annotated[bool, typer.Option("--token", help="Ask for a token on this machine too.")] = False,
) -> None:
    """Show a live page over a folder of runs, in a browser on this machine.

    It lists the runs and follows those that work, opens one with all that its report has, and compares some. Nothing in
    the folder is written or executed. Ctrl-C ends it.

    [bold]diffnas board runs[/bold]

    [bold]ssh -L 8321:localhost:8321 MACHINE[/bold]  then http://localhost:8321 here shows a board there
    """
    from diffnas.boards.serve import serve

    serve(folder, host, port, token, lambda address: say(f"board: {address}  (Ctrl-C ends it)"))
