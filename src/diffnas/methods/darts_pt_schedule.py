"""When DARTS-PT decides, and how often."""

from __future__ import annotations

from dataclasses import replace

from diffnas.core.cell import Cell
from diffnas.engine.method import Clock


def decisions(cell: Cell) -> int:
    """How many there are: its edges, and its nodes with more of them than they keep."""
    edges = [e for e in range(len(cell.edges)) if cell.eligible(e)]
    degrees = [len(set(edges).intersection(cell.edges_into(node))) for node in cell.nodes]
    return len(edges) + sum(cell.in_degree is not None and degree > cell.in_degree for degree in degrees)


def due(epoch: int, interval: int, tuning: int) -> bool:
    """Whether something is decided before this epoch of the tuning stage."""
    return epoch < tuning and (epoch % interval == 0 or epoch == tuning - 1)


def ended(clock: Clock) -> Clock:
    """`clock`, of the tuning stage, at the end of the stage before: what has grown or fallen over its epochs is done."""
    epochs = max(1, clock.total - clock.stage_epoch)
    return replace(clock, stage=clock.stage - 1, stage_epoch=epochs - 1, epoch=epochs, epochs=epochs)
