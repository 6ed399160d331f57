"""Disk and memory that ran out, in words."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from diffnas.runtime import room
from diffnas.runtime.room import free_memory, in_words, lack_of_room


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device", "runs/x"), "runs/x: No space left on device"),
        (OSError(28, "No space left on device"), "the disk: No space left on device"),
        (OSError(27, "File too large", "a"), "a: File too large"),
        (OSError(12, "Cannot allocate memory"), "the memory is full"),
        (MemoryError(), "the memory is full"),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
                " allocate 4294967296 bytes. Error code 12 (Cannot allocate memory)"
            ),
            "the memory is full (4.0 GiB more were asked for)",
        ),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.10 GiB"),
            "the memory of the GPU is full (20.00 MiB more were asked for)",
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), "the memory of the GPU is full"),
        (RuntimeError("std::bad_alloc"), "the memory is full"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "the memory is full"),
        (PermissionError(13, "Permission denied", "a"), None),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (ValueError("CUDA is not there"), None),
    ],
    ids=lambda value: str(value)[:30],
)
def test_in_words(error: Exception, said: str | None) -> None:
    lack = lack_of_room(error)
    assert (None if lack is None else lack.said) == said
    if lack is not None:
        remedies = {"memory": "close other programs", "disk": "free some space"}
        assert lack.remedy == ("raise the limit of files (ulimit -f)" if "large" in lack.said else remedies[lack.of])


def said(error: Exception) -> str:
    lack = lack_of_room(error)
    assert lack is not None
    return lack.said


def test_what_the_libraries_say_today() -> None:
    with pytest.raises(MemoryError) as caught:
        np.empty(2**50)
    assert said(caught.value) == "the memory is full (8.00 PiB more were asked for)"
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError) as failed:
        torch.empty(2**55)
    assert "were asked for" in said(failed.value)


def test_what_an_error_came_from_counts() -> None:
    try:
        try:
            raise MemoryError
        except MemoryError:
            raise RuntimeError("unexpected pos 64 vs 0")  # noqa: B904 (as torch does when a file cannot be finished)
    except RuntimeError as error:
        assert said(error) == "the memory is full"


def test_sizes_for_people() -> None:
    assert [in_words(size) for size in (0, 1023, 1024, 3.5 * 2**30, 2**60)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "3.5 GiB",
        "1048576.0 TiB",
    ]


def test_free_memory_of_a_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = free_memory()
    assert whole is None or whole > 2**20
    monkeypatch.setattr(room, "_container", lambda: [12345])
    assert free_memory() in (None, 12345)


def test_errors_that_libraries_lose_for_want_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    resource, error = pytest.importorskip("resource"), SystemError("error return without exception set")
    limited = "the memory is full: this process may take 1.0 GiB (ulimit -v)"
    for limit, said in ((resource.RLIM_INFINITY, None), (2**30, limited)):
        monkeypatch.setattr(resource, "getrlimit", lambda which, limit=limit: (limit, limit))
        lack = lack_of_room(error)
        assert (None if lack is None else lack.said) == said
        assert lack is None or lack.remedy == "raise that limit"


def test_what_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Path, *given: object, **named: object) -> str:
        raise PermissionError

    def limited(self: Path, *given: object, **named: object) -> str:
        return {"memory.max": "2048", "memory.current": "1024"}.get(self.name, "MemAvailable: 8 kB\nSwapFree: 0 kB\n")

    monkeypatch.setattr(Path, "read_text", limited)
    assert free_memory() == 1024  # of the container, not of the machine
    monkeypatch.setattr(Path, "read_text", broken)
    assert free_memory() is None and room._container() == []
    monkeypatch.setitem(sys.modules, "resource", None)
    assert room.memory_limit() is None
