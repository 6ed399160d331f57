"""PC-DARTS: shares of edges, products of shares, and the original's recorded calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from diffnas.core.batch import Batch
from diffnas.core.mixture import Mixture
from diffnas.core.seeds import generator
from diffnas.core.space import Size
from diffnas.engine import Search, differentiate
from diffnas.engine.stage import Stage
from diffnas.interop import load_weights, translate
from diffnas.methods.pcdarts import PCDARTS, EdgeAlphas
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.spaces.nasbench201.space import NASBench201

Build = Callable[..., Search]


def given(make_search: Build, space: Any, scale: float = 1.0, **settings: Any) -> Search:
    """A search of PC-DARTS whose alphas and betas are N(0, scale)."""
    search = make_search(space, PCDARTS(), **settings)
    search.arch = EdgeAlphas(space.cells, generator(0, "arch"), scale).to(search.weights[0].dtype)
    search.arch_optimizer = torch.optim.Adam(search.arch.parameters(), 6e-4, (0.5, 0.999), weight_decay=1e-3)
    return search


def test_defaults() -> None:
    method, size = PCDARTS(), Size(16, 8, 4)
    assert method.stages(50, size) == (Stage(50, size, warmup=15),)
    assert method.check_space(DartsCNN()) == [] == method.check_space(DartsCNN(partial=4))
    arch = method.arch(DartsCNN(), generator(0, "arch"))
    assert {name: p.shape for name, p in arch.named_parameters()} == {
        "alpha.normal": (14, 8),
        "alpha.reduce": (14, 8),
        "beta.normal": (14,),
        "beta.reduce": (14,),
    }
    assert all(0 < p.abs().max() < 1e-2 for p in arch.parameters())  # 1e-3 N(0, 1)


@pytest.mark.parametrize("space", [DartsCNN(nodes=3, partial=2), NASBench201(channels=4, layers=1)])
def test_edges_into_a_node_share_one(space: Any, make_search: Build) -> None:
    search = given(make_search, space, dtype=torch.float64)
    for kind, cell in space.cells.items():
        mix, strength = search.relax("arch")[kind], search.strength()[kind]
        alpha, beta = (search.arch.get_parameter(f"{name}.{kind}") for name in ("alpha", "beta"))
        assert mix.edge is not None and not strength.requires_grad
        for e, (_, target) in enumerate(cell.edges):
            into = [beta[k].exp() for k, (_, other) in enumerate(cell.edges) if other == target]
            share = beta[e].exp() / sum(into)
            torch.testing.assert_close(mix.edge[e], share)
            torch.testing.assert_close(mix.op[e], alpha[e].exp() / alpha[e].exp().sum())
            torch.testing.assert_close(strength[e], (alpha[e].exp() / alpha[e].exp().sum() * share).detach())


def test_betas_decide_which_edges_stay(make_search: Build) -> None:
    search = given(make_search, DartsCNN(channels=4, layers=2, nodes=2), scale=1e-6)
    with torch.no_grad():
        search.arch.get_parameter("beta.normal").copy_(torch.tensor([0.0, 1.0, 0.0, 1.0, 2.0]))
    genotype = search.derive()
    assert genotype is not None
    assert [[source for _, source in node] for node in genotype.cells["normal"].inputs] == [[1, 0], [2, 1]]


def test_alphas_and_betas_move_together(make_search: Build) -> None:
    search = given(make_search, DartsCNN(channels=4, layers=2, nodes=2, partial=2))
    before = {name: p.detach().clone() for name, p in search.arch.named_parameters()}
    images, classes = torch.randn(4, 3, 8, 8), torch.randint(0, 10, (4,))
    search.method.step(search, {"train": Batch(images, classes)})
    assert all(torch.equal(p, before[name]) for name, p in search.arch.named_parameters())  # a warm-up step
    search.method.step(search, {"train": Batch(images, classes), "valid": Batch(images, classes)})
    assert not any(torch.equal(p, before[name]) for name, p in search.arch.named_parameters())


def copied(search: Search, values: dict[str, Tensor]) -> Mixture:
    """The mixture of recorded alphas and betas."""
    with torch.no_grad():
        for name, parameter in search.arch.named_parameters():
            letter, kind = name.split(".")
            parameter.copy_(torch.as_tensor(values[f"{letter}s_{kind}"]))
    return search.relax("arch")


def test_the_original_supernet(oracle: Any, close: Any, make_search: Build) -> None:
    call = oracle("d_pcdarts_search")
    search = given(make_search, DartsCNN(channels=8, layers=5, partial=4), side=16)
    load_weights(search.supernet, call.state, "pcdarts")
    mixture = copied(search, call.given)
    found = differentiate(search, mixture, Batch(call.given["x"], call.given["y"]), {"weights", "mixture"})
    close(found.loss.value, call.found["loss"])
    grads = torch.autograd.grad(mixture.tensors(), list(search.arch.parameters()), found.mixture)
    named = dict(zip([name for name, _ in search.arch.named_parameters()], grads, strict=True))
    for letter in ("alpha", "beta"):
        ours = torch.cat([named[f"{letter}.{kind}"] for kind in ("normal", "reduce")])
        close(ours, torch.cat([call.found[f"grad/{letter}s_{kind}"] for kind in ("normal", "reduce")]))
    names = [name for name, _ in search.supernet.named_parameters()]
    expected = call.group("grad/")
    for theirs, ours in translate(search.supernet, expected, "pcdarts").items():
        close(found.weights[names.index(ours)], expected[theirs])
    close(search.supernet.eval()(call.given["x"], mixture), call.found["logits_evalmode_after"])


def test_the_original_derivations(record: Any, make_search: Build) -> None:
    search = given(make_search, DartsCNN(channels=2, layers=2))
    cases = record("i_genotype_pcdarts")["cases"]
    assert len(cases) >= 10
    for case in cases:
        copied(search, case)
        genotype = search.derive()
        assert genotype is not None
        for kind, nodes in genotype.cells.items():
            assert [[op, source] for node in nodes.inputs for op, source in node] == case["genotype"][kind]
