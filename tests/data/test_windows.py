"""Windows of a text: what each step reads, how long it is, and that it depends on (seed, name, epoch, step) alone."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from diffnas.data.windows import TextEpoch, TextFeed, Window
from diffnas.errors import DataError


def feed(count: int = 2000, batch: int = 1, bptt: int = 10, **options: Any) -> TextFeed:
    return TextFeed(torch.arange(count), batch, bptt, **{"seed": 3, **options})


def windows(epoch: TextEpoch) -> list[Window]:
    return list(epoch.windows)


def drawn(**options: Any) -> Tensor:
    """The lengths of many windows, the last of each epoch left out."""
    source = feed(20_000, **options)
    return torch.tensor([window.length for epoch in range(20) for window in windows(source.epoch(epoch))[:-1]])


def test_columns_side_by_side_and_targets_a_row_later() -> None:
    epoch = feed(11, batch=2, bptt=2).epoch(0)  # columns 0..4 and 5..9; the token 10 is left over
    assert [batch.inputs.tolist() for batch in epoch] == [[[0, 5], [1, 6]], [[2, 7], [3, 8]]]
    assert [batch.targets.tolist() for batch in epoch] == [[[1, 6], [2, 7]], [[3, 8], [4, 9]]]
    assert all(batch.carry is None and batch.scale == 1.0 for batch in epoch)


def test_fixed_windows_predict_every_token_but_the_first() -> None:
    source = feed(22, bptt=5)
    assert [window.length for window in windows(source.epoch(0))] == [5, 5, 5, 5, 1]
    assert torch.cat([batch.targets for batch in source.epoch(4)]).flatten().tolist() == list(range(1, 22))
    assert source.steps == len(source.epoch(0)) == 5


@pytest.mark.parametrize("lengths", ["search", "train", "fixed"])
def test_windows_follow_one_another(lengths: str) -> None:
    source = feed(batch=3, lengths=lengths)
    for epoch in range(20):
        parts = [batch.inputs for batch in source.epoch(epoch)]
        rows = torch.cat(parts)
        assert torch.equal(rows, source.rows[: len(rows)])
        assert len(source.rows) - len(rows) in ((1,) if lengths == "fixed" else (1, 2))
        assert lengths == "fixed" or len(parts[-1]) > 1
        assert len(parts) <= source.steps


def test_search_lengths() -> None:
    for bptt, half in ((10, 5), (35, 17)):
        found = drawn(bptt=bptt, lengths="search")
        assert sorted(set(found.tolist())) == [half, bptt]
        assert 0.03 < (found == half).float().mean() < 0.07


def test_train_lengths() -> None:
    found = drawn(bptt=35, lengths="train").double()
    assert found.min() >= 5 and found.max() <= 55
    # 95 % of N(35, 5) and 5 % of N(17.5, 5), rounded towards zero
    for least, share in ((35, 0.475), (40, 0.151), (25, 1 - 0.068), (18, 0.95 + 0.023)):
        assert abs(float((found >= least).double().mean()) - share) < 0.015
    short = drawn(bptt=6, lengths="train")
    assert short.min() == 5 and (short == 5).double().mean() > 0.4 and short.max() <= 26


def test_the_scale_is_the_length_drawn() -> None:
    for lengths in ("search", "train"):
        source = feed(batch=2, lengths=lengths)
        for epoch in range(5):
            *most, last = windows(source.epoch(epoch))
            assert all(window.scale == window.length / 10 for window in most)
            assert last.scale * 10 >= last.length and last.start + last.length == 999
            assert source.epoch(epoch)[0].scale == most[0].scale


def test_a_batch_depends_on_seed_name_epoch_and_step_alone() -> None:
    base = feed(lengths="train")
    for epoch in (0, 7):
        again = feed(lengths="train")
        again.epoch(5)
        torch.rand(3)
        assert windows(base.epoch(epoch)) == windows(again.epoch(epoch))
        assert torch.equal(base.epoch(epoch)[11].inputs, again.epoch(epoch)[11].inputs)
    others = [feed(lengths="train", seed=4).epoch(0), feed(lengths="train", name="other").epoch(0), base.epoch(1)]
    for left, right in itertools.combinations([base.epoch(0), *others], 2):
        assert windows(left) != windows(right)


def test_the_text_to_validate_on_is_read_beside() -> None:
    train = TextFeed(torch.arange(50), 1, 4, lengths="search")
    beside = TextFeed(torch.arange(100, 112), 1, 4, name="valid", beside=train)  # 12 rows, 11 of them inputs
    for epoch in range(10):
        expected = [window.start % 11 for window in windows(train.epoch(epoch))]
        batches = list(beside.epoch(epoch))
        assert [int(batch.inputs[0, 0]) - 100 for batch in batches] == expected
        assert [len(batch.inputs) for batch in batches] == [min(4, 11 - start) for start in expected]
        assert all(torch.equal(batch.inputs + 1, batch.targets) and batch.scale == 1.0 for batch in batches)
    assert beside.steps == train.steps


def test_steps_end_an_epoch_early() -> None:
    whole, short = feed(lengths="train"), feed(lengths="train", steps=4)
    assert short.steps == len(short.epoch(2)) == 4
    assert windows(short.epoch(2)) == windows(whole.epoch(2))[:4]
    assert len(feed(beside=short, name="valid").epoch(0)) == 4
    assert feed(22, bptt=5, steps=99).steps == 5


def test_windows_are_views() -> None:
    source = feed(batch=2)
    batch = source.epoch(0)[3]
    assert batch.inputs.untyped_storage().data_ptr() == source.rows.untyped_storage().data_ptr()
    assert batch.inputs.dtype == batch.targets.dtype == torch.int64 and batch.inputs.is_contiguous()


@pytest.mark.parametrize("step", [200, -1])
def test_a_step_beyond_the_epoch_is_an_index_error(step: int) -> None:
    with pytest.raises(IndexError, match=f"step {step} of an epoch of 200 steps"):
        feed().epoch(0)[step]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"lengths": "random"}, "train: lengths 'random' are none of search, train, fixed"),
        ({"batch": 0}, "a batch of 0 columns of 10 tokens cannot be made"),
        ({"bptt": 0}, "a batch of 1 columns of 0 tokens cannot be made"),
        ({"bptt": 1, "lengths": "search"}, "a batch of 1 columns of 1 tokens cannot be made"),
        ({"steps": 0}, "0 steps are too few"),
        ({"batch": 1001, "name": "valid"}, "valid: 2000 tokens are too few for 1001 columns of 2 or more each"),
        ({"batch": 700, "lengths": "train"}, "2000 tokens are too few for 700 columns of 3 or more each"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(options: dict[str, Any], text: str) -> None:
    with pytest.raises(DataError) as caught:
        feed(**options)
    assert len(caught.value.lines) == 1
    assert text in str(caught.value)


def test_tokens_of_another_kind_are_refused() -> None:
    for tokens in (torch.zeros(10), torch.zeros(5, 5, dtype=torch.int64)):
        with pytest.raises(DataError, match=r"needs tokens, int64 \[M\]"):
            TextFeed(tokens, 1, 5)


def test_the_smallest_texts() -> None:
    assert [tuple(batch.inputs.shape) for batch in feed(4, batch=2).epoch(0)] == [(1, 2)]
    assert [tuple(batch.inputs.shape) for batch in feed(6, batch=2, lengths="train").epoch(0)] == [(2, 2)]
