"""Weights under the parameter names of the original implementations, put into our modules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffnas.errors import WeightsError
from diffnas.interop.checkpoint import read_weights, state_dict_of


@dataclass(frozen=True)
class Source:
    """The naming of weights in another program: `rename(module, name)` gives our name.

    Names that `learned` matches are architecture parameters, which belong to a method."""

    rename: Callable[[nn.Module, str], str]
    learned: str = r"(alphas|betas)_(normal|reduce)"


def _darts(module: nn.Module, key: str) -> str:
    """DARTS (cnn/model.py, cnn/model_search.py), and what was made from it."""
    searched = re.match(r"^cells\.(\d+)\._ops\.(\d+)\._ops\.(\d+)\.(.*)$", key)
    if searched:
        cell, edge, column, rest = searched.groups()
        return _darts_layers(f"cells.{cell}.edges.{edge}.ops.{_op_name(module, cell, column)}.{rest}")
    return _darts_layers(key)


def _pdarts(module: nn.Module, key: str) -> str:
    """P-DARTS: in a supernet the ops of an edge are counted among those that are left."""
    searched = re.match(r"^cells\.(\d+)\.cell_ops\.(\d+)\.m_ops\.(\d+)\.(.*)$", key)
    if searched:
        cell, edge, place, rest = searched.groups()
        return _darts_layers(f"cells.{cell}.edges.{edge}.ops.{_op_left(module, cell, edge, place)}.{rest}")
    return _darts_layers(key)


def _darts_layers(key: str) -> str:
    """Renames everything but the ops of a supernet."""
    key = re.sub(r"\bauxiliary_head\.", "auxiliary.", key)
    key = re.sub(r"^(cells\.\d+)\.preprocess(\d)\.", r"\1.preprocess.\2.", key)
    key = re.sub(r"^(cells\.\d+)\._ops\.(\d+)\.", r"\1.ops.\2.", key)
    key = re.sub(r"\.op\.(\d+)\.", r".\1.", key)
    return _renamed(key, {"conv_1": "even", "conv_2": "odd", "bn": "norm"})


def _fairdarts(module: nn.Module, key: str) -> str:
    """FairDARTS: ops by node and input, several on an edge one after another."""
    op = re.match(r"^(cells\.(\d+))\._ops\.(\d+)\.(\d+)\.(\d+)\.(.*)$", key)
    if op:
        cell, number, node, source, place, rest = op.groups()
        derived = getattr(dict(module.named_modules()).get(f"cells.{number}"), "nodes", None)
        inputs = [(n, s) for n, row in enumerate(derived.inputs, derived.first) for _, s in row] if derived else []
        same = [k for k, edge in enumerate(inputs) if edge == (int(node), int(source))]
        key = f"{cell}._ops.{same[int(place)]}.{rest}" if int(place) < len(same) else key
    return _darts_layers(key)


def _nasbench201(module: nn.Module, key: str) -> str:
    """NAS-Bench-201 (AutoDL-Projects), and DrNAS's code for it."""
    searched = re.match(r"^cells\.(\d+)\.edges\.(\d+)<-(\d+)\.(\d+)\.(.*)$", key)
    if searched:
        cell, target, source, column, rest = searched.groups()
        edge = int(target) * (int(target) - 1) // 2 + int(source)
        key = f"cells.{cell}.edges.{edge}.ops.{_op_name(module, cell, column)}.{rest}"
    key = re.sub(r"^(cells\.\d+)\.layers\.(\d+)\.", r"\1.ops.\2.", key)
    key = re.sub(r"\.op\.(\d+)\.", r".\1.", key)
    key = re.sub(r"^lastact\.0\.", "norm.", key)
    return _renamed(key, {"conv_a": "first", "conv_b": "second", "downsample": "shortcut"})


def _mmrazor(module: nn.Module, key: str) -> str:
    """The DARTS of MMRazor 1.x: an image classifier of backbone and head, perhaps as part of an algorithm."""
    key = re.sub(r"^(architecture\.)?(backbone\.)?", "", key)
    key = re.sub(r"^head\.fc\.", "classifier.", key)
    key = re.sub(r"^head\.aux_linear\.", "auxiliary.classifier.", key)
    key = re.sub(r"^auxliary_module\.net\.", "auxiliary.features.", key)
    key = re.sub(r"^(cells\.\d+)\.preproc(\d)\.(net\.)?", r"\1.preprocess.\2.", key)
    edge = r"^cells\.(\d+)\.nodes\.(\d+)\.edges\._edges\.\w+_p(\d+)\._candidate(?:_op)?s\.(\w+)\.(.*)$"
    searched = re.match(edge, key)
    if searched:
        cell, node, source, op, rest = searched.groups()
        if op in ("max_pool_3x3", "avg_pool_3x3"):
            rest = rest.replace("bn.", "1.")
        elif op != "skip_connect":
            rest = re.sub(r"^conv1\.", "", rest)
            rest = re.sub(r"^conv2\.(\d)", lambda layer: str(int(layer[1]) + 4), rest)
        key = f"{_op_place(module, cell, int(node), int(source), op)}.{rest}"
    return _renamed(key, {"conv1": "even", "conv2": "odd", "bn": "norm"})


def _darts_rnn(module: nn.Module, key: str) -> str:
    """DARTS (rnn/model.py, rnn/model_search.py): one recurrent layer; the decoder's weight is the encoder's."""
    key = re.sub(r"^(encoder|decoder)\.weight$", "embedding.weight", key)
    key = re.sub(r"^decoder\.bias$", "bias", key)
    key = re.sub(r"^rnns\.0\._W0$", "cell.start", key)
    key = re.sub(r"^rnns\.0\._Ws\.(\d+)$", r"cell.nodes.\1", key)
    return re.sub(r"^rnns\.0\.bn\.", "cell.norm.", key)


def _renamed(key: str, ours: Mapping[str, str]) -> str:
    """`key` with the parts of it that have another name with us."""
    return ".".join(ours.get(part, part) for part in key.split("."))


def _cell(module: nn.Module, cell: str) -> Any:
    return module.get_submodule(f"cells.{cell}")


def _op_name(module: nn.Module, cell: str, column: str) -> str:
    """The name of the op in `column` of a supernet's cell; the column itself where there is none."""
    try:
        return str(_cell(module, cell).cell.ops[int(column)])
    except (AttributeError, IndexError):
        return column


def _op_left(module: nn.Module, cell: str, edge: str, place: str) -> str:
    """The name of the op at `place` among those that `edge` allows; the place itself where there is none."""
    try:
        edges = _cell(module, cell).cell
        left = [op for op, allowed in zip(edges.ops, edges.allowed[int(edge)], strict=True) if allowed]
        return str(left[int(place)])
    except (AttributeError, IndexError):
        return place


def _op_place(module: nn.Module, cell: str, node: int, source: int, op: str) -> str:
    """Returns the place of `op` on the edge from state `source` to node `node` in a supernet or a network, if it is there."""
    try:
        module_cell = _cell(module, cell)
        if hasattr(module_cell, "edges"):
            return (
                f"cells.{cell}.edges.{module_cell.cell.edges.index((source, module_cell.cell.inputs + node))}.ops.{op}"
            )
        before = sum(len(inputs) for inputs in module_cell.nodes.inputs[:node])
        return f"cells.{cell}.ops.{before + module_cell.nodes.inputs[node].index((op, source))}"
    except (AttributeError, IndexError, ValueError):
        return f"cells.{cell}: node {node}, source {source}, {op}"


SOURCES = {
    "darts": Source(_darts),
    "pdarts": Source(_pdarts),
    "pcdarts": Source(_darts),
    "drnas": Source(_darts),
    "snas": Source(_darts),
    "fairdarts": Source(_fairdarts),
    "nasbench201": Source(_nasbench201, r"_?arch_parameters"),
    "drnas-nb201": Source(_nasbench201, r"_?arch_parameters"),
    "darts-rnn": Source(_darts_rnn, r"(rnns\.0\.)?_?weights"),
    "mmrazor": Source(_mmrazor, r"(mutator|architecture\.mutator)\..*"),
    "diffnas": Source(lambda module, key: key, "(?!)"),
}
"""Whose names are understood."""


def translate(module: nn.Module, keys: Iterable[str], source: str) -> dict[str, str]:
    """`{original name: our name}` for `module`; architecture parameters and counters of profilers are left out.

    Prefixes of wrappers (`module.`, `_orig_mod.`, ...) are no part of a name.  Raises `WeightsError` where `source` is not
    among `SOURCES`.
    """
    program, names = _source(source), {key: _unwrapped(key) for key in keys}
    return {
        key: program.rename(module, name)
        for key, name in names.items()
        if not re.fullmatch(program.learned, name) and not re.fullmatch(COUNTERS, name)
    }


def likeliest_source(module: nn.Module, keys: Iterable[str]) -> str:
    """The program among `SOURCES` by whose names most of `keys` have a place in `module`; of equals the first."""
    keys, own = list(keys), set(module.state_dict())
    return max(SOURCES, key=lambda source: len(own & set(translate(module, keys, source).values())))


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise WeightsError(f"source {name!r} is unknown; known: {', '.join(SOURCES)}")
    return SOURCES[name]


COUNTERS = r"(.*\.)?total_(ops|params)"
"""Buffers that profilers add to every module (thop)."""


def _unwrapped(key: str) -> str:
    """Returns a name without the prefixes of wrappers, also within it."""
    key = re.sub(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.", r"\1", key)
    return re.sub(r"^((module|model|network|net|architecture|student)\.)+", "", key)


def load_weights(
    module: nn.Module, state_dict: Mapping[str, Any] | str | Path, source: str, where: str | None = None
) -> None:
    """Loads weights under the names of `source` into a supernet or network of ours.

    `state_dict` is that, a checkpoint that holds one, or the path of either (`.pt`, `.pth`, `.pth.tar`,
    `.safetensors`), of which nothing is run.  Every weight is used and every parameter filled, or `WeightsError` lists the
    rest and nothing is changed.  Architecture parameters, which some programs keep beside the weights, are left out.
    `where` is what messages call them (by default, weights of `source`).
    Counters of batches (`num_batches_tracked`) may be missing: weights saved before PyTorch 0.4 have none.
    """
    _source(source)
    given = read_weights(state_dict) if isinstance(state_dict, str | Path) else state_dict_of(state_dict)
    names, own = translate(module, given, source), module.state_dict()
    missing = sorted(set(own) - set(names.values()))
    seen: dict[str, str] = {}
    twice = [(seen.setdefault(ours, theirs), theirs) for theirs, ours in names.items()]
    problems = {
        "have no place in this module": [
            f"{key}: no place for it in this module" for key, ours in sorted(names.items()) if ours not in own
        ],
        "are one weight here and differ": [
            f"{first} and {second} differ, though they are one weight here"
            for first, second in twice
            if not torch.equal(given[first], given[second])
        ],
        "are filled by nothing": [
            f"{name}: nothing in the state dict fills it"
            for name in missing
            if not name.endswith("num_batches_tracked")
        ],
        "have another shape": [
            f"{theirs} has the shape {list(given[theirs].shape)}, {ours} has {list(own[ours].shape)}"
            for theirs, ours in names.items()
            if ours in own and own[ours].shape != given[theirs].shape
        ],
    }
    if any(problems.values()):
        raise WeightsError(*(f"{where or f'weights of {source}'}: {line}" for line in summed_up(problems)))
    module.load_state_dict({ours: given[theirs] for theirs, ours in names.items()}, strict=False)


def summed_up(problems: Mapping[str, list[str]]) -> list[str]:
    """Returns up to ten lines, else two of each kind and the number of others."""
    lines = [line for listed in problems.values() for line in listed]
    if len(lines) <= 10:
        return lines
    shown = []
    for said, listed in problems.items():
        shown += (
            listed
            if len(listed) <= 2
            else [*listed[:1], f"{len(listed) - 1} others {said}, such as {_word(listed[-1])}"]
        )
    return shown


def _word(line: str) -> str:
    return line.split(" ")[0].rstrip(":")
