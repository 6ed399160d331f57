"""Seconds of steps, and of kernels too short to be timed one by one."""

from __future__ import annotations

import statistics
import time

import torch

from benchmarks.gpu.context import Context, Result
from benchmarks.measure import MIB, Build, Step, timed, wait

WARM = 2  # steps that are not counted: libraries load, momenta begin, constants go to the device


def seconds_each(step: Step, context: Context, rounds: int, limit: float = 5.0) -> list[float]:
    """The seconds of up to `rounds` steps, at least one, begun within `limit` seconds; tiny: of the very first one."""
    end = time.monotonic() + limit
    if not context.tiny:
        warm(step, context)
    found = [timed(step, context.device)]
    while len(found) < rounds and not context.tiny and time.monotonic() < end:
        found.append(timed(step, context.device))
    return found


def warm(step: Step, context: Context) -> None:
    """Takes the steps that are not to be counted."""
    for _ in range(WARM):
        step()
    wait(context.device)


def measured(build: Build, context: Context, rounds: int, limit: float) -> Result:
    """Median and minimum of a step in ms, and the peak of the memory that it takes in MiB."""
    device = context.device
    before = torch.cuda.memory_allocated(device) if context.cuda else 0
    if context.cuda:
        torch.cuda.reset_peak_memory_stats(device)
    step = build()
    seconds = seconds_each(step, context, rounds, limit)
    peak = (torch.cuda.max_memory_allocated(device) - before) / MIB if context.cuda else None
    return {
        "median_ms": 1e3 * statistics.median(seconds),
        "min_ms": 1e3 * min(seconds),
        "rounds": len(seconds),
        "peak_mib": peak,
    }


def captured(calls: Step) -> Step:
    """`calls` as a CUDA graph: for functions without autograd that make what they read and write once."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        calls()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        calls()
    return graph.replay
