"""Weights in the checkpoints of other programs: `torch.save` of any age, and safetensors, of which nothing is run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from diffnas.errors import DataError, WeightsError
from diffnas.interop.torch_files import Inert, Weight, load_tensors
from diffnas.runtime.files import write_bytes

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


LARGEST_MODULE = 10_000
"""So many parts of a module saved whole are looked at: a file may hold one within itself."""


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


def write_weights(weights: Mapping[str, Tensor], path: Path, source: str) -> None:
    """Writes weights by name as safetensors, with where they are from in its metadata; tensors that share memory are copied."""
    plain = {name: tensor.detach().clone().contiguous() for name, tensor in weights.items()}
    write_bytes(path, save(plain, {"format": "pt", "from": source}))


def state_dict_of(checkpoint: object, where: str = "checkpoint") -> dict[str, Tensor]:
    """The weights by name in a checkpoint, under however many keys they are kept."""
    held = _held(checkpoint, 5)
    if held is None:
        keys = f"; its keys: {', '.join(map(str, list(checkpoint)[:12]))}" if isinstance(checkpoint, Mapping) else ""
        raise WeightsError(f"{where}: holds no weights by name{keys:.300}")
    weights = {str(name): _tensor(value) for name, value in held.items()}
    if not all(name.isprintable() and len(name) < 1000 for name in weights):
        raise WeightsError(f"{where}: a weight has a name that cannot be printed")
    strangers = [name for name, value in weights.items() if value is None]
    if strangers:
        raise WeightsError(f"{where}: {strangers[0]:.100} is no tensor (of {len(strangers)} such entries)")
    return {name: value for name, value in weights.items() if value is not None}


def _held(value: object, depth: int) -> Mapping[Any, Any] | None:
    """The mapping of names to tensors that `value` is or holds."""
    if isinstance(value, nn.Module):
        return value.state_dict()
    if isinstance(value, Inert):
        return _of_module(value) or None
    if not isinstance(value, Mapping) or not depth:
        return None
    for key in HOLDERS:
        inner = _held(value[key], depth - 1) if key in value else None
        if inner is not None:
            return inner
    named = value and all(isinstance(name, str) for name in value)
    return value if named and any(_tensor(item) is not None for item in value.values()) else None


def _of_module(module: Inert) -> dict[str, object]:
    """The weights by name of a module that was saved whole."""
    tensors: dict[str, object] = {}
    parts: list[tuple[str, object]] = [("", module)]
    for _ in range(LARGEST_MODULE):
        if not parts:
            break
        prefix, part = parts.pop()
        for key in ("_parameters", "_buffers"):
            tensors |= {f"{prefix}{name}": tensor for name, tensor in _named(part, key) if tensor is not None}
        if len(prefix) < 500:
            parts += [(f"{prefix}{name}.", item) for name, item in _named(part, "_modules")]
    return tensors


def _named(part: object, key: str) -> list[tuple[object, object]]:
    """Returns the contents of `key` in the module `part`, by name."""
    state = part.state if isinstance(part, Inert) else None
    held = state.get(key) if isinstance(state, Mapping) else None
    return list(held.items()) if isinstance(held, Mapping) else []


def _tensor(value: object) -> Tensor | None:
    if isinstance(value, Weight):
        return value.tensor
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
    return value.detach() if isinstance(value, Tensor) else None
