"""Trained weights as a file that says what it is: the genotype, how inputs are made, whose training it was, and a digest.

The metadata of `weights.safetensors` has one entry, `diffnas`: JSON with `format` (2), `genotype`, `shape`, the fields of
the inputs (classes, side, mean and std, or words and counts), `recipe` (every key that the weights depend on) and `digest`.
Files written before there was a format have genotype, shape and classes or words alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from diffnas.core.genotype import Genotype, parse_genotype, read_genotype_file
from diffnas.core.space import AnyShape, Shape, TextShape
from diffnas.data.inputs import Inputs, inputs_from_plain, inputs_to_plain, listed
from diffnas.errors import RecipeError, RunError, WeightsError
from diffnas.pipeline.environment import changed_plugins, record, recorded
from diffnas.pipeline.network import build
from diffnas.pipeline.sources.load import input_kinds, load_source
from diffnas.recipe.recipe import LIMITS, Recipe, changed_keys, leaves, read_recipe
from diffnas.runtime.console import log
from diffnas.runtime.files import read_bytes, write_bytes
from diffnas.runtime.run_folder import Part

FORMAT = 2
BEFORE = {"genotype", "shape", "classes", "words"}  # what there was when there was no format
MARK = ', "digest": "'  # what the digest stands behind, at the end
DECISIVE = {"seed", "precision", "data", "space", "task", "train"}  # the sections of a recipe that a training reads


@dataclass(frozen=True)
class Weights:
    """The tensors of a trained network by name, its genotype, and how data become its inputs."""

    path: Path
    tensors: Mapping[str, Tensor]
    genotype: Genotype
    inputs: Inputs

    def network(self, recipe: Recipe) -> nn.Module:
        """The network with these weights, at the size of `recipe`; raises `WeightsError` where that does not fit."""
        network = build(self.genotype, recipe, self.inputs.shape)
        try:
            network.load_state_dict(dict(self.tensors))
        except RuntimeError:
            raise weights_mismatch(self.path, "the tensors have other names or shapes") from None
        return network


def read_genotype(part: Part) -> Genotype:
    """The genotype of one command's folder; raises `UserError` where it is absent or damaged."""
    if not part.genotype.is_file():
        raise RunError(f"{part.genotype}: is missing; has the search finished an epoch?")
    return read_genotype_file(part.genotype)


def trained_recipe(part: Part, overrides: Sequence[str], may: str) -> Recipe:
    """The recipe of a training with `overrides`, which may change no key that its weights depend on; `may` says which.

    Raises `RecipeError` with a line per key.
    """
    recipe = read_recipe(part.recipe, overrides)
    for line in changed_plugins(part, recipe):
        log.warning("%s", line)
    changed = changed_keys(read_recipe(part.recipe), recipe)
    if changed:
        raise RecipeError(*(f"--set {key}: {may}" for key in changed))
    if recipe.train is None:
        raise RecipeError(f"{part.recipe}: its section train is missing; put the file back as it was")
    return recipe


def save_weights(part: Part, weights: Mapping[str, Tensor], genotype: Genotype, recipe: Recipe, inputs: Inputs) -> None:
    """Writes `weights` and what they are, whole or not at all; their digest is noted in environment.json.

    That comes first: the weights are what says that a training has ended, so nothing may be left to do after them.
    """
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in weights.items()}
    inside = {
        "format": FORMAT,
        "genotype": genotype.to_json(),
        "shape": asdict(inputs.shape),
        **inputs_to_plain(inputs),
        "recipe": _decisive(recipe),
    }
    text = json.dumps(inside)
    sha = digest(text, tensors)  # of what is in memory: the file is not read again
    record(part, weights=sha)
    # one entry: safetensors writes several in an order that changes, and equal runs shall leave equal files
    write_bytes(part.weights, save(tensors, metadata={"diffnas": f'{text[:-1]}{MARK}{sha}"}}'}))


def read_weights(part: Part, recipe: Recipe) -> Weights:
    """The weights of the training `part`, whose recipe is `recipe`.

    Raises `RunError` where there are none yet, `WeightsError` where they are damaged, or those of another training.
    """
    path = part.weights
    if not path.is_file():
        run = quote(str(part.path.parents[1]))
        raise RunError(f"{path}: is missing; finish the training with: diffnas train --resume {run}")
    tensors, inside = _read_own(part, recipe)
    genotype, _, inputs = _described(path, inside)
    return Weights(path, tensors, genotype, inputs or _computed_inputs(path, recipe, inside))


def own_shape(part: Part, recipe: Recipe) -> AnyShape:
    """Returns the shape of the network of the training `part`, whose recipe is `recipe`; raises as `read_weights`."""
    return _described(part.weights, _read_own(part, recipe)[1])[1]


def are_own(part: Part, recipe: Recipe) -> bool:
    """Whether the weights of `part` are there and are its own; says what is wrong with those that are there."""
    if not part.weights.is_file():
        return False
    try:
        _read_own(part, recipe)
    except WeightsError as error:
        for line in error.lines:
            log.warning("%s", line)
        return False
    return True


def _read_own(part: Part, recipe: Recipe) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of `part` and what is said of them; raises `WeightsError` where they are damaged or another training's."""
    tensors, inside = _read_whole(part.weights)
    _require_own(part, recipe, _described(part.weights, inside)[0], inside)
    return tensors, inside


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Genotype]:
    """The tensors in weights that diffnas wrote, and whose they are; raises `WeightsError` where they are damaged."""
    tensors, inside = _read_whole(path)
    return tensors, _described(path, inside)[0]


def is_ours(path: Path) -> bool:
    """Whether the file at `path` is one of weights that diffnas wrote; damaged ones are not known for what they were."""
    try:
        content = read_bytes(path)
        load(content)
        return "diffnas" in _metadata(content)
    except (SafetensorError, OSError, ValueError, LookupError, RecursionError):
        return False


def _metadata(content: bytes) -> dict[str, str]:
    """The metadata in the header of a file of tensors."""
    metadata: dict[str, str] = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get(
        "__metadata__", {}
    )
    return metadata


def _read_whole(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors at `path` and what is said of them; raises `WeightsError` where they are damaged."""
    text, inside, tensors = _read(path)
    if "digest" in inside and inside["digest"] != digest(text.rpartition(MARK)[0] + "}", tensors):
        raise WeightsError(f"{path}: damaged: its contents do not match its digest; restore a copy, or train again")
    return tensors, inside


def _read(path: Path) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """Reads the metadata of the weights at `path`, as text and as values, and their tensors.

    Raises `WeightsError` where the file is damaged.  (safetensors itself opens no path that is not UTF-8.)
    """
    try:
        content = read_bytes(path)
        tensors = load(content)  # which checks the header
        text = _metadata(content).get("diffnas", "null")
        inside = json.loads(text)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from None
    except (SafetensorError, ValueError, LookupError, RecursionError):
        inside = None
    if not isinstance(inside, dict) or not ({"format", "digest"} <= set(inside) or set(inside) <= BEFORE):
        raise WeightsError(f"{path}: damaged, or not weights that diffnas wrote; restore a copy, or train again")
    if inside.get("format", FORMAT) != FORMAT:
        raise WeightsError(
            f"{path}: has format {inside['format']!r:.20}, and this version reads {FORMAT}; use a newer diffnas"
        )
    return text, inside, tensors


def digest(metadata: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 in hexadecimal of `metadata` and of all names, types, shapes and values."""
    sha = hashlib.sha256(metadata.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        sha.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _described(path: Path, inside: Mapping[str, Any]) -> tuple[Genotype, AnyShape, Inputs | None]:
    """Genotype, shape and inputs among the metadata; no inputs where there was no format."""
    try:
        genotype, shape = parse_genotype(inside["genotype"]), inside["shape"]
        if "format" in inside:
            inputs = inputs_from_plain(inside, input_kinds())
            return genotype, inputs.shape, inputs
        return genotype, TextShape(**shape) if "words" in inside else Shape(**shape), None
    except (KeyError, TypeError, ValueError, AttributeError):
        raise WeightsError(f"{path}: damaged: its metadata are not complete; restore a copy, or train again") from None


def _computed_inputs(path: Path, recipe: Recipe, inside: Mapping[str, Any]) -> Inputs:
    """The inputs of weights that hold none: from the data of `recipe`, as was usual then, and a line that says so."""
    log.warning(
        "%s: holds no statistics of the data and no digest (written by an earlier version): they are those of data.path"
        " as it is now, and the file is not verified",
        path,
    )
    inputs = load_source(recipe).inputs
    require_names(path, inside.get("words", inside.get("classes", ())), inputs.names)
    return inputs


def require_names(path: Path, trained: Sequence[str], names: Sequence[str]) -> None:
    """Raises `WeightsError` where the classes or words that data have are not those that the weights at `path` know."""
    if list(trained) != list(names):
        raise WeightsError(
            f"{path}: was trained on other classes or words, or in another order, than the data have (on"
            f" {listed(trained)}; the data have {listed(names)}); set data.path to data of the same kind"
        )


def _require_own(part: Part, recipe: Recipe, genotype: Genotype, inside: Mapping[str, Any]) -> None:
    """Raises `WeightsError` where genotype, recipe or record beside the weights are those of another training."""
    beside = read_genotype(part)
    if beside != genotype:
        raise weights_mismatch(part.weights, "genotype.json is not the one that was trained")
    now, then = _decisive(recipe), inside.get("recipe", {})
    for key in sorted(now.keys() & then.keys()):
        if now[key] != then[key]:
            raise weights_mismatch(part.weights, f"{key} was {then[key]!r:.60}, and is {now[key]!r:.60} in recipe.yaml")
    noted = recorded(part).get("weights")
    if noted is not None and noted != inside.get("digest"):
        raise weights_mismatch(part.weights, "this training wrote others, as environment.json says")


def weights_mismatch(path: Path, reason: str) -> WeightsError:
    """Returns the error for weights that are whole but not those of the training beside them."""
    return WeightsError(f"{path}: does not fit the genotype and recipe beside it: {reason}; was a file exchanged?")


def _decisive(recipe: Recipe) -> dict[str, Any]:
    """Every key of `recipe` that the weights of a training depend on, and its value."""
    keys = leaves(recipe.values())
    return {key: value for key, value in keys if key.split(".")[0] in DECISIVE and key not in LIMITS}
