"""Weights under original names."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import diffnas
from diffnas.core.mixture import Mix, allowed_mask
from diffnas.core.space import Form, Shape, TextShape
from diffnas.errors import WeightsError
from diffnas.interop import load_weights, translate
from diffnas.spaces.darts_cnn.layout import OPS
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.spaces.darts_rnn.space import DartsRNN

NAMES = {
    "stem.0.weight": "stem.0.weight",
    "cells.1.preprocess0.conv_1.weight": "cells.1.preprocess.0.even.weight",
    "cells.1.preprocess0.bn.running_mean": "cells.1.preprocess.0.norm.running_mean",
    "cells.0.preprocess1.op.2.weight": "cells.0.preprocess.1.2.weight",
    "cells.0._ops.3.op.5.weight": "cells.0.ops.3.5.weight",
    "auxiliary_head.features.3.bias": "auxiliary.features.3.bias",
    "cells.0._ops.11._ops.4.op.1.weight": "cells.0.edges.11.ops.sep_conv_3x3.1.weight",
    "cells.0._ops.0._ops.1.1.running_var": "cells.0.edges.0.ops.max_pool_3x3.1.running_var",
    "cells.1._ops.0._ops.3.conv_2.weight": "cells.1.edges.0.ops.skip_connect.odd.weight",
    "classifier.bias": "classifier.bias",
}


def originals(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A state dict that fits `module`, under original names where they are simple to invert."""
    return {name: torch.rand_like(t.float()).to(t.dtype) for name, t in module.state_dict().items()}


def test_names() -> None:
    supernet = diffnas.build_supernet("darts-cnn", channels=4, layers=2)
    assert translate(supernet, NAMES, "darts") == NAMES


def test_every_entry_is_used_or_listed() -> None:
    network = diffnas.build_network("darts-v1", channels=4, layers=1)
    state = originals(network)  # our own names pass through
    load_weights(network, state, "darts")
    assert all(torch.equal(state[name], t) for name, t in network.state_dict().items())
    before = {name: t.clone() for name, t in network.state_dict().items()}
    wrong = {**originals(network), "cells.7._ops.0.op.1.weight": torch.zeros(1)}
    del wrong["classifier.bias"]
    wrong["stem.1.weight"] = torch.zeros(99)
    with pytest.raises(WeightsError) as caught:
        load_weights(network, wrong, "darts")
    said = "\n".join(caught.value.lines)
    assert len(caught.value.lines) == 3 and all(line.startswith("weights of darts: ") for line in caught.value.lines)
    assert "cells.7._ops.0.op.1.weight: no place" in said and "classifier.bias: nothing" in said and "[99]" in said
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())


def test_old_weights_have_no_batch_counters() -> None:
    network = diffnas.build_network("darts-v1", channels=4, layers=1)
    load_weights(network, {k: t for k, t in originals(network).items() if "num_batches" not in k}, "darts")


def test_unknown_source() -> None:
    with pytest.raises(WeightsError, match="source 'dart' is unknown; known: darts"):
        load_weights(torch.nn.Linear(1, 1), {}, "dart")


# -- sources besides DARTS: names

CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|"


@pytest.mark.parametrize("source", ["nasbench201", "drnas-nb201"])
def test_names_of_nasbench201(source: str) -> None:
    names = {
        "stem.0.weight": "stem.0.weight",
        "cells.0.edges.1<-0.2.op.1.weight": "cells.0.edges.0.ops.nor_conv_1x1.1.weight",
        "cells.2.edges.3<-1.3.op.2.running_var": "cells.2.edges.4.ops.nor_conv_3x3.2.running_var",
        "cells.1.conv_a.op.1.weight": "cells.1.first.1.weight",
        "cells.3.conv_b.op.2.bias": "cells.3.second.2.bias",
        "cells.1.downsample.1.weight": "cells.1.shortcut.1.weight",
        "lastact.0.running_mean": "norm.running_mean",
        "classifier.bias": "classifier.bias",
    }
    supernet = diffnas.build_supernet("nasbench201", channels=2, layers=1)
    given = [*names, "_arch_parameters", "arch_parameters"]
    assert translate(supernet, given, source) == names and set(names.values()) <= set(supernet.state_dict())
    network = diffnas.build_network(CELL, channels=2, layers=1)
    found = translate(network, ["cells.0.layers.0.op.1.weight", "cells.4.layers.4.op.2.bias"], source)
    assert list(found.values()) == ["cells.0.ops.0.1.weight", "cells.4.ops.4.2.bias"]
    assert set(found.values()) <= set(network.state_dict())


def test_names_of_pdarts() -> None:
    """The ops of an edge are counted among those that are left."""
    rows = [["max_pool_3x3", "skip_connect", "sep_conv_5x5"]] * 14
    supernet = diffnas.build_supernet("darts-cnn", channels=2, layers=3, edge_ops={"normal": rows, "reduce": rows})
    names = {
        "cells.0.preprocess0.op.1.weight": "cells.0.preprocess.0.1.weight",
        "cells.0.cell_ops.3.m_ops.0.1.running_mean": "cells.0.edges.3.ops.max_pool_3x3.1.running_mean",
        "cells.1.cell_ops.0.m_ops.1.conv_2.weight": "cells.1.edges.0.ops.skip_connect.odd.weight",
        "cells.2.cell_ops.13.m_ops.2.op.5.weight": "cells.2.edges.13.ops.sep_conv_5x5.5.weight",
    }
    assert translate(supernet, [*names, "alphas_normal", "alphas_reduce"], "pdarts") == names
    assert set(names.values()) <= set(supernet.state_dict())
    stranger = "cells.0.cell_ops.0.m_ops.3.op.1.weight"
    with pytest.raises(WeightsError, match=re.escape(stranger)):
        load_weights(supernet, {stranger: torch.zeros(1)}, "pdarts")


def test_names_of_the_recurrent_cell() -> None:
    """The decoder's weight is the encoder's: both must be the same."""
    supernet = DartsRNN(units=2, steps=1).supernet(TextShape(3))
    names = {
        "encoder.weight": "embedding.weight",
        "decoder.weight": "embedding.weight",
        "decoder.bias": "bias",
        "rnns.0._W0": "cell.start",
        "rnns.0._Ws.0": "cell.nodes.0",
        "rnns.0.bn.running_mean": "cell.norm.running_mean",
        "rnns.0.bn.running_var": "cell.norm.running_var",
        "rnns.0.bn.num_batches_tracked": "cell.norm.num_batches_tracked",
    }
    assert translate(supernet, [*names, "weights"], "darts-rnn") == names
    own = supernet.state_dict()
    assert set(names.values()) == set(own)
    state = {theirs: own[ours].clone() + 1 for theirs, ours in names.items()}
    load_weights(supernet, state, "darts-rnn")
    assert torch.equal(supernet.state_dict()["embedding.weight"], state["encoder.weight"])
    with pytest.raises(
        WeightsError, match=r"encoder.weight and decoder.weight differ, though they are one weight here"
    ):
        load_weights(supernet, {**state, "decoder.weight": state["decoder.weight"] + 1}, "darts-rnn")
    with pytest.raises(WeightsError, match=r"decoder.bias has the shape \[7\], bias has \[3\]"):
        load_weights(supernet, {**state, "decoder.bias": torch.zeros(7)}, "darts-rnn")
    with pytest.raises(WeightsError, match=r"rnns.1._W0: no place"):
        load_weights(supernet, {**state, "rnns.1._W0": torch.zeros(4, 4)}, "darts-rnn")


def mmrazor_names(module: nn.Module) -> dict[str, str]:
    """Ours by those of MMRazor 1.x, for a supernet or network of DARTS cells, put together from its classes' attributes."""
    found = {}
    for name in module.state_dict():
        theirs = name
        for pattern, text in {
            r"^classifier\.": "head.fc.",
            r"^auxiliary\.classifier\.": "head.aux_linear.",
            r"^auxiliary\.features\.": "auxliary_module.net.",
            r"^(cells\.\d+)\.preprocess\.(\d)\.(\d)": r"\1.preproc\2.net.\3",
            r"^(cells\.\d+)\.preprocess\.(\d)\.": r"\1.preproc\2.",
        }.items():
            theirs = re.sub(pattern, text, theirs)
        op = re.match(r"^cells\.(\d+)\.(?:edges\.(\d+)\.ops\.(\w+)|ops\.(\d+))\.(.*)$", name)
        if op:
            cell: Any = module.get_submodule(f"cells.{op[1]}")
            kind = "reduce" if int(op[1]) in (1, 2) else "normal"
            if op[2]:
                (source, target), kept = cell.cell.edges[int(op[2])], op[3]
            else:
                inputs = [(node, *entry) for node, row in enumerate(cell.nodes.inputs, 2) for entry in row]
                target, kept, source = inputs[int(op[4])]
            rest = op[5]
            if "pool" in kept:
                rest = re.sub(r"^1\.", "bn.", rest)
            elif "conv" in kept:
                rest = re.sub(r"^(\d)\.", lambda m: f"conv{1 + int(m[1]) // 4}.{int(m[1]) % 4}.", rest)
            place = f"edges._edges.{kind}_n{target}_p{source}._candidates.{kept}"
            theirs = f"cells.{op[1]}.nodes.{target - 2}.{place}.{rest}"
        for ours_part, their_part in {"even": "conv1", "odd": "conv2", "norm": "bn"}.items():
            theirs = re.sub(rf"\.{ours_part}\.", f".{their_part}.", theirs)
        found[theirs if theirs.startswith("head") else f"backbone.{theirs}"] = name
    return found


@pytest.mark.parametrize("prefix", ["", "architecture."])
@pytest.mark.parametrize("form", ["supernet", "network"])
def test_mmrazor(form: str, prefix: str) -> None:
    if form == "supernet":
        module = diffnas.build_supernet("darts-cnn", channels=4, layers=3)
    else:
        size = {"channels": 4, "layers": 3, "auxiliary": True, "pool_norm": "affine"}
        module = diffnas.build_network("mmrazor-cifar10", **size)
    names, own = mmrazor_names(module), module.state_dict()
    assert len(names) == len(own)
    edge = "backbone.cells.0.nodes.0.edges._edges.normal_n2_p1._candidates.sep_conv_3x3.conv2.3.running_mean"
    place = "edges.1.ops.sep_conv_3x3" if form == "supernet" else "ops.1"
    assert names[edge] == f"cells.0.{place}.7.running_mean"
    state = {prefix + theirs: torch.rand(own[ours].shape) for theirs, ours in names.items()}
    load_weights(module, {**state, "mutator.arch_params.normal_n2_p0": torch.zeros(8)}, "mmrazor")
    for theirs, ours in names.items():
        if not ours.endswith("num_batches_tracked"):
            assert torch.equal(own[ours], state[prefix + theirs]), theirs
    stranger = edge.replace("sep_conv_3x3.conv2.3.running_mean", "wide_conv.conv1.1.weight")
    with pytest.raises(WeightsError, match="normal_n2_p1._candidates.wide_conv.conv1.1.weight: no place"):
        load_weights(module, {stranger: torch.zeros(1)}, "mmrazor")


# -- sources besides DARTS: recorded calls of their supernets


def spread(shares: Tensor, allowed: Tensor) -> Tensor:
    """[E, O]: `shares` [E, left] on the entries that are allowed."""
    return torch.zeros(allowed.shape, dtype=shares.dtype).masked_scatter(allowed, shares)


def recorded(space: DartsCNN, state: dict[str, Tensor], source: str, form: Form = "plain") -> nn.Module:
    """The supernet with recorded weights."""
    supernet = space.supernet(Shape(10, 3, 16), form=form)
    load_weights(supernet, state, source)
    return supernet


def switched(given: dict[str, Tensor]) -> DartsCNN:
    """The space in which each edge has the ops whose switch is on."""
    rows = {
        kind: [[op for op, on in zip(OPS, row, strict=True) if on] for row in given[f"switches_{kind}"].bool().tolist()]
        for kind in ("normal", "reduce")
    }
    return DartsCNN(channels=4, layers=5, edge_ops=rows)


def mixed(space: DartsCNN, leaves: dict[str, Tensor]) -> dict[str, Mix]:
    """The softmax of each edge's logits over the ops it has."""
    return {
        kind: Mix(spread(leaves[f"alphas_{kind}"].softmax(-1), allowed_mask(cell)))
        for kind, cell in space.cells.items()
    }


def test_pdarts(oracle: Any, close: Any) -> None:
    call = oracle("e_pdarts_stage2")
    space = switched(call.given)
    supernet = recorded(space, call.state, "pdarts")
    leaves = {name: t.clone().requires_grad_() for name, t in call.given.items() if name.startswith("alphas")}
    logits = supernet(call.given["x"], mixed(space, leaves))
    close(logits, call.found["logits"])
    loss = F.cross_entropy(logits, call.given["y"])
    close(loss, call.found["loss"])
    loss.backward()
    kinds = ("normal", "reduce")
    close(
        torch.cat([leaves[f"alphas_{kind}"].grad for kind in kinds]),
        torch.cat([call.found[f"grad/alphas_{kind}"] for kind in kinds]),
    )
    close(supernet.get_parameter("stem.0.weight").grad, call.found["grad/stem.0.weight"])
    with torch.no_grad():
        close(supernet.eval()(call.given["x"], mixed(space, leaves)), call.found["logits_evalmode_after"])


@pytest.mark.parametrize("source", ["pdarts", "drnas"])
def test_both_supernets_agree_at_the_recorded_weights(source: str, oracle: Any, in_float64: Any, close: Any) -> None:
    """In float64, closer than a recording in float32 can tell."""
    call = in_float64(oracle({"pdarts": "e_pdarts_stage2", "drnas": "f_drnas_darts_given"}[source]))
    space = DartsCNN(channels=12, layers=5, partial=6, ops=OPS[1:]) if source == "drnas" else switched(call.given)
    found = []
    for form in ("plain", "fast"):
        supernet = recorded(space, call.state, source, form).double()
        mixes = (
            {kind: Mix(call.given[f"weights_{kind}"].clone()) for kind in space.cells}
            if source == "drnas"
            else mixed(space, call.given)
        )
        shares = [mix.op.requires_grad_() for mix in mixes.values()]
        logits = supernet(call.given["x"], mixes)
        loss = F.cross_entropy(logits, call.given["y"])
        to_shares, *grads = torch.autograd.grad(loss, [*shares, *supernet.parameters()], allow_unused=True)
        found.append([logits, to_shares, *grads])
    for mine, theirs in zip(*found, strict=True):
        if theirs is not None:
            close(mine, theirs)


def test_pdarts_with_skip_dropout(oracle: Any, close: Any) -> None:
    """The dropout has no weights, and in evaluation no effect."""
    call = oracle("e_pdarts_stage2_skipdropout_eval")
    space = switched(call.given)
    supernet = recorded(space, call.state, "pdarts").eval()
    close(supernet(call.given["x"], mixed(space, call.given)), call.found["logits_evalmode_after"])


def test_pcdarts(oracle: Any, close: Any) -> None:
    call = oracle("d_pcdarts_search")
    space = DartsCNN(channels=8, layers=5, partial=4)
    supernet = recorded(space, call.state, "pcdarts")
    names = [f"{name}_{kind}" for kind in space.cells for name in ("alphas", "betas")]
    leaves = {name: call.given[name].clone().requires_grad_() for name in names}
    mixture = {}
    for kind, cell in space.cells.items():
        scales = [leaves[f"betas_{kind}"][list(cell.edges_into(node))].softmax(-1) for node in cell.nodes]
        mixture[kind] = Mix(leaves[f"alphas_{kind}"].softmax(-1), torch.cat(scales))
    logits = supernet(call.given["x"], mixture)
    close(logits, call.found["logits"])
    loss = F.cross_entropy(logits, call.given["y"])
    close(loss, call.found["loss"])
    loss.backward()
    close(
        torch.cat([leaves[name].grad.flatten() for name in names]),
        torch.cat([call.found[f"grad/{name}"].flatten() for name in names]),
    )
    grads = {name: t for name, t in call.group("grad/").items() if name not in names}
    for theirs, ours in translate(supernet, grads, "pcdarts").items():
        close(supernet.get_parameter(ours).grad, grads[theirs])
    with torch.no_grad():
        close(supernet.eval()(call.given["x"], mixture), call.found["logits_evalmode_after"])


def test_drnas(oracle: Any, close: Any) -> None:
    call = oracle("f_drnas_darts_given")
    space = DartsCNN(channels=12, layers=5, partial=6, ops=OPS[1:])
    supernet = recorded(space, call.state, "drnas")
    leaves = {kind: call.given[f"weights_{kind}"].clone().requires_grad_() for kind in space.cells}
    logits = supernet(call.given["x"], {kind: Mix(leaf) for kind, leaf in leaves.items()})
    close(logits, call.found["logits"])
    loss = F.cross_entropy(logits, call.given["y"])
    close(loss, call.found["loss"])
    loss.backward()
    expected = torch.cat([call.found[f"grad/weights_{kind}"] for kind in leaves])
    close(torch.cat([leaf.grad for leaf in leaves.values()]), expected)
    close(supernet.get_parameter("stem.0.weight").grad, call.found["grad/stem.0.weight"])
