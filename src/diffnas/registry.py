"""The registry: what names in recipes stand for, our methods and spaces and those of plug-ins.

A module that calls `register` is a plug-in (`diffnas.plugins` loads it).  Nothing that a recipe or a run folder holds is ever
imported: they name things, and a name that is not here is refused.  Modules are loaded when a name is looked up, so that
help and lists need no torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeVar

from diffnas.core.genotype import Genotype
from diffnas.core.modality import Modality
from diffnas.core.space import Space
from diffnas.data import DATA
from diffnas.data.registered import TENSORS, ImageSet, TensorSet, TextSet, data_info, text_info
from diffnas.data.texts import TEXTS
from diffnas.errors import GenotypeError, PluginError
from diffnas.registry_checks import NAMING, check, is_name
from diffnas.registry_checks import Op as Op
from diffnas.spaces.darts_cnn.layout import SEARCHED_OPS

SPACES: dict[str, Any] = {
    "darts-cnn": "diffnas.spaces.darts_cnn.space:DartsCNN",
    "darts-rnn": "diffnas.spaces.darts_rnn.space:DartsRNN",
    "nasbench201": "diffnas.spaces.nasbench201.space:NASBench201",
    "shufflenet-blocks": "diffnas.spaces.shufflenet_blocks.space:ShuffleNetBlocks",
}

METHODS: dict[str, Any] = {
    "darts": "diffnas.methods.darts:DARTS",
    "drnas": "diffnas.methods.drnas:DrNAS",
    "pcdarts": "diffnas.methods.pcdarts:PCDARTS",
    "pdarts": "diffnas.methods.pdarts:PDARTS",
    "beta-darts": "diffnas.methods.beta_darts:BetaDARTS",
    "darts-minus": "diffnas.methods.darts_minus:DARTSMinus",
    "darts-plus": "diffnas.methods.darts_plus:DARTSPlus",
    "fairdarts": "diffnas.methods.fairdarts:FairDARTS",
    "mmrazor-darts": "diffnas.methods.mmrazor_darts:MMRazorDARTS",
    "lambda-darts": "diffnas.methods.lambda_darts:LambdaDARTS",
    "oles": "diffnas.methods.oles:OLES",
    "sgas": "diffnas.methods.sgas:SGAS",
    "dsnas": "diffnas.methods.dsnas:DSNAS",
    "enas": "diffnas.methods.enas:ENAS",
    "gdas": "diffnas.methods.gdas:GDAS",
    "rsws": "diffnas.methods.rsws:RSWS",
    "snas": "diffnas.methods.snas:SNAS",
    "smooth-darts": "diffnas.methods.smooth_darts:SmoothDARTS",
    "darts-pt": "diffnas.methods.darts_pt:DARTSPT",
    "robust-darts": "diffnas.methods.robust_darts:RobustDARTS",
    "budget": "diffnas.methods.budget.budget:Budget",
}
"""A class, as plug-ins register it, or where it is, `module:class`."""

TASKS: dict[str, Any] = {
    "classification": "diffnas.tasks.classification:Classification",
    "language": "diffnas.tasks.language:LanguageTask",
    "regression": "diffnas.tasks.regression:Regression",
}

REGISTRIES: dict[str, dict[str, Any]] = {"space": SPACES, "method": METHODS, "task": TASKS}
"""The sections of a recipe whose `name` chooses a class, whose fields are the section's other keys."""

MODALITIES: dict[str, Modality] = {}
"""The modalities of plug-ins; `diffnas.recipe.modalities` has ours."""

T = TypeVar("T")
Kind = Literal["method", "space", "data", "op", "task", "modality"]
OWN_MODALITIES = {"images", "text", "tensors"}


@dataclass(frozen=True)
class Owner:
    """The owner of a registered name: its module, the file (None in a notebook), and the SHA-256 of the text then."""

    module: str
    file: str | None
    digest: str | None

    @property
    def label(self) -> str:
        """The file, or the module where there is none."""
        return self.file or f"module {self.module}"


OWNERS: dict[tuple[Kind, str], Owner] = {}
"""What others have registered, and who."""


def choice_class(section: str, name: str) -> Any:
    """The class registered as `name` in the registry of `section`; raises `KeyError` for another name."""
    home = REGISTRIES[section][name]
    if not isinstance(home, str):
        return home
    module, _, attribute = home.partition(":")
    return getattr(import_module(module), attribute)


def make(section: str, name: str, settings: Mapping[str, Any]) -> Any:
    """The space or method `name` with `settings` by key, which must be sound."""
    cls = choice_class(section, name)
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()
    }
    for entry in dataclasses.fields(cls):
        if "chooses" in entry.metadata:
            chosen = values.pop(entry.name, entry.default.name)
            values[entry.name] = make(entry.metadata["chooses"], chosen, values.pop(f"{entry.name}_settings", {}))
    return cls(**values)


def space_of(genotype: Genotype) -> Space:
    """The space a genotype belongs to, with default settings; raises `GenotypeError` where it is unknown."""
    if genotype.space not in SPACES:
        raise GenotypeError(f"genotype: its space {genotype.space!r} is unknown; known: {', '.join(SPACES)}")
    space: Space = choice_class("space", genotype.space)()
    return space


def register(thing: T) -> T:
    """Registers a thing under its name and returns it; also a decorator.

    It may be a method, space or task (a class), an `Op`, an `ImageSet`, `TextSet` or `TensorSet`, or a `Modality`.

    The same module may register a name again.  Raises `PluginError` for a name that is taken, and for a thing that commands
    could not use.
    """
    frame = sys._getframe(1)
    return register_for(owner_of(frame.f_globals), thing)


def register_for(owner: Owner, thing: T) -> T:
    """`register` on behalf of `owner`."""
    kind, name = _kind_and_name(thing)
    before = OWNERS.get((kind, name))
    if before is None and name in names_of(kind):
        raise PluginError(f"{kind} {name!r}: is a name of diffnas's own ({owner.label}); choose another")
    if before is not None and (before.module, before.file) != (owner.module, owner.file):
        raise PluginError(f"{kind} {name!r}: is registered by {before.label} and by {owner.label}; use one of them")
    own = MODALITIES[name].sets if kind == "modality" and name in MODALITIES else ()
    check(kind, name, thing, names_of("data") - set(own))
    _add(kind, name, thing)
    OWNERS[kind, name] = owner
    if isinstance(thing, Modality):
        OWNERS.update({("data", data): owner for data in thing.sets})
    return thing


def owner_of(module: Mapping[str, Any]) -> Owner:
    """The owner that the globals of a `module` describe."""
    file = module.get("__file__")
    path = Path(str(file)).resolve() if file else None
    if path is None or not path.is_file():
        return Owner(str(module.get("__name__")), None, None)
    return Owner(str(module.get("__name__")), str(path), digest_of(path))


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _kind_and_name(thing: Any) -> tuple[Kind, str]:
    if isinstance(thing, Op | ImageSet | TextSet | TensorSet | Modality):
        kinds: dict[type, Kind] = {Op: "op", Modality: "modality"}
        kind: Kind = kinds.get(type(thing), "data")
    elif isinstance(thing, type) and _is_method(thing):
        kind = "method"
    elif isinstance(thing, type) and _is_task(thing):
        kind = "task"
    elif isinstance(thing, type) and all(hasattr(thing, name) for name in ("cells", "supernet", "network")):
        kind = "space"
    else:
        raise PluginError(
            f"register: {thing!r:.80} is no method, task or space (a class that derives from diffnas.Method or diffnas.Task, or"
            " has cells, supernet and network), no diffnas.Op, ImageSet, TextSet, TensorSet or Modality"
        )
    name = getattr(thing, "name", None)
    if name == "method" and kind == "method":  # what the base class is called
        name = None
    if not isinstance(name, str) or not is_name(name):
        said = f"its name is {name!r:.80}" if isinstance(name, str) else "it has no name"
        raise PluginError(f"register: {_called(thing)}: {said}; {NAMING}")
    return kind, name


def _is_method(cls: type) -> bool:
    from diffnas.engine.method import Method  # needs torch

    return issubclass(cls, Method)


def _is_task(cls: type) -> bool:
    from diffnas.tasks.base import Task  # needs torch

    return issubclass(cls, Task)


def _called(thing: Any) -> str:
    return thing.__name__ if isinstance(thing, type) else type(thing).__name__


def names_of(kind: Kind) -> set[str]:
    """Returns the names that are taken: built-in ones, and those registered by plug-ins."""
    if kind == "data":
        return {*DATA, *TEXTS, *TENSORS, *(name for modality in MODALITIES.values() for name in modality.sets)}
    if kind == "modality":
        return {*OWN_MODALITIES, *MODALITIES}
    return set(SEARCHED_OPS) if kind == "op" else set(REGISTRIES[kind])


def _add(kind: Kind, name: str, thing: Any) -> None:
    if kind == "op":
        from diffnas.spaces.darts_cnn.ops import OPS

        OPS[name] = lambda channels, stride, affine, norm: thing.build(channels, stride, affine)
        if name not in SEARCHED_OPS:
            SEARCHED_OPS.append(name)
    elif kind == "modality":
        MODALITIES[name] = thing
    elif kind == "data":
        if isinstance(thing, TextSet):
            TEXTS[name] = text_info(thing)
        elif isinstance(thing, TensorSet):
            TENSORS[name] = thing
        else:
            DATA[name] = data_info(thing)
    else:
        REGISTRIES[kind][name] = thing
