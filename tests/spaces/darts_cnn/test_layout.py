"""How cells are chained."""

from __future__ import annotations

import pytest

from diffnas.spaces.darts_cnn.layout import CellPlan, plan_cells, reductions
from diffnas.spaces.darts_cnn.ops import FactorizedReduce, ReLUConvBN, preprocess


@pytest.mark.parametrize(
    ("layers", "found"), [(8, (2, 5)), (20, (6, 13)), (14, (4, 9)), (1, (0,)), (2, (0, 1)), (3, (1, 2))]
)
def test_reductions(layers: int, found: tuple[int, ...]) -> None:
    assert reductions(layers) == found


def test_the_chain_of_eight() -> None:
    plans, last = plan_cells(8, 16, [(48, 0), (48, 0)], {"normal": 4, "reduce": 4})
    assert [plan.kind[0] for plan in plans] == list("nnrnnrnn")
    assert [plan.channels for plan in plans] == [16, 16, 32, 32, 32, 64, 64, 64] and last == 256
    assert plans[0].inputs == ((48, 0), (48, 0)) and plans[2].inputs == ((64, 0), (64, 0))
    assert plans[3].inputs == ((64, 1), (128, 0))  # the cell before reduced: its elder input is twice as large
    assert plans[4].inputs == ((128, 0), (128, 0))
    assert [plan.stride for plan in plans] == [1, 1, 2, 1, 1, 2, 1, 1]


def test_concats_of_different_width() -> None:
    plans, last = plan_cells(6, 4, [(12, 0), (12, 0)], {"normal": 5, "reduce": 3})
    assert plans[3].inputs == ((20, 1), (24, 0)) and last == 16 * 5


def test_preprocess_halves_what_is_too_large() -> None:
    first, second = preprocess(CellPlan("normal", 8, ((16, 1), (32, 0))), affine=True)
    assert isinstance(first, FactorizedReduce) and isinstance(second, ReLUConvBN)
    with pytest.raises(ValueError, match="across two reductions"):
        preprocess(CellPlan("normal", 8, ((16, 2),)), affine=True)
