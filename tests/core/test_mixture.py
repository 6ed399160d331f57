"""Mixtures: what they hold, and the softmax over allowed ops."""

from __future__ import annotations

import torch

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
    logits = torch.randn(3, 3, requires_grad=True)
    shares = softmax_allowed(logits, allowed_mask(cell))
    assert torch.allclose(shares.sum(1), torch.tensor([1.0, 1.0, 0.0])) and shares[1, 2] == 1.0
    assert torch.allclose(shares[0, :2], logits[0, :2].softmax(0))
    shares[:, 0].sum().backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all() and logits.grad[2].abs().sum() == 0
