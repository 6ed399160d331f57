"""Networks of genotypes: drop path, auxiliary heads, odd genotypes, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import diffnas
from diffnas.core.genotype import Genotype, Nodes
from diffnas.core.space import Shape
from diffnas.errors import GenotypeError, RecipeError
from diffnas.spaces.darts_cnn.layout import CellPlan
from diffnas.spaces.darts_cnn.network import GenotypeCell, drop_path
from diffnas.spaces.darts_cnn.space import DartsCNN


def network(genotype: Genotype | str, **settings: Any) -> torch.nn.Module:
    return diffnas.build_network(genotype, **{"channels": 4, "layers": 3, **settings})


def test_drop_path_drops_samples_and_scales_the_rest() -> None:
    torch.manual_seed(0)
    x = torch.ones(4000, 2, 1, 1)
    found = drop_path(x, torch.tensor(0.25))
    values = found.flatten(1)
    assert values.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert torch.equal(values[:, 0], values[:, 1])  # a sample as a whole
    assert float((values[:, 0] == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.equal(drop_path(x, torch.tensor(0.0)), x)


def test_drop_path_acts_in_training_only() -> None:
    net = network("darts-v2", drop_path=True)
    net.drop_path.fill_(0.9)
    x = torch.randn(8, 3, 8, 8)
    assert not torch.equal(net.train()(x), net(x)) and torch.equal(net.eval()(x), net(x))


@pytest.mark.parametrize(
    ("op", "kind", "drops"),
    [("skip_connect", "normal", False), ("skip_connect", "reduce", True), ("max_pool_3x3", "normal", True)],
)
def test_only_identities_are_never_dropped(op: str, kind: str, drops: bool) -> None:
    cell = GenotypeCell(Nodes((((op, 0), (op, 1)),), (2,)), CellPlan(kind, 4, ((4, 0), (4, 0))), "none")
    x = torch.randn(64, 4, 8, 8)
    whole, part = cell([x, x], None), cell([x, x], torch.tensor(0.9))
    assert (not torch.equal(whole, part)) == drops


def test_without_drops_the_buffer_is_idle() -> None:
    net = network("darts-v2")
    net.drop_path.fill_(0.9)
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(net(x), net(x)) and "drop_path" not in net.state_dict()


@pytest.mark.parametrize(("stem", "side"), [("cifar", 32), ("imagenet", 224)])
@pytest.mark.parametrize("layers", [2, 6])
def test_auxiliary_logits_in_training_only(stem: str, side: int, layers: int) -> None:
    net = network("darts-v1", stem=stem, layers=layers, classes=7, auxiliary=True)
    x = torch.randn(2, 3, side, side)
    logits, auxiliary = net.train()(x)
    assert logits.shape == auxiliary.shape == (2, 7) and net.eval()(x).shape == (2, 7)


def test_the_two_imagenet_heads() -> None:
    sizes = {}
    for norm in (None, True, False):
        net = network("darts-v1", stem="imagenet", auxiliary=True, auxiliary_norm=norm)
        sizes[norm] = sum(p.numel() for p in net.auxiliary.parameters())
    assert sizes[True] == sizes[False] + 2 * 768 and sizes[None] == sizes[False]


@pytest.mark.parametrize(
    ("side", "layers", "found"), [(16, 3, "4x4"), (64, 3, "16x16"), (32, 1, "16x16"), (8, 6, "2x2")]
)
def test_an_auxiliary_head_elsewhere_is_refused(side: int, layers: int, found: str) -> None:
    with pytest.raises(RecipeError, match=f"auxiliary: the auxiliary head needs 8x8 features; here they are {found}"):
        network("darts-v1", side=side, layers=layers, auxiliary=True)
    with pytest.raises(RecipeError, match="needs 7x7 features"):
        network("darts-v1", side=64, stem="imagenet", auxiliary=True)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"channels": 5}, "channels: must be even, not 5"),
        ({"side": 30}, "layers: 3 layers need images whose side is a multiple of 4, not 30"),
        ({"side": 100, "stem": "imagenet"}, "multiple of 32, not 100"),
    ],
)
def test_sizes_that_cannot_be_built(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        network("darts-v1", **settings)


ODD = {
    "any number of inputs": ((("sep_conv_3x3", 0),), (), (("skip_connect", 2), ("none", 3), ("max_pool_3x3", 0))),
    "the same input twice": ((("sep_conv_3x3", 1), ("sep_conv_3x3", 1)),),
    "nothing but none": ((("none", 0), ("none", 1)),),
    "no inputs at all": ((), ()),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_genotypes_build_and_run(name: str) -> None:
    nodes = Nodes(ODD[name], tuple(range(2, 2 + len(ODD[name]))))
    net = network(Genotype("darts-cnn", {"normal": nodes, "reduce": nodes}))
    logits = net(torch.randn(2, 3, 8, 8))
    assert logits.shape == (2, 10)
    logits.sum().backward()


def test_a_cell_may_read_one_input() -> None:
    nodes = Nodes(((("sep_conv_3x3", 0),), (("skip_connect", 1), ("dil_conv_3x3", 0))), (1, 2), first=1)
    for stem, side in (("cifar", 8), ("imagenet", 64)):
        net = network(Genotype("darts-cnn", {"normal": nodes, "reduce": nodes}), stem=stem, side=side, layers=6)
        assert net(torch.randn(2, 3, side, side)).shape == (2, 10)


GOOD = Nodes(((("skip_connect", 0),),), (2,))
ILLEGAL = [
    ({"normal": GOOD}, "reduce is missing"),
    ({"normal": GOOD, "reduce": Nodes(((("conv_9x9", 0),),), (2,))}, "cell reduce: op 'conv_9x9' is unknown"),
    ({"normal": GOOD, "reduce": Nodes(GOOD.inputs, (1, 2))}, "names an input"),
    ({"normal": GOOD, "reduce": Nodes(((("none", 0),),), (1,), first=1)}, "same number of inputs"),
]


@pytest.mark.parametrize(("cells", "said"), ILLEGAL)
def test_illegal_genotypes(cells: dict[str, Nodes], said: str) -> None:
    with pytest.raises(GenotypeError, match=said):
        DartsCNN().network(Genotype("darts-cnn", cells), Shape(10))


def test_an_unknown_space() -> None:
    with pytest.raises(GenotypeError, match="its space 'darts-cn' is unknown"):
        network(Genotype("darts-cn", {"normal": GOOD, "reduce": GOOD}))
