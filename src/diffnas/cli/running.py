"""The commands that compute: search, train, test, estimate."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffnas.cli.launching import Devices, Main, NodeRank, Nodes, RankTimeout, launch
from diffnas.cli.options import (
    DryRun,
    Log,
    Note,
    Plugins,
    Quiet,
    Resume,
    RunPath,
    Set,
    TrainName,
    json_lines,
    print_lines,
)
from diffnas.cli.typed import after_search, loading, only_one, recipe_of, required, resumable, short, typed_genotype

if TYPE_CHECKING:
    pass


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
    devices: Devices = 1,
    nodes: Nodes = 1,
    node_rank: NodeRank = None,
    main: Main = None,
    rank_timeout: RankTimeout = None,
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
    if not dry_run:
        launch(devices, nodes, node_rank, main, rank_timeout)
    if resume is not None:
        only_one(recipe, run, dry_run or None)
        chosen = read_recipe(resumable(resume / "search" / "recipe.yaml", "search"), overrides or ())
    else:
        chosen = read_recipe(required(recipe, "recipe"), overrides or ())
    if dry_run:
        from diffnas.cli.estimating import estimated

        print_lines(*estimated(chosen, part="search"))
        return
    from diffnas.pipeline import search as pipeline

    finished = pipeline.search(chosen, resume or run, resume is not None, note, log or ())
    print_lines(
        f"run folder: {finished.path}",
        f"genotype:   {finished.search.genotype}",
        f"next:       {after_search(chosen, finished, plugins)}",
        kept=str(finished.path),
    )


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
    devices: Devices = 1,
    nodes: Nodes = 1,
    node_rank: NodeRank = None,
    main: Main = None,
    rank_timeout: RankTimeout = None,
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
    if not dry_run:
        launch(devices, nodes, node_rank, main, rank_timeout)
    if resume is not None:
        only_one(genotype, recipe, run, init, dry_run or None)
        from diffnas.runtime.run_folder import open_run

        part = open_run(resume).training(name)
        chosen = read_recipe(resumable(part.recipe, "train"), overrides or ())
        done = api.train(None, chosen, resume, resume=True, name=part.path.name, note=note, log=log or ())
    else:
        from diffnas.core.genotype import named
        from diffnas.runtime.files import is_folder

        text = required(genotype, "genotype")
        loaded = typed_genotype(text)  # what it lacks is said before what the recipe lacks
        source = Path(text) if is_folder(text) else None
        chosen = read_recipe(recipe or recipe_of(source), overrides or ())
        if dry_run:
            from diffnas.cli.estimating import estimated

            print_lines(*estimated(chosen, loaded, "train"))
            return
        with named(short(text)):
            done = api.train(
                loaded if text == "-" else text, chosen, run or source, False, name, partial, init, note, log=log or ()
            )
        part = done.train(name or f"{chosen.name}-seed{chosen.seed}")
    which = ["--train", part.path.name] if len(done.trainings()) > 1 else []
    print_lines(
        f"run folder: {done.path}",
        f"weights:    {part.weights}",
        f"next:       {shlex.join(['diffnas', 'test', str(done.path), *which, *loading(plugins)])}",
        kept=str(done.path),
    )


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
    devices: Devices = 1,
    nodes: Nodes = 1,
    node_rank: NodeRank = None,
    main: Main = None,
    rank_timeout: RankTimeout = None,
) -> None:
    """Test a trained network on held-out images or text.

    Prints accuracy or perplexity, its 95 % interval, loss and size, and writes them to RUN/train/NAME/test.json.

    [bold]diffnas test runs/first -s data.path=FOLDER[/bold]  other images: all of them, but for those that it was trained on

    [bold]diffnas test --weights cifar10_model.pt --source darts --genotype DARTS_V2 -s data.path=FOLDER[/bold]  no run at all
    """
    from diffnas.cli.testing import tested
    from diffnas.runtime.console import start_console

    start_console()
    launch(devices, nodes, node_rank, main, rank_timeout)
    result = tested(run, name, weights, source, genotype, data, tuple(overrides or ()))
    from diffnas.pipeline.test import described

    print_lines(*(json_lines(result) if as_json else described(result)))


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
    cell = None if genotype is None else typed_genotype(genotype)
    print_lines(*estimated(chosen, cell, as_json=as_json))
