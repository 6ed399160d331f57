"""A batch in pieces: the gradients, and whatever is drawn, are those of the whole."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
import torch

from diffnas.core.batch import Batch
from diffnas.core.space import TextShape
from diffnas.engine import Search, differentiate, gradients
from diffnas.engine.whole import pieces_of
from diffnas.methods.darts import DARTS
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.spaces.darts_rnn.space import DartsRNN
from diffnas.tasks.language import LanguageTask


def images(count: int = 9) -> Batch:
    return Batch(torch.randn(count, 3, 8, 8, dtype=torch.float64), torch.arange(count) % 10)


@pytest.mark.parametrize("pieces", [2, 3, 8])
@pytest.mark.parametrize("form", ["plain", "fast"])
def test_images(make_search: Callable[..., Search], form: str, pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    space = DartsCNN(channels=4, layers=2, nodes=2, drop_path=0.3, dropout=0.3)
    search = make_search(space, dtype=torch.float64, form=form)
    if form == "plain":  # in evaluation mode the numbers of a normalisation do not depend on pieces
        monkeypatch.setattr(gradients, "normalisation", frozen_norms)
    batch, found = images(), []
    for count in (1, pieces):
        search.pieces = count
        torch.manual_seed(0)
        norm = "update" if form == "plain" else "running"
        grads = differentiate(search, search.relax("arch"), batch, {"weights", "mixture"}, norm)
        found.append([grads.loss.value, grads.loss.correct.double(), *grads.weights, *grads.mixture, torch.rand(1)])
        assert grads.loss.count == 9
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)


def frozen_norms(search: Search, norm: str) -> contextlib.AbstractContextManager[None]:
    """Training mode, with every normalisation in evaluation mode."""
    search.supernet.train()
    for layer in search.norms:
        layer.eval()
    return contextlib.nullcontext()


def test_text_goes_on_with_its_hidden_state() -> None:
    space = DartsRNN(units=6, steps=2)
    torch.manual_seed(0)
    supernet = space.supernet(TextShape(9), form="plain").double()
    method = DARTS()
    arch = method.arch(space, torch.Generator().manual_seed(0)).double()
    search = Search(
        method=method,
        space=space,
        supernet=supernet,
        arch=arch,
        weights_optimizer=torch.optim.SGD(supernet.parameters(), 0.1),
        arch_optimizer=torch.optim.Adam(arch.parameters()),
        task=LanguageTask(alpha=0.5, beta=0.5),
        batch_dim=1,
    )
    words = torch.randint(0, 9, (6, 7))
    batch = Batch(words[:-1], words[1:], carry=torch.randn(1, 7, 6, dtype=torch.float64))
    found = []
    for search.pieces in (1, 3):
        torch.manual_seed(0)
        grads = differentiate(search, search.relax("weights"), batch, {"weights"}, "running")
        found.append([grads.loss.value, grads.loss.carry, *grads.weights])
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)


def test_pieces_cover_the_batch() -> None:
    for count in (1, 2, 4, 20):
        pieces = pieces_of(images(), count, 0)
        assert sum(len(piece.targets) for piece in pieces) == 9 and all(len(piece.targets) > 1 for piece in pieces)
        assert count == 1 or sum(piece.part.weight for piece in pieces if piece.part) == pytest.approx(1.0)
