"""The commands that read runs, genotypes and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffnas.cli.options import Plugins, Set, TrainName, json_lines, print_lines
from diffnas.cli.typed import (
    origin,
    required,
    say_changed_plugins,
    say_unfinished,
    short,
    stem,
    typed_genotype,
    typed_name,
)
from diffnas.errors import RunError, UserError


def predict(
    run: Annotated[Path, typer.Argument(help="A run folder with a finished training.")],
    files: Annotated[
        list[str], typer.Argument(help="Images, or folders of images; for a language model, text files or -.")
    ],
    name: TrainName = None,
    top: Annotated[int, typer.Option(metavar="N", help="Number of classes or words to list.")] = 5,
    overrides: Set = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of JSON objects instead of lines.")] = False,
    plugins: Plugins = None,
) -> None:
    """Predict classes or next words for your files with a trained network.

    Prints a line per image with its likeliest classes and their probabilities; for a text, its perplexity and the likeliest
    next words. A file that cannot be read is named and left out; the exit code is then 2.

    [bold]diffnas predict runs/first photos/ cat.png[/bold]

    [bold]echo "the value of the" | diffnas predict runs/words -[/bold]
    """
    from diffnas.runtime.console import start_console
    from diffnas.runtime.run_folder import open_run

    start_console()
    opened = open_run(run)
    from diffnas.pipeline.predict import described
    from diffnas.pipeline.predict import predict as pipeline

    predictions, errors = [], []
    for prediction in pipeline(opened, files, name, top, tuple(overrides or ())):
        predictions.append(prediction)
        if "error" in prediction:
            errors.append(prediction["error"])
        elif not as_json:
            print_lines(described(prediction))
    if as_json:
        print_lines(*json_lines(predictions))
    if errors:
        raise UserError(*errors)


def show(
    genotype: Annotated[
        str,
        typer.Argument(
            help="A published name, a run folder, a genotype file (FILE:NAME for one of several), its text, or - "
            "for standard input."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Draw the cells too, as SVG and PNG in this folder.")
    ] = None,
    forms: Annotated[
        list[str] | None,
        typer.Option(
            "--form", metavar="svg|png|pdf|dot", help="Form of the pictures (may be repeated; default: svg, png)."
        ),
    ] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Print parameters and multiply-adds.")] = False,
    recipe: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="With --stats: count at this recipe's size.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the genotype (with --stats its sizes) as JSON and draw nothing.")
    ] = False,
    plugins: Plugins = None,
) -> None:
    """Print a genotype's cells, and draw them (SVG and PNG, or PDF, or DOT of Graphviz) where a folder is named.

    [bold]diffnas show runs/first --stats[/bold]  its pictures are in runs/first/search already

    [bold]diffnas show darts-v2 --stats --out pictures[/bold]

    [bold]diffnas show log.txt[/bold]  the last genotype in another program's log
    """
    from diffnas.core.genotype import named
    from diffnas.runtime.console import start_console
    from diffnas.runtime.files import is_file, is_folder

    start_console()
    loaded = typed_genotype(genotype)
    say_unfinished(genotype)
    say_changed_plugins(genotype)
    if as_json and not stats:
        print_lines(*loaded.to_json().splitlines())
        return
    if out is not None and is_file(out) and not as_json:
        raise RunError(f"--out {out}: is a file; name a folder")
    for form in set(forms or ()) - {"svg", "png", "pdf", "dot"}:
        raise UserError(f"--form {form}: is none of svg, png, pdf and dot")
    lines: list[str] = []
    if stats:
        from diffnas.pipeline.sizes import run_size, size_facts, size_lines

        by, shape = run_size(genotype) if recipe is None and is_folder(genotype) else (recipe, None)
        with named(short(genotype)):  # what cannot be counted is refused before anything is drawn
            if as_json:
                print_lines(*json_lines(size_facts(loaded, by, shape)))
                return
            lines = list(size_lines(loaded, by, shape))
    written: list[Path] = []
    if out is not None:
        from diffnas.draw import write_cells

        out.mkdir(parents=True, exist_ok=True)
        written = write_cells(loaded, out, f"{stem(genotype)}-cells", forms or ("svg", "png"))
    print_lines(
        *loaded.to_text().splitlines(),
        *origin(loaded.provenance),
        *lines,
        *(f"picture: {path}" for path in written),
    )


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            help="A published name, a run folder, a genotype file or text, -, or a file of weights (.pt, .pth).",
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write; its suffix determines the form.")],
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="FORM", help="diffnas, darts, mmrazor or nasbench201, whatever the suffix."),
    ] = None,
    plugins: Plugins = None,
) -> None:
    """Write a genotype in the form of another program, or a checkpoint's weights as safetensors.

    [bold]diffnas convert DARTS_SUBNET.yaml cell.json[/bold]  from OpenMMLab's MMRazor

    [bold]diffnas convert runs/first subnet.yaml[/bold]  to it

    [bold]diffnas convert model.pt model.safetensors[/bold]  tensors alone; nothing in the file is run
    """
    from diffnas.api import WEIGHTS
    from diffnas.api import convert as write
    from diffnas.runtime.console import start_console

    start_console()
    weights = Path(source).suffix.lower() in WEIGHTS
    print_lines(f"written: {write(source if weights else typed_genotype(source), out, to)}")


def lookup(
    cell: Annotated[
        str | None,
        typer.Argument(
            help="A cell, '|op~0|+|op~0|op~1|+|op~0|op~1|op~2|', its official index, a genotype file, a run folder, or - ."
        ),
    ] = None,
    best: Annotated[
        int | None, typer.Option("--best", metavar="N", help="List the N best cells instead of one.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="NAME", help="With --best: cifar10 (the default), cifar100 or imagenet16-120."),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="MEASURE",
            help="With --best: test (the default), valid, or a column such as test_200 or valid_12.",
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Use this table (see diffnas data nasbench201) instead of the packaged one."),
    ] = None,
    latency: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also print latencies from a csv or parquet file (arch_str, latency_ms_DEVICE)."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    plugins: Plugins = None,
) -> None:
    """Look up the accuracy of a cell of NAS-Bench-201, without training it.

    Accuracies on three data sets, ranks among the 15,625 cells, distance to the best, parameters and multiply-adds.

    [bold]diffnas lookup runs/first[/bold]  the cell of that run's search

    [bold]diffnas lookup --best 10 --data cifar100[/bold]  the ten best of all cells
    """
    if best is not None:
        if cell is not None or latency is not None:
            raise UserError("--best lists cells by accuracy: it takes no cell and no --latency")
        _list_best(best, data or "cifar10", by or "test", table, as_json)
        return
    if data is not None or by is not None:
        raise UserError("--data and --by choose among the cells of --best N; one cell is looked up on all data sets")
    from diffnas.api import lookup as look_up
    from diffnas.core.genotype import named
    from diffnas.pipeline.lookup import as_json as plain
    from diffnas.pipeline.lookup import describe, latencies
    from diffnas.runtime.console import start_console

    start_console()
    cell = required(cell, "cell", "--best N")
    with named(short(cell)):
        entry = look_up(typed_name(cell), table)
    say_unfinished(cell)
    devices = None if latency is None else latencies(latency, entry.index)
    print_lines(*(json_lines(plain(entry, devices)) if as_json else describe(entry, devices)))


def _list_best(count: int, data: str, by: str, table: Path | None, as_json: bool) -> None:
    from diffnas.api import best_cells
    from diffnas.pipeline.best import best_as_json, describe_best
    from diffnas.pipeline.lookup import source_of

    ranked, source = best_cells(data, count, by, table), source_of(table)
    print_lines(*(json_lines(best_as_json(ranked, source)) if as_json else describe_best(ranked, source)))
