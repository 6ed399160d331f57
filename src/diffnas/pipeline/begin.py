"""Initial weights of a training: those of a search's supernet, or those in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from diffnas.core.genotype import Genotype
from diffnas.errors import RunError, WeightsError
from diffnas.interop.checkpoint import read_weights
from diffnas.interop.weights import likeliest_source, load_weights, summed_up
from diffnas.pipeline.environment import recorded
from diffnas.pipeline.weights import digest, is_ours, read_tensors
from diffnas.recipe.recipe import Recipe, read_recipe
from diffnas.runtime.checkpoint import MAGIC, load_checkpoint
from diffnas.runtime.console import log
from diffnas.runtime.files import is_file, is_folder
from diffnas.runtime.run_folder import Part, Run

SEARCH = "search"
"""What `--init` calls the supernet; a file of that name is ./search."""


@dataclass(frozen=True)
class Start:
    """The weights at `path`, which is a file, or the run folder whose search they are of (`searched`)."""

    path: Path
    searched: bool
    tensors: Mapping[str, Tensor]

    def put(self, network: nn.Module) -> None:
        """Loads the weights into `network`; raises `WeightsError` by name where they do not fit, and changes nothing then."""
        said = f"search of {self.path}" if self.searched else f"file {self.path}"
        if self.searched:
            filled, fresh = put_searched(network, self.tensors, self.path)
        else:
            source = likeliest_source(network, self.tensors)
            load_weights(network, self.tensors, source, f"{self.path}")
            filled, fresh = len(network.state_dict()), 0
        besides = f", {fresh} fresh (scales and shifts of normalisations, an auxiliary head)" if fresh else ""
        log.info("weights begin as those of %s: %d by name%s", said, filled, besides)


def facts_of(start: Start | None) -> dict[str, Any]:
    """Returns the record of how a training began for environment.json; `again` reads it."""
    if start is None:
        return {"from": "fresh"}
    what = SEARCH if start.searched else "file"
    return {"from": what, "path": str(start.path.absolute()), "digest": digest("", start.tensors)}


def start_of(init: str | Path | None, genotype: Genotype, folders: list[Path]) -> Start | None:
    """Returns the weights that `init` names: "search" for the first of `folders` with a search, else a file; None for None.

    Raises `RunError` where there is no such search or file, `WeightsError` where the file cannot be read.
    """
    if init is None:
        return None
    if str(init) != SEARCH:
        return _of_file(Path(init), genotype)
    for folder in folders:
        if is_folder(Run(folder).search.path):
            return _of_search(folder)
    raise RunError(
        "--init search: there is no search whose weights could be taken; train a run folder with a search in it, or name"
        " a file of weights"
    )


def again(part: Part, genotype: Genotype) -> Start | None:
    """Returns the initial weights of a training that stopped before its first checkpoint, or None if they were fresh."""
    facts = recorded(part).get("init", facts_of(None))
    if facts == facts_of(None):
        return None
    path = Path(facts["path"])
    start = _of_search(path) if facts["from"] == SEARCH else _of_file(path, genotype)
    if facts_of(start)["digest"] != facts["digest"]:
        raise WeightsError(f"{path}: holds other weights than when the training began; start it anew in another folder")
    return start


def put_searched(network: nn.Module, weights: Mapping[str, Tensor], run: Path) -> tuple[int, int]:
    """Copies a supernet's `weights` into the network of its genotype; returns how many were filled and how many stay fresh.

    Normalisations learn scale and shift in networks only, and may have no statistics in a supernet; an auxiliary head may be
    new.  Raises `WeightsError` with a line per name for whatever else does not fit.
    """
    own, places, may_be_fresh = network.state_dict(), searched_names(network), _newcomers(network)
    problems = {
        "are not in the supernet": [
            f"{name}: the supernet has no {place}"
            for name, place in places.items()
            if place not in weights and name not in may_be_fresh
        ],
        "have another shape": [
            f"{name} has the shape {list(own[name].shape)} in the network, {list(weights[place].shape)} in the supernet"
            for name, place in places.items()
            if place in weights and own[name].shape != weights[place].shape
        ],
    }
    lines = list(summed_up(problems))
    if lines:
        head = f"--init search: the weights of the search in {run} do not fit the network{_size(Run(run).search)}"
        raise WeightsError(head, *lines)
    filled = {name: weights[place] for name, place in places.items() if place in weights}
    network.load_state_dict(filled, strict=False)
    return len(filled), len(own) - len(filled)


def searched_names(network: nn.Module) -> dict[str, str]:
    """`{name of a weight: its name in the supernet}`; modules that lie elsewhere there say so in `searched`."""
    moved = {
        f"{at}.{here}." if at else f"{here}.": f"{at}.{there}." if at else f"{there}."
        for at, module in network.named_modules()
        for here, there in getattr(module, "searched", {}).items()
    }
    return {name: _moved(name, moved) for name in network.state_dict()}


def _moved(name: str, moved: Mapping[str, str]) -> str:
    for here, there in moved.items():
        if name.startswith(here):
            return there + name[len(here) :]
    return name


def _newcomers(network: nn.Module) -> set[str]:
    """The names of weights that a supernet need not have."""
    return {
        f"{at}.{name}"
        for at, module in network.named_modules()
        if isinstance(module, _NormBase) or at.split(".")[0] == "auxiliary"
        for name in module.state_dict()
    }


def _size(part: Part) -> str:
    """Returns a hint on how to give a network the size of the supernet of `part`."""
    recipe = read_recipe(part.recipe)
    assert recipe.space is not None
    size = _last_size(recipe)
    if size.partial > 1:
        return f": its ops see one channel in {size.partial}, which no network does"
    if recipe.space.modality == "text":
        return f" (a network of its size: --set train.units={size.channels})"
    return f" (a network of its size: --set train.channels={size.channels} --set train.layers={size.layers})"


def _last_size(recipe: Recipe) -> Any:
    assert recipe.method is not None and recipe.search is not None and recipe.space is not None
    return recipe.method.stages(recipe.search.epochs, recipe.space.size)[-1].size


def _of_search(run: Path) -> Start:
    """The weights of the newest checkpoint of a search."""
    part = Run(run).search
    checkpoint = load_checkpoint(part.checkpoints)
    weights = ((checkpoint or {}).get("state", {}).get("search") or {}).get("weights")
    if not isinstance(weights, Mapping) or not weights:
        raise RunError(f"{part.checkpoints}: holds no weights of a supernet; has the search finished an epoch?")
    return Start(run, True, dict(weights))


def _of_strangers(path: Path) -> dict[str, Tensor]:
    """The weights in a file that another program wrote."""
    with path.open("rb") as file:
        own = file.read(len(MAGIC)) == MAGIC
    if own:
        raise WeightsError(f"--init {path}: is a checkpoint to resume from; name weights.safetensors, or {SEARCH}")
    try:
        return read_weights(path)
    except WeightsError as error:
        head = f"--init {path}: no weights can be read from it; safetensors and what torch.save writes can be read"
        raise WeightsError(head, *error.lines) from None


def _of_file(path: Path, genotype: Genotype) -> Start:
    """The weights in a file: ours, or of another program."""
    if not is_file(path):
        raise RunError(f"--init {path}: is no file; name a file of weights, or {SEARCH} for those of the run's search")
    if not is_ours(path):
        return Start(path, False, _of_strangers(path))
    tensors, source = read_tensors(path)
    if source != genotype:
        log.warning("--init %s: these are weights of another cell; they are taken where names and shapes agree", path)
    return Start(path, False, tensors)
