"""Weights under original names."""

from __future__ import annotations

import pytest
import torch

import diffnas
from diffnas.errors import WeightsError
from diffnas.interop import load_weights, translate

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
