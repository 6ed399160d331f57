"""Schedules in closed form."""

from __future__ import annotations

import pytest

from diffnas.core.schedules import cosine, exponential, linear, ramp


def test_the_cosine_of_darts() -> None:
    assert cosine(0, 50, 0.025, 0.001) == 0.025
    assert cosine(49, 50, 0.025, 0.001) == pytest.approx(1.0237e-3, rel=1e-4)  # the published last epoch
    assert cosine(25, 50, 0.025, 0.001) == pytest.approx(0.013)
    assert cosine(600, 600, 0.025) == pytest.approx(0.0)


def test_the_cosine_is_torchs() -> None:
    import torch

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.025)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30, 0.001)
    for epoch in range(30):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(cosine(epoch, 30, 0.025, 0.001))
        optimizer.step()
        schedule.step()


def test_ramp() -> None:
    assert [ramp(epoch, 4, 0.2) for epoch in range(4)] == pytest.approx([0.0, 0.05, 0.1, 0.15])


def test_the_straight_fall_with_a_flatter_end() -> None:
    """As `adjust_lr` of P-DARTS's code: 250 epochs from 0.5."""
    assert linear(0, 250, 0.5) == 0.5
    assert linear(100, 250, 0.5) == pytest.approx(0.5 * 145 / 245)
    assert linear(244, 250, 0.5) == pytest.approx(0.5 / 245)
    assert [linear(epoch, 250, 0.5) for epoch in range(245, 250)] == pytest.approx(
        [0.5 * left / 1225 for left in (5, 4, 3, 2, 1)]
    )
    assert all(linear(epoch, 3, 0.5) > 0 for epoch in range(3))


def test_a_fall_by_a_factor() -> None:
    assert [exponential(epoch, 0.1, 0.97) for epoch in (0, 1, 249)] == pytest.approx([0.1, 0.097, 0.1 * 0.97**249])
