"""The promises that every method and every space keeps, as tests of yours.

    import diffnas.testing
    from my_method import Sharp

    test_sharp = diffnas.testing.method_tests(Sharp())

runs them by pytest at the smallest size: a search that is resumed equals an unbroken one, evaluation draws no random numbers
of the search, weights that are not used have gradients of zero, the derived cell can be built, and so on.  `space_tests` does
the same for a space.  `check_method` and `check_space` run them without pytest, and raise `AssertionError`.
"""

from __future__ import annotations

from diffnas.testing.cases import Case
from diffnas.testing.method_checks import METHOD_CHECKS
from diffnas.testing.space_checks import SPACE_CHECKS
from diffnas.testing.suites import check_method, check_space, method_tests, space_tests

__all__ = [
    "METHOD_CHECKS",
    "SPACE_CHECKS",
    "Case",
    "check_method",
    "check_space",
    "method_tests",
    "space_tests",
]
