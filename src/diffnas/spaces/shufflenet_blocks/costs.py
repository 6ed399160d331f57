"""The cost of every op in its place, by the rule of `core.count`."""

from __future__ import annotations

from functools import cache

import torch

from diffnas.core.count import Resources, Unit, count, resources
from diffnas.core.space import Shape
from diffnas.spaces.shufflenet_blocks.layout import Layout, Place, places
from diffnas.spaces.shufflenet_blocks.network import NORM_EPS
from diffnas.spaces.shufflenet_blocks.ops import OPS
from diffnas.spaces.shufflenet_blocks.trunk import head, stem


def block_costs(layout: Layout, shape: Shape, unit: Unit) -> list[list[float]]:
    """[E, O]: the cost of every op of every block, those that are not allowed included."""
    return [[_cost(op, place, unit) for op in OPS] for place in places(layout, shape.side)]


def block_resources(layout: Layout, shape: Shape) -> list[list[Resources]]:
    """[E, O]: the cost of every op of every block by the rule of SNAS's code."""
    return [[_resources(op, place) for op in OPS] for place in places(layout, shape.side)]


def fixed_cost(layout: Layout, shape: Shape, unit: Unit) -> float:
    """The cost of stem and head."""
    end = places(layout, shape.side)[-1]
    side = end.side // end.stride
    with torch.device("meta"):
        counts = (
            count(stem(layout, shape, NORM_EPS), (shape.channels, shape.side, shape.side)),
            count(head(layout, shape, NORM_EPS), (end.outputs, side, side)),
        )
    return float(sum(getattr(found, unit) for found in counts))


@cache
def _cost(op: str, place: Place, unit: Unit) -> float:
    with torch.device("meta"):
        block = OPS[op](place, NORM_EPS)
    return float(getattr(count(block, (place.inputs, place.side, place.side)), unit))


@cache
def _resources(op: str, place: Place) -> Resources:
    with torch.device("meta"):
        return resources(OPS[op](place, NORM_EPS), (place.inputs, place.side, place.side))
