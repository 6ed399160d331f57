"""How a step is captured by CUDA, told by what is asked of torch.cuda: a stand-in writes down every call, in order."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from diffnas.core.batch import Loss
from diffnas.engine.replay import CudaRecorder


class Cuda:
    """What torch.cuda has that a recorder needs; `calls` is what was asked of it."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.streams = ["first"]
        self.devices = [0]
        self.fails = False

    @contextlib.contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        self.devices.append(device.index)
        yield
        self.devices.pop()

    def graph_pool_handle(self) -> tuple[int, int]:
        return (0, self.devices[-1])

    def make_stream(self) -> str:
        self.calls.append(("stream on device", self.devices[-1]))
        return "own"

    @contextlib.contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before = self.streams[-1]
        self.streams.append(stream.name)
        try:
            yield
        finally:
            self.streams[:] = [*self.streams[:1], before] if before != self.streams[0] else self.streams[:1]

    def graph(self, graph: Any, pool: Any, stream: Any, mode: str) -> Any:
        return _Capture(self, graph, pool, stream.name, mode)


class Stream:
    def __init__(self, cuda: Cuda, name: str) -> None:
        self.cuda, self.name = cuda, name

    def wait_stream(self, other: Stream) -> None:
        self.cuda.calls.append(f"{self.name} waits for {other.name}")


class _Capture:
    """As torch's own: where the end of a capture fails, it does not put the stream back."""

    def __init__(self, cuda: Cuda, *given: Any) -> None:
        self.cuda, self.given = cuda, given

    def __enter__(self) -> None:
        self.cuda.streams.append(self.given[2])
        self.cuda.calls.append(("begins", *self.given[1:]))

    def __exit__(self, *error: Any) -> None:
        self.cuda.calls.append("ends")
        if self.cuda.fails:
            raise RuntimeError("capture invalidated")
        self.cuda.streams.pop()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    bound = inspect.signature(torch.cuda.graph).bind("graph", "pool", "stream", "thread_local")
    assert list(bound.arguments) == ["cuda_graph", "pool", "stream", "capture_error_mode"]
    found = Cuda()
    graph = type("Graph", (), {"replay": lambda self: found.calls.append("replays")})
    stand_ins = {
        "device": found.device,
        "graph_pool_handle": found.graph_pool_handle,
        "Stream": lambda: Stream(found, found.make_stream()),
        "current_stream": lambda: Stream(found, found.streams[-1]),
        "stream": found.stream,
        "CUDAGraph": graph,
        "graph": found.graph,
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return found


def works(cuda: Cuda) -> Any:
    def work() -> dict[str, Loss]:
        cuda.calls.append(f"work on {cuda.streams[-1]} of device {cuda.devices[-1]}")
        return {"train": Loss(torch.zeros(()), torch.zeros(()), 1)}

    return work


CAPTURE = ("begins", (0, 1), "own", "thread_local")


def test_a_step_is_done_once_then_captured_on_one_stream_of_its_device(cuda: Cuda) -> None:
    recorder = CudaRecorder(torch.device("cuda", 1))
    losses, again = recorder.record(works(cuda))
    again()
    on_own = "work on own of device 1"
    assert cuda.calls == [
        ("stream on device", 1),
        "own waits for first",
        on_own,
        CAPTURE,
        on_own,
        "ends",
        "first waits for own",
        "replays",
    ]
    assert list(losses) == ["train"] and (cuda.streams, cuda.devices) == (["first"], [0])


def test_graphs_share_their_memory_and_their_stream(cuda: Cuda) -> None:
    recorder = CudaRecorder(torch.device("cuda", 1))
    for _ in range(2):
        recorder.record(works(cuda))
    assert cuda.calls.count(CAPTURE) == 2 and cuda.calls.count(("stream on device", 1)) == 1


def test_a_capture_that_fails_leaves_the_stream_as_it_was(cuda: Cuda) -> None:
    cuda.fails = True
    recorder = CudaRecorder(torch.device("cuda", 1))
    with pytest.raises(RuntimeError, match="invalidated"):
        recorder.record(works(cuda))
    assert cuda.streams == ["first"] and cuda.calls[-1] == "first waits for own"
