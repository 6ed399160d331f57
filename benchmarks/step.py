"""A search step on the plain supernet and on the fast one: seconds and peak memory, and how the fast one's cost grows.

    python -m benchmarks.step [--quick] [--rounds N] [--threads N] [--device D] [--json FILE]

Plain is one module per edge and op, in NCHW.  Both take their steps in turns in one process, in which the fast one has told
the C library to keep freed memory (`diffnas.kernels.memory`): that helps the plain one too, and is left so.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from benchmarks.build import OurStep
from benchmarks.measure import (
    Alone,
    Comparison,
    Times,
    alternate,
    arguments,
    begin,
    compare,
    comparison_head,
    measure_alone,
    table,
    time_cells,
    write_json,
)
from diffnas.methods.darts import DARTS

REFERENCE = OurStep(channels=16, layers=8, batch=16)
SECOND = DARTS(unrolled=True)
FULL = (
    REFERENCE,
    replace(REFERENCE, method=SECOND),
    replace(REFERENCE, partial=4),
    replace(REFERENCE, batch=4),
    replace(REFERENCE, batch=64),
    replace(REFERENCE, channels=32, batch=8),
    replace(REFERENCE, channels=8, layers=5, batch=8),
    replace(REFERENCE, channels=8, layers=5, batch=8, method=SECOND),
)
SMALL = OurStep(channels=8, layers=5, batch=8)
QUICK = (SMALL,)
QUICK_SECONDS = 10.0  # of timed rounds: a busy machine gets fewer of them

# Half of the ops added at each step are convolutions with weights, so that cost can be read against their number.
ADDED = (
    ("sep_conv_3x3", "max_pool_3x3"),
    ("dil_conv_3x3", "skip_connect"),
    ("sep_conv_5x5", "avg_pool_3x3"),
    ("dil_conv_5x5", "none"),
)
GROWTH = {
    "layers": [replace(REFERENCE, layers=layers) for layers in (4, 8, 12, 16)],
    "channels": [replace(REFERENCE, channels=channels) for channels in (8, 16, 32, 64)],
    "batch": [replace(REFERENCE, batch=batch) for batch in (4, 8, 16, 32, 64)],
    "ops": [replace(REFERENCE, ops=sum(ADDED[:k], ())) for k in range(1, len(ADDED) + 1)],
}


def main() -> None:
    """Measures and prints."""
    parser = arguments("Seconds and memory of a search step, plain supernet against fast.", rounds=5)
    parser.add_argument("--quick", action="store_true", help="a small net, few rounds, no growth: under a minute")
    args = parser.parse_args()
    device = begin(args)
    rounds = min(args.rounds, 3) if args.quick else args.rounds
    if args.quick:
        print("quick: a small net (C=8 L=5 batch 8); the full run's reference is C=16 L=8 batch 16\n")
    cases = [replace(case, device=str(device)) for case in (QUICK if args.quick else FULL)]
    limit = QUICK_SECONDS if args.quick else math.inf
    found = [compared(case, rounds, device, limit) for case in cases]
    print(table(comparison_head("search step", "plain", "fast"), [each.row() for each in found]), flush=True)
    record: dict[str, object] = {"comparisons": [each.record() for each in found]}
    if not args.quick:
        record["growth"] = {name: grown(name, rounds, device) for name in GROWTH}
    write_json(args.json, device, record)
    print(f"\n{found[0].line('plain', 'fast')}")


def compared(case: OurStep, rounds: int, device: torch.device, limit: float) -> Comparison:
    """Plain against fast."""
    return compare(label(case), replace(case, form="plain"), case, rounds, device, limit)


def label(case: OurStep) -> str:
    """`C=16 L=8 batch 16 second order`."""
    order = "second order" if case.method == SECOND else "first order"
    return f"C={case.channels} L={case.layers} batch {case.batch} {order}" + (
        f" partial={case.partial}" if case.partial > 1 else ""
    )


def grown(name: str, rounds: int, device: torch.device) -> list[dict[str, object]]:
    """Prints how the fast step's cost grows with `name`; the sizes take their steps in turns."""
    cases = [replace(case, device=str(device)) for case in GROWTH[name]]
    alone = [measure_alone(case, device) for case in cases]
    times = alternate([case() for case in cases], rounds, device)
    sizes = [len(case.ops) if name == "ops" else int(getattr(case, name)) for case in cases]
    print(f"\ncost against {name}, fast, else C=16 L=8 batch 16 first order")
    sides = zip(sizes, times, alone, strict=True)
    rows = [growth_row(size, sizes[0], a, b, times[0], alone[0]) for size, a, b in sides]
    print(table([name, "min s", "median", "spread", "MiB", "size", "time", "memory"], rows), flush=True)
    return [
        {name: size, "seconds": each.seconds, "peak_mib": memory.peak_mib}
        for size, each, memory in zip(sizes, times, alone, strict=True)
    ]


def growth_row(size: int, first: int, times: Times, alone: Alone, times0: Times, alone0: Alone) -> list[str]:
    """One size, and how many times the first one's its size, time and memory are."""
    ratios = (size / first, times.best / times0.best, alone.peak_mib / alone0.peak_mib)
    return [str(size), *time_cells(times), f"{alone.peak_mib:.0f}", *(f"{ratio:.2f}x" for ratio in ratios)]


if __name__ == "__main__":
    main()
