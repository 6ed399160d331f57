"""What every method must keep on every space, at the smallest size."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from diffnas import CellSpace, engine
from diffnas.core.batch import Batch
from diffnas.core.mixture import Mixture
from diffnas.core.seeds import generator
from diffnas.core.space import Form, Shape, Size, Space, TextShape
from diffnas.engine import Search
from diffnas.engine.method import Method
from diffnas.engine.stage import Clock, Stage, Transition
from diffnas.registry import METHODS, SPACES, choice_class
from diffnas.tasks.classification import Classification
from diffnas.tasks.language import LanguageTask

EPOCHS = 12


@dataclass(frozen=True)
class Own(CellSpace):
    """A space as users derive it."""

    name: ClassVar[str] = "own-cells"
    ops: tuple[str, ...] = ("none", "skip_connect", "conv")

    def op(self, name: str, channels: int, stride: int, affine: bool) -> nn.Module:
        if name == "skip_connect" and stride == 1:
            return nn.Identity()
        layers = nn.Conv2d(channels, channels, 3, stride, 1, bias=False), nn.BatchNorm2d(channels, affine=affine)
        return nn.Sequential(nn.ReLU(), *layers)


SPACE_NAMES = [*SPACES, Own.name]
SMALL: dict[str, dict[str, Any]] = {
    "darts-cnn": {"channels": 2, "layers": 2, "nodes": 1},
    "darts-rnn": {"units": 6, "steps": 2, "dropout": 0.0, "dropouth": 0.0, "dropoutx": 0.0, "dropouti": 0.0},
    "nasbench201": {"channels": 4, "layers": 1},
    "own-cells": {"channels": 2, "layers": 2, "nodes": 1},
    "shufflenet-blocks": {"channels": 4, "widths": (8,), "depths": (2,), "last": 8, "stem": "cifar"},
}
SHAPES: dict[Any] = {"images": Shape(4, 1, 8), "text": TextShape(9)}
VARIANTS: dict[str, list[dict[str, Any]]] = {"darts": [{}, {"unrolled": True}, {"unrolled": True, "exact": True}]}
ONE_FORM = {"shufflenet-blocks", "own-cells"}  # both names build the same module
NO_NONE = ("skip_connect", "sep_conv_3x3", "max_pool_3x3")
NEEDS: dict[str, dict[str, dict[str, Any]]] = {
    "pdarts": {"darts-cnn": {"skip_dropout": True}},
    "pcdarts": {"darts-cnn": {"partial": 2}, "nasbench201": {"partial": 2}},
    "fairdarts": {
        "darts-cnn": {"ops": NO_NONE},
        "darts-rnn": {"ops": ("tanh", "identity")},
        "nasbench201": {"ops": ("skip_connect", "nor_conv_3x3")},
        "own-cells": {"ops": ("skip_connect", "conv")},
    },
    "lambda-darts": {"darts-cnn": {"layers": 4}, "own-cells": {"layers": 4}},
    "darts-minus": {
        "darts-cnn": {"ops": (*NO_NONE, "auxiliary_skip"), "excluded": ("auxiliary_skip",)},
        "nasbench201": {"ops": ("none", "skip_connect", "nor_conv_1x1", "auxiliary_skip")},
    },
}
"""Per method, what a space must be set to."""


def made(method: str, variant: int) -> Method:
    """The method with the settings of that variant."""
    found: Method = choice_class("method", method)(**VARIANTS.get(method, [{}])[variant])
    return found


def space_for(method: str, name: str) -> Space:
    """The small space, set as the method needs it."""
    cls = Own if name == Own.name else choice_class("space", name)
    found: Space = cls(**SMALL[name] | NEEDS.get(method, {}).get(name, {}))
    return found


PAIRS = [
    (method, variant, space, form)
    for method in METHODS
    for variant in range(len(VARIANTS.get(method, [{}])))
    for space in SPACE_NAMES
    for form in ("plain", "fast")
    if (form == "plain" or not made(method, variant).needs_double_backward)
    and (form == "plain" or space not in ONE_FORM)
    and not made(method, variant).check_space(space_for(method, space))
]
Pair = tuple[str, int, str, Form]


@dataclass(frozen=True)
class Feed:
    """The same batches every epoch."""

    first: int
    modality: str
    steps: int = 2

    def epoch(self, epoch: int) -> list[Batch]:
        return [batch(self.first + step, self.modality) for step in range(self.steps)]


def build(pair: Pair, seed: int = 0) -> Search:
    method_name, variant, space_name, form = pair
    method = made(method_name, variant)
    space = space_for(method_name, space_name)
    stage = stage_of(method, space)
    torch.manual_seed(seed)
    supernet = space.supernet(SHAPES[space.modality], stage.size, form)
    arch = method.arch(space, generator(seed, "arch"))
    search = Search(
        method=method,
        space=space,
        supernet=supernet,
        arch=arch,
        weights_optimizer=torch.optim.SGD(supernet.parameters(), 0.05, 0.9, weight_decay=3e-4),
        arch_optimizer=torch.optim.Adam([{"params": list(arch.parameters())}], 3e-2, (0.5, 0.999)),
        task=Classification() if space.modality == "images" else LanguageTask(),
        seed=seed,
        clip=5.0,
        clock=Clock(epochs=stage.epochs, epoch=stage.warmup, stage_epoch=stage.warmup, total=stage.warmup),
        feeds={name: Feed(first, space.modality) for name, first in (("train", 100), ("valid", 200), ("score", 300))},
    )
    buffers = dict(supernet.named_buffers(recurse=False))
    for name, value in method.supernet_buffers(search.clock).items():
        buffers[name].fill_(value)
    return search


def stage_of(method: Method, space: Space) -> Stage:
    """The stage that the contract walks: the first."""
    return method.stages(EPOCHS, space.size)[0]


def batch(number: int, modality: str = "images") -> Batch:
    """Images whose class is their brightest quarter, or words that mostly follow their order: there is something to learn."""
    draw = torch.Generator().manual_seed(number)
    if modality == "text":
        noise = torch.randint(0, 5, (7, 3), generator=draw) // 4
        words = (torch.randint(0, 9, (1, 3), generator=draw) + torch.arange(7)[:, None] + noise) % 9
        return Batch(words[:-1], words[1:])
    images, classes = 0.3 * torch.randn(16, 1, 8, 8, generator=draw), torch.randint(0, 4, (16,), generator=draw)
    for image, label in zip(images, classes.tolist(), strict=True):
        image[0, 4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 1.5
    return Batch(images, classes)


def precise(given: Batch) -> Batch:
    """The same in float64."""
    return replace(given, inputs=given.inputs.double()) if given.inputs.is_floating_point() else given


def walk(search: Search, steps: range) -> list[float]:
    """Steps of every phase of the stage in turn; the losses of the weights."""
    losses = []
    for step in steps:
        for phase in stage_of(search.method, search.space).phases:
            given = {name: batch(2 * step + (name == "valid"), search.space.modality) for name in phase.feeds}
            found = search.method.step(search, given)
            losses += [float(found["train"].value)] if "train" in found else []
    return losses


def idle(name: str, search: Search, mixture: Mixture) -> bool:
    """Whether the weight called `name` belongs to an op that `mixture` leaves out wherever its kind of cell stands."""
    found = re.search(r"edges\.(\d+)\.ops\.(\w+)\.", name)
    if found is None or len(search.space.cells) > 1:
        return False  # the name of a cell does not say its kind
    (kind, cell), (edge, op) = next(iter(search.space.cells.items())), found.groups()
    live = mixture[kind].live
    return live is not None and not live[int(edge)][cell.ops.index(op)]


def single_level(pair: Pair) -> bool:
    """Whether the method moves the architecture on the batches of the weights."""
    method = made(pair[0], pair[1])
    feeds = {feed for phase in stage_of(method, space_for(pair[0], pair[2])).phases for feed in phase.feeds}
    return "valid" not in feeds


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: "-".join(map(str, pair)))
class TestContract:
    def test_it_runs_and_learns(self, pair: Pair) -> None:
        learns = pair[2:] == ("darts-cnn", "fast")  # once per method is enough for that
        losses = walk(build(pair), range(30 if learns else 3))
        assert all(loss == loss and loss < 1e3 for loss in losses)
        assert not learns or sum(losses[-8:]) < 0.99 * sum(losses[:8])

    def test_the_architecture_moves_only_when_it_should(self, pair: Pair) -> None:
        search = build(pair)
        before = [a.detach().clone() for a in search.arch.parameters()]
        moved = lambda: any(  # noqa: E731
            not torch.equal(a, b) for a, b in zip(before, search.arch.parameters(), strict=True)
        )
        if not single_level(pair):
            search.method.step(search, {"train": batch(0, search.space.modality)})
            assert not moved()
        walk(search, range(2))
        assert moved() == any(p.requires_grad for p in search.arch.parameters())

    def test_idle_weights_have_zero_gradients_not_missing_ones(self, pair: Pair) -> None:
        search = build(pair)
        given = batch(0, search.space.modality)
        mixture = search.relax("weights", given)
        grads = engine.differentiate(search, mixture, given, {"weights"})
        assert len(grads.weights) == len(search.weights)
        names = [name for name, weight in search.supernet.named_parameters() if weight.requires_grad]
        for name, grad, weight in zip(names, grads.weights, search.weights, strict=True):
            assert grad.shape == weight.shape and bool(grad.isfinite().all())
            assert not idle(name, search, mixture) or not bool(grad.any()), name

    def test_evaluation_never_shifts_the_search(self, pair: Pair) -> None:
        search = build(pair)
        before = search.shared.get_state()
        for _ in range(2):
            search.relax("eval")
            search.strength()
            search.derive()
        assert torch.equal(before, search.shared.get_state())

    def test_turns_are_taken_between_epochs(self, pair: Pair) -> None:
        search = build(pair)
        for _ in range(3):
            turn = search.method.on_epoch_boundary(search, search.clock.stage_epoch)
            assert isinstance(turn, Transition) and not turn.stop
            walk(search, range(1))
            clock = search.clock
            search.advance(stage_epoch=clock.stage_epoch + 1, epoch=clock.epoch + 1, total=clock.total + 1)
            assert search.derive() is not None

    def test_mixtures_have_the_shape_the_space_says(self, pair: Pair) -> None:
        search = build(pair)
        for use in ("arch", "weights", "eval"):
            mixture = search.relax(use)
            for kind, cell in search.space.cells.items():
                assert mixture[kind].op.shape == (len(cell.edges), len(cell.ops))

    def test_a_resumed_search_equals_an_unbroken_one(self, pair: Pair) -> None:
        whole, first, second = build(pair), build(pair), build(pair, seed=3)
        walk(whole, range(3))
        walk(first, range(2))
        second.load_state_dict(first.state_dict())
        walk(second, range(2, 3))
        for part in ("weights", "arch"):
            ours, theirs = second.state_dict()[part], whole.state_dict()[part]
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    def test_the_genotype_is_legal(self, pair: Pair) -> None:
        search = build(pair)
        walk(search, range(1))
        genotype = search.derive()
        assert genotype is not None and genotype.space == search.space.name
        if search.space.modality == "text":
            model = search.space.network(genotype, TextShape(9), units=4)
            assert model((batch(0, "text").inputs, None)).log_probs.shape == (6, 3, 9)
            return
        network = search.space.network(genotype, Shape(4, 1, 8), channels=2, layers=2)
        network.eval()
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
        for step in range(2):
            inputs = {
                name: precise(batch(2 * step + k, search.space.modality)) for k, name in enumerate(("train", "valid"))
            }
            for phase in stage_of(search.method, search.space).phases:
                search.method.step(search, {k: b for k, b in inputs.items() if k in phase.feeds})
    plain, fast = (search.supernet.state_dict() | search.arch.state_dict() for search in found)
    assert list(plain) == list(fast)
    for name, tensor in plain.items():
        torch.testing.assert_close(fast[name], tensor, rtol=1e-7, atol=1e-7)
