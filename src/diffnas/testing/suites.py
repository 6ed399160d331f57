"""The checks as suites: as one parametrized function for pytest, or run one after another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from diffnas.core.batch import Batch
from diffnas.core.space import AnyShape, Space
from diffnas.engine import Method
from diffnas.methods.darts import DARTS
from diffnas.spaces.darts_cnn.space import DartsCNN
from diffnas.testing.cases import Case
from diffnas.testing.method_checks import METHOD_CHECKS, Check, both_supernets_agree
from diffnas.testing.space_checks import SPACE_CHECKS

Named = tuple[str, Check, Case]
# Compiled kernels would be compiled first, which takes longer than all checks together.
os.environ.setdefault("DIFFNAS_KERNELS", "torch")
SMALL = DartsCNN(channels=2, layers=4, nodes=1)


def method_tests(method: Method, spaces: Sequence[Space] = (SMALL,), **given: Any) -> Callable[..., None]:
    """A test function for pytest: every promise of `method`, on every one of `spaces` (a small DARTS space).

    Spaces that the method's `check_space` refuses are an error.  `given` are the fields of `Case`: `shape`, `task`, ...
    """
    return _as_test(list(_of_method(method, spaces, given)))


def space_tests(
    space: Space,
    shape: AnyShape = None,
    *,
    task: Any = None,
    sizes: Mapping[str, Any] | None = None,
    data: Callable[[int], Batch] | None = None,
) -> Callable[..., None]:
    """A test function for pytest: every promise of `space`, and those of DARTS on it.  Make the space small.

    `shape` is that of the data where they are not images or text; `sizes` are the settings of its network where they are not
    `channels` and `layers`; `data(number)` makes a batch where the targets are not classes.
    """
    given = {"shape": shape, "task": task, "sizes": sizes, "data": data}
    return _as_test(list(_of_space(space, given)))


def check_method(method: Method, spaces: Sequence[Space] = (SMALL,), **given: Any) -> None:
    """Runs what `method_tests` runs; raises `AssertionError` at the first promise that is broken."""
    for _, check, case in _of_method(method, spaces, given):
        check(case)


def check_space(space: Space, shape: AnyShape = None, **given: Any) -> None:
    """Runs what `space_tests` runs; raises `AssertionError` at the first promise that is broken."""
    for _, check, case in _of_space(space, {"shape": shape, **given}):
        check(case)


def _of_method(method: Method, spaces: Sequence[Space], given: Mapping[str, Any]) -> Iterator[Named]:
    for space in spaces:
        refused = method.check_space(space)
        if refused:
            raise ValueError(
                f"{method.name} refuses space {space.name}: " + "; ".join(": ".join(pair) for pair in refused)
            )
        for check in (*METHOD_CHECKS, both_supernets_agree):
            yield f"{space.name}-{check.__name__}", check, Case(method, space, **given)


def _of_space(space: Space, given: Mapping[str, Any]) -> Iterator[Named]:
    case = Case(DARTS(), space, **given)
    for check in (*SPACE_CHECKS, *METHOD_CHECKS):
        yield check.__name__, check, case


def _as_test(named: Sequence[Named]) -> Callable[..., None]:
    """A test that pytest runs once for every check."""
    import pytest  # what is installed with diffnas[test]; the checks themselves do without

    @pytest.mark.parametrize(("check", "case"), [pytest.param(check, case, id=name) for name, check, case in named])
    def test(check: Check, case: Case) -> None:
        check(case)

    return test
