"""The command line.  Each command is a thin function: read what was typed, call the library, print the result.

Results go to standard output, all other output to standard error.  The exit codes are those of
docs/errors.md: 0 done, 1 failed or diverged, 2 wrong input, 130 stopped by a signal.
torch is loaded only by commands that compute, so that help and error messages are immediate.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffnas.cli.board import board
from diffnas.errors import DiffnasError, Diverged, Interrupted, RunError, UserError
from diffnas.runtime.files import write_text
from diffnas.runtime.room import lack_of_room
from diffnas.runtime.rows import plain_json
from diffnas.runtime.terminal import lost_output, printable, say, steady_streams

if TYPE_CHECKING:
    from diffnas.core.genotype import Genotype
    from diffnas.recipe.recipe import Recipe
    from diffnas.runtime.run_folder import Run

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

USAGE: Any = typer.BadParameter.__base__  # any mistake in what was typed; typer exports its subclasses only

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


@app.command()
def search(
    recipe: Annotated[str | None, typer.Argument(help="A recipe's name (diffnas list recipes) or a YAML file.")] = None,
    run: RunPath = None,
    resume: Resume = None,
    overrides: Set = None,
    note: Note = None,
    log: Log = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    plugins: Plugins = None,
) -> None:
    """Search for a cell: which operations a network is built of, and how they are joined.

    Writes to RUN/search the genotype after every epoch (the cell, as JSON), pictures, and checkpoints.

    [bold]diffnas search darts-digits[/bold]  two minutes on a CPU, nothing to download

    [bold]diffnas search darts-cifar10 -s data.path=FOLDER --run runs/first[/bold]

    [bold]diffnas search --resume runs/first -s search.epochs=60[/bold]  resume, with more epochs
    """
    from diffnas.recipe.recipe import read_recipe
    from diffnas.runtime.console import start_console

    start_console(quiet)
    if resume is not None:
        _only_one(recipe, run, dry_run or None)
        chosen = read_recipe(_resumable(resume / "search" / "recipe.yaml", "search"), overrides or ())
    else:
        chosen = read_recipe(_required(recipe, "recipe"), overrides or ())
    if dry_run:
        from diffnas.cli.estimating import estimated

        _print(*estimated(chosen, part="search"))
        return
    from diffnas.pipeline import search as pipeline

    finished = pipeline.search(chosen, resume or run, resume is not None, note, log or ())
    _print(
        f"run folder: {finished.path}",
        f"genotype:   {finished.search.genotype}",
        f"next:       {_after_search(chosen, finished)}",
        kept=str(finished.path),
    )


@app.command()
def train(
    genotype: Annotated[
        str | None,
        typer.Argument(help="A published name, a run folder, a genotype file (FILE:NAME for one of several), or - ."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="RECIPE", help="A recipe's name or file to train by (default: that of the run)."),
    ] = None,
    run: RunPath = None,
    resume: Resume = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--train",
            metavar="NAME",
            help="Folder of this training in RUN/train (default: RECIPE-seedSEED); with --resume, the one to resume.",
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="search|FILE",
            help="Start from the weights of the run's search, or from a file (default: fresh).",
        ),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Train the current cell of a search that has not finished.")
    ] = False,
    overrides: Set = None,
    note: Note = None,
    log: Log = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    plugins: Plugins = None,
) -> None:
    """Train the network of a cell from scratch: the cell of a search, or a published one.

    Writes to RUN/train/NAME the weights, a row of metrics per epoch, and checkpoints.

    [bold]diffnas train runs/first[/bold]  the cell of that run's search, by its recipe

    [bold]diffnas train darts-v2 --recipe cifar10-train -s data.path=FOLDER[/bold]  a published cell

    [bold]diffnas train --resume runs/first[/bold]  resume after a stop or a kill
    """
    from diffnas import api
    from diffnas.recipe.recipe import read_recipe
    from diffnas.runtime.console import start_console

    start_console(quiet)
    if resume is not None:
        _only_one(genotype, recipe, run, init, dry_run or None)
        from diffnas.runtime.run_folder import open_run

        part = open_run(resume).training(name)
        chosen = read_recipe(_resumable(part.recipe, "train"), overrides or ())
        done = api.train(None, chosen, resume, resume=True, name=part.path.name, note=note, log=log or ())
    else:
        from diffnas.core.genotype import named
        from diffnas.runtime.files import is_folder

        text = _required(genotype, "genotype")
        loaded = _genotype(text)  # what it lacks is said before what the recipe lacks
        source = Path(text) if is_folder(text) else None
        chosen = read_recipe(recipe or _recipe_of(source), overrides or ())
        if dry_run:
            from diffnas.cli.estimating import estimated

            _print(*estimated(chosen, loaded, "train"))
            return
        with named(_short(text)):
            done = api.train(
                loaded if text == "-" else text, chosen, run or source, False, name, partial, init, note, log=log or ()
            )
        part = done.train(name or f"{chosen.name}-seed{chosen.seed}")
    which = ["--train", part.path.name] if len(done.trainings()) > 1 else []
    _print(
        f"run folder: {done.path}",
        f"weights:    {part.weights}",
        f"next:       {shlex.join(['diffnas', 'test', str(done.path), *which])}",
        kept=str(done.path),
    )


@app.command()
def test(
    run: Annotated[Path | None, typer.Argument(help="A run folder with a finished training.")] = None,
    name: TrainName = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-s",
            metavar="KEY=VALUE",
            help="Set data.path or device; with --weights any key, but of a run nothing else may change.",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", metavar="FILE", help="Instead of a run: weights that another program published."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="PROGRAM",
            help="With --weights: darts, darts-rnn, pdarts, pcdarts, drnas, drnas-nb201, nasbench201, snas or mmrazor.",
        ),
    ] = None,
    genotype: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --weights: the cell, by name, file or text.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --weights: the data set, if the number of outputs does not tell it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print test.json instead of text.")] = False,
    plugins: Plugins = None,
) -> None:
    """Test a trained network on held-out images or text.

    Prints accuracy or perplexity, its 95 % interval, loss and size, and writes them to RUN/train/NAME/test.json.

    [bold]diffnas test runs/first -s data.path=FOLDER[/bold]  other images: all of them, but for those that it was trained on

    [bold]diffnas test --weights cifar10_model.pt --source darts --genotype DARTS_V2 -s data.path=FOLDER[/bold]  no run at all
    """
    from diffnas.cli.testing import tested
    from diffnas.runtime.console import start_console

    start_console()
    result = tested(run, name, weights, source, genotype, data, tuple(overrides or ()))
    from diffnas.pipeline.test import described

    _print(*(_json_lines(result) if as_json else described(result)))


@app.command()
def estimate(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (diffnas list recipes) or a YAML file.")],
    genotype: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The cell that is trained (default: a published one of the space)."),
    ] = None,
    overrides: Set = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
    plugins: Plugins = None,
) -> None:
    """Estimate what a recipe will take: time, memory, and the batch that fits.

    Reads the data, runs a few steps of the search and of the training, each in a process of its own, and writes nothing.

    [bold]diffnas estimate darts-cifar10 -s data.path=FOLDER[/bold]
    """
    from diffnas.cli.estimating import estimated
    from diffnas.recipe.recipe import read_recipe
    from diffnas.runtime.console import start_console

    start_console()
    chosen = read_recipe(recipe, overrides or ())
    cell = None if genotype is None else _genotype(genotype)
    _print(*estimated(chosen, cell, as_json=as_json))


@app.command()
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
            _print(described(prediction))
    if as_json:
        _print(*_json_lines(predictions))
    if errors:
        raise UserError(*errors)


@app.command()
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
    loaded = _genotype(genotype)
    _say_unfinished(genotype)
    _say_changed_plugins(genotype)
    if as_json and not stats:
        _print(*loaded.to_json().splitlines())
        return
    if out is not None and is_file(out) and not as_json:
        raise RunError(f"--out {out}: is a file; name a folder")
    for form in set(forms or ()) - {"svg", "png", "pdf", "dot"}:
        raise UserError(f"--form {form}: is none of svg, png, pdf and dot")
    lines: list[str] = []
    if stats:
        from diffnas.pipeline.sizes import run_size, size_facts, size_lines

        by, shape = run_size(genotype) if recipe is None and is_folder(genotype) else (recipe, None)
        with named(_short(genotype)):  # what cannot be counted is refused before anything is drawn
            if as_json:
                _print(*_json_lines(size_facts(loaded, by, shape)))
                return
            lines = list(size_lines(loaded, by, shape))
    written: list[Path] = []
    if out is not None:
        from diffnas.draw import write_cells

        out.mkdir(parents=True, exist_ok=True)
        written = write_cells(loaded, out, f"{_stem(genotype)}-cells", forms or ("svg", "png"))
    _print(
        *loaded.to_text().splitlines(),
        *_origin(loaded.provenance),
        *lines,
        *(f"picture: {path}" for path in written),
    )


Runs = Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders, or folders of runs.")]


@app.command()
def report(
    runs: Runs,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The HTML file to write (default, for one run: RUN/report.html)."),
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write every figure as SVG and PDF into this folder too.")
    ] = None,
) -> None:
    """Write a page about a run: one HTML file, to be opened in a browser.

    What ran, curves, strengths, the cell epoch by epoch, sizes, tests; of several runs, a comparison first. It needs no
    network and no other file. Every search, training and test leaves one in its run folder.

    [bold]diffnas report runs/first[/bold]

    [bold]diffnas report runs/seed0 runs/seed1 --out seeds.html[/bold]
    """
    from diffnas.reports.page import write_report

    path = write_report(runs, out)
    _print(f"report: {path}", kept=str(path))
    if figures is not None:
        from diffnas.reports.figures import write_figures

        _print(*(f"figure: {each}" for each in write_figures(runs, figures)), kept=str(figures))


@app.command()
def compare(
    runs: Runs,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the result of every run.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a table in Markdown.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Print a table in LaTeX (booktabs).")] = False,
) -> None:
    """Compare runs: per recipe and data the number of results, their mean, deviation, 95 % interval and the best.

    Runs of one recipe whose settings differ stand apart. Searches and trainings without a result are counted.

    [bold]diffnas compare runs/*[/bold]
    """
    from diffnas.reports import tables
    from diffnas.reports.compare import compared

    if as_json + markdown + latex > 1:
        raise UserError("--json, --markdown, --latex: choose one")
    groups = compared(runs)
    if as_json:
        _print(*_json_lines([group.facts() for group in groups]))
    elif markdown or latex:
        _print(*(tables.markdown if markdown else tables.latex)(groups).splitlines())
    else:
        _print(*tables.terminal(groups))


app.command()(board)


@app.command()
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
    _print(f"written: {write(source if weights else _genotype(source), out, to)}")


@app.command()
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
    cell = _required(cell, "cell", "--best N")
    with named(_short(cell)):
        entry = look_up(_typed(cell), table)
    _say_unfinished(cell)
    devices = None if latency is None else latencies(latency, entry.index)
    _print(*(_json_lines(plain(entry, devices)) if as_json else describe(entry, devices)))


def _list_best(count: int, data: str, by: str, table: Path | None, as_json: bool) -> None:
    from diffnas.api import best_cells
    from diffnas.pipeline.best import best_as_json, describe_best
    from diffnas.pipeline.lookup import source_of

    ranked, source = best_cells(data, count, by, table), source_of(table)
    _print(*(_json_lines(best_as_json(ranked, source)) if as_json else describe_best(ranked, source)))


data_app = typer.Typer(
    help="Prepare data: lists of a part, smaller images, tables.", no_args_is_help=True, rich_markup_mode="rich"
)
app.add_typer(data_app, name="data")


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
    _print(f"table: {out} ({cells:,} of 15,625 cells)", kept=str(out))
    if left_out:
        raise UserError(f"{left_out:,} of {cells + left_out:,} files could not be used and were left out of {out}")


class Goal(StrEnum):
    """What `diffnas list recipes --for` chooses by."""

    cifar10 = "cifar10"
    imagenet = "imagenet"
    text = "text"
    folder = "folder"
    nasbench201 = "nasbench201"


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
    _print(*(_json_lines(facts) if as_json else described(facts)), kept=str(out))


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
    _print(*(_json_lines(facts) if as_json else described(facts)), kept=str(out))
    if facts["broken"]:
        raise UserError(f"{facts['broken']:,} images could not be read and were left out of {out}")


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

    _print(*listing(what.value, section, None if goal is None else goal.value))


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Check what is installed, whether each device computes, and which features lack a package.

    Runs a tiny step of a search on every device. The exit code is 1 if something required does not work.
    """
    from diffnas.checkup.findings import check_all, described

    result = check_all()
    _print(*(_json_lines(result) if as_json else described(result)))
    if not result["works"]:
        raise typer.Exit(1)


def _version(wanted: bool) -> None:
    if wanted:
        from diffnas import __version__

        _print(f"diffnas {__version__}")
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
        code = app(args=arguments, prog_name="diffnas", standalone_mode=False)
        if code == 130:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(bool(leaving.code))
    except USAGE as error:
        return _mistyped(error)
    except UserError as error:
        return _refused(error.shown)
    except (Diverged, Interrupted) as error:
        say(f"diffnas: {error}", error=True)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        say("diffnas: stopped", error=True)
        return Interrupted.exit_code
    except Exception as error:  # noqa: BLE001 (a person gets a line and a file, not a traceback)
        return _unforeseen(error)


def _unforeseen(error: Exception) -> int:
    """Returns the exit code of an unexpected error: no space, an unusable path, or a bug in diffnas."""
    lack = lack_of_room(error)
    if lack is not None:
        return _refused([f"{lack.said}; {lack.remedy} and start again"])
    if isinstance(error, ImportError) and not (error.name or "").startswith("diffnas"):
        said = f"{error.name or 'a package'} cannot be loaded ({error}); `diffnas doctor` says what is missing"
        return _refused(UserError(said).shown)
    if isinstance(error, OSError) and error.filename:  # no permission, too long a name
        return _refused([f"{error.filename!s:.200}: {error.strerror}"])
    if isinstance(error, FileNotFoundError):  # of no file: all relative paths begin there
        return _refused(["the working folder is gone; change into one that is there"])
    return _failed(error)


def _refused(lines: Iterable[str]) -> int:
    say(*(f"diffnas: {line}" for line in lines), error=True)
    return UserError.exit_code


def _mistyped(error: Any) -> int:
    """Prints one line for an unknown command or option, or the help if nothing was typed."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return 2
    command = error.ctx.command_path if error.ctx is not None else "diffnas"
    said = " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".")
    say(f"{command}: {said}; see: {command} --help", error=True)
    return 2


def _failed(error: Exception) -> int:
    """Writes the traceback of a bug to a file and names it."""
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    own = _plugin_place(error)
    say(f"diffnas: {f'plug-in {own}' if own else 'failed'}: {reason}; {_written(error)}", error=True)
    return DiffnasError.exit_code


def _plugin_place(error: Exception) -> str | None:
    """Returns `FILE line N`, the last line of a plug-in that led to `error`, or None."""
    from diffnas.registry import OWNERS

    files = {owner.file for owner in OWNERS.values()}
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    return f"{places[-1].filename} line {places[-1].lineno}" if places else None


def _written(error: Exception) -> str:
    """Writes the details of `error` into the working folder, or else the temporary folder, and says where they are."""
    text = "".join(f"{printable(line)}\n" for line in "".join(traceback.format_exception(error)).split("\n"))
    for folder in (os.getcwd, tempfile.gettempdir):
        try:
            path = Path(folder()) / "diffnas-error.log"
            write_text(path, text)
        except OSError:
            continue
        return f"the details are in {path}"
    return "the details could not be written to a file"


def _print(*lines: object, kept: str = "") -> None:
    """Prints results; if that fails, names the file or folder that has them, or raises `UserError` if there is none."""
    say(*lines)
    lost = lost_output()
    if lost is not None and not kept:
        raise UserError(f"standard output: {lost}; the result is not printed")
    if lost is not None:
        say(f"diffnas: standard output: {lost}; the result is in {kept}", error=True)


def _json_lines(result: Any) -> list[str]:
    return plain_json(result, indent=1).splitlines()


def _genotype(typed: str) -> Genotype:
    """Reads the genotype that was typed, named, or written to standard input."""
    from diffnas.api import load_genotype
    from diffnas.core.genotype import named
    from diffnas.interop.genotypes import is_text, read_genotype

    text = _typed(typed)
    if typed == "-" and is_text(text):
        return read_genotype(text, "standard input")
    with named(_short(typed)):
        return load_genotype(text)


def _typed(genotype: str) -> str:
    """Returns the genotype that was typed, or the text on standard input for `-`."""
    if genotype != "-":
        return genotype
    from diffnas.interop.genotypes import LARGEST_TEXT, decoded

    return decoded(sys.stdin.buffer.read(LARGEST_TEXT + 1), "standard input").strip()


def _origin(provenance: Mapping[str, Any]) -> Iterator[str]:
    """Returns where a genotype comes from, as far as its provenance says."""
    said = ", ".join(str(provenance[key]) for key in ("source", "from") if key in provenance)
    if said:
        yield f"source: {said}"


def _stem(genotype: str) -> str:
    """Returns the file stem for pictures: the name or file of the genotype, or `cell` for a string of ops."""
    from diffnas.api import file_choice

    if genotype == "-":
        return "genotype"
    file, choice = file_choice(genotype)
    if file is not None:
        return file.stem if choice is None else f"{file.stem}-{choice}"
    return "cell" if "~" in genotype else Path(_short(genotype)).stem or "genotype"


def _short(genotype: str) -> str:
    """Returns a short name of a genotype for messages and pictures: its name or path, not its text."""
    if genotype == "-":
        return "standard input"
    return "genotype" if len(genotype) > 100 or set(genotype) & set("({[|=\n") else genotype


def _required(value: str | None, name: str, other: str = "go on with a run: --resume RUN") -> str:
    if value is None:
        raise UserError(f"name a {name}, or {other}")
    return value


def _only_one(*others: Any) -> None:
    if any(other is not None for other in others):
        raise UserError(
            "--resume RUN needs nothing else: the recipe and the genotype are in the folder (--set may raise limits)"
        )


def _resumable(recipe: Path, command: str) -> Path:
    if not recipe.is_file():
        raise RunError(
            f"{recipe.parent}: there is nothing to resume (no recipe.yaml); start with: diffnas {command} ..."
        )
    return recipe


def _recipe_of(run: Path | None) -> str:
    """Reads the recipe in a run folder."""
    if run is None:
        raise UserError("name a recipe to train by: --recipe cifar10-train (diffnas list recipes)")
    from diffnas.recipe.recipe import read_recipe
    from diffnas.runtime.run_folder import open_run

    part = open_run(run).main()
    read_recipe(part.recipe)  # a damaged one is refused, ...
    part.warn_of_recipe()  # ... one that has changed is said
    return str(part.recipe)


def _say_unfinished(genotype: str) -> None:
    """Prints a line if the search of a genotype has not finished."""
    from diffnas.pipeline.finished import unfinished
    from diffnas.runtime.files import is_folder

    with contextlib.suppress(UserError):  # a cell can be shown whatever is wrong beside it
        epochs = unfinished(Path(genotype)) if is_folder(genotype) else None
        if epochs is not None:
            say(f"run {genotype}: its search has not finished ({epochs[0]} of {epochs[1]} epochs)", error=True)


def _say_changed_plugins(genotype: str) -> None:
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


def _after_search(recipe: Recipe, run: Run) -> str:
    """Returns the command that uses the genotype of a search."""
    from diffnas.core.genotype import read_genotype_file

    genotype = read_genotype_file(run.search.genotype) if run.search.genotype.is_file() else None
    if recipe.space is not None and genotype is not None and recipe.space.lookup(genotype) is not None:
        return shlex.join(["diffnas", "lookup", str(run.path)])
    by = [] if recipe.train is not None else ["--recipe", "RECIPE"]
    return shlex.join(["diffnas", "train", str(run.path), *by]) + ("  (diffnas list recipes)" if by else "")
