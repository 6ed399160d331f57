"""Tensors that the host knows: made once, and by value."""

from __future__ import annotations

import torch

from diffnas.core.constants import constant, to_device

CPU = torch.device("cpu")


def test_a_constant_is_made_once_for_its_values_precision_and_device() -> None:
    rows = ((True, False), (False, True))
    first = constant(rows, torch.bool, CPU)
    assert first is constant(((True, False), (False, True)), torch.bool, CPU)
    assert first.tolist() == [[True, False], [False, True]]
    assert constant(rows, torch.int64, CPU).tolist() == [[1, 0], [0, 1]]
    assert constant(rows, torch.bool, torch.device("meta")).device.type == "meta"


def test_a_constant_made_while_inferring_can_be_differentiated_through() -> None:
    with torch.inference_mode():
        places = constant((2, 0, 1), torch.int64, CPU)
    x = torch.arange(3.0, requires_grad=True)
    (x.index_select(0, places) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2.0, 3.0, 1.0]


def test_a_tensor_keeps_its_precision_unless_another_is_asked_for() -> None:
    made = torch.ones(2, dtype=torch.float64)
    assert to_device(made, CPU).dtype == torch.float64 and to_device(made, CPU, torch.float32).dtype == torch.float32
