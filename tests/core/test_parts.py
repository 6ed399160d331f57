"""Parts of batches, and random numbers that do not depend on them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from diffnas.core.batch import Batch
from diffnas.core.parts import Dropout, drawn, dropout, part_of, part_of_step, share_noise, within
from diffnas.errors import PluginError


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_parts_are_disjoint_and_complete(size: int) -> None:
    for whole in range(1, 20):
        parts = [part_of(whole, rank, size) for rank in range(size)]
        places = [at for part in parts if part.count for at in range(*part.place)]
        assert places == list(range(whole))
        assert whole == 1 or all(part.count != 1 for part in parts)
        assert all(0 < stop - start <= whole for start, stop in (part.place for part in parts))
        assert sum(part.weight for part in parts) == pytest.approx(1.0)


def test_steps_of_an_epoch() -> None:
    part, place = part_of_step(2, 4, 11, 1, 2)
    assert part.whole == 3 and part.count == 0 and place == slice(8, 10)  # 3 samples are for one process
    part, place = part_of_step(1, 4, 11, 1, 2)
    assert part.weight == 0.5 and place == slice(6, 8)


@pytest.mark.parametrize("size", [2, 3])
def test_numbers_are_those_of_the_whole_batch(size: int) -> None:
    x = torch.randn(7, 5)

    def noise(x: Tensor) -> Tensor:
        return dropout(x, 0.4, True) + drawn(torch.rand, tuple(x.shape))

    torch.manual_seed(3)
    whole, after = noise(x), torch.rand(1)
    found = []
    for rank in range(size):
        torch.manual_seed(3)
        part = part_of(7, rank, size)
        with within(part):
            found.append(noise(x[slice(*part.place)]))
        assert torch.equal(torch.rand(1), after)
    torch.testing.assert_close(torch.cat(found), whole)


def test_a_part_of_a_batch() -> None:
    batch = Batch(torch.arange(12).view(2, 6), torch.arange(12).view(2, 6)).taken(part_of(6, 1, 2, dim=1))
    assert batch.inputs.tolist() == [[3, 4, 5], [9, 10, 11]] and batch.whole_count == 2
    with pytest.raises(PluginError, match="not tensors"):
        Batch({"a": 1}, torch.zeros(3)).taken(part_of(3, 0, 1))  # type: ignore[arg-type]


def test_dropout_of_ones_own() -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.Dropout2d(0.0))
    share_noise(module)
    assert type(module[0]) is Dropout
    with pytest.raises(PluginError, match="Dropout2d cannot be shared"):
        share_noise(nn.Sequential(nn.Dropout2d(0.1)))
