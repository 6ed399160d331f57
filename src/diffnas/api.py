"""Genotypes and modules by name, for library users: what commands do with files, as functions."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffnas.checks import read_settings, sentence
from diffnas.core.genotype import Genotype
from diffnas.core.known import ALIASES, PUBLISHED, published, published_name
from diffnas.core.space import Form, Shape, Space, Words
from diffnas.errors import GenotypeError, RecipeError, RunError
from diffnas.interop.genotypes import cell_text, is_text, read_genotype, read_genotype_file, read_text
from diffnas.keys import choice_class, nearest, settings_model, space_of
from diffnas.recipe import Recipe, read_recipe
from diffnas.run import Run, open_run
from diffnas.runtime.files import is_file, is_folder
from diffnas.sections import RATES, ImageTrain, TextTrain
from diffnas.spaces import SPACES

if TYPE_CHECKING:
    from torch import nn

    from diffnas.pipeline.best import Ranked
    from diffnas.spaces.nasbench201.table import Entry


def search(recipe: Recipe | str | Path | None, run: Run | str | Path | None = None, resume: bool = False) -> Run:
    """Searches as `recipe` (or the recipe of that name or file) says and returns the run folder: `diffnas search`.

    The genotype found is `RUN/search/genotype.json`.  With `resume`, goes on in the folder `run`; `recipe` may then be None,
    or differ in limits (epochs, minutes) only.  Raises `UserError` for input that cannot be used and `Interrupted` after a
    signal, with a checkpoint written.
    """
    from diffnas.pipeline import search as pipeline

    return pipeline.search(_recipe(recipe), _path(run), resume)


def train(
    genotype: Genotype | Run | str | Path | None,
    recipe: Recipe | str | Path | None,
    run: Run | str | Path | None = None,
    resume: bool = False,
    name: str | None = None,
) -> Run:
    """Trains `genotype` (or what `load_genotype` makes of it) by `recipe` and returns the run folder: `diffnas train`.

    The weights are `RUN/train/NAME/weights.safetensors`; NAME is `name`, or the recipe's name and seed.  With `resume`, goes
    on in the folder `run` (with the training `name`, or its only one), and the rest is read from there.  Raises as `search`.
    """
    from diffnas.pipeline import train as pipeline

    found = None if genotype is None or resume else load_genotype(genotype)
    return pipeline.train(found, _recipe(recipe), _path(run), resume, name)


def test(run: Run | str | Path, name: str | None = None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Tests the training `name` of `run` (its only one by default); writes and returns its test.json: `diffnas test`.

    Accuracies are in percent, text has a perplexity; `interval` is the 95 % interval.  `overrides` may move the data or the
    device.  Raises `UserError` where the training has not finished or its files are damaged.
    """
    from diffnas.pipeline.test import test as pipeline

    return pipeline(_path(run) or "", name, tuple(overrides))


def _recipe(recipe: Recipe | str | Path | None) -> Recipe | None:
    return read_recipe(recipe) if isinstance(recipe, str | Path) else recipe


def _path(run: Run | str | Path | None) -> str | Path | None:
    return run.path if isinstance(run, Run) else run


def load_genotype(text: str | Path | Run | Genotype) -> Genotype:
    """The genotype that `text` names or holds.

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


def file_choice(text: str | Path) -> tuple[Path | None, str | None]:
    """The file that `text` names, as FILE, FILE:NAME or FILE#NAME, and the name; None where there is no such file."""
    if is_file(text):
        return Path(text), None
    parts = re.fullmatch(r"(.+)[:#](\w[\w.-]*)", str(text))
    return (Path(parts[1]), parts[2]) if parts and is_file(parts[1]) else (None, None)


def _genotype_of_run(path: Path) -> Genotype:
    run = open_run(path)
    if run.search.path.is_dir():
        found = run.search.genotype
    else:
        files = [str(run.train(name).genotype) for name in run.trainings()]
        if len(files) > 1:
            raise RunError(f"run {path}: holds several trainings and no search; name one file: {', '.join(files)}")
        found = Path(files[0])
    if not found.is_file():
        raise RunError(f"{found}: is missing; has the search finished an epoch?")
    return read_genotype_file(found)


def lookup(genotype: Genotype | Run | str | Path | int, table: str | Path | None = None) -> Entry:
    """What is known of a cell of NAS-Bench-201, untrained: accuracies, ranks, sizes: `diffnas lookup`.

    `genotype` is an official string (`|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`), the official index, or what `load_genotype`
    reads; `table` a file that `diffnas data nasbench201` wrote, in place of the packaged one.  Raises `GenotypeError` for a
    cell of another space.
    """
    from diffnas.pipeline.lookup import lookup as pipeline

    return pipeline(_cell_of(genotype), None if table is None else Path(table))


def _cell_of(genotype: Genotype | Run | str | Path | int) -> Genotype | str | int:
    """A cell for the table: strings are held to all six edges there, and a number alone is an index."""
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
    classes: int = 10,
    auxiliary: bool = False,
    stem: str = "cifar",
    in_channels: int = 3,
    side: int | None = None,
    pool_norm: str = "none",
    auxiliary_norm: bool | None = None,
    drop_path: bool = False,
    vocabulary: int = 10_000,
    units: int = 850,
    dropouts: Mapping[str, float] | None = None,
) -> nn.Module:
    """The network of `genotype` with fresh weights: images [N, in_channels, side, side] -> logits [N, classes].

    A recurrent genotype gives a language model instead, of `vocabulary` words and `units`, which drops with the probabilities
    `dropouts` (of dropout, dropouth, dropoutx, dropouti, dropoute; None: the paper's): tokens [T, N] and a carry [1, N, units]
    or None -> `Spoken`.

    `channels` and `layers` are those that papers report where they are left out (darts-cnn: 36 and 20; nasbench201: 16 and 5).
    `stem` is "cifar" (side 32) or "imagenet" (side 224); `side` says otherwise.  In training mode with `auxiliary` the
    network returns (logits, auxiliary logits).  `auxiliary_norm=True` gives the ImageNet head its second normalisation
    (P-DARTS; DARTS lacks it).  With `drop_path`, write the probability into the buffer `network.drop_path` each epoch.
    Raises `GenotypeError` for a genotype that is not legal, `RecipeError` for a size that cannot be built.
    """
    genotype = load_genotype(genotype)
    space = space_of(genotype)
    if space.reads == "text":
        rates = dropouts or {}
        _refuse([(name, f"is unknown{nearest(name, RATES)}") for name in rates if name not in RATES])
        _refuse(read_settings(TextTrain, {"units": units, **rates}, TextTrain.model_fields)[1])
        return space.network(genotype, _words(vocabulary), units=units, **rates)
    shape = Shape(classes, in_channels, side or (32 if stem == "cifar" else 224))
    usual = next(iter(space.usual_sizes.values()))[1]
    channels, layers = channels or usual["channels"], layers or usual["layers"]
    size = {"channels": channels, "layers": layers, "auxiliary": auxiliary, "stem": stem, "pool_norm": pool_norm}
    _refuse(read_settings(ImageTrain, size, size)[1])
    _refuse(space.network_refusals(shape, size))
    return space.network(
        genotype,
        shape,
        channels=channels,
        layers=layers,
        auxiliary=auxiliary,
        stem=stem,
        pool_norm=pool_norm,
        auxiliary_norm=auxiliary_norm,
        drops=drop_path,
    )


def build_supernet(
    space: Space | str,
    *,
    classes: int = 10,
    in_channels: int = 3,
    side: int = 32,
    vocabulary: int = 10_000,
    form: Form = "plain",
    **size: Any,
) -> nn.Module:
    """The supernet of `space` with fresh weights: `supernet(images, mixture) -> logits [N, classes]`.

    That of `darts-rnn` reads words, numbered below `vocabulary`: `supernet((tokens, carry), mixture) -> Spoken`.

    `form` is "plain" (every edge for itself, differentiable twice) or "fast" (the same values, gradients and names in less
    time and memory; searches use it).  `size` sets fields of the space: `channels`, `layers`, `nodes`, `ops`, `partial`, ...
    Raises `RecipeError` where a field is unknown or the size cannot be built.
    """
    if isinstance(space, str) and space not in SPACES:
        raise RecipeError(f"space {space!r} is unknown{nearest(space, SPACES)}; known: {', '.join(SPACES)}")
    chosen: Any = choice_class("space", space)() if isinstance(space, str) else space
    names = [field.name for field in dataclasses.fields(chosen)]
    found, mistakes = read_settings(settings_model(type(chosen)), size, names)
    _refuse(mistakes)
    sized: Space = dataclasses.replace(chosen, **{key: getattr(found, key) for key in size})
    shape = _words(vocabulary) if sized.reads == "text" else Shape(classes, in_channels, side)
    _refuse(sized.refusals(shape))
    return sized.supernet(shape, form=form)


def _words(vocabulary: int) -> Words:
    if not isinstance(vocabulary, int) or vocabulary < 1:
        raise RecipeError(f"vocabulary: must be a whole number of at least 1; got {vocabulary}")
    return Words(vocabulary)


def _refuse(found: list[tuple[str, str]]) -> None:
    if found:
        raise RecipeError(*(sentence(key, reason) for key, reason in found))
