"""Schedules in closed form."""

from __future__ import annotations

import pytest

from diffnas.core.schedules import cosine, ramp


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
