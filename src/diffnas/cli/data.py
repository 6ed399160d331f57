"""The commands `diffnas data ...`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffnas.cli.options import Quiet, json_lines, print_lines
from diffnas.errors import UserError

if TYPE_CHECKING:
    pass

data_app = typer.Typer(
    help="Prepare data: lists of a part, smaller images, tables.", no_args_is_help=True, rich_markup_mode="rich"
)


@data_app.command()
def nasbench201(
    folder: Annotated[Path, typer.Argument(help="The folder of per-cell files, as the authors publish it.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The table to write.")] = Path("nasbench201.csv"),
    quiet: Quiet = False,
) -> None:
    """Build a table for `diffnas lookup --table` from the official files of NAS-Bench-201 or NATS-Bench.

    Means, deviations and seeds of test and validation accuracies, after 200 and after 12 epochs.
    Nothing in the files is executed. A damaged file is named and left out; the exit code is then 2.
    """
    from diffnas.pipeline.nasbench201 import build_table
    from diffnas.runtime.console import start_console

    start_console(quiet)
    cells, left_out = build_table(folder, out)
    print_lines(f"table: {out} ({cells:,} of 15,625 cells)", kept=str(out))
    if left_out:
        raise UserError(f"{left_out:,} of {cells + left_out:,} files could not be used and were left out of {out}")


@data_app.command()
def subset(
    path: Annotated[Path, typer.Argument(help="A large image data set, as data.path of the data set imagenet.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder for weights.txt and arch.txt.")] = Path("."),
    weights: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of each class that trains weights (PC-DARTS, DrNAS: 0.1).")
    ] = 0.1,
    arch: Annotated[float, typer.Option(metavar="SHARE", help="Share that trains the architecture (0.025).")] = 0.025,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the choice.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """List a part of a large training set, class by class, for a search; no image is copied.

    A recipe names the lists as data.weights_list and data.arch_list. The same seed gives the same lists everywhere.

    [bold]diffnas data subset imagenet --out lists[/bold]  10 % and 2.5 % of every class
    """
    from diffnas.pipeline.subset import described, write_lists
    from diffnas.runtime.console import start_console

    start_console()
    facts = write_lists(path, out, weights, arch, seed)
    print_lines(*(json_lines(facts) if as_json else described(facts)), kept=str(out))


@data_app.command()
def shrink(
    path: Annotated[Path, typer.Argument(help="An image data set, as data.path of the data set imagenet.")],
    out: Annotated[Path, typer.Argument(help="The folder to write: train/CLASS and val/CLASS.")],
    side: Annotated[int, typer.Option(metavar="PIXELS", help="What the shorter side of larger images becomes.")] = 256,
    quality: Annotated[int, typer.Option(metavar="N", help="Quality of the JPEGs, 1 to 100.")] = 90,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
    quiet: Quiet = False,
) -> None:
    """Store a folder of images once at a smaller size, so that every epoch decodes less.

    A command that was stopped goes on where it was. A broken image is named and left out; the exit code is then 2.

    [bold]diffnas data shrink imagenet imagenet-256[/bold]
    """
    from diffnas.pipeline.shrink import described, shrink_images
    from diffnas.runtime.console import start_console

    start_console(quiet)
    facts = shrink_images(path, out, side, quality)
    print_lines(*(json_lines(facts) if as_json else described(facts)), kept=str(out))
    if facts["broken"]:
        raise UserError(f"{facts['broken']:,} images could not be read and were left out of {out}")
