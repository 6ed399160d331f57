"""The space's settings: what they refuse, and that reading them needs no torch."""

from __future__ import annotations

from typing import Any

import pytest

from diffnas.core.space import Shape, Size
from diffnas.spaces.darts_cnn.layout import OPS, reductions
from diffnas.spaces.darts_cnn.space import DartsCNN

PER_EDGE = {"normal": [["skip_connect", "sep_conv_3x3"]] * 14, "reduce": [["skip_connect"]] * 14}


def test_the_default_space_is_that_of_the_paper() -> None:
    cells = DartsCNN().cells
    assert set(cells) == {"normal", "reduce"} and DartsCNN().size == Size(16, 8)
    for cell in cells.values():
        assert cell.ops == OPS and len(cell.edges) == 14 and cell.in_degree == 2 and cell.excluded == {"none"}
    assert DartsCNN().check_size(Shape(10)) == []


@pytest.mark.parametrize(
    ("settings", "key", "said"),
    [
        ({"channels": 15}, "channels", "must be even"),
        ({"ops": ("none", "sepconv")}, "ops", "'sepconv' is unknown"),
        ({"ops": ("none",)}, "ops", "every op is excluded"),
        ({"ops": ("skip_connect", "skip_connect")}, "ops", "listed twice"),
        ({"excluded": ("nothing",)}, "excluded", "'nothing' is unknown"),
        ({"concat": (2, 2)}, "concat", "names a node twice"),
        ({"concat": (1, 2)}, "concat", "must name nodes among 2 to 5"),
        ({"edge_ops": {"normal": []}}, "edge_ops", "must have the keys normal and reduce"),
        ({"edge_ops": {**PER_EDGE, "normal": [["none"]]}}, "edge_ops", "1 lists for 14 edges"),
        ({"inputs": 3, "layers": 6}, "inputs", "at least 9 layers"),
        ({"stem": "imagenet", "stem_multiplier": 1, "channels": 5}, "stem_multiplier", "must be even"),
        ({"stem": "imagenet", "auxiliary": "trained"}, "auxiliary", "needs 7x7 features; here they are 1x1"),
    ],
)
def test_refusals(settings: dict[str, Any], key: str, said: str) -> None:
    found = DartsCNN(**settings).check_size(Shape(10))
    assert any(name == key and said in reason for name, reason in found), found


def test_ops_per_edge() -> None:
    space = DartsCNN(edge_ops=PER_EDGE)
    assert space.check_size(Shape(10)) == []
    assert all(sum(row) == 2 for row in space.cells["normal"].allowed)


def test_sides_must_halve() -> None:
    assert DartsCNN().check_size(Shape(10, 3, 30))[0][0] == "layers"
    assert DartsCNN(layers=1).check_size(Shape(10, 3, 30)) == []
    assert DartsCNN(stem="imagenet").check_size(Shape(10, 3, 48))[0][0] == "layers"
    assert DartsCNN(stem="imagenet", auxiliary="trained").check_size(Shape(10, 3, 224)) == []
    assert len(reductions(1)) == 1
