"""FairDARTS: independent shares, the zero-one loss and its gradient, and what passes the threshold."""

from __future__ import annotations

from collections.abc import Callable

import torch

from diffnas.core.batch import Batch
from diffnas.core.space import Shape
from diffnas.engine import Search, differentiate
from diffnas.methods.fairdarts import FairDARTS
from diffnas.spaces.darts_cnn.layout import OPS
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.spaces.nasbench201.space import NASBench201

SPACE = DartsCNN(channels=4, layers=2, nodes=2, ops=OPS[1:], excluded=())
CHAIN = NASBench201(channels=4, layers=1, ops=("skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"))


def test_shares_are_sigmoids_of_allowed_ops(make_search: Callable[..., Search], close: Callable[..., None]) -> None:
    rows = [["skip_connect", "sep_conv_3x3"]] * 5
    space = DartsCNN(channels=4, layers=2, nodes=2, edge_ops={"normal": rows, "reduce": rows})
    search = make_search(space, FairDARTS(), scale=2.0, dtype=torch.float64)
    for kind, mix in search.relax("weights").items():
        expected = torch.zeros(5, 8, dtype=torch.float64)
        expected[:, [3, 4]] = 1 / (1 + torch.exp(-search.arch.alpha[kind].detach()[:, [3, 4]]))
        close(mix.op, expected)
        assert mix.edge is None and torch.equal(search.strength()[kind], mix.op)


def test_the_zero_one_loss_and_its_gradient(make_search: Callable[..., Search], close: Callable[..., None]) -> None:
    search = make_search(SPACE, FairDARTS(weight=7.0), scale=2.0, dtype=torch.float64)
    mixture = search.relax("arch")
    alpha = torch.cat([a.detach() for a in search.arch.alpha.values()])
    share = 1 / (1 + torch.exp(-alpha))
    penalty = search.penalty(mixture)
    assert penalty is not None
    close(penalty, -7.0 * ((share - 0.5) ** 2).sum() / share.numel())
    found = torch.autograd.grad(penalty, list(search.arch.parameters()))
    close(torch.cat(found), -7.0 * 2 * (share - 0.5) * share * (1 - share) / share.numel())


def test_a_step_follows_the_loss_and_the_penalty(
    make_search: Callable[..., Search], close: Callable[..., None]
) -> None:
    search = make_search(SPACE, FairDARTS(), scale=2.0, dtype=torch.float64)
    search.arch_optimizer = torch.optim.SGD(search.arch.parameters(), 0.1)
    batch = Batch(torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.randint(0, 10, (4,)))
    before = {kind: a.detach().clone() for kind, a in search.arch.alpha.items()}
    mixture = search.relax("arch")
    grads = differentiate(search, mixture, batch, {"mixture"}, "train_frozen_stats").mixture
    count = sum(a.numel() for a in before.values())
    search.method.step(search, {"valid": batch})
    for (kind, alpha), grad in zip(before.items(), grads, strict=True):
        share = alpha.sigmoid()
        total = (grad - 10.0 * 2 * (share - 0.5) / count) * share * (1 - share)
        close(search.arch.alpha[kind], alpha - 0.1 * total)


def test_derivation_keeps_what_passes_the_threshold(make_search: Callable[..., Search]) -> None:
    search = make_search(SPACE, FairDARTS(threshold=0.85))
    with torch.no_grad():
        for alpha in search.arch.alpha.values():
            alpha.fill_(-3.0)
        normal = search.arch.alpha["normal"]
        normal[1, 3] = 1.7347  # log(0.85 / 0.15) is 1.7346
        normal[0, 2] = 1.7345
        normal[2, 3], normal[2, 4], normal[3, 0], normal[4, 6] = 5.0, 4.0, 3.0, 2.0  # three edges pass, two are kept
    genotype = search.derive()
    assert genotype is not None
    node2, node3 = genotype.cells["normal"].inputs
    assert node2 == (("sep_conv_3x3", 1),)
    assert node3 == (("sep_conv_3x3", 0), ("max_pool_3x3", 1))
    assert genotype.cells["reduce"].inputs == ((), ())  # nothing passes
    network = SPACE.network(genotype, Shape(10, 3, 8), channels=4, layers=3)
    assert network(torch.randn(2, 3, 8, 8)).shape == (2, 10)


def test_a_node_that_keeps_all_edges_keeps_them_below_the_threshold(make_search: Callable[..., Search]) -> None:
    genotype = make_search(CHAIN, FairDARTS()).derive()
    assert genotype is not None
    assert [len(node) for node in genotype.cells["cell"].inputs] == [1, 2, 3]


def test_none_is_refused_with_the_ops_to_write() -> None:
    assert FairDARTS().check_space(SPACE) == []
    ((key, reason),) = FairDARTS().check_space(DartsCNN())
    assert key == "ops" and reason.endswith(f"write [{', '.join(OPS[1:])}]")
