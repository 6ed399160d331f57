"""Charts and heat maps: axes with round numbers, and every value somewhere in the picture."""

from __future__ import annotations

import math
import re

import pytest

from diffnas.reports.charts import Chart, Line, ticks
from diffnas.reports.heatmap import edge_names, entropy, strengths_of


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1, 600), (-3e-7, 5e-7), (1e99, 2e99), (99.99, 100.0)])
def test_ticks_are_few_and_round(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 7
    assert all(low - 1e-9 * abs(low) <= tick <= high + 1e-9 * abs(high) for tick in found)
    step = found[1] - found[0]
    assert round(step / 10 ** math.floor(math.log10(step * 1.000001)), 3) in {1, 2, 5}


@pytest.mark.parametrize(
    "points", [[(1, 0.0)], [(1, 5.0), (2, 5.0)], [(1, -1e99), (2, 1e99)], [(1, 1e-300), (9, 2e-300)]]
)
def test_every_point_is_in_the_picture(points: list[tuple[int, float]]) -> None:
    svg = str(Chart("Loss", "", (Line("train", points, 1),), log=True).svg)
    numbers = [float(x) for x in re.findall(r'(?:cx|cy|x|y)="([-\d.]+)"', svg)]
    for pair in re.findall(r'points="([^"]+)"', svg):
        numbers += [float(x) for x in re.split("[ ,]", pair)]
    assert numbers and all(0 <= x <= 360 for x in numbers)


def test_epochs_are_whole() -> None:
    svg = str(Chart("Loss", "", (Line("train", [(1, 1.0), (2, 0.5), (3, 0.2)], 1),)).svg)
    assert re.findall(r'text-anchor="middle">([^<]+)<', svg) == ["1", "2", "3", "epoch"]


def test_nothing_to_draw() -> None:
    assert Chart("Loss", "", ()).svg == ""


def test_edges_are_named_by_source_and_target() -> None:
    assert edge_names(5, 2) == ["0 → 2", "1 → 2", "0 → 3", "1 → 3", "2 → 3"]
    assert edge_names(6, 1)[-1] == "2 → 3"
    assert edge_names(4, 2) == ["edge 1", "edge 2", "edge 3", "edge 4"]
    assert edge_names(2, 0) == ["block 1", "block 2"]


def test_strengths() -> None:
    rows = [{"epoch": e, "strength": {"normal": [[0.5, 0.5], [1.0, 0.0]]}} for e in range(3)]
    recipe = {"space.ops": ["none", "skip_connect"], "space.excluded": ["none"]}
    (found,) = strengths_of(
        [*rows, {"epoch": 3, "strength": {"normal": [[1.0]]}}, {"epoch": 4}, rows[0] | {"epoch": 5}], recipe
    )
    assert found.epochs == (1, 2, 3, 6)
    assert [op for _, op, _ in found.strongest()] == ["skip_connect"] * 2  # `none` is never derived
    assert entropy(found)[0] == (1, pytest.approx(0.5))
    assert len(list(found.pictures())) == 2
