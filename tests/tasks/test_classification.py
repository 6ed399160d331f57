"""The loss of images."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from diffnas.core.batch import Batch
from diffnas.tasks.classification import Classification

LOGITS = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]], dtype=torch.float64, requires_grad=True)
BATCH = Batch(torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 1]))


def test_cross_entropy_and_right_answers() -> None:
    loss = Classification().loss(lambda x: LOGITS, BATCH)
    assert torch.equal(loss.value, F.cross_entropy(LOGITS, BATCH.targets)) and loss.weight_only is None
    assert int(loss.correct) == 2 and loss.count == 3 and torch.equal(loss.total(), loss.value)
    assert not loss.detach().value.requires_grad


def test_the_auxiliary_head_is_an_extra() -> None:
    loss = Classification(auxiliary=0.4).loss(lambda x: (LOGITS, -LOGITS), BATCH)
    assert torch.allclose(loss.weight_only, 0.4 * F.cross_entropy(-LOGITS, BATCH.targets), rtol=1e-12)
    assert torch.allclose(loss.total(), loss.value + loss.weight_only, rtol=1e-12)


def test_label_smoothing() -> None:
    loss = Classification(smoothing=0.1).loss(lambda x: LOGITS, BATCH).value
    target = 0.9 * F.one_hot(BATCH.targets, 2) + 0.05
    assert torch.allclose(loss, -(target * LOGITS.log_softmax(1)).sum(1).mean(), rtol=1e-12)
