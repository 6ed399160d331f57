"""Half precision: gradients of weights and architecture are finite and close to those of float32."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from diffnas.core.batch import Batch
from diffnas.engine import Search, differentiate
from diffnas.engine.precision import LossScale


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", ["plain", "fast"])
def test_gradients_are_close(make_search: Callable[..., Search], precision: torch.dtype, form: str) -> None:
    batch = Batch(torch.randn(8, 3, 8, 8), torch.arange(8))
    found = []
    for asked in (torch.float32, precision):
        search = make_search(form=form)
        search.precision, search.loss_scale = asked, LossScale(asked)
        grads = differentiate(search, search.relax("arch"), batch, {"weights", "mixture"})
        found.append([torch.cat([g.flatten() for g in each]) for each in (grads.mixture, grads.weights)])
    for half, full in zip(found[1], found[0], strict=True):
        assert bool(half.isfinite().all()) and half.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(half, full, 0) > 0.98
        assert 0.8 < float(half.norm() / full.norm()) < 1.25


def test_a_scale_that_is_too_large_is_halved_and_draws_are_kept() -> None:
    scale, seen = LossScale(torch.float16), []

    def compute(factor: float) -> tuple[float, list[torch.Tensor]]:
        seen.append(float(torch.rand(())))
        return factor, [torch.tensor(3.0) * (factor if factor <= 2.0**14 else torch.inf)]

    torch.manual_seed(0)
    used, grads = scale.found(compute, torch.device("cpu"))
    assert used == scale.value == 2.0**14 and grads[0] == 3.0 and len(set(seen)) == 1
    after = torch.rand(())
    torch.manual_seed(0)
    assert torch.equal(torch.rand(2)[1], after)


def test_other_precisions_are_not_scaled() -> None:
    assert LossScale(torch.float32).value == LossScale(torch.bfloat16).value == 1.0
