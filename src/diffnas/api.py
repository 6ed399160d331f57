"""Genotypes and modules by name, for library users: what commands do with files, as functions."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Literal

from diffnas.core.genotype import Genotype
from diffnas.core.published_genotypes import ALIASES, PUBLISHED, published, published_name
from diffnas.core.settings import settings_model
from diffnas.core.space import AnyShape, Form, Shape, Space, TextShape
from diffnas.errors import GenotypeError, RecipeError, RunError, UserError
from diffnas.interop.genotypes import cell_text, is_text, read_genotype, read_genotype_file, read_text
from diffnas.interop.write import FORMS, SUFFIXES
from diffnas.plugins import load_installed
from diffnas.recipe.keys import nearest
from diffnas.recipe.recipe import Recipe, read_recipe
from diffnas.recipe.schema import RATES, ImageTrain, TextTrain
from diffnas.recipe.validate import read_settings, sentence
from diffnas.registry import SPACES, choice_class, space_of
from diffnas.runtime.console import Listener, showing
from diffnas.runtime.files import is_file, is_folder, write_text
from diffnas.runtime.run_folder import Run, open_run
from diffnas.runtime.terminal import say

if TYPE_CHECKING:
    from torch import nn

    from diffnas.pipeline.best import Ranked
    from diffnas.pipeline.trained import TrainedClassifier, TrainedLanguageModel, TrainedModel
    from diffnas.spaces.nasbench201.table import Entry

WEIGHTS = {".pt", ".pth", ".tar", ".safetensors"}
"""Suffixes of files of weights."""


def search(
    recipe: Recipe | str | Path | None,
    run: Run | str | Path | None = None,
    resume: bool = False,
    note: str | None = None,
    progress: bool | Listener = True,
    log: Sequence[str] = (),
    devices: int = 1,
) -> Run:
    """Searches as `recipe` (or the recipe of that name or file) says and returns the run folder: `diffnas search`.

    The genotype is written to `RUN/search/genotype.json`.  With `resume`, continues the search in `run`; `recipe` may then be
    None, or differ in limits (epochs, minutes) only.  A `note` is kept for the report.  `progress` is a bar, on a terminal and
    in a notebook; False shows none, and a function is called with a `Progress` instead, at most twice a second and at the end
    of each epoch.  `log` names programs that are sent the metrics too: "tensorboard", "wandb", "mlflow".  `devices` is the
    number of processes that share every batch, one a GPU; they show their progress on the standard error, or none.  Raises
    `UserError` for invalid input, and `Interrupted` after a signal, with a checkpoint written; `ProcessLost` names a process
    that has died or hangs.
    """
    from diffnas.pipeline import search as pipeline
    from diffnas.pipeline import several

    if several.are_asked_for(devices):
        return several.search(_recipe(recipe), _path(run), resume, note, log, devices, progress)
    with showing(progress):
        return pipeline.search(_recipe(recipe), _path(run), resume, note, log)


def train(
    genotype: Genotype | Run | str | Path | None,
    recipe: Recipe | str | Path | None,
    run: Run | str | Path | None = None,
    resume: bool = False,
    name: str | None = None,
    partial: bool = False,
    init: str | Path | None = None,
    note: str | None = None,
    progress: bool | Listener = True,
    log: Sequence[str] = (),
    devices: int = 1,
) -> Run:
    """Trains `genotype` (or what `load_genotype` makes of it) by `recipe` and returns the run folder: `diffnas train`.

    The weights are `RUN/train/NAME/weights.safetensors`; NAME is `name`, or the recipe's name and seed.  With `resume`,
    continues the training `name` of `run` (or its only one) and reads the rest from there.  A `note` is kept for the report;
    `progress`, `log` and `devices` are as for `search`.
    Raises as `search`, and `RunError` for a run whose search has not finished, unless `partial` accepts its current cell.

    Weights are fresh, unless `init` names others: "search" for those of the supernet (of the run `genotype`, or of `run`), or
    a file: `weights.safetensors` of another training, or a checkpoint that `interop.load_weights` reads.  Raises
    `WeightsError` naming the weights that do not fit the network.
    """
    from diffnas.pipeline import several
    from diffnas.pipeline import train as pipeline
    from diffnas.pipeline.finished import require_finished

    if (genotype is None or resume) and init is not None:
        raise RunError("a resumed training goes on with its own weights; leave init out")
    if several.are_asked_for(devices):
        cell = None if resume else genotype if isinstance(genotype, Genotype) else _path(genotype)
        return several.train(
            cell, _recipe(recipe), _path(run), resume, name, partial, init, note, log, devices, progress
        )
    if genotype is None or resume:
        with showing(progress):
            return pipeline.train(None, _recipe(recipe), _path(run), resume, name, note=note, sinks=log)
    loaded = load_genotype(genotype)
    source = _folder(genotype)
    facts = {} if source is None else require_finished(source, partial)
    with showing(progress):
        return pipeline.train(loaded, _recipe(recipe), _path(run), resume, name, genotype, facts, init, note, log)


def test(
    run: Run | str | Path, name: str | None = None, overrides: Sequence[str] = (), devices: int = 1
) -> dict[str, Any]:
    """Tests the training `name` of `run` (its only one by default); writes and returns its test.json: `diffnas test`.

    Accuracies are in percent, text has a perplexity; `interval` is the 95 % interval.  Images that the network was trained on
    are left out: `trained_on` says how many.  `overrides` may move the data or the device; `devices` is as for `search`.
    Raises `UserError` where the training has not finished or its files are damaged.
    """
    from diffnas.pipeline import several
    from diffnas.pipeline.test import test as pipeline

    if several.are_asked_for(devices):
        return several.tested([str(_path(run)), *several.options(train=name, set=list(overrides))], devices)
    return pipeline(_path(run) or "", name, tuple(overrides))


def test_weights(
    file: str | Path,
    source: str,
    genotype: Genotype | Run | str | Path,
    data: str | None = None,
    overrides: Sequence[str] = (),
    devices: int = 1,
) -> dict[str, Any]:
    """Tests weights that another program published: `diffnas test --weights`; returns what `test` does, and writes nothing.

    `source` is the program: darts, darts-rnn, pdarts, pcdarts, drnas, drnas-nb201, nasbench201, snas or mmrazor, whose sizes,
    heads and names are known.  `genotype` is what `load_genotype` reads, or the program's own name for it.  `data` is the data
    set (None: as the number of outputs tells); `overrides` are keys such as "data.path=FOLDER"; `devices` is as for `search`.
    Nothing in the file is executed.  Raises `WeightsError` with every weight without a place and every parameter that is not
    filled.
    """
    from diffnas.pipeline import several
    from diffnas.pipeline.published import test_weights as pipeline

    cell = load_genotype(_recurrent_name(source, genotype))
    if several.are_asked_for(devices):
        given = several.options(weights=file, source=source, data=data, set=list(overrides))
        with several.file_of(cell.to_json(), "genotype.json") as path:
            return several.tested([*given, "--genotype", path], devices)
    return pipeline(file, source, cell, data, tuple(overrides))


def _recurrent_name(source: str, genotype: Genotype | Run | str | Path) -> Genotype | Run | str | Path:
    """The recurrent cell that DARTS calls by the name of a convolutional one, where its recurrent program is meant."""
    name = published_name(genotype) if isinstance(genotype, str) else None
    if source == "darts-rnn" and name in ("darts-v1", "darts-v2"):
        return name.replace("darts", "darts-rnn")
    return genotype


def estimate(
    recipe: Recipe | str | Path,
    genotype: Genotype | Run | str | Path | None = None,
    part: str | None = None,
    seconds: float | None = None,
) -> dict[str, Any]:
    """Estimates what a recipe takes before it is begun: `diffnas estimate`; a few steps are run, and nothing is written.

    `search` and `train` (or the one that `part` names) say `weights`, `steps` an epoch, `step_seconds`, `epoch_seconds`,
    `seconds` in all, `peak_memory` in bytes, whether the batch fits, and the `largest_batch`.  `genotype` is what is trained
    (None: a published cell of the space).  Steps of each kind are timed for `seconds` (None: 10).
    Raises `UserError` as the commands do.
    """
    from diffnas.pipeline.estimate import estimate as pipeline

    read = _recipe(recipe)
    assert read is not None
    if part not in (None, "search", "train"):
        raise UserError(f"part {part!r}: is search or train")
    cell = None if genotype is None else load_genotype(genotype)
    return pipeline(read, cell, None if part is None else [part], seconds)  # type: ignore[list-item]


def load_network(
    run: Run | str | Path, name: str | None = None
) -> TrainedClassifier | TrainedLanguageModel | TrainedModel:
    """The network of the training `name` of `run` (its only one by default), a module in evaluation mode on the CPU.

    Of images: `classes`, `preprocess(images)`, `probabilities(images)`; of text: `words`, `encode(text)`, `perplexity(text)`,
    `next_words(text)`.  Raises `UserError` where the training has not finished or its files are damaged.
    """
    from diffnas.pipeline.trained import load_network as pipeline

    return pipeline(run, name)


def predict(
    run: Run | str | Path,
    paths: str | Path | Sequence[str | Path],
    name: str | None = None,
    top: int = 5,
    overrides: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Returns the predictions of the training `name` of `run` for files, or folders of images: `diffnas predict`.

    For images {file, class, probability, top: [{class, probability}, ...]}; for text {file, perplexity, tokens, word,
    probability, top: [{word, probability}, ...]} with the likeliest next words; for a file that cannot be read
    {file, error}.  `overrides` may choose the device.  Raises as `load_network`.
    """
    from diffnas.pipeline.predict import predict as pipeline

    return list(pipeline(run, [paths] if isinstance(paths, str | Path) else paths, name, top, overrides))


def report(
    runs: Run | str | Path | Sequence[Run | str | Path],
    out: str | Path | None = None,
    figures: str | Path | None = None,
) -> Path:
    """Writes the page of a run, or of several beside one another, and returns its path: `diffnas report`.

    It is one HTML file that needs nothing else; of one run it is RUN/report.html where `out` names no other.  A folder of
    runs stands for those in it.  With `figures`, every chart, heat map and cell is written into that folder too, as SVG and as
    PDF.  Nothing in a run folder is executed.  Raises `RunError` where there is no run.
    """
    from diffnas.reports.page import write_report

    path = write_report(_paths(runs), out)
    if figures is not None:
        from diffnas.reports.figures import write_figures

        write_figures(_paths(runs), Path(figures))
    return path


def compare(runs: Run | str | Path | Sequence[Run | str | Path]) -> list[dict[str, Any]]:
    """What recipes came to over several runs: `diffnas compare`, a mapping for each recipe, its settings and data.

    `n` results have the `mean`, `std` and the 95 % `interval` of the mean (Student's t), and a `best`; `counts` says how many
    searches or trainings have none, and why; `runs` lists all.  A folder of runs stands for those in it.
    """
    from diffnas.reports.compare import compared

    return [group.facts() for group in compared(_paths(runs))]


def board(folder: str | Path, host: str = "127.0.0.1", port: int = 8321, with_token: bool = False) -> None:
    """Serves a live page over the runs in `folder` until it is interrupted: `diffnas board`.

    Its address is printed to standard error.  A `host` that others can reach, or `with_token`, makes it ask for a token, which
    is in that address; port 0 takes a free one.  Nothing in the folder is written or executed.  Raises `UserError` where the
    address cannot be had, or a package is missing.
    """
    from diffnas.boards.serve import serve

    serve(folder, host, port, with_token, lambda address: say(f"board: {address}", error=True))


def _paths(runs: Run | str | Path | Sequence[Run | str | Path]) -> list[str | Path]:
    several = [runs] if isinstance(runs, Run | str | Path) else runs
    return [run.path if isinstance(run, Run) else run for run in several]


def data_subset(
    path: str | Path, out: str | Path, weights: float = 0.1, arch: float = 0.025, seed: int = 0
) -> dict[str, Any]:
    """Lists a part of a large training set for a search: `diffnas data subset`; no image is copied.

    Writes `weights.txt` and `arch.txt` into the folder `out`, for `data.weights_list` and `data.arch_list` of a recipe: such
    shares of every class, at least one image, none in both.  Returns their files and numbers of images.
    """
    from diffnas.pipeline.subset import write_lists

    return write_lists(path, out, weights, arch, seed)


def data_shrink(path: str | Path, out: str | Path, side: int = 256, quality: int = 90) -> dict[str, Any]:
    """Stores an image data set once at a smaller size in the folder `out`: `diffnas data shrink`.

    Returns how many images were written, copied, there already, and broken, which are left out with a warning.
    """
    from diffnas.pipeline.shrink import shrink_images

    return shrink_images(path, out, side, quality)


def doctor() -> dict[str, Any]:
    """Checks the installation and the devices in a few seconds: `diffnas doctor`.

    `{"works": bool, "findings": [{"name", "state": "ok", "note" or "bad", "said", "remedy", "facts"}, ...]}`; it works where
    no finding is bad.
    """
    from diffnas.checkup.findings import check_all

    return check_all()


def new(kind: Literal["method", "space", "data"], name: str, folder: str | Path = ".") -> dict[str, Any]:
    """Writes a method, space or data set to start from into `folder`, with a test: `diffnas new`.

    `{"files": [path, ...], "commands": [line, ...]}`, what was written and what to do next.  Raises `UserError` rather than
    overwrite a file.
    """
    from diffnas.starters.start import start

    started = start(kind, name, folder)
    return {"files": [str(path) for path in started.files], "commands": list(started.commands)}


def _recipe(recipe: Recipe | str | Path | None) -> Recipe | None:
    return read_recipe(recipe) if isinstance(recipe, str | Path) else recipe


def _folder(genotype: Genotype | Run | str | Path) -> Path | None:
    """Returns the run folder that a genotype comes from, or None."""
    path = _path(None if isinstance(genotype, Genotype) else genotype)
    return Path(path) if path is not None and path not in PUBLISHED and is_folder(path) else None


def _path(run: Run | str | Path | None) -> str | Path | None:
    return run.path if isinstance(run, Run) else run


def load_genotype(text: str | Path | Run | Genotype) -> Genotype:
    """Returns the genotype that `text` names or contains.

    A published name (`darts-v2`, or as its authors write it, `DARTS_V2`), a run folder, a file, or a text: our JSON, or what
    other programs print (`docs/other-programs.md`).  Of several in a file, `FILE:NAME` or `FILE:LINE` names one.  A genotype is
    given back.  Nothing is executed.  Raises `GenotypeError` in one line where it is none of these.
    """
    if isinstance(text, Genotype):
        return text
    text = text.path if isinstance(text, Run) else text
    if isinstance(text, str) and text in PUBLISHED:
        return published(text)
    if isinstance(text, str) and not text.strip():
        raise GenotypeError("genotype: is empty; give a published name, a file or a run folder")
    if is_folder(text):
        return _genotype_of_run(Path(text))
    file, choice = file_choice(text)
    if file is not None:
        return read_genotype_file(file, choice)
    name = published_name(str(text))
    if name is not None:
        return published(name)
    if isinstance(text, str) and is_text(text):
        return read_genotype(text)
    hint = nearest(re.sub(r"[\s_]+", "-", str(text)[:80].lower()), (*PUBLISHED, *ALIASES))
    raise GenotypeError(
        f"genotype {str(text)[:80]!r} is no published name, file or run folder{hint}; `diffnas list genotypes` shows names"
    )


def convert(source: str | Path | Run | Genotype, out: str | Path, to: str | None = None) -> Path:
    """Writes a genotype in the form of another program, or a checkpoint's weights as safetensors, and returns the file.

    `source` is what `load_genotype` takes, or a file of weights (.pt, .pth, .tar, .safetensors), of which nothing is run.
    `to` is diffnas, darts, mmrazor or nasbench201; by default the suffix of `out` says it.  Raises `UserError` where the form
    cannot hold the genotype.
    """
    out = Path(out)
    if isinstance(source, str | Path) and Path(source).suffix.lower() in WEIGHTS:
        if out.suffix != ".safetensors" or to is not None:
            raise UserError(f"{out}: weights are written as .safetensors; name such a file, without --to")
        from diffnas.interop.checkpoint import read_weights, write_weights

        weights = read_weights(source)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_weights(weights, out, str(source))
        return out
    form = to or SUFFIXES.get(out.suffix.lower())
    if form not in FORMS:
        said = f"--to {to}: is unknown" if to else f"{out}: its name does not say a form; give --to"
        raise UserError(f"{said}; forms: {', '.join(FORMS)} (by suffix: {', '.join(SUFFIXES)})")
    text = FORMS[form](load_genotype(source))  # what is refused leaves nothing behind
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
    return out


def file_choice(text: str | Path) -> tuple[Path | None, str | None]:
    """Parses `text` as FILE, FILE:NAME or FILE#NAME: the file and the name; None if there is no such file."""
    if is_file(text):
        return Path(text), None
    parts = re.fullmatch(r"(.+)[:#](\w[\w.-]*)", str(text))
    return (Path(parts[1]), parts[2]) if parts and is_file(parts[1]) else (None, None)


def _genotype_of_run(path: Path) -> Genotype:
    from diffnas.pipeline.origin import warn_unless_found

    run = open_run(path)
    if run.search.path.is_dir():
        file = run.search.genotype
    else:
        files = sorted(map(str, (path / "train").glob("*/genotype.json")))
        if len(files) > 1:
            raise RunError(f"run {path}: holds several trainings and no search; name one file: {', '.join(files)}")
        file = Path(files[0]) if files else run.training().genotype
    if not file.is_file():
        go_on = f"; go on with: diffnas search --resume {quote(str(path))}" if run.search.recipe.is_file() else ""
        raise RunError(f"{file}: is missing; has the search finished an epoch?{go_on}")
    genotype = read_genotype_file(file)
    if file == run.search.genotype:
        warn_unless_found(run.search, genotype)
    return genotype


def lookup(genotype: Genotype | Run | str | Path | int, table: str | Path | None = None) -> Entry:
    """Returns what NAS-Bench-201 knows of a cell, untrained: accuracies, ranks, sizes (`diffnas lookup`).

    `genotype` is an official string (`|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`), the official index, or what `load_genotype`
    reads; `table` a file that `diffnas data nasbench201` wrote, in place of the packaged one.  Raises `GenotypeError` for a
    cell of another space.
    """
    from diffnas.pipeline.lookup import lookup as pipeline

    return pipeline(_cell_of(genotype), None if table is None else Path(table))


def _cell_of(genotype: Genotype | Run | str | Path | int) -> Genotype | str | int:
    """Returns a cell for the table: strings must have all six edges, and a bare number is an index."""
    if isinstance(genotype, int | Genotype | Run) or is_folder(genotype):
        return genotype if isinstance(genotype, int) else load_genotype(genotype)
    file, choice = file_choice(genotype)
    text = str(genotype) if file is None else read_text(file)
    cell = cell_text(text) if choice is None else None
    return load_genotype(genotype) if cell is None else cell


def best_cells(
    data: str = "cifar10", count: int = 10, by: str = "test", table: str | Path | None = None
) -> tuple[Ranked, ...]:
    """The `count` cells of NAS-Bench-201 with the highest accuracy on `data`, the best first: `diffnas lookup --best`.

    `by` is "test" or "valid", or a measure of the table ("test_200", "valid_12", ...); "test" and "valid" are those after 200
    epochs where the table has them, else after 12.  Raises `UserError` where the table does not say.
    """
    from diffnas.pipeline.best import best_cells as pipeline

    return pipeline(data, count, by, None if table is None else Path(table))


def build_network(
    genotype: Genotype | Run | str | Path,
    *,
    channels: int | None = None,
    layers: int | None = None,
    classes: int | None = None,
    auxiliary: bool | None = None,
    stem: str | None = None,
    in_channels: int | None = None,
    side: int | None = None,
    pool_norm: str | None = None,
    auxiliary_norm: bool | None = None,
    drop_path: bool | None = None,
    vocabulary: int | None = None,
    units: int | None = None,
    dropouts: Mapping[str, float] | None = None,
    shape: AnyShape | None = None,
) -> nn.Module:
    """The network of `genotype` with fresh weights: images [N, in_channels, side, side] -> logits [N, classes].

    A recurrent genotype gives a language model instead, of `vocabulary` words and `units`, which drops with the probabilities
    `dropouts` (of dropout, dropouth, dropoutx, dropouti, dropoute): tokens [T, N] and a carry [1, N, units] or None ->
    `LanguageModelOutput`.

    What is left out is as in the run, where `genotype` is a run: the size that it trains, and the classes or words of its data.
    A genotype of a space of tensors takes `channels`, `layers` and `shape`, a `TensorShape`, which a run knows.

    Elsewhere it is as in papers: `channels` and `layers` 36 and 20 (darts-cnn) or 16 and 5 (nasbench201), 10 `classes`,
    3 `in_channels`, the stem "cifar" and `side` 32 (or "imagenet" and 224); a `vocabulary` of 10,000, 850 `units`.

    In training mode with `auxiliary` the network returns (logits, auxiliary logits).  `auxiliary_norm=True` gives the ImageNet
    head its second normalisation (P-DARTS; DARTS lacks it).  With `drop_path`, write the probability into the buffer
    `network.drop_path` each epoch.  Raises `GenotypeError` for a genotype that is not legal, `RecipeError` for a size that
    cannot be built, or that is for the other kind of genotype.
    """
    images = {
        "channels": channels,
        "layers": layers,
        "classes": classes,
        "auxiliary": auxiliary,
        "stem": stem,
        "in_channels": in_channels,
        "side": side,
        "pool_norm": pool_norm,
        "auxiliary_norm": auxiliary_norm,
        "drop_path": drop_path,
    }
    text = {"vocabulary": vocabulary, "units": units, "dropouts": dropouts}
    loaded = load_genotype(genotype)
    if loaded.space not in SPACES:
        load_installed()
    space, known = _size_of_run(genotype, loaded)
    if space.modality not in ("images", "text"):
        return _build_other(
            loaded, space, known, {"channels": channels, "layers": layers, "shape": shape}, images | text
        )
    if shape is not None:
        raise RecipeError(f"shape: is for networks of tensors, and {space.name} reads {space.modality}; leave it out")
    strangers = images if space.modality == "text" else text
    reason = (
        f"is for networks of {'images' if strangers is images else 'text'}, and {space.name} reads {space.modality}"
    )
    _refuse([(name, f"{reason}; leave it out") for name, value in strangers.items() if value is not None])
    given = {name: value for name, value in {**images, **text}.items() if value is not None}
    return (_build_text if space.modality == "text" else _build_images)(loaded, space, known | given)


def _size_of_run(genotype: Genotype | Run | str | Path, loaded: Genotype) -> tuple[Space, dict[str, Any]]:
    """Returns the space of `loaded`, and the network size recorded in its run, if it is from a run."""
    path = _folder(genotype)
    if path is None:
        return space_of(loaded), {}
    from diffnas.pipeline.sizes import run_size

    recipe, shape = run_size(path)
    space = recipe.space if recipe.space is not None and recipe.space.name == loaded.space else space_of(loaded)
    train = recipe.train
    size: dict[str, Any] = {}
    if isinstance(train, TextTrain):
        size = {"units": train.units, "dropouts": {rate: getattr(train, rate) for rate in RATES}}
    elif isinstance(train, ImageTrain):
        size = {"channels": train.channels, "layers": train.layers, "stem": train.stem}
        size |= {"auxiliary": train.auxiliary, "pool_norm": train.pool_norm, "drop_path": train.drop_path > 0}
        size |= {} if train.auxiliary_norm is None else {"auxiliary_norm": train.auxiliary_norm}
    elif train is not None:
        size = train.network_settings()
    if isinstance(shape, TextShape):
        return space, size | {"vocabulary": shape.vocabulary}
    if isinstance(shape, Shape):
        return space, size | {"classes": shape.classes, "in_channels": shape.channels, "side": shape.side}
    return space, size | {"shape": shape}


def _build_text(genotype: Genotype, space: Space, size: Mapping[str, Any]) -> nn.Module:
    rates, units = size.get("dropouts", {}), size.get("units", 850)
    _refuse([(name, f"is unknown{nearest(name, RATES)}") for name in rates if name not in RATES])
    model = settings_model(TextTrain)
    _refuse(read_settings(model, {"units": units, **rates}, model.model_fields)[1])
    return space.network(genotype, _words(size.get("vocabulary", 10_000)), units=units, **rates)


def _build_other(
    genotype: Genotype, space: Space, known: dict[str, Any], given: dict[str, Any], others: Mapping[str, Any]
) -> nn.Module:
    reason = f"is for networks of images or text, and {space.name} reads {space.modality}; leave it out"
    _refuse([(key, reason) for key, value in others.items() if value is not None and key not in given])
    settings = known | {key: value for key, value in given.items() if value is not None}
    missing = "must say what the network reads and puts out: diffnas.TensorShape(sizes, outputs)"
    _refuse([("shape", missing)] * ("shape" not in settings))
    shape = settings.pop("shape")
    usual = {"channels": 36, "layers": 20} | settings
    _refuse(space.check_network(shape, usual))
    return space.network(genotype, shape, **settings)


def _build_images(genotype: Genotype, space: Space, size: Mapping[str, Any]) -> nn.Module:
    usual = next(iter(space.usual_sizes.values()))[1]
    defaults = {"channels": usual["channels"], "layers": usual["layers"], "auxiliary": False, "stem": "cifar"}
    defaults["pool_norm"] = "none"
    settings = {name: size.get(name, value) for name, value in defaults.items()}
    side = size.get("side", 32 if settings["stem"] == "cifar" else 224)
    shape = Shape(size.get("classes", 10), size.get("in_channels", 3), side)
    _refuse(read_settings(settings_model(ImageTrain), settings, settings)[1])
    _refuse(space.check_network(shape, settings))
    return space.network(
        genotype,
        shape,
        **settings,
        auxiliary_norm=size.get("auxiliary_norm"),
        drops=size.get("drop_path", False),
    )


def build_supernet(
    space: Space | str,
    *,
    classes: int = 10,
    in_channels: int = 3,
    side: int = 32,
    vocabulary: int = 10_000,
    shape: AnyShape | None = None,
    form: Form = "plain",
    **size: Any,
) -> nn.Module:
    """The supernet of `space` with fresh weights: `supernet(images, mixture) -> logits [N, classes]`.

    A space of tensors needs their `shape`, a `TensorShape`.
    That of `darts-rnn` reads words, numbered below `vocabulary`: `supernet((tokens, carry), mixture) -> LanguageModelOutput`.

    `form` is "plain" (every edge for itself, differentiable twice) or "fast" (the same values, gradients and names in less
    time and memory; searches use it).  `size` sets fields of the space: `channels`, `layers`, `nodes`, `ops`, `partial`, ...
    Raises `RecipeError` where a field is unknown or the size cannot be built.
    """
    if isinstance(space, str) and space not in SPACES:
        load_installed()
    if isinstance(space, str) and space not in SPACES:
        raise RecipeError(f"space {space!r} is unknown{nearest(space, SPACES)}; known: {', '.join(SPACES)}")
    chosen: Any = choice_class("space", space)() if isinstance(space, str) else space
    names = [field.name for field in dataclasses.fields(chosen)]
    checked, mistakes = read_settings(settings_model(type(chosen)), size, names)  # type: ignore[arg-type]
    _refuse(mistakes)
    sized: Space = dataclasses.replace(chosen, **{key: getattr(checked, key) for key in size})
    if shape is None and sized.modality not in ("images", "text"):
        raise RecipeError(
            f"shape: must be given for {sized.name}, which reads {sized.modality}: TensorShape(sizes, outputs)"
        )
    usual = _words(vocabulary) if sized.modality == "text" else Shape(classes, in_channels, side)
    _refuse(sized.check_size(shape or usual))
    return sized.supernet(shape or usual, form=form)


def _words(vocabulary: int) -> TextShape:
    if not isinstance(vocabulary, int) or vocabulary < 1:
        raise RecipeError(f"vocabulary: must be a whole number of at least 1; got {vocabulary}")
    return TextShape(vocabulary)


def _refuse(problems: list[tuple[str, str]]) -> None:
    if problems:
        raise RecipeError(*(sentence(key, reason) for key, reason in problems))
