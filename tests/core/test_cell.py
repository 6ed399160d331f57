"""Cells: their edges, masks and limits."""

from __future__ import annotations

import pytest

from diffnas.core.cell import Cell


def test_the_cell_of_darts() -> None:
    cell = Cell.dense([f"op{k}" for k in range(8)], inputs=2, nodes=4, in_degree=2, excluded=("op0",))
    assert len(cell.edges) == 14 and cell.edges[:6] == ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3), (0, 4))
    assert cell.nodes == (2, 3, 4, 5) == cell.concat
    assert [cell.edges_into(node) for node in cell.nodes] == [(0, 1), (2, 3, 4), (5, 6, 7, 8), (9, 10, 11, 12, 13)]
    assert all(all(row) and len(row) == 8 for row in cell.allowed)


@pytest.mark.parametrize(("inputs", "nodes", "edges"), [(1, 3, 6), (1, 8, 36), (2, 1, 2), (3, 2, 7)])
def test_edges_of_other_cells(inputs: int, nodes: int, edges: int) -> None:
    assert len(Cell.dense(("a",), inputs, nodes).edges) == edges


def test_ops_per_edge_and_narrowing() -> None:
    cell = Cell.dense(("a", "b", "c"), 1, 2, allowed=[["a"], ["a", "b"], ["c", "b"]])
    assert cell.allowed == ((True, False, False), (True, True, False), (False, True, True))
    kept = cell.keep([[True, True, True], [False, True, True], [True, True, False]])
    assert kept.allowed == ((True, False, False), (False, True, False), (False, True, False))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"allowed": [["a"]]}, "1 lists for 3 edges"),
        ({"allowed": [["a"], ["z"], ["a"]]}, "z not among the ops a, b"),
        ({"concat": [0, 1]}, "must name nodes among 1 to 2"),
        ({"concat": []}, "must name nodes"),
        ({"concat": [3]}, "must name nodes"),
    ],
)
def test_parts_that_do_not_fit(settings: dict[str, list], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Cell.dense(("a", "b"), 1, 2, **settings)
