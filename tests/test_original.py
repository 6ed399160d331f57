"""The original DARTS, call by call: its recorded outputs, gradients, steps and derivations are met."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import diffnas
from diffnas.core.batch import Batch
from diffnas.core.mixture import allowed_mask, softmax_allowed
from diffnas.core.space import Form, Shape
from diffnas.engine import Search, differentiate, strongest, unrolled_arch_step
from diffnas.engine.gradients import hypergradient
from diffnas.interop import load_weights, translate
from diffnas.spaces.darts_cnn.space import DartsCNN

EVALUATIONS = {
    "a_darts_eval_nasnet": ("nasnet", {"channels": 4, "layers": 6}),
    "a_darts_eval_v2_evalmode": ("darts-v2", {"channels": 8, "layers": 6, "auxiliary": True}),
    "a_darts_eval_imagenet_v1": ("darts-v1", {"channels": 8, "layers": 5, "stem": "imagenet"}),
}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_evaluation_networks(name: str, oracle: Any, close: Any) -> None:
    genotype, size = EVALUATIONS[name]
    call = oracle(name)
    network = diffnas.build_network(genotype, **size)
    load_weights(network, call.state, "darts")
    close(network.eval()(call.given["x"]), call.found["logits"])
    if "logits_train" in call.found:
        close(network.train()(call.given["x"]), call.found["logits_train"])


# Normalisation over four values (a batch of four at 1x1 in the auxiliary head) magnifies rounding: the recorded float32
# gradients are themselves up to 4e-5 from what float64 gives, which is the same on every machine.
@pytest.mark.parametrize(("dtype", "tolerance", "grad"), [(torch.float32, 1e-4, 1e-3), (torch.float64, 1e-5, 5e-5)])
def test_evaluation_network_in_training(
    dtype: torch.dtype, tolerance: float, grad: float, oracle: Any, close: Any
) -> None:
    call = oracle("a_darts_eval_v2_train")
    network = diffnas.build_network("darts-v2", channels=8, layers=6, auxiliary=True)
    load_weights(network, call.state, "darts")
    logits, auxiliary = network.to(dtype).train()(call.given["x"].to(dtype))
    loss = F.cross_entropy(logits, call.given["y"]) + 0.4 * F.cross_entropy(auxiliary, call.given["y"])
    loss.backward()
    close(logits, call.found["logits"].to(dtype), tolerance)
    close(auxiliary, call.found["logits_aux"].to(dtype), tolerance)
    close(loss, call.found["loss_total"].to(dtype), tolerance)
    parameters = dict(network.named_parameters())
    grads = call.group("grad/")
    for theirs, ours in translate(network, grads, "darts").items():
        close(parameters[ours].grad, grads[theirs].to(dtype), grad)
    after, buffers = network.state_dict(), call.group("buffer_after/")
    for theirs, ours in translate(network, buffers, "darts").items():
        close(after[ours].to(dtype), buffers[theirs].to(dtype), tolerance)


def loaded(make_search: Callable[..., Search], call: Any, layers: int, form: Form = "plain") -> Search:
    """A search on the recorded weights and alphas."""
    dtype = call.given["alphas_normal"].dtype
    side = next(t for name, t in call.given.items() if name.startswith("x")).shape[-1]
    search = make_search(DartsCNN(channels=4, layers=layers), side=side, dtype=dtype, form=form)
    load_weights(search.supernet, call.state, "darts")
    with torch.no_grad():
        for kind, alpha in search.arch.alpha.items():
            alpha.copy_(call.given[f"alphas_{kind}"])
    return search


def joined(tensors: dict[str, Tensor], name: str) -> Tensor:
    """Both kinds' alphas in one tensor: the tolerance holds for all alphas of a call together."""
    return torch.cat([tensors[name.format("normal")], tensors[name.format("reduce")]])


# In float32 one value of the recorded batch lies so close to a kink (a ReLU or the larger of two pixels) that torch's code
# for CPUs without AVX2 falls on the other side of it, and the gradients of alpha move by 2 %; other batches do not show it.
def test_supernet(oracle: Any, in_float64: Any, close: Any, make_search: Any) -> None:
    call, limit = in_float64(oracle("b_darts_search")), 1e-5  # it was recorded in float32
    search = loaded(make_search, call, layers=5)
    mixture = search.relax("arch")
    close(search.supernet(call.given["x"], mixture), call.found["logits"], limit)
    search = loaded(make_search, call, layers=5)
    mixture = search.relax("arch")
    found = differentiate(search, mixture, Batch(call.given["x"], call.given["y"]), {"weights", "mixture"})
    close(found.loss.value, call.found["loss"], limit)
    alphas = torch.autograd.grad(mixture.tensors(), list(search.arch.parameters()), found.mixture)
    close(torch.cat(alphas), joined(call.found, "grad/alphas_{}"), limit)
    names = [name for name, _ in search.supernet.named_parameters()]
    grads = {name: t for name, t in call.group("grad/").items() if "alphas" not in name}
    for theirs, ours in translate(search.supernet, grads, "darts").items():
        close(found.weights[names.index(ours)], grads[theirs], limit)
    close(search.supernet.eval()(call.given["x"], mixture), call.found["logits_evalmode_after"], limit)


def test_both_supernets_agree_at_the_recorded_weights(
    oracle: Any, in_float64: Any, close: Any, make_search: Any
) -> None:
    """In float64, closer than a recording in float32 can tell."""
    call = in_float64(oracle("b_darts_search"))
    found = []
    for form in ("plain", "fast"):
        search = loaded(make_search, call, layers=5, form=form)
        mixture = search.relax("arch")
        grads = differentiate(search, mixture, Batch(call.given["x"], call.given["y"]), {"weights", "mixture"})
        state = search.supernet.state_dict().values()
        found.append([grads.loss.value, torch.cat(grads.mixture), *grads.weights, *state])
    for mine, theirs in zip(*found, strict=True):
        close(mine.double(), theirs.double())


# The difference quotient cancels all but three digits of float32, on some machines more: in float64 it can be told.
def test_second_order(oracle: Any, close: Any, make_search: Any) -> None:
    call = oracle("c_darts_second_order_f64")
    search = loaded(make_search, call, layers=3)
    parameters = dict(search.supernet.named_parameters())
    momenta = {n[16:]: t for n, t in call.given.items() if n.startswith("momentum_buffer/")}
    for theirs, ours in translate(search.supernet, momenta, "darts").items():
        search.weights_optimizer.state[parameters[ours]]["momentum_buffer"] = momenta[theirs].clone()
    train = Batch(call.given["x_train"], call.given["y_train"])
    valid = Batch(call.given["x_valid"], call.given["y_valid"])
    mixture = search.relax("arch")
    loss, grad = hypergradient(search, mixture, train, valid)
    close(loss.value, call.found["unrolled_valid_loss"], 1e-8)
    alphas = torch.autograd.grad(mixture.tensors(), list(search.arch.parameters()), grad)
    close(torch.cat(alphas), joined(call.found, "grad/alphas_{}"), 1e-8)
    unrolled_arch_step(search, search.relax("arch"), train, valid)
    close(torch.cat(list(search.arch.parameters())), joined(call.found, "alphas_{}_after_adam"), 1e-8)


def test_two_first_order_steps(oracle: Any, close: Any, make_search: Any) -> None:
    call = oracle("c_darts_loop_first_f64")
    search = loaded(make_search, call, layers=3)
    for step in range(2):
        batches = {
            half: Batch(call.given[f"x_{half}{step}"], call.given[f"y_{half}{step}"]) for half in ("train", "valid")
        }
        losses = search.method.step(search, batches)
        close(losses["train"].value, call.found[f"loss{step}"])
    close(torch.cat(list(search.arch.parameters())), joined(call.found, "alphas_{}"))
    after = search.supernet.state_dict()
    expected = call.group("after/")
    for theirs, ours in translate(search.supernet, expected, "darts").items():
        close(after[ours].double(), expected[theirs].double(), 1e-9)


def test_derivations(record: Any) -> None:
    cells = DartsCNN().cells
    for case in record("i_genotype_darts")["cases"]:
        for kind, cell in cells.items():
            shares = softmax_allowed(torch.tensor(case[f"alphas_{kind}"]), allowed_mask(cell))
            found = [[op, source] for node in strongest(cell, shares).inputs for op, source in node]
            assert found == [list(pair) for pair in case["genotype"][kind]]


def test_supernet_sizes(record: Any) -> None:
    sizes = [
        re.fullmatch(r"DARTS search C=(\d+) L=(\d+) classes=(\d+)", row["network"])
        for row in record("counts")["search"]
    ]
    rows = [(size, row) for size, row in zip(sizes, record("counts")["search"], strict=True) if size]
    assert len(rows) >= 3
    for size, row in rows:
        channels, layers, classes = map(int, size.groups())
        supernet = diffnas.build_supernet("darts-cnn", channels=channels, layers=layers, classes=classes)
        assert sum(p.numel() for p in supernet.parameters()) == row["weights"]
        assert sum(b.numel() for b in supernet.buffers()) == row["buffers"]
    assert sum(p.numel() for p in DartsCNN().supernet(Shape(10)).parameters()) == 1_930_618
