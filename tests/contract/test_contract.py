"""What every method must keep on every space, at the smallest size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from torch import nn

from diffnas import CellSpace
from diffnas.core.space import Form, Space
from diffnas.engine.method import Method
from diffnas.registry import METHODS, SPACES, choice_class
from diffnas.testing import METHOD_CHECKS, SPACE_CHECKS, Case
from diffnas.testing.method_checks import both_supernets_agree


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


def case_of(pair: Pair) -> Case:
    """The method and the space of `pair`; what networks of that text space are given in sizes."""
    return Case(made(pair[0], pair[1]), space_for(pair[0], pair[2]), pair[3])


def label(value: Any) -> str:
    return value.__name__ if callable(value) else "-".join(map(str, value))


@pytest.mark.parametrize("check", METHOD_CHECKS, ids=label)
@pytest.mark.parametrize("pair", PAIRS, ids=label)
def test_every_method_on_every_space(pair: Pair, check: Any) -> None:
    check(case_of(pair))


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair[2:] == ("darts-cnn", "fast")], ids=label)
def test_every_method_learns(pair: Pair) -> None:
    case = case_of(pair)
    losses = case.walk(case.search(), range(30))
    assert sum(losses[-8:]) < 0.99 * sum(losses[:8])


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair[3] == "fast"], ids=label)
def test_plain_and_fast_go_the_same_way(pair: Pair) -> None:
    both_supernets_agree(case_of(pair))


@pytest.mark.parametrize("check", SPACE_CHECKS, ids=label)
@pytest.mark.parametrize("name", SPACE_NAMES)
def test_every_space(name: str, check: Any) -> None:
    cls = Own if name == Own.name else choice_class("space", name)
    check(Case(made("darts", 0), cls(**SMALL[name])))
