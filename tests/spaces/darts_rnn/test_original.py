"""The original recurrent DARTS, call by call: its recorded outputs, gradients, steps and derivations are met."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diffnas.core.batch import Batch
from diffnas.core.mixture import Mix, allowed_mask, softmax_allowed
from diffnas.core.published_genotypes import published
from diffnas.core.space import Form, TextShape
from diffnas.engine import Search, arch_step, differentiate, strongest, unrolled_arch_step
from diffnas.engine.gradients import hypergradient
from diffnas.engine.search import Alphas
from diffnas.interop import load_weights, translate
from diffnas.interop.genotypes import read_genotype
from diffnas.methods.darts import DARTS
from diffnas.spaces.darts_rnn.layout import KIND
from diffnas.spaces.darts_rnn.space import DartsRNN
from diffnas.tasks.language import LanguageTask

FORMS: tuple[Form, ...] = ("plain", "fast")
SPACE = DartsRNN(units=16, dropout=0.0, dropouth=0.0, dropoutx=0.0, dropouti=0.0, dropoute=0.0)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_evaluation_models(version: str, oracle: Any, close: Any) -> None:
    call = oracle(f"h_rnn_eval_darts_{version}")
    network = SPACE.network(published(f"darts-rnn-{version}"), TextShape(50), units=16).eval()
    load_weights(network, call.state, "darts-rnn")
    spoken = network((call.given["tokens"], call.given["hidden"]))
    close(spoken.log_probs, call.found["log_prob"])
    close(spoken.states, call.found["raw_output"])
    close(spoken.carry, call.found["hidden"])
    loss = F.nll_loss(spoken.log_probs.flatten(0, 1), call.given["targets"])
    close(loss, call.found["loss"])
    loss.backward()
    parameters, grads = dict(network.named_parameters()), call.group("grad/")
    names = translate(network, grads, "darts-rnn")
    assert set(names.values()) == set(parameters)
    for theirs, ours in names.items():
        close(parameters[ours].grad, grads[theirs])


# In evaluation nothing holds the values back (the recorded statistics have hardly moved): hidden states reach 488, and the
# recorded gradient is itself 6e-4 from what float64 gives, as is a restatement of the original from one kind of CPU to another.
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("mode", "tolerance"), [("train", 1e-4), ("eval", 1e-2)])
def test_supernets(mode: str, tolerance: float, form: Form, oracle: Any, close: Any) -> None:
    call = oracle(f"h_rnn_search_{mode}")
    supernet = SPACE.supernet(TextShape(50), form=form).train(mode == "train")
    load_weights(supernet, call.state, "darts-rnn")
    alphas = call.given["alphas"].clone().requires_grad_()
    spoken = supernet((call.given["tokens"], call.given["hidden"]), {KIND: Mix(alphas.softmax(-1))})
    close(spoken.log_probs, call.found["log_prob"])
    close(spoken.carry, call.found["hidden"])
    loss = F.nll_loss(spoken.log_probs.flatten(0, 1), call.given["targets"])
    close(loss, call.found["loss"])
    loss.backward()
    close(alphas.grad, call.found["grad/alphas"], tolerance)


@pytest.mark.parametrize(("mode", "recorded"), [("train", 1e-5), ("eval", 1e-3)])
def test_both_supernets_agree_at_the_recorded_weights(mode: str, recorded: float, oracle: Any, close: Any) -> None:
    """In float64, closer than a recording in float32 can tell; how far that one is from it is the same everywhere."""
    call, found = oracle(f"h_rnn_search_{mode}"), []
    for form in FORMS:
        supernet = SPACE.supernet(TextShape(50), form=form).double().train(mode == "train")
        load_weights(supernet, call.state, "darts-rnn")
        alphas = call.given["alphas"].double().requires_grad_()
        spoken = supernet((call.given["tokens"], call.given["hidden"].double()), {KIND: Mix(alphas.softmax(-1))})
        F.nll_loss(spoken.log_probs.flatten(0, 1), call.given["targets"]).backward()
        found.append(alphas.grad)
    close(*found)
    close(found[0], call.found["grad/alphas"].double(), recorded)


def loaded(call: Any, form: Form) -> Search:
    """A search on recorded weights and alphas, the optimizers as the original has them."""
    supernet = SPACE.supernet(TextShape(50), form=form).to(call.given["alphas"].dtype)
    load_weights(supernet, call.state, "darts-rnn")
    arch = Alphas(SPACE.cells, torch.Generator()).to(call.given["alphas"].dtype)
    with torch.no_grad():
        arch.alpha[KIND].copy_(call.given["alphas"])
    return Search(
        method=DARTS(),
        space=SPACE,
        supernet=supernet,
        arch=arch,
        weights_optimizer=torch.optim.SGD(supernet.parameters(), 2.0, weight_decay=5e-7),
        arch_optimizer=torch.optim.Adam(arch.parameters(), 3e-3, weight_decay=1e-3),
        task=LanguageTask(),
        clip=0.25,
    )


def batch(call: Any, suffix: str = "", scale: float = 1.0) -> Batch:
    tokens = call.given[f"tokens{suffix}"]
    return Batch(tokens, call.given[f"targets{suffix}"].view_as(tokens), scale, call.given[f"hidden{suffix}"])


@pytest.mark.parametrize("form", FORMS)
def test_first_order(form: Form, oracle: Any, close: Any) -> None:
    call = oracle("h_rnn_search_first_f64")
    search, valid = loaded(call, form), batch(call, "_valid")
    mixture = search.relax("arch")
    found = differentiate(search, mixture, valid, {"mixture"}, "train_frozen_stats")
    (grad,) = torch.autograd.grad(mixture.tensors(), list(search.arch.parameters()), found.mixture)
    close(grad, call.found["grad/alphas"])
    close(found.loss.carry, call.found["hidden_valid_next"])
    arch_step(search, search.relax("arch"), valid)
    close(next(iter(search.arch.parameters())).detach(), call.found["alphas_after_adam"])


def restated(
    search: Search, alphas: Tensor, train: Batch, valid: Batch, clip: float, stays: tuple[str, ...] = ()
) -> Tensor:
    """The alphas' second-order gradient as the original's code goes about it, on the plain supernet.

    The look-ahead leaves the weights that `stays` names where they are.
    """
    weights, space = search.weights, search.space

    def loss(at: list[Tensor], alphas: Tensor, data: Batch) -> Tensor:
        shares = softmax_allowed(alphas, allowed_mask(space.cells[KIND]))
        named = dict(zip([n for n, _ in search.supernet.named_parameters()], at, strict=True))
        inputs = ((data.inputs, data.carry), {KIND: Mix(shares)})
        spoken = torch.func.functional_call(search.supernet, named, inputs)
        return F.nll_loss(spoken.log_probs.flatten(0, 1), data.targets.flatten())

    def clipped(grads: list[Tensor]) -> tuple[list[Tensor], float]:
        norm = sum(float(g.norm()) ** 2 for g in grads) ** 0.5
        coefficient = clip / (norm + 1e-6)
        return ([g * coefficient for g in grads] if coefficient < 1 else grads), coefficient

    search.supernet.cell.norm.track_running_stats = False
    eta = 2.0 * train.scale
    start = [w.detach().clone().requires_grad_() for w in weights]
    grads, kappa = clipped(list(torch.autograd.grad(loss(start, alphas, train), start)))
    rates = [0.0 if name in stays else eta for name, _ in search.supernet.named_parameters()]
    steps = zip(rates, start, grads, strict=True)
    ahead = [(w - rate * (g + 5e-7 * w)).detach().requires_grad_() for rate, w, g in steps]
    alphas = alphas.detach().requires_grad_()
    direct, *vector = torch.autograd.grad(loss(ahead, alphas, valid), [alphas, *ahead])
    vector, _ = clipped(vector)
    eps = 0.01 / torch.cat([v.flatten() for v in vector]).norm()
    sides = []
    for sign in (1, -1):
        moved = [w.detach() + sign * eps * v for w, v in zip(start, vector, strict=True)]
        sides.append(torch.autograd.grad(loss(moved, alphas, train), alphas)[0])
    return direct - eta * kappa * (sides[0] - sides[1]) / (2 * eps)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("clip", [0.25, 1e-3, 50.0])
def test_second_order_with_its_clips(clip: float, form: Form, oracle: Any, close: Any) -> None:
    """Both kinds of clip: gradients that it cuts down, and ones so small that kappa is above 1."""
    call = oracle("h_rnn_search_first_f64")
    search, train, valid = loaded(call, form), batch(call, scale=0.5), batch(call, "_valid")
    expected = restated(loaded(call, "plain"), call.given["alphas"].clone(), train, valid, clip)
    mixture = search.relax("arch")
    loss, grad = hypergradient(search, mixture, train, valid, clip=clip)
    (alphas,) = torch.autograd.grad(mixture.tensors(), list(search.arch.parameters()), grad)
    close(alphas, expected, 1e-8)
    assert loss.carry.shape == (1, 3, 16) and not loss.carry.requires_grad
    mixture = search.relax("arch")
    plain = torch.autograd.grad(
        mixture.tensors(), list(search.arch.parameters()), hypergradient(search, mixture, train, valid)[1]
    )
    assert not torch.allclose(plain[0], expected, rtol=1e-6)
    before = search.arch.alpha[KIND].detach().clone()
    unrolled_arch_step(search, search.relax("arch"), train, valid, clip=clip)
    grad = expected + 1e-3 * before  # Adam's first step
    close(search.arch.alpha[KIND].detach(), before - 3e-3 * grad / (grad.abs() + 1e-8), 1e-6)


class Tied(torch.nn.Module):
    """The original's model as far as names go: the decoder's weight is the encoder's."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Embedding(5, 3)
        self.cell = torch.nn.Parameter(torch.randn(3, 3))
        self.decoder = torch.nn.Linear(3, 5)
        self.decoder.weight = self.encoder.weight


def constructed(model: Tied, theta: Tensor) -> Tied:
    """The model at the weights `theta`, as `_construct_model_from_theta` of the original makes it."""
    made, state, offset = Tied(), model.state_dict(), 0
    for name, parameter in model.named_parameters():
        state[name] = theta[offset : offset + parameter.numel()].view_as(parameter)
        offset += parameter.numel()
    assert offset == len(theta)
    made.load_state_dict(state)
    return made


def test_the_originals_look_ahead_leaves_the_tied_embedding_where_it_is() -> None:
    """Its state dict has the matrix twice; the decoder's copy, which is read last, is the old one."""
    model = Tied()
    ahead = constructed(model, torch.cat([p.detach().flatten() for p in model.parameters()]) - 1.0)
    assert torch.equal(ahead.encoder.weight, model.encoder.weight)
    assert torch.equal(ahead.cell, model.cell - 1.0) and torch.equal(ahead.decoder.bias, model.decoder.bias - 1.0)


@pytest.mark.parametrize("form", FORMS)
def test_our_look_ahead_moves_the_tied_embedding(form: Form, oracle: Any, close: Any, monkeypatch: Any) -> None:
    """The gradient is that of a look-ahead of all weights, and another than with the embedding where it was."""
    call = oracle("h_rnn_search_first_f64")
    search, train, valid = loaded(call, form), batch(call, scale=0.5), batch(call, "_valid")
    before, seen = search.supernet.embedding.weight.detach().clone(), []
    loss = search.task.loss

    def watched(network: Any, data: Batch) -> Any:
        seen.append((data is valid, search.supernet.embedding.weight.detach().clone()))
        return loss(network, data)

    monkeypatch.setattr(search, "task", type("Watching", (), {"loss": staticmethod(watched)})())
    mixture = search.relax("arch")
    grad = hypergradient(search, mixture, train, valid, clip=0.25)[1]
    (found,) = torch.autograd.grad(mixture.tensors(), list(search.arch.parameters()), grad)
    (ahead,) = [weight for is_ahead, weight in seen if is_ahead]
    assert float((ahead - before).abs().max()) > 1e-4 and torch.equal(search.supernet.embedding.weight, before)
    moved, left = (
        restated(loaded(call, "plain"), call.given["alphas"].clone(), train, valid, 0.25, stays)
        for stays in ((), ("embedding.weight",))
    )
    close(found, moved, 1e-8)
    assert float((moved - left).abs().max()) > 1e-3 * float(moved.abs().max())


def test_the_exact_product_takes_the_same_clips(oracle: Any, close: Any) -> None:
    call = oracle("h_rnn_search_first_f64")
    search, train, valid = loaded(call, "plain"), batch(call), batch(call, "_valid")
    near = hypergradient(search, search.relax("arch"), train, valid, clip=0.25)[1]
    exact = hypergradient(search, search.relax("arch"), train, valid, exact=True, clip=0.25)[1]
    close(near[0], exact[0], 1e-2)


def test_the_look_ahead_knows_no_regularisers(oracle: Any) -> None:
    """They belong to the weight step; the original's virtual step goes by the loss alone."""
    call, found = oracle("h_rnn_search_first_f64"), []
    for beta in (0.0, 10.0):
        search = loaded(call, "plain")
        search.task = LanguageTask(beta=beta)
        found.append(hypergradient(search, search.relax("arch"), batch(call), batch(call, "_valid"))[1][0])
    assert torch.equal(*found)


def test_derivations(record: Any) -> None:
    (cell,) = DartsRNN().cells.values()
    for case in record("i_genotype_rnn")["cases"]:
        nodes = strongest(cell, softmax_allowed(torch.tensor(case["alphas"]), allowed_mask(cell)))
        expected = case["genotype"]
        assert [list(pair) for (pair,) in nodes.inputs] == expected["recurrent"]
        assert list(nodes.concat) == expected["concat"]
        pairs = [tuple(pair) for pair in expected["recurrent"]]
        assert read_genotype(f"Genotype(recurrent={pairs}, concat={expected['concat']})").cells[KIND] == nodes
