"""Sharing a machine with other programs."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from diffnas.kernels.native.crowded import CROWDED
from diffnas.runtime import sharing
from diffnas.runtime.sharing import Crowd, Usage, cpus, fitted_threads, fitting_threads, taken, usage

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the system tells nothing of other programs")


def test_what_others_take_is_what_is_used_less_our_own() -> None:
    assert taken(Usage(10.0, 100.0, 5.0), Usage(12.0, 103.5, 6.5)) == pytest.approx(1.0)
    assert taken(Usage(10.0, 100.0, 5.0), Usage(12.0, 101.0, 6.5)) == 0.0  # rounding of the system's counts


@pytest.mark.parametrize(
    ("threads", "count", "others", "fitting"),
    [
        (2, 2, 0.0, 2),
        (2, 2, 0.4, 2),
        (2, 2, 1.0, 1),
        (2, 2, 2.0, 1),
        (8, 16, 6.0, 8),
        (16, 16, 6.0, 10),
        (4, 2, 0.0, 2),
    ],
)
def test_as_many_threads_as_free_cpus(threads: int, count: int, others: float, fitting: int) -> None:
    assert fitting_threads(threads, count, others) == fitting


@LINUX
def test_usage_is_of_the_cpus_that_we_may_use(tmp_path: Path) -> None:
    mine = sorted(os.sched_getaffinity(0))
    rows = [f"cpu{number} 100 1000 50 7777 20 3 4 900 0 0" for number in mine]
    (tmp_path / "stat").write_text(
        "\n".join(["cpu  9 9 9 9 9 9 9 9 0 0", *rows, "cpu999999 100 0 50 1 1 1 1 1 1 1", "ctxt 1"])
    )
    found = usage(tmp_path / "stat")
    assert found is not None and found.every == pytest.approx(157 * len(mine) / sharing.TICKS)
    (tmp_path / "stat").write_text(f"cpu{mine[0]} 100 x")
    assert usage(tmp_path / "stat") is None and usage(tmp_path / "gone") is None


class Busy:
    """A machine on which others use `others` CPUs, told once per look."""

    def __init__(self, *others: float) -> None:
        self.others, self.moment, self.every = iter(others), 0.0, 0.0

    def __call__(self) -> Usage:
        found = Usage(self.moment, self.every, 0.0)
        self.moment += 1.0
        self.every += next(self.others, 0.0)
        return found


def test_a_busy_machine_gets_fewer_threads_and_a_line(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def within(others: float) -> int:
        monkeypatch.setattr(sharing, "usage", Busy(others))
        with fitted_threads():
            return torch.get_num_threads()

    before = torch.get_num_threads()
    monkeypatch.setattr(sharing, "cpus", lambda: 4)
    monkeypatch.setattr(sharing, "LOOK", 0.0)
    try:
        torch.set_num_threads(4)
        monkeypatch.setenv("OMP_NUM_THREADS", "4")
        assert within(3.0) == 4
        monkeypatch.delenv("OMP_NUM_THREADS")
        assert within(0.2) == 4 and not caplog.messages
        assert within(3.0) == 1 and torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    expected = (
        "the machine is busy: other programs use 3.0 of its 4 CPUs, so 1 of 4 threads compute (OMP_NUM_THREADS sets how"
    )
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith(expected)


def test_a_crowd_comes_when_cpus_are_short_and_leaves(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    seen: list[str] = []

    class Counted:
        def __init__(self) -> None:
            seen.append("came")

        def leave(self) -> None:
            seen.append("left")

    class Ended:
        """An event that is set after so many looks."""

        def __init__(self, looks: int) -> None:
            self.looks = looks

        def wait(self, seconds: float) -> bool:
            self.looks -= 1
            return self.looks < 0

    monkeypatch.setattr(sharing, "CALM", 3)
    monkeypatch.setattr(sharing, "Crowd", Counted)
    monkeypatch.setattr(sharing, "cpus", torch.get_num_threads)
    busy = [0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 2.0]
    monkeypatch.setattr(sharing, "usage", Busy(*busy))
    sharing._watch(Ended(len(busy)))  # type: ignore[arg-type]
    assert seen == ["came", "left", "came", "left"]  # three quiet looks let it go, the end does as well
    assert sum("the machine is busy" in line for line in caplog.messages) == 1


@LINUX
@pytest.mark.skipif(cpus() < 2, reason="one CPU")
def test_a_crowd_is_a_team_that_ends() -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.zeros(1 << 17).exp_()
        alone, crowd = threads(), Crowd()
        waited = time.monotonic() + 30
        while threads() < alone + 2 and time.monotonic() < waited:
            time.sleep(0.01)
        assert threads() == alone + 2 and CROWDED.is_set()
        crowd.leave()
        assert not CROWDED.is_set()
        while threads() > alone and time.monotonic() < waited:
            time.sleep(0.01)
        assert threads() == alone
    finally:
        torch.set_num_threads(before)


@LINUX
def test_results_do_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(64, 64, 3, 3, generator=torch.Generator().manual_seed(0))
    images = torch.randn(8, 64, 16, 16, generator=torch.Generator().manual_seed(1))
    alone = torch.nn.functional.conv2d(images, weight)
    crowd = Crowd()
    assert torch.equal(torch.nn.functional.conv2d(images, weight), alone)
    crowd.leave()
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):  # who sets them has decided
        monkeypatch.setenv(name, "1")
        with sharing.sharing():
            assert not [thread for thread in sharing.threading.enumerate() if thread.name == "diffnas-sharing"]
        monkeypatch.delenv(name)


def test_a_block_is_watched_only_where_there_is_something_to_share(monkeypatch: pytest.MonkeyPatch) -> None:
    names = lambda: {thread.name for thread in threading.enumerate()}  # noqa: E731
    for name in sharing.FIXED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sharing, "usage", lambda: Usage(0.0, 0.0, 0.0))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    with sharing.sharing():
        assert "diffnas-sharing" not in names()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with sharing.sharing():
        assert "diffnas-sharing" in names()
    assert "diffnas-sharing" not in names()


class Looks:
    """A clock that is asked `count` times and then has ended."""

    def __init__(self, count: int) -> None:
        self.count = count

    def wait(self, seconds: float) -> bool:
        self.count -= 1
        return self.count < 0


def watched(monkeypatch: pytest.MonkeyPatch, others: list[float | None], calm: int) -> list[str]:
    """What a watch does of crowds while other programs keep so many CPUs busy, look by look (None: it is not told)."""
    done: list[str] = []

    class Told:
        def __init__(self) -> None:
            done.append("crowd")

        def leave(self) -> None:
            done.append("leave")

    looks = iter([0.0, *others])
    monkeypatch.setattr(sharing, "usage", lambda: next(looks))
    monkeypatch.setattr(sharing, "taken", lambda before, now: now)
    monkeypatch.setattr(sharing, "cpus", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(sharing, "CALM", calm)
    monkeypatch.setattr(sharing, "Crowd", Told)
    sharing._watch(Looks(len(others)))  # type: ignore[arg-type]
    return done


def test_a_crowd_is_called_while_others_are_busy_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert watched(monkeypatch, [0.0, 1.5, 1.5, 0.0, 0.0, 2.0], calm=2) == ["crowd", "leave", "crowd", "leave"]
    assert caplog.messages == ["the machine is busy: other programs use 1.5 of its 2 CPUs"]
    assert watched(monkeypatch, [1.5, None], calm=2) == ["crowd", "leave"]
    assert watched(monkeypatch, [0.1, 0.2], calm=2) == []
