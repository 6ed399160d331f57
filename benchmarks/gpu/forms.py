"""The ways to run a search step that are measured: the table to fill in when there are more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from benchmarks.build import OurStep
from benchmarks.language import Ours
from benchmarks.measure import Build
from diffnas.core.space import Form

NO_TRITON = "there are no Triton kernels yet"

Case = OurStep | Ours


def eager(form: Form) -> Callable[[Case], Build]:
    """Steps on the supernet in `form`, launch by launch."""
    return lambda case: replace(case, form=form)


def graph(form: Form) -> Callable[[Case], Build]:
    """Steps on the supernet in `form`, each as one CUDA graph."""
    return lambda case: replace(case, form=form, graph=True)


FORMS: dict[str, Callable[[Case], Build] | str] = {
    "eager plain": eager("plain"),
    "eager fast": eager("fast"),
    "graph plain": graph("plain"),
    "graph fast": graph("fast"),
    "triton": NO_TRITON,
}
"""What makes a case's step in each form, or why nothing does."""
