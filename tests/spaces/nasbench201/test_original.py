"""The originals, call by call: networks of AutoDL-Projects, the supernet of DrNAS."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from diffnas.core.genotype import parse_genotype
from diffnas.core.mixture import Mix, allowed_mask, softmax_allowed
from diffnas.core.space import Form, Shape
from diffnas.engine import strongest
from diffnas.interop import load_weights, translate
from diffnas.spaces.nasbench201.space import NASBench201

CELLS = {
    "g_nb201_eval_0": "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|",
    "g_nb201_eval_1": "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|nor_conv_3x3~1|nor_conv_1x1~2|",
}


@pytest.mark.parametrize("name", CELLS)
def test_networks(name: str, oracle: Any, close: Any) -> None:
    call = oracle(name)
    network = NASBench201().network(parse_genotype(CELLS[name]), Shape(10, 3, 16), channels=4, layers=1)
    load_weights(network, call.state, "nasbench201")
    features: list[torch.Tensor] = []
    network.get_submodule("classifier").register_forward_pre_hook(lambda _, given: features.append(given[0]))
    close(network.eval()(call.given["x"]), call.found["logits"])
    close(features[0], call.found["features"])
    logits = network.train()(call.given["x"])
    close(logits, call.found["logits_train"])
    loss = F.cross_entropy(logits, call.given["y"])
    close(loss, call.found["loss_train"])
    loss.backward()
    grads = call.group("grad/")
    for theirs, ours in translate(network, grads, "nasbench201").items():
        close(network.get_parameter(ours).grad, grads[theirs])


SEARCHES = {
    "f_nb201_search_softmax": ("alphas", "alphas"),
    "f_drnas_nb201_given": ("weights", "weights"),
    "f_drnas_nb201_seeded_f64": ("sampled_weights", "sampled_weights"),
}


@pytest.mark.parametrize("form", ["plain", "fast"])
@pytest.mark.parametrize("name", SEARCHES)
def test_supernets(name: str, form: Form, oracle: Any, close: Any) -> None:
    """The mixture is the softmax of alphas, a given one, or the one that the original drew."""
    call, (given, grad) = oracle(name), SEARCHES[name]
    space = NASBench201(channels=4, layers=1)
    supernet = space.supernet(Shape(10, 3, 16), form=form).to(call.given["x"].dtype)
    load_weights(supernet, call.state, "drnas-nb201")
    leaf = {**call.found, **call.given}[given].clone().requires_grad_()
    shares = softmax_allowed(leaf, allowed_mask(space.cells["cell"])) if given == "alphas" else leaf
    logits = supernet(call.given["x"], {"cell": Mix(shares)})
    close(logits, call.found["logits"])
    loss = F.cross_entropy(logits, call.given["y"])
    close(loss, call.found["loss"])
    loss.backward()
    close(leaf.grad, call.found[f"grad/{grad}"])
    close(supernet.get_parameter("stem.0.weight").grad, call.found["grad/stem.0.weight"])


@pytest.mark.parametrize("name", SEARCHES)
def test_both_supernets_agree_at_the_recorded_weights(name: str, oracle: Any, in_float64: Any, close: Any) -> None:
    """In float64, closer than a recording in float32 can tell."""
    call, found = in_float64(oracle(name)), []
    for form in ("plain", "fast"):
        supernet = NASBench201(channels=4, layers=1).supernet(Shape(10, 3, 16), form=form).double()
        load_weights(supernet, call.state, "drnas-nb201")
        leaf = {**call.found, **call.given}[SEARCHES[name][0]].clone().requires_grad_()
        logits = supernet(call.given["x"], {"cell": Mix(leaf)})
        F.cross_entropy(logits, call.given["y"]).backward()
        found.append([logits, leaf.grad, *(weight.grad for weight in supernet.parameters())])
    for mine, theirs in zip(*found, strict=True):
        close(mine, theirs)


def test_derivations(record: Any) -> None:
    """Before and after pruning to three ops per edge."""
    space = NASBench201()
    for case in record("i_genotype_drnas_nb201")["cases"]:
        keep, alphas = torch.tensor(case["mask"]).bool(), torch.tensor(case["alphas"])
        for kept, text in ((space, case["arch"]), (space.narrow({"cell": keep}), case["arch_after_pruning3"])):
            cell = kept.cells["cell"]
            assert strongest(cell, softmax_allowed(alphas, allowed_mask(cell))) == parse_genotype(text).cells["cell"]
