"""Networks of chains: that they train, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import diffnas
from diffnas.core.genotype import Genotype, Nodes
from diffnas.core.space import Shape
from diffnas.errors import GenotypeError, RecipeError
from diffnas.spaces.shufflenet_blocks.layout import OPS
from diffnas.spaces.shufflenet_blocks.space import ShuffleNetBlocks

TINY = ShuffleNetBlocks(channels=4, widths=(8, 12), depths=(1, 2), last=16)
SHAPE = Shape(5, 1, 8)


def chain(*ops: str, first: int = 1, concat: int | None = None) -> Genotype:
    inputs = tuple(((op, first + k - 1),) for k, op in enumerate(ops))
    nodes = Nodes(inputs, (first + len(ops) - 1 if concat is None else concat,), first)
    return Genotype("shufflenet-blocks", {"blocks": nodes})


GOOD = chain("shuffle_3x3", "shuffle_xception", "shuffle_7x7")


def test_a_network_learns() -> None:
    torch.manual_seed(0)
    network = TINY.network(GOOD, SHAPE, channels=2, layers=3, stem="cifar").double()
    x, y = torch.randn(20, 1, 8, 8, dtype=torch.float64), torch.arange(20) % 5
    optimizer = torch.optim.SGD(network.parameters(), 0.5, 0.9)
    losses = []
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_train_sections_settings() -> None:
    network = TINY.network(
        GOOD, SHAPE, channels=6, layers=3, stem="cifar", auxiliary=False, pool_norm="none", drops=False
    )
    assert network.stem[0].out_channels == 6 and network.stem[0].stride == (1, 1)
    assert all(norm.eps == 1e-5 for norm in network.modules() if isinstance(norm, torch.nn.BatchNorm2d))
    assert TINY.network(GOOD, SHAPE).stem[0].stride == (2, 2)


@pytest.mark.parametrize(
    ("settings", "key", "said"),
    [
        ({"auxiliary": True}, "auxiliary", "no auxiliary head"),
        ({"pool_norm": "affine"}, "pool_norm", "do not pool"),
        ({"drops": True}, "drop_path", "no drop path"),
        ({"layers": 20}, "layers", "must be 3, the number of blocks; got 20"),
        ({"channels": 36}, "channels", "must be below the 8 of the first block; got 36"),
    ],
)
def test_what_there_is_none_of(settings: dict[str, Any], key: str, said: str) -> None:
    ((found, reason),) = TINY.check_network(SHAPE, settings)
    assert found == key and said in reason
    with pytest.raises(RecipeError, match=f"{key}: .*{said}"):
        TINY.network(GOOD, SHAPE, **settings)


def test_a_recipes_train_section() -> None:
    train = {"channels": 36, "layers": 20, "stem": "cifar", "auxiliary": True, "pool_norm": "none", "drop_path": 0.2}
    found = dict(ShuffleNetBlocks().check_network(Shape(10), train))
    assert set(found) == {"auxiliary", "drop_path"}
    with pytest.raises(TypeError, match="no settings width"):
        TINY.network(GOOD, SHAPE, width=3)


def test_by_name() -> None:
    network = diffnas.build_network("dsnas", channels=16, layers=20, stem="imagenet", side=32, classes=3)
    assert network.eval()(torch.randn(2, 3, 32, 32)).shape == (2, 3)
    with pytest.raises(RecipeError, match="stem: imagenet and 4 stages .* a multiple of 32, not 48"):
        diffnas.build_network("dsnas", channels=16, stem="imagenet", side=48)


@pytest.mark.parametrize(
    ("genotype", "said"),
    [
        (chain(*OPS), "cell blocks has 4 blocks; the space has 3"),
        (chain(*OPS[:3], first=2), "first must be 1: the chain has one input; got 2"),
        (chain(*OPS[:3], concat=2), r"concat \[2\] must name the last block alone"),
        (chain("shuffle_3x3", "skip_connect", "shuffle_3x3"), "op 'skip_connect' is unknown; known: shuffle_3x3"),
        (Genotype("shufflenet-blocks", {"normal": Nodes(GOOD.cells["blocks"].inputs, (3,), 1)}), "its cells: normal"),
    ],
)
def test_illegal_genotypes(genotype: Genotype, said: str) -> None:
    with pytest.raises(GenotypeError, match=said):
        TINY.network(genotype, SHAPE)


@pytest.mark.parametrize("second", [(), (("shuffle_3x3", 0),), (("shuffle_3x3", 1), ("shuffle_5x5", 1))])
def test_a_block_reads_the_one_before_it_once(second: tuple[tuple[str, int], ...]) -> None:
    nodes = Nodes(((("shuffle_3x3", 0),), second, (("shuffle_3x3", 2),)), (3,), 1)
    with pytest.raises(GenotypeError, match="node 2 must read 1 once and nothing else"):
        TINY.network(Genotype("shufflenet-blocks", {"blocks": nodes}), SHAPE)
