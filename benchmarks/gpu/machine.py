"""Where this is: card, driver, versions, TF32; how fast its memory copies, what a launch costs, eagerly and in a graph."""

from __future__ import annotations

import os
import statistics
import subprocess
from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from benchmarks import measure
from benchmarks.gpu.context import Context, Result, Results, attempted
from benchmarks.gpu.timing import captured, seconds_each
from diffnas.kernels.form import described

PACKAGES = ("numpy", "triton", "pyarrow", "pillow", "pydantic")


def environment(device: torch.device) -> dict[str, Any]:
    """What every number depends on."""
    found: dict[str, Any] = measure.environment(device)
    found["packages"] = {name: _version(name) for name in PACKAGES}
    found["cuda"], found["cudnn"] = torch.version.cuda, torch.backends.cudnn.version()
    found["tf32"] = {
        "matmul": torch.backends.cuda.matmul.fp32_precision,
        "convolution": torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
    }
    found["cudnn_benchmark"] = torch.backends.cudnn.benchmark
    found["cpus"], found["kernels"] = os.cpu_count(), described(device)
    if device.type == "cuda":
        found |= _card(device)
    return found


def run(context: Context) -> Results:
    """Bandwidth, rates of products, and launches."""
    yield attempted({"case": "copy"}, lambda: _copy(context))
    for dtype in (torch.float32, torch.bfloat16):
        yield attempted({"case": "product", "type": str(dtype)[6:]}, partial(_product, context, dtype))
    yield from _launches(context)


def _copy(context: Context) -> Result:
    """GB/s of a copy within the device's memory, bytes read and written."""
    count = 2**28 if context.cuda else 2**20
    source, target = torch.randn(count, device=context.device), torch.empty(count, device=context.device)
    seconds = statistics.median(seconds_each(lambda: target.copy_(source), context, 10))
    return {"gb_per_s": 2 * source.nbytes / seconds / 1e9}


def _product(context: Context, dtype: torch.dtype) -> Result:
    """TFLOP/s of a product of square matrices, as PyTorch is set."""
    side = 8192 if context.cuda else 128
    a, b = (torch.randn(side, side, device=context.device).to(dtype) for _ in range(2))
    seconds = statistics.median(seconds_each(lambda: a @ b, context, 10))
    return {"tflop_per_s": 2 * side**3 / seconds / 1e12}


def _launches(context: Context) -> Iterator[Result]:
    """Microseconds of a kernel that does nothing to speak of."""
    x, many = torch.zeros(1, device=context.device), 1000

    def adds() -> None:
        for _ in range(many):
            x.add_(1.0)

    def found(step: Any) -> Result:
        return {"microseconds": 1e6 * min(seconds_each(step, context, 5)) / many}

    yield attempted({"case": "launch", "how": "eager"}, lambda: found(adds))
    if context.cuda:
        yield attempted({"case": "launch", "how": "graph"}, lambda: found(captured(adds)))
    else:
        yield {"case": "launch", "how": "graph", "absent": "graphs are CUDA's"}


def _card(device: torch.device) -> dict[str, Any]:
    card = torch.cuda.get_device_properties(device)
    found = {"card": card.name, "memory_gib": card.total_memory / 2**30, "multiprocessors": card.multi_processor_count}
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,clocks.max.mem", "--format=csv,noheader"]
        shown = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        shown = f"unknown ({type(error).__name__})"
    return found | {"driver": shown}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
