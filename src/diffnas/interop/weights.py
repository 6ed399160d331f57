"""Weights under the parameter names of the original implementations, put into our modules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from diffnas.errors import WeightsError

Rename = Callable[[nn.Module, str], str]


def _darts(module: nn.Module, key: str) -> str:
    """The name of the original DARTS (cnn/model.py, cnn/model_search.py) -> ours."""
    key = re.sub(r"\bauxiliary_head\.", "auxiliary.", key)
    key = re.sub(r"^(cells\.\d+)\.preprocess(\d)\.", r"\1.preprocess.\2.", key)
    searched = re.match(r"^cells\.(\d+)\._ops\.(\d+)\._ops\.(\d+)\.(.*)$", key)
    if searched:
        cell, edge, column, rest = searched.groups()
        key = f"cells.{cell}.edges.{edge}.ops.{_op_name(module, int(cell), int(column))}.{rest}"
    key = re.sub(r"^(cells\.\d+)\._ops\.(\d+)\.", r"\1.ops.\2.", key)
    key = re.sub(r"\.op\.(\d+)\.", r".\1.", key)
    for theirs, ours in {"conv_1": "even", "conv_2": "odd", "bn": "norm"}.items():
        key = re.sub(rf"\.{theirs}\.", f".{ours}.", key)
    return key


def _op_name(module: nn.Module, cell: int, column: int) -> str:
    """The name of the op in `column` of a supernet's cell; the column itself where there is none."""
    try:
        supernet_cell: Any = module.get_submodule(f"cells.{cell}")
        return str(supernet_cell.cell.ops[column])
    except (AttributeError, IndexError):
        return str(column)


SOURCES: dict[str, Rename] = {"darts": _darts}
"""Whose names are understood."""


def translate(module: nn.Module, keys: Iterable[str], source: str) -> dict[str, str]:
    """`{original name: our name}` for `module`; raises `WeightsError` where `source` is not among `SOURCES`."""
    if source not in SOURCES:
        raise WeightsError(f"source {source!r} is unknown; known: {', '.join(SOURCES)}")
    return {key: SOURCES[source](module, key) for key in keys}


def load_weights(module: nn.Module, state_dict: Mapping[str, Tensor], source: str) -> None:
    """Loads `state_dict`, whose names are those of `source`, into a supernet or network of ours.

    Every entry is used and every parameter filled, or `WeightsError` lists the rest and nothing is changed.  Counters of
    batches (`num_batches_tracked`) may be missing: weights saved before PyTorch 0.4 have none.
    """
    names = translate(module, state_dict, source)
    own = module.state_dict()
    unknown = sorted(theirs for theirs, ours in names.items() if ours not in own)
    missing = sorted(set(own) - set(names.values()))
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    shapes = [
        f"{theirs} has the shape {list(state_dict[theirs].shape)}, {ours} has {list(own[ours].shape)}"
        for theirs, ours in names.items()
        if ours in own and own[ours].shape != state_dict[theirs].shape
    ]
    problems = [f"{key}: no place for it in this module" for key in unknown]
    problems += [f"{name}: nothing in the state dict fills it" for name in missing] + shapes
    if problems:
        raise WeightsError(*(f"weights of {source}: {line}" for line in problems))
    module.load_state_dict({ours: state_dict[theirs] for theirs, ours in names.items()}, strict=False)
