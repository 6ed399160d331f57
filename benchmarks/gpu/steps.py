"""Search steps, and where the time of the best of them goes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiler

from benchmarks.build import OurStep
from benchmarks.gpu.context import Context, Result, Results, absent, attempted
from benchmarks.gpu.forms import FORMS, Case, lack
from benchmarks.gpu.timing import measured, warm
from benchmarks.language import Ours
from benchmarks.measure import wait
from diffnas.methods.darts import DARTS
from diffnas.methods.drnas import DrNAS
from diffnas.methods.pcdarts import PCDARTS

REFERENCE = "darts first order"
ROUNDS, LIMIT = 20, 6.0  # steps of a case, seconds of a case
KERNELS = 30
OPS = ("none", "skip_connect", "sep_conv_3x3")  # tiny


def cases(context: Context) -> dict[str, Case]:
    """What is searched, in order of worth; sizes are the papers'."""
    device = str(context.device)
    reference = OurStep(batch=64, device=device)
    found = {
        REFERENCE: reference,
        "nasbench201 drnas": replace(reference, space="nasbench201", layers=5, method=DrNAS()),
        "darts second order": replace(reference, method=DARTS(unrolled=True)),
        "pcdarts": replace(reference, batch=256, partial=4, method=PCDARTS()),
        f"{REFERENCE} bfloat16": replace(reference, precision="bfloat16"),
    }
    recurrent = Ours(searches=True, device=device)
    if context.tiny:
        small: dict[str, Any] = {"channels": 4, "layers": 1, "batch": 2, "side": 8, "ops": OPS}
        return {name: replace(case, **small) for name, case in found.items()} | {
            "recurrent": replace(recurrent, size=(2, 4), rows=3)
        }
    return {**found, "recurrent": recurrent}


def run(context: Context) -> Results:
    """Medians and peak memory of every case in every form."""
    for name, case in cases(context).items():
        for form, make in FORMS.items():
            what = {"case": name, "form": form}
            if context.tiny and form.startswith("graph") and name not in (REFERENCE, "recurrent"):
                continue  # a tape takes its time, and stage `graph` has them
            if form.endswith("triton") and name == "recurrent":
                continue  # it has no such form
            without = lack(form.split()[-1], context.device)
            if without is not None:
                yield absent(what, without)
            else:
                yield attempted(what, partial(measured, make(case), context, ROUNDS, LIMIT))


def profile(context: Context) -> Results:
    """The dearest kernels of the reference in its fastest form."""
    form = _fastest(context)
    step = FORMS[form](cases(context)[REFERENCE])()
    warm(step, context)
    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * context.cuda
    with profiler(activities=kinds, acc_events=True) as found:
        step()
        wait(context.device)
    yield from _dearest(context, form, found.key_averages())


def _dearest(context: Context, form: str, events: Any) -> Iterator[Result]:
    """A line for all, then one for each of the dearest: on a GPU kernels by their own time, on a CPU functions."""
    time = "self_device_time_total" if context.cuda else "self_cpu_time_total"
    rows = sorted(events, key=lambda row: -getattr(row, time))
    if context.cuda:
        rows = [row for row in rows if str(row.device_type).endswith("CUDA")]
    total = sum(getattr(row, time) for row in rows)
    yield {"form": form, "total_ms": total / 1e3, "kinds": len(rows), "calls": sum(row.count for row in rows)}
    for row in rows[:KERNELS]:
        spent = getattr(row, time)
        yield {"ms": spent / 1e3, "share": spent / max(total, 1e-9), "calls": row.count, "name": row.key[:200]}


def _fastest(context: Context) -> str:
    """The reference's fastest form among those that an earlier stage has measured, else the usual one."""
    found = {
        row["form"]: row["median_ms"]
        for row in context.record.found
        if row.get("case") == REFERENCE and "median_ms" in row
    }
    return min(found, key=lambda form: found[form]) if found else "eager fast"
