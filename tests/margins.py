"""A plugin for pytest that holds comparisons in float32 to a tenth of their limits, so that no machine's rounding decides.

`machines.py` loads it.  A comparison that passes with more than a tenth of its limit fails its test; the largest share of all
is appended to the file that DIFFNAS_MARGINS names.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
import torch
from torch import Tensor

MOST = 0.1
_worst = (0.0, "")


def share(found: Tensor, expected: Tensor, rtol: float, atol: float) -> float:
    """The largest error, as a share of what `rtol` and `atol` allow there."""
    off = (found.detach().double() - expected.detach().double()).abs()
    limit = atol + rtol * expected.detach().double().abs()
    return float(torch.where(off == 0, 0.0, off / limit).max())


def watched(compare: Callable[..., Any], usual: dict[str, float]) -> Callable[..., Any]:
    """`compare`, which looks at the margin of tensors in float32; `usual` are its limits where none are given."""

    @wraps(compare)
    def check(found: Any, expected: Any, *given: Any, **named: Any) -> Any:
        result = compare(found, expected, *given, **named)
        if result is not False and _single(found) and _single(expected) and found.numel():
            asked = {**dict(zip(usual, given, strict=False)), **named}
            limits = {name: limit if asked.get(name) is None else asked[name] for name, limit in usual.items()}
            _note(share(found, expected, **limits))
        return result

    return check


def _single(t: Any) -> bool:
    return isinstance(t, Tensor) and t.dtype == torch.float32


def _note(found: float) -> None:
    global _worst
    test = os.environ.get("PYTEST_CURRENT_TEST", "").removesuffix(" (call)")
    _worst = max(_worst, (found, test))
    if found > MOST:
        pytest.fail(f"in float32 the error is {found:.2f} of its limit; on another machine it may be above it")


def pytest_configure() -> None:
    torch.allclose = watched(torch.allclose, {"rtol": 1e-5, "atol": 1e-8})
    torch.testing.assert_close = watched(torch.testing.assert_close, {"rtol": 1.3e-6, "atol": 1e-5})


def pytest_sessionfinish() -> None:
    path = os.environ.get("DIFFNAS_MARGINS")
    if path and _worst[0]:
        with open(path, "a") as file:
            file.write(f"{_worst[0]:.3f} {_worst[1]}\n")
