"""Masks drop what they should, and the language model puts them where the authors do."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from diffnas.spaces.darts_rnn.layout import Dropouts
from diffnas.spaces.darts_rnn.ops import LanguageModel, drop_mask


def test_masks() -> None:
    torch.manual_seed(0)
    like = torch.zeros((), dtype=torch.float64)
    mask = drop_mask(0.2, 100, 100, like=like)
    assert mask is not None and mask.dtype == torch.float64
    assert set(mask.unique().tolist()) == {0.0, 1.0 / 0.8}
    assert abs(float((mask == 0).double().mean()) - 0.2) < 0.02
    assert drop_mask(0.0, 3, like=like) is None


def test_masks_come_from_the_global_generator() -> None:
    like = torch.zeros(())
    torch.manual_seed(5)
    first = drop_mask(0.5, 50, like=like)
    torch.manual_seed(5)
    second = drop_mask(0.5, 50, like=like)
    assert first is not None and second is not None and torch.equal(first, second)


class Seen:
    """A recurrence that keeps what it is given and lets inputs pass."""

    def __call__(self, x: Tensor, hidden: Tensor, mask: Tensor | None) -> Tensor:
        self.x, self.hidden, self.mask = x, hidden, mask
        return x


def spoken(training: bool, **rates: float) -> tuple[LanguageModel, Seen, Tensor]:
    torch.manual_seed(1)
    none = {"dropout": 0.0, "dropouth": 0.0, "dropoutx": 0.0, "dropouti": 0.0, "dropoute": 0.0}
    model = LanguageModel(30, 20, Dropouts(**none | rates)).double().train(training)
    seen, tokens = Seen(), torch.randint(0, 30, (6, 4))
    found = model.speak(tokens, None, seen)
    assert torch.equal(found.states, seen.x) and torch.equal(found.carry, seen.x[-1:])
    assert torch.allclose(found.log_probs.exp().sum(-1), torch.ones(6, 4, dtype=torch.float64), rtol=1e-12)
    expected = F.log_softmax(found.dropped @ model.embedding.weight.T + model.bias, -1)
    assert torch.allclose(found.log_probs, expected, rtol=1e-12, atol=1e-12)
    seen.dropped = found.dropped
    return model, seen, tokens


def test_nothing_is_dropped_in_evaluation() -> None:
    rates = {"dropout": 0.5, "dropouth": 0.5, "dropoutx": 0.5, "dropouti": 0.5, "dropoute": 0.5}
    model, seen, tokens = spoken(False, **rates)
    assert torch.equal(seen.x, model.embedding.weight[tokens]) and seen.mask is None
    assert torch.equal(seen.dropped, seen.x) and not seen.hidden.any()


def test_words_are_dropped_as_whole_rows() -> None:
    model, seen, tokens = spoken(True, dropoute=0.5)
    rate = (seen.x / model.embedding.weight[tokens]).detach()
    assert torch.allclose(rate, rate[..., :1].expand_as(rate), rtol=1e-12)  # a whole row
    per_word = {int(word): float(r) for word, r in zip(tokens.flatten(), rate[..., 0].flatten(), strict=True)}
    assert {round(r, 3) for r in per_word.values()} == {0.0, 2.0}
    for word, r in zip(tokens.flatten(), rate[..., 0].flatten(), strict=True):
        assert abs(per_word[int(word)] - float(r)) < 1e-12  # the same wherever the word stands


def test_masks_hold_for_the_whole_window() -> None:
    for name in ("dropouti", "dropoutx"):
        model, seen, tokens = spoken(True, **{name: 0.5})
        kept = seen.x / model.embedding.weight[tokens]
        assert torch.allclose(kept, kept[:1].expand_as(kept), rtol=1e-12) and 0 < (kept[0] == 0).float().mean() < 1
    _, seen, _ = spoken(True, dropout=0.5)
    kept = seen.dropped / seen.x
    assert torch.allclose(kept, kept[:1].expand_as(kept), rtol=1e-12) and 0 < (kept[0] == 0).float().mean() < 1
    _, seen, _ = spoken(True, dropouth=0.5)
    assert seen.mask is not None and seen.mask.shape == (4, 20) and set(seen.mask.unique().tolist()) == {0.0, 2.0}


def test_embedding_and_decoder_share_their_weight() -> None:
    model = LanguageModel(30, 20, Dropouts())
    assert sorted(model.state_dict()) == ["bias", "embedding.weight"]
