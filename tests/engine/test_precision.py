"""Differences of two passes are taken in full float32, whatever a GPU may round elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from diffnas.core.batch import Batch
from diffnas.engine import Search, curvature, gradients, largest_eigenvalue
from diffnas.engine.precision import full_float32
from diffnas.methods.darts import DARTS

Settings = tuple[str, str]


def settings() -> Settings:
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision


@pytest.fixture(params=["default", "allow_tf32", "fp32_precision"])
def before(request: pytest.FixtureRequest) -> Iterator[Settings]:
    """TF32 as it is at first, or allowed for everything by the older or by the newer interface."""
    kept = settings()
    if request.param == "allow_tf32":
        torch.set_float32_matmul_precision("high")
    if request.param == "fp32_precision":
        torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.conv.fp32_precision = "tf32"
    yield settings()
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision = kept


def batches() -> dict[str, Batch]:
    draw = torch.Generator().manual_seed(0)
    return {
        name: Batch(torch.randn(4, 3, 8, 8, generator=draw), torch.randint(0, 10, (4,), generator=draw))
        for name in ("train", "valid")
    }


def test_tf32_is_off_within_and_as_before_afterwards(before: Settings) -> None:
    with full_float32():
        assert settings() == ("ieee", "ieee")
    assert settings() == before
    with pytest.raises(ZeroDivisionError), full_float32():
        raise ZeroDivisionError
    assert settings() == before


def seen(monkeypatch: pytest.MonkeyPatch, module: Any) -> list[tuple[Settings, torch.dtype]]:
    """Fills with the settings and the precision of every pass that `module` asks for."""
    found, differentiate = [], module.differentiate

    def watched(search: Search, *rest: Any, **named: Any) -> Any:
        found.append((settings(), search.precision))
        return differentiate(search, *rest, **named)

    monkeypatch.setattr(module, "differentiate", watched)
    return found


def test_only_the_difference_of_the_second_order_is_full(
    monkeypatch: pytest.MonkeyPatch, make_search: Callable[..., Search], before: Settings
) -> None:
    search, data = make_search(method=DARTS(unrolled=True)), batches()
    search.precision = torch.bfloat16
    found = seen(monkeypatch, gradients)
    search.method.step(search, data)
    other, full = (before, torch.bfloat16), (("ieee", "ieee"), torch.float32)
    assert found == [other, other, full, full, other]  # gradient, look ahead, plus, minus, weight step
    assert settings() == before and search.precision == torch.bfloat16


def test_the_curvature_is_full(
    monkeypatch: pytest.MonkeyPatch, make_search: Callable[..., Search], before: Settings
) -> None:
    search = make_search()
    search.precision = torch.bfloat16
    found = seen(monkeypatch, curvature)
    largest_eigenvalue(search, batches()["valid"], steps=2)
    assert len(found) == 4 and set(found) == {(("ieee", "ieee"), torch.float32)}
    assert settings() == before and search.precision == torch.bfloat16
