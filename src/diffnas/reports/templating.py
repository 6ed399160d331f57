"""Templates in which nothing that a run folder holds can become markup."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from diffnas.runtime.terminal import printable


@cache
def environment(*packages: str) -> Environment:
    """Templates of the page, and of `packages`, in which every value is escaped and prints, and none may be missing."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name, "templates") for name in (*packages, "diffnas.reports")]),
        autoescape=True,
        finalize=_printing,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["two"] = lambda value: f"{value:.2f}"
    environment.filters["count"] = lambda value: f"{value:,}"
    return environment


def _printing(value: Any) -> Any:
    """`value`, a text with every character spelt out that does not print."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return "\n".join(map(printable, value.split("\n")))
