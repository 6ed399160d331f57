"""The ways to run a search step that are measured: the table to fill in when there are more."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from unittest import mock

import torch

from benchmarks.build import OurStep
from benchmarks.language import Ours
from benchmarks.measure import Build, Step
from diffnas.core.space import Form
from diffnas.kernels import gpu

Case = OurStep | Ours
SUPERNETS: dict[str, tuple[Form, str]] = {
    "plain": ("plain", "torch"),
    "fast": ("fast", "torch"),
    "triton": ("fast", "triton"),
}
"""The forms of a supernet: the space's form, and which kernels compute it (on a CPU "triton" is their order by torch)."""


@contextlib.contextmanager
def kernels(name: str) -> Iterator[None]:
    """Runs a block in which supernets are computed by kernels of that name."""
    with mock.patch.dict(os.environ, {"DIFFNAS_KERNELS": name}):
        yield


def lack(form: str, device: torch.device) -> str | None:
    """Why a form cannot be had on a device; None where it can."""
    return gpu.lack(device) if form == "triton" and device.type == "cuda" else None


def made(name: str, graph: bool) -> Callable[[Case], Build]:
    """Steps on the supernet in a form of `SUPERNETS`: launch by launch, or each as one CUDA graph."""
    form, by = SUPERNETS[name]

    def make(case: Case) -> Build:
        def build() -> Step:
            with kernels(by):
                step = replace(case, form=form, graph=graph)()

            def taken() -> None:
                with kernels(by):
                    step()

            return taken

        return build

    return make


FORMS: dict[str, Callable[[Case], Build]] = {
    f"{way} {name}": made(name, way == "graph") for way in ("eager", "graph") for name in SUPERNETS
}
"""What makes a case's step in each form."""
