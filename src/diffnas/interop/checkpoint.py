"""Weights in the checkpoints of other programs: `torch.save` of any age, and safetensors, of which nothing is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from diffnas.errors import DataError, WeightsError
from diffnas.interop.torch_files import Inert, Weight, load_tensors

HOLDERS = (
    "state_dict",
    "model_state_dict",
    "net_state_dict",
    "model_state",
    "model",
    "network",
    "net",
    "search_model",
    "shared_cnn",
    "base-model",
    "supernet",
    "module",
    "weights",
    "params",
    "state_dict_ema",
    "ema_state_dict",
    "model_ema",
    "ema",
)
"""The keys under which checkpoints keep weights; of several the first counts, so that averages come last."""


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The weights by name in the checkpoint at `path`; raises `WeightsError` where it cannot be read or holds none."""
    try:
        with Path(path).open("rb") as file:
            if Path(path).suffix == ".safetensors":
                return dict(load_file(path))
            return state_dict_of(load_tensors(file, str(path)), str(path))
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from None
    except SafetensorError as error:
        raise WeightsError(f"{path}: is no whole safetensors file ({error})") from None
    except DataError as error:
        raise WeightsError(*error.lines) from None


def state_dict_of(checkpoint: object, where: str = "checkpoint") -> dict[str, Tensor]:
    """The weights by name in a checkpoint, under however many keys they are kept."""
    found = _held(checkpoint, 5)
    if found is None:
        keys = f"; its keys: {', '.join(map(str, list(checkpoint)[:12]))}" if isinstance(checkpoint, Mapping) else ""
        raise WeightsError(f"{where}: holds no weights by name{keys:.300}")
    weights = {str(name): _tensor(value) for name, value in found.items()}
    strangers = [name for name, value in weights.items() if value is None]
    if strangers:
        raise WeightsError(f"{where}: {strangers[0]:.100} is no tensor (of {len(strangers)} such entries)")
    return {name: value for name, value in weights.items() if value is not None}


def _held(value: object, depth: int) -> Mapping[Any, Any] | None:
    """The mapping of names to tensors that `value` is or holds."""
    if isinstance(value, nn.Module):
        return value.state_dict()
    if isinstance(value, Inert):
        return dict(_of_module(value, "", 20)) or None
    if not isinstance(value, Mapping) or not depth:
        return None
    for key in HOLDERS:
        found = _held(value[key], depth - 1) if key in value else None
        if found is not None:
            return found
    named = value and all(isinstance(name, str) for name in value)
    return value if named and any(_tensor(item) is not None for item in value.values()) else None


def _of_module(module: object, prefix: str, depth: int) -> Iterator[tuple[str, object]]:
    """The weights by name of a module that was saved whole."""
    state = module.state if isinstance(module, Inert) else None
    parts = [state.get(key) if isinstance(state, Mapping) else None for key in ("_parameters", "_buffers", "_modules")]
    for tensors in parts[:2]:
        if isinstance(tensors, Mapping):
            yield from ((f"{prefix}{name}", tensor) for name, tensor in tensors.items() if tensor is not None)
    if isinstance(parts[2], Mapping) and depth:
        for name, part in parts[2].items():
            yield from _of_module(part, f"{prefix}{name}.", depth - 1)


def _tensor(value: object) -> Tensor | None:
    if isinstance(value, Weight):
        return value.tensor
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
    return value.detach() if isinstance(value, Tensor) else None
