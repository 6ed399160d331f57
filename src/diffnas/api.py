"""Genotypes and modules by name, for library users: what commands do with files, as functions."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffnas.checks import read_settings, sentence
from diffnas.core.genotype import Genotype, parse_genotype, read_genotype_file
from diffnas.core.known import PUBLISHED, published
from diffnas.core.space import Shape, Space
from diffnas.errors import GenotypeError, RecipeError, RunError
from diffnas.keys import choice_class, nearest, settings_model
from diffnas.run import open_run
from diffnas.runtime.files import is_file, is_folder
from diffnas.sections import Train
from diffnas.spaces import SPACES

if TYPE_CHECKING:
    from torch import nn


def load_genotype(text: str | Path) -> Genotype:
    """The genotype that `text` names or holds.

    A published name (`darts-v2`), a file of our JSON or of older `Genotype(...)` text, a run folder, or either text itself.
    Nothing is executed.  Raises `GenotypeError` in one line where it is none of these.
    """
    if isinstance(text, str) and text in PUBLISHED:
        return published(text)
    if is_folder(text):
        return _genotype_of_run(Path(text))
    if is_file(text):
        return read_genotype_file(Path(text))
    if isinstance(text, str) and (text.lstrip().startswith("{") or "(" in text):
        return parse_genotype(text)
    hint = nearest(str(text), PUBLISHED)
    raise GenotypeError(
        f"genotype {str(text)[:80]!r} is no published name, file or run folder{hint}; `diffnas list genotypes` shows names"
    )


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


def build_network(
    genotype: Genotype | str,
    *,
    channels: int = 36,
    layers: int = 20,
    classes: int = 10,
    auxiliary: bool = False,
    stem: str = "cifar",
    in_channels: int = 3,
    side: int | None = None,
    pool_norm: str = "none",
    auxiliary_norm: bool | None = None,
    drop_path: bool = False,
) -> nn.Module:
    """The network of `genotype` with fresh weights: images [N, in_channels, side, side] -> logits [N, classes].

    `stem` is "cifar" (side 32) or "imagenet" (side 224); `side` says otherwise.  In training mode with `auxiliary` the
    network returns (logits, auxiliary logits).  `auxiliary_norm=True` gives the ImageNet head its second normalisation
    (P-DARTS; DARTS lacks it).  With `drop_path`, write the probability into the buffer `network.drop_path` each epoch.
    Raises `GenotypeError` for a genotype that is not legal, `RecipeError` for a size that cannot be built.
    """
    genotype = load_genotype(genotype) if isinstance(genotype, str) else genotype
    if genotype.space not in SPACES:
        raise GenotypeError(f"genotype: its space {genotype.space!r} is unknown; known: {', '.join(SPACES)}")
    space: Space = choice_class("space", genotype.space)()
    shape = Shape(classes, in_channels, side or (32 if stem == "cifar" else 224))
    size = {"channels": channels, "layers": layers, "auxiliary": auxiliary, "stem": stem, "pool_norm": pool_norm}
    _refuse(read_settings(Train, size, size)[1])
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
    space: Space | str, *, classes: int = 10, in_channels: int = 3, side: int = 32, **size: Any
) -> nn.Module:
    """The supernet of `space` with fresh weights: `supernet(images, mixture) -> logits [N, classes]`.

    `size` sets fields of the space: `channels`, `layers`, `nodes`, `ops`, ...  Raises `RecipeError` where a field is unknown
    or the size cannot be built.
    """
    if isinstance(space, str) and space not in SPACES:
        raise RecipeError(f"space {space!r} is unknown{nearest(space, SPACES)}; known: {', '.join(SPACES)}")
    chosen: Any = choice_class("space", space)() if isinstance(space, str) else space
    names = [field.name for field in dataclasses.fields(chosen)]
    found, mistakes = read_settings(settings_model(type(chosen)), size, names)
    _refuse(mistakes)
    sized: Space = dataclasses.replace(chosen, **{key: getattr(found, key) for key in size})
    shape = Shape(classes, in_channels, side)
    _refuse(sized.refusals(shape))
    return sized.supernet(shape)


def _refuse(found: list[tuple[str, str]]) -> None:
    if found:
        raise RecipeError(*(sentence(key, reason) for key, reason in found))
