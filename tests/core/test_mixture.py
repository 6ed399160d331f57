"""Mixtures: what they hold, and the softmax over allowed ops."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from torch import Tensor

from diffnas.core.cell import Cell
from diffnas.core.mixture import Mix, Mixture, allowed_mask, softmax_allowed


def test_tensors_leaves_and_detach() -> None:
    alpha = torch.randn(3, 2, requires_grad=True)
    mixture = Mixture({"normal": Mix(alpha.softmax(-1), alpha.sum(1)), "reduce": Mix(alpha.exp())})
    assert [t.shape for t in mixture.tensors()] == [(3, 2), (3,), (3, 2)]
    assert len(mixture) == 2 and list(mixture) == ["normal", "reduce"] and "normal" in repr(mixture)
    leaves = mixture.leaves()
    assert all(t.is_leaf and t.requires_grad for t in leaves.tensors())
    assert not any(t.requires_grad for t in mixture.detach().tensors())
    assert all(torch.equal(a, b) for a, b in zip(leaves.tensors(), mixture.tensors(), strict=True))


def test_inactive_shares_are_zero_with_zero_gradient() -> None:
    op = torch.tensor([[2.0, float("inf")], [1.0, 3.0]], requires_grad=True)
    active = torch.tensor([[True, False], [False, True]])
    shares = Mix(op, active=active).shares()
    assert shares.tolist() == [[2.0, 0.0], [0.0, 3.0]]
    shares.sum().backward()
    assert op.grad is not None and op.grad.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_softmax_runs_over_allowed_ops_only() -> None:
    cell = Cell.dense(("a", "b", "c"), 1, 2, allowed=[["a", "b"], ["c"], []])
    logits = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    shares = softmax_allowed(logits, allowed_mask(cell))
    assert torch.allclose(shares.sum(1), torch.tensor([1.0, 1.0, 0.0]).double(), rtol=1e-12) and shares[1, 2] == 1.0
    assert torch.allclose(shares[0, :2], logits[0, :2].softmax(0), rtol=1e-12)
    shares[:, 0].sum().backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all() and logits.grad[2].abs().sum() == 0


def test_what_is_active_is_read_once_for_all_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = [torch.rand(5, 3) < 0.5, torch.rand(2, 4) < 0.5]
    mixture = Mixture({str(k): Mix(torch.rand(mask.shape), active=mask) for k, mask in enumerate(masks)})
    mixture = Mixture({**mixture, "whole": Mix(torch.rand(2, 2))})
    copied = mock.Mock(wraps=Tensor.cpu)
    monkeypatch.setattr(Tensor, "cpu", lambda tensor: copied(tensor))
    cut = mixture.detach()
    leaves = cut.leaves()
    for found in (mixture, cut, leaves):
        assert [found[str(k)].live for k in range(2)] == [tuple(map(tuple, mask.tolist())) for mask in masks]
        assert found["whole"].live is None
    assert copied.call_count == 1
