"""What every method must keep on every space, at the smallest size."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from diffnas.core.batch import Batch
from diffnas.core.seeds import generator
from diffnas.core.space import Form, Shape, Size
from diffnas.engine import Search
from diffnas.engine.method import Method
from diffnas.keys import choice_class
from diffnas.methods import METHODS
from diffnas.spaces import SPACES
from diffnas.tasks.images import ImageTask

SMALL: dict[str, dict[str, Any]] = {
    "darts-cnn": {"channels": 2, "layers": 2, "nodes": 1},
    "nasbench201": {"channels": 4, "layers": 1},
    "shufflenet-blocks": {"channels": 2, "widths": (8, 16), "depths": (1, 1), "last": 16},
}
VARIANTS: dict[str, list[dict[str, Any]]] = {"darts": [{}, {"unrolled": True}, {"unrolled": True, "exact": True}]}


def made(method: str, variant: int) -> Method:
    """The method with the settings of that variant."""
    return choice_class("method", method)(**VARIANTS.get(method, [{}])[variant])


PAIRS = [
    (method, variant, space, form)
    for method in METHODS
    for variant in range(len(VARIANTS.get(method, [{}])))
    for space in SPACES
    for form in ("plain", "fast")
    if form == "plain" or not made(method, variant).twice
]
Pair = tuple[str, int, str, Form]


def build(pair: Pair, seed: int = 0) -> Search:
    method_name, variant, space_name, form = pair
    method = made(method_name, variant)
    space = choice_class("space", space_name)(**SMALL[space_name])
    stage = method.stages(2, space.size)[0]
    torch.manual_seed(seed)
    supernet = space.supernet(Shape(4, 1, 8), stage.size, form)
    arch = method.arch(space, generator(seed, "arch"))
    return Search(
        method=method,
        space=space,
        supernet=supernet,
        arch=arch,
        weights_optimizer=torch.optim.SGD(supernet.parameters(), 0.05, 0.9, weight_decay=3e-4),
        arch_optimizer=torch.optim.Adam(arch.parameters(), 3e-2, (0.5, 0.999)),
        task=ImageTask(),
        seed=seed,
        clip=5.0,
    )


def batch(number: int) -> Batch:
    """Images whose class is their brightest quarter, so that there is something to learn."""
    draw = torch.Generator().manual_seed(number)
    images, classes = 0.3 * torch.randn(16, 1, 8, 8, generator=draw), torch.randint(0, 4, (16,), generator=draw)
    for image, label in zip(images, classes.tolist(), strict=True):
        image[0, 4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 1.5
    return Batch(images, classes)


def walk(search: Search, steps: range) -> list[float]:
    losses = []
    for step in steps:
        found = search.method.step(search, {"train": batch(2 * step), "valid": batch(2 * step + 1)})
        losses.append(float(found["train"].value))
    return losses


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: "-".join(map(str, pair)))
class TestContract:
    def test_it_learns(self, pair: Pair) -> None:
        losses = walk(build(pair), range(30))
        assert all(loss == loss and loss < 1e3 for loss in losses) and sum(losses[-5:]) < 0.8 * sum(losses[:5])

    def test_the_architecture_moves_only_when_it_should(self, pair: Pair) -> None:
        search = build(pair)
        before = [a.detach().clone() for a in search.arch.parameters()]
        search.method.step(search, {"train": batch(0)})
        assert all(torch.equal(a, b) for a, b in zip(before, search.arch.parameters(), strict=True))
        search.method.step(search, {"train": batch(0), "valid": batch(1)})
        assert any(not torch.equal(a, b) for a, b in zip(before, search.arch.parameters(), strict=True))

    def test_mixtures_have_the_shape_the_space_says(self, pair: Pair) -> None:
        search = build(pair)
        for use in ("arch", "weights", "eval"):
            mixture = search.relax(use)
            for kind, cell in search.space.cells.items():
                assert mixture[kind].op.shape == (len(cell.edges), len(cell.ops))

    def test_a_resumed_search_equals_an_unbroken_one(self, pair: Pair) -> None:
        whole, first, second = build(pair), build(pair), build(pair, seed=3)
        walk(whole, range(4))
        walk(first, range(2))
        second.load_state_dict(first.state_dict())
        walk(second, range(2, 4))
        for part in ("weights", "arch"):
            ours, theirs = second.state_dict()[part], whole.state_dict()[part]
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    def test_the_genotype_is_legal(self, pair: Pair) -> None:
        search = build(pair)
        walk(search, range(1))
        genotype = search.derive()
        assert genotype is not None and genotype.space == search.space.name
        network = search.space.network(genotype, Shape(4, 1, 8), channels=2, layers=2)
        assert network(torch.randn(2, 1, 8, 8)).shape == (2, 4)

    def test_hyper_parameters_carry_their_meaning(self, pair: Pair) -> None:
        method = build(pair).method
        assert dataclasses.is_dataclass(method) and method.stages(3, Size(2, 2))
        assert all(len(entry.metadata["about"]) > 10 for entry in dataclasses.fields(method))


@pytest.mark.parametrize(
    "pair", [pair for pair in PAIRS if pair[3] == "fast"], ids=lambda pair: "-".join(map(str, pair))
)
def test_plain_and_fast_go_the_same_way(pair: Pair) -> None:
    found = [build((*pair[:3], form)) for form in ("plain", "fast")]
    for search in found:
        search.supernet.double()
        search.arch.double()
        for step in range(3):
            inputs = {name: batch(2 * step + k) for k, name in enumerate(("train", "valid"))}
            search.method.step(search, {k: Batch(b.inputs.double(), b.targets) for k, b in inputs.items()})
    plain, fast = (search.supernet.state_dict() | search.arch.state_dict() for search in found)
    assert list(plain) == list(fast)
    for name, tensor in plain.items():
        torch.testing.assert_close(fast[name], tensor, rtol=1e-7, atol=1e-7)
