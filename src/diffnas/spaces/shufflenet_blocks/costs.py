"""What every op costs where it stands, by the rule of `core.count`."""

from __future__ import annotations

from functools import cache

import torch

from diffnas.core.count import Resources, Unit, count, resources
from diffnas.core.space import Shape
from diffnas.spaces.shufflenet_blocks.network import NORM_EPS
from diffnas.spaces.shufflenet_blocks.ops import OPS
from diffnas.spaces.shufflenet_blocks.space import ShuffleNetBlocks
from diffnas.spaces.shufflenet_blocks.trunk import Place, head, places, stem


def block_costs(space: ShuffleNetBlocks, shape: Shape, unit: Unit) -> list[list[float]]:
    """[E, O]: the cost of every op of every block, those that are not allowed included."""
    return [[_cost(op, place, unit) for op in OPS] for place in places(space, shape.side)]


def block_resources(space: ShuffleNetBlocks, shape: Shape) -> list[list[Resources]]:
    """[E, O]: the cost of every op of every block by the rule of SNAS's code."""
    return [[_resources(op, place) for op in OPS] for place in places(space, shape.side)]


def fixed_cost(space: ShuffleNetBlocks, shape: Shape, unit: Unit) -> float:
    """The cost of stem and head."""
    end = places(space, shape.side)[-1]
    side = end.side // end.stride
    with torch.device("meta"):
        counts = (
            count(stem(space, shape, NORM_EPS), (shape.channels, shape.side, shape.side)),
            count(head(space, shape, NORM_EPS), (end.outputs, side, side)),
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
