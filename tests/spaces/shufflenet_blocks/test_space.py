"""The space of ShuffleNetV2 blocks: its cell, what it refuses, what ops cost, the published networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import diffnas
from diffnas import draw
from diffnas.core.count import Unit, count
from diffnas.core.published_genotypes import BLOCKS, published
from diffnas.core.settings import settings_model
from diffnas.core.space import Shape, Size
from diffnas.engine import random_genotype
from diffnas.registry import choice_class
from diffnas.spaces.shufflenet_blocks.layout import OPS
from diffnas.spaces.shufflenet_blocks.space import ShuffleNetBlocks

IMAGENET = Shape(1000, 3, 224)
TINY = ShuffleNetBlocks(channels=4, widths=(8, 12), depths=(1, 2), last=16)
ALL = list(OPS)
UNITS: tuple[Unit, Unit] = ("macs", "params")

# the table of multiply-adds in the code of DSNAS, per stage: of its first block and of the others
TABLE = [
    ([13396992, 15805440, 19418112, 13146112], [7325696, 8931328, 11339776, 12343296], 3),
    ([26304768, 28111104, 30820608, 20296192], [10599680, 11603200, 13108480, 16746240], 3),
    ([30670080, 31673600, 33178880, 21199360], [10317440, 10819200, 11571840, 15899520], 7),
    ([30387840, 30889600, 31642240, 20634880], [10176320, 10427200, 10803520, 15476160], 3),
]


def test_the_default_space_is_that_of_the_papers() -> None:
    space = choice_class("space", "shufflenet-blocks")()
    (cell,) = space.cells.values()
    assert list(space.cells) == ["blocks"] and space.size == Size(16, 20)
    assert cell.ops == OPS and cell.inputs == 1 and cell.in_degree is None and cell.concat == (20,)
    assert cell.edges == tuple((e, e + 1) for e in range(20)) and all(map(all, cell.allowed))
    assert space.check_size(IMAGENET) == []


@pytest.mark.parametrize(
    ("settings", "key", "said"),
    [
        ({"depths": (4, 4)}, "depths", "one number per stage, 4; got 2"),
        ({"depths": (4, 0, 8, 4)}, "depths", "at least 1 each and 64 together"),
        ({"depths": (60, 1, 1, 4)}, "depths", "at least 1 each and 64 together"),
        ({"widths": (64, 161, 320, 640)}, "widths", "must be even"),
        ({"widths": (64, 64, 320, 640)}, "widths", "must grow from stage to stage"),
        ({"channels": 64}, "channels", "must be below the 64 of the first block; got 64"),
        ({"block_ops": [ALL] * 3}, "block_ops", "3 lists for 20 blocks"),
        ({"block_ops": [ALL] * 19 + [["none"]]}, "block_ops", "'none' is unknown; known: shuffle_3x3"),
        ({"block_ops": [ALL] * 19 + [[]]}, "block_ops", "block 19 has no op"),
    ],
)
def test_refusals(settings: dict[str, Any], key: str, said: str) -> None:
    found = ShuffleNetBlocks(**settings).check_size(IMAGENET)
    assert len(found) == 1 and found[0][0] == key and said in found[0][1], found


@pytest.mark.parametrize(
    ("size", "key", "said"),
    [
        (Size(4, 3, partial=4), "partial", "must be 1, not 4"),
        (Size(4, 8), "layers", "must be 3, the number of blocks; got 8"),
        (Size(8, 3), "channels", "must be below the 8"),
    ],
)
def test_sizes_that_cannot_be_built(size: Size, key: str, said: str) -> None:
    ((found, reason),) = TINY.check_size(Shape(10), size)
    assert found == key and said in reason


def test_sides_must_halve() -> None:
    ((key, reason),) = TINY.check_size(Shape(10, 3, 12))
    assert key == "stem" and reason == "imagenet and 2 stages need images whose side is a multiple of 8, not 12"
    assert replace(TINY, stem="cifar").check_size(Shape(10, 3, 12)) == []


def test_settings_are_read_as_recipes_have_them() -> None:
    model = settings_model(ShuffleNetBlocks)
    found = model.model_validate({"widths": [8, 16], "depths": [1, 1], "block_ops": [["shuffle_3x3"], list(OPS)]})
    space = ShuffleNetBlocks(**dict(found))
    assert space.widths == (8, 16) and space.block_ops == [["shuffle_3x3"], list(OPS)]
    assert space.check_size(Shape(10)) == [("channels", "must be below the 8 of the first block; got 16")]


def test_narrow_keeps_what_is_allowed_and_kept() -> None:
    keep = torch.ones(3, 4, dtype=torch.bool)
    keep[0, 1:] = False
    narrow = TINY.narrow({"blocks": keep})
    assert narrow.block_ops == [["shuffle_3x3"], list(OPS), list(OPS)]
    again = narrow.narrow({"blocks": ~keep | torch.eye(3, 4, dtype=torch.bool)})
    assert again.block_ops == [["shuffle_3x3"], ["shuffle_5x5"], ["shuffle_7x7"]]


def test_the_costs_of_a_block_are_those_in_the_code_of_dsnas() -> None:
    rows = [row for first, rest, others in TABLE for row in [first, *[rest] * others]]
    assert ShuffleNetBlocks().costs(IMAGENET, "macs") == {"blocks": rows}
    stem, head = 3 * 9 * 16 * 112**2, 640 * 1024 * 7**2 + 1024 * 1000
    assert ShuffleNetBlocks().fixed_cost(IMAGENET, "macs") == stem + head


@pytest.mark.parametrize(
    ("space", "size", "shape"),
    [
        (TINY, None, Shape(10, 3, 16)),
        (TINY, Size(2, 3), Shape(7, 1, 8)),
        (replace(TINY, stem="cifar", block_ops=[ALL[1:]] * 3), Size(6, 3), Shape(7, 1, 8)),
        (ShuffleNetBlocks(), None, Shape(1000, 3, 64)),
    ],
)
def test_the_costs_of_a_random_network_add_up(space: ShuffleNetBlocks, size: Size | None, shape: Shape) -> None:
    for seed in range(3):
        genotype = random_genotype(space.name, space.cells, torch.Generator().manual_seed(seed))
        with torch.device("meta"):
            network = space.network(genotype, shape, channels=None if size is None else size.channels)
        found = count(network, (shape.channels, shape.side, shape.side))
        for unit in UNITS:
            rows = space.costs(shape, unit, size)["blocks"]
            chosen = sum(row[OPS.index(op)] for row, op in zip(rows, genotype.cells["blocks"].ops, strict=True))
            assert space.fixed_cost(shape, unit, size) + chosen == getattr(found, unit)


SIZES = {  # parameters and multiply-adds
    "spos": (3_345_088, 318_729_024),
    "dsnas": (3_548_176, 323_326_400),
    "mmrazor-dsnas": (3_330_112, 288_886_848),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_published_sizes(name: str) -> None:
    space, genotype = ShuffleNetBlocks(), published(name)
    with torch.device("meta"):
        network = space.network(genotype, IMAGENET, channels=16, layers=20, stem="imagenet")
    found = count(network, (3, 224, 224))
    assert (found.params, found.macs) == SIZES[name]
    assert genotype.cells["blocks"].concat == (20,) and diffnas.load_genotype(name) == genotype


def test_what_the_papers_say() -> None:
    """SPOS: 319 M; DSNAS, which counts the 1023 additions per class of the classifier as well: 324 M."""
    assert round(SIZES["spos"][1] / 1e6) == 319
    assert round((SIZES["dsnas"][1] + 1023 * 1000) / 1e6) == 324


def test_what_mmrazor_says_of_its_network() -> None:
    """3.33 M parameters; 0.299 G, of which two per normalised number and one per ReLU; its blocks are wired otherwise."""
    params, macs = SIZES["mmrazor-dsnas"]
    network = ShuffleNetBlocks().network(published("mmrazor-dsnas"), IMAGENET).eval()
    numbers = {torch.nn.BatchNorm2d: 0, torch.nn.ReLU: 0}

    def add(layer: torch.nn.Module, _: Any, output: torch.Tensor) -> None:
        numbers[type(layer)] += output.numel()

    for layer in network.modules():
        if type(layer) in numbers:
            layer.register_forward_hook(add)
    with torch.no_grad():
        network(torch.zeros(1, 3, 224, 224))
    assert round(params / 1e6, 2) == 3.33
    assert (macs + 2 * numbers[torch.nn.BatchNorm2d] + numbers[torch.nn.ReLU]) / 1e9 == pytest.approx(0.299, rel=5e-3)


def test_a_chain_is_drawn() -> None:
    svg = draw.draw_svg(published("dsnas"))
    assert svg.count("shuffle_xception") == 9 and "blocks" in svg
