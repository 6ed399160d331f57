"""DARTS-: the auxiliary skip outside the softmax, from a full share to none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from diffnas.core.space import Shape
from diffnas.engine import Search
from diffnas.methods.darts import DARTS
from diffnas.methods.darts_minus import DARTSMinus
from diffnas.spaces.darts_cnn.layout import OPS
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.spaces.nasbench201.space import NASBench201

SPACE = DartsCNN(channels=4, layers=3, nodes=2, ops=(*OPS, "auxiliary_skip"), excluded=("none", "auxiliary_skip"))
BENCH = NASBench201(channels=4, layers=1, ops=("none", "skip_connect", "nor_conv_1x1", "auxiliary_skip"))
PLAIN = DartsCNN(channels=4, layers=3, nodes=2)


@pytest.mark.parametrize("epoch", [0, 10, 49, 50])
def test_beta_falls_linearly_outside_the_softmax(
    epoch: int, make_search: Callable[..., Search], close: Callable[..., None]
) -> None:
    search = make_search(SPACE, DARTSMinus(beta=0.8), scale=2.0, dtype=torch.float64)
    search.advance(epoch=epoch, epochs=50)
    for kind, mix in search.relax("arch").items():
        powers = search.arch.alpha[kind].detach()[:, :8].exp()
        close(mix.op[:, :8], powers / powers.sum(1, keepdim=True))
        close(mix.op[:, 8] + 1.0, torch.full((5,), 1.8 - 0.8 * epoch / 50, dtype=torch.float64))
        close(search.strength()[kind][:, :8], mix.op[:, :8].detach())
        assert not search.strength()[kind][:, 8].any()


def test_the_edge_is_the_plain_one_plus_beta_times_a_skip(
    make_search: Callable[..., Search], close: Callable[..., None]
) -> None:
    search = make_search(SPACE, DARTSMinus(), scale=1.0, dtype=torch.float64)
    for index, stride in ((0, 1), (1, 2)):  # the first cell of three is normal, the others reduce
        edge = search.supernet.cells[index].edge(0)
        assert edge.stride == stride
        op_O = search.relax("arch")["normal"].op[0].detach()
        x = torch.randn(2, 4 * 2**index, 8, 8, dtype=torch.float64)
        edge.eval().requires_grad_(False)
        rest = sum(op_O[edge.columns[name]] * op(x) for name, op in edge.ops.items() if name != "auxiliary_skip")
        close(edge(x, op_O), rest + 1.0 * edge.ops["auxiliary_skip"](x))


def test_without_the_skip_it_is_darts(make_search: Callable[..., Search], close: Callable[..., None]) -> None:
    ours, theirs = (
        make_search(SPACE, DARTSMinus(), dtype=torch.float64),
        make_search(PLAIN, DARTS(), dtype=torch.float64),
    )
    ours.advance(epoch=50, epochs=50)
    theirs.supernet.load_state_dict({k: t for k, t in ours.supernet.state_dict().items() if "auxiliary" not in k})
    with torch.no_grad():
        for kind, alpha in theirs.arch.alpha.items():
            alpha.copy_(ours.arch.alpha[kind][:, :8])
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    close(ours.supernet(x, ours.relax("arch")), theirs.supernet(x, theirs.relax("arch")).detach())
    assert ours.derive() == theirs.derive()


def test_alpha_of_the_skip_has_no_gradient_and_is_never_derived(make_search: Callable[..., Search]) -> None:
    search = make_search(SPACE, DARTSMinus())
    loss = search.supernet(torch.randn(2, 3, 8, 8), search.relax("arch")).square().sum()
    found = torch.autograd.grad(loss, search.arch.alpha["normal"])[0]
    assert not found[:, 8].any() and found[:, :8].any()
    with torch.no_grad():
        search.arch.alpha["normal"][:, 8] = 9.0
    genotype = search.derive()
    assert genotype is not None and "auxiliary_skip" not in genotype.cells["normal"].ops


@pytest.mark.parametrize("space", [SPACE, BENCH], ids=lambda space: space.name)
def test_the_fast_supernet_spends_it_alike(
    space: DartsCNN | NASBench201, make_search: Callable[..., Search], close: Callable[..., None]
) -> None:
    search = make_search(space, DARTSMinus(), scale=1.0, dtype=torch.float64)
    fast = space.supernet(Shape(10, 3, 8), form="fast").double()
    fast.load_state_dict(search.supernet.state_dict())
    x, mixture = torch.randn(2, 3, 8, 8, dtype=torch.float64), search.relax("arch").detach()
    close(fast(x, mixture), search.supernet(x, mixture).detach())


def test_nasbench201_takes_it_and_never_derives_it(make_search: Callable[..., Search]) -> None:
    assert DARTSMinus().check_space(BENCH) == [] and BENCH.check_size(Shape(10, 3, 32)) == []
    search = make_search(BENCH, DARTSMinus())
    with torch.no_grad():
        search.arch.alpha["cell"][:, 3] = 9.0
    genotype = search.derive()
    assert genotype is not None and len(genotype.cells["cell"].ops) == 6
    assert "auxiliary_skip" not in genotype.cells["cell"].ops
    assert NASBench201(ops=("auxiliary_skip",)).check_size(Shape(10, 3, 32))
    assert not NASBench201().cells["cell"].excluded


def test_misfits_give_the_setting_to_write() -> None:
    method = DARTSMinus()
    assert method.check_space(SPACE) == [] and SPACE.check_size(Shape(10, 3, 32)) == []
    assert method.check_space(DartsCNN()) == [
        ("ops", f"must hold auxiliary_skip; write [{', '.join(OPS)}, auxiliary_skip]")
    ]
    derivable = DartsCNN(ops=SPACE.ops)
    assert method.check_space(derivable) == [("excluded", "must hold auxiliary_skip; write [none, auxiliary_skip]")]
    rows = [["skip_connect", "sep_conv_3x3"]] * 14
    narrow = DartsCNN(ops=SPACE.ops, excluded=SPACE.excluded, edge_ops={"normal": rows, "reduce": rows})
    assert method.check_space(narrow) == [("edge_ops", "must hold auxiliary_skip for every edge")]
