"""Cells that are computed again on the way back: the same numbers, and less that is kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffnas.core.batch import Batch
from diffnas.engine import Search, differentiate
from diffnas.engine.gradients import Norm
from diffnas.engine.recompute import recompute_cells
from diffnas.engine.whole import pieces_of
from diffnas.spaces.darts_cnn.space import DartsCNN

Build = Callable[..., Search]


def two(make_search: Build) -> tuple[Search, Search]:
    """The same search, as it is and with cells that are computed again."""
    space = DartsCNN(channels=4, layers=4, nodes=2, drop_path=0.3, dropout=0.2)
    found = make_search(space, dtype=torch.float64), make_search(space, dtype=torch.float64)
    assert recompute_cells(found[1].supernet)
    return found


@pytest.mark.parametrize("norm", ["update", "train_frozen_stats", "eval_batch_stats", "running"])
@pytest.mark.parametrize("wrt", [("weights",), ("mixture",), ("weights", "mixture")])
def test_numbers_are_the_same(make_search: Build, norm: Norm, wrt: tuple[str, ...]) -> None:
    whole = Batch(torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.arange(6))
    found = []
    for search in two(make_search):
        torch.manual_seed(1)
        batch = pieces_of(whole, 2, 0)[1]
        grads = differentiate(search, search.relax("arch"), batch, set(wrt), norm)
        assert search.supernet.training and all(weight.requires_grad for weight in search.weights)
        state = list(search.supernet.state_dict().values())
        found.append([grads.loss.value, *grads.weights, *grads.mixture, *state, torch.rand(1)])
    torch.testing.assert_close(found[1], found[0], rtol=0.0, atol=0.0)


def test_less_is_kept(make_search: Build) -> None:
    batch = Batch(torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.arange(6))
    kept = []
    for search in two(make_search):
        places: dict[int, int] = {}

        def keep(tensor: Tensor, places: dict[int, int] = places) -> Tensor:
            storage = tensor.untyped_storage()
            places[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            search.task.loss(lambda x, s=search: s.supernet(x, s.relax("weights")), batch)
        kept.append(sum(places.values()))
    assert kept[1] < 0.6 * kept[0]
