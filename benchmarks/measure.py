"""How everything here is measured: steps that take turns in one process, peak memory in a process of its own.

A machine that others use is now fast, now slow.  Steps that are compared therefore alternate one by one, and the minimum is
what counts: it is the step that nothing disturbed.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import math
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffnas.kernels import native
from diffnas.pipeline.environment import version_of
from diffnas.runtime.device import pick_device

Step = Callable[[], object]
"""One step of a search or a training."""
Build = Callable[[], Step]
"""Builds everything a step needs; can be sent to another process (pickled)."""

MEMORY_STEPS = 3  # the second step has the momentum as well; the third finds nothing new
MIB = 2**20


@dataclass(frozen=True)
class Times:
    """The seconds of every timed step, in order."""

    seconds: tuple[float, ...]

    @property
    def best(self) -> float:
        """The minimum."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """From the fastest to the slowest, as a share of the median."""
        return (max(self.seconds) - self.best) / self.median


@dataclass(frozen=True)
class Alone:
    """A few steps in a process of their own: the peak of memory above what was there before the first, and the fastest."""

    peak_mib: float
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """Two ways of doing one thing: `base`, and `ours`."""

    name: str
    base: Times
    ours: Times
    base_alone: Alone
    ours_alone: Alone

    @property
    def time(self) -> float:
        """How many times faster ours is (base / ours, minima)."""
        return self.base.best / self.ours.best

    @property
    def memory(self) -> float:
        """The share of the base's peak memory that ours takes (ours / base)."""
        return self.ours_alone.peak_mib / self.base_alone.peak_mib

    def row(self) -> list[str]:
        """Its row under `comparison_head`."""
        return [
            self.name,
            *(text for times in (self.base, self.ours) for text in time_cells(times)),
            f"{self.time:.2f}x",
            f"{self.base_alone.peak_mib:.0f}",
            f"{self.ours_alone.peak_mib:.0f}",
            f"{self.memory:.2f}x",
        ]

    def line(self, base: str, ours: str) -> str:
        """Both ratios in a line: `fast vs plain: time 6.1x, memory 0.42x`."""
        return f"{ours} vs {base}: time {self.time:.1f}x, memory {self.memory:.2f}x"

    def record(self) -> dict[str, Any]:
        """What `--json` keeps of it."""
        return {**asdict(self), "time": self.time, "memory": self.memory}


def comparison_head(title: str, base: str, ours: str) -> list[str]:
    """The head of a table of comparisons; seconds per step, MiB."""
    times = [f"{side} {what}" for side in (base, ours) for what in ("min s", "median", "spread")]
    return [title, *times, "time", f"{base} MiB", f"{ours} MiB", "memory"]


def time_cells(times: Times) -> list[str]:
    """Minimum, median and spread."""
    return [f"{times.best:.3f}", f"{times.median:.3f}", f"{100 * times.spread:.0f}%"]


# -- measuring


def compare(
    name: str, base: Build, ours: Build, rounds: int, device: torch.device, limit: float = math.inf
) -> Comparison:
    """Times `base` and `ours` in turns here, and measures the memory of each in a fresh process."""
    alone = [measure_alone(build, device) for build in (base, ours)]
    times = alternate([base(), ours()], rounds, device, limit)
    return Comparison(name, times[0], times[1], alone[0], alone[1])


def alternate(steps: Sequence[Step], rounds: int, device: torch.device, limit: float = math.inf) -> list[Times]:
    """The times of `steps`, each taken once per round in turn; a first round is not counted.

    After `limit` seconds no round begins, but one is always counted.
    """
    seconds: list[list[float]] = [[] for _ in steps]
    end = time.monotonic() + limit
    for number in range(rounds + 1):
        if number > 1 and time.monotonic() > end:
            break
        for step, found in zip(steps, seconds, strict=True):
            found.append(timed(step, device))
    return [Times(tuple(found[1:])) for found in seconds]


def timed(step: Step, device: torch.device) -> float:
    """The seconds that `step` takes, to the end of what it started on the device."""
    wait(device)
    started = time.perf_counter()
    step()
    wait(device)
    return time.perf_counter() - started


def wait(device: torch.device) -> None:
    """Waits for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_alone(build: Build, device: torch.device) -> Alone:
    """Builds and takes a few steps in a fresh process, which has the threads of this one."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_alone, build, device, torch.get_num_threads()).result()


def _alone(build: Build, device: torch.device, threads: int) -> Alone:
    torch.set_num_threads(threads)
    _load_libraries(device)
    step = build()
    gc.collect()
    memory = _CudaMemory(device) if device.type == "cuda" else _ProcessMemory()
    seconds = [timed(step, device) for _ in range(MEMORY_STEPS)]
    return Alone(memory.gained() / MIB, min(seconds))


def _load_libraries(device: torch.device) -> None:
    """A first convolution and its gradient, and numba where there is one: the code they load is no memory of the step."""
    native.usable()
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)).to(device)
    net(torch.randn(2, 3, 8, 8, device=device)).sum().backward()


class _CudaMemory:
    """The peak of what torch has allocated on a GPU since it was made."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        wait(device)
        torch.cuda.reset_peak_memory_stats(device)
        self.before = torch.cuda.memory_allocated(device)

    def gained(self) -> int:
        """Bytes above the start."""
        return torch.cuda.max_memory_allocated(self.device) - self.before


class _ProcessMemory:
    """The peak of the process's resident memory since it was made."""

    def __init__(self) -> None:
        self.before = _status("VmRSS") or _largest_resident()
        # the peak (VmHWM) starts again from what is resident now; where it cannot, it counts from the start of the process,
        # which is the same unless building took more than a step
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    def gained(self) -> int:
        """Bytes above the start."""
        return max(0, (_status("VmHWM") or _largest_resident()) - self.before)


def _status(key: str) -> int | None:
    """Bytes of an entry of /proc/self/status, None where there is no such thing."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
    return 1024 * int(found[0]) if found else None


def _largest_resident() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# -- telling


def arguments(description: str, rounds: int) -> argparse.ArgumentParser:
    """The options that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rounds", type=_count, default=rounds, help="timed steps of each side")
    parser.add_argument("--threads", type=_count, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto: a GPU where there is one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number to FILE as well")
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def begin(args: argparse.Namespace) -> torch.device:
    """Sets the threads, prints where and with what this is measured, and returns the device."""
    torch.set_num_threads(args.threads)
    device = pick_device(args.device)
    for key, value in environment(device).items():
        print(f"{key + ':':9} {value}")
    print(flush=True)
    return device


def environment(device: torch.device) -> dict[str, str]:
    """What numbers depend on: machine, versions, commit."""
    threads = torch.get_num_threads()
    machine = f"{processor()}, {threads} thread{'s' if threads > 1 else ''}"
    if device.type == "cuda":
        machine = f"{torch.cuda.get_device_name(device)} ({machine})"
    return {
        "machine": machine,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "diffnas": version_of("diffnas"),
        "kernels": native.described() if device.type == "cpu" else "torch",
        "commit": _commit(),
    }


def processor(path: str = "/proc/cpuinfo") -> str:
    """The CPU's name."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str:
    """The commit of the checkout; in a copy without one what `make carry` wrote down."""
    root = Path(__file__).parents[1]
    try:
        shown = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        written = root / "carry" / "commit"
        shown = written.read_text() if written.is_file() else ""
    return shown.strip() or "unknown"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of columns, the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in (head, ["-" * width for width in widths], *rows):
        first, *rest = [text.rjust(width) for text, width in zip(row, widths, strict=True)]
        lines.append("  ".join([first.strip().ljust(widths[0]), *rest]).rstrip())
    return "\n".join(lines)


def write_json(path: Path | None, device: torch.device, found: Mapping[str, Any]) -> None:
    """Writes where and what was measured to `path`, if there is one."""
    if path is not None:
        path.write_text(json.dumps({"environment": environment(device), **found}, indent=1) + "\n", encoding="utf-8")
