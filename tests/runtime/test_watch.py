"""Who is said to be lost, and by whom; the others are made up, so nobody has to be waited for."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from diffnas.runtime.launched import FAILURES, LAUNCHER, OPTIONS, Place, noted, whole_command
from diffnas.runtime.watch import PATIENCE, Watch


def watch(rank: int = 0, size: int = 2, local: int | None = None, allowed: float = 10.0) -> Watch:
    """A watch that has begun three sums and waits for the last, as have the others."""
    made = Watch(None, Place(rank, size, rank if local is None else local), allowed, lambda: None)
    made.met = 3
    for other in made.others.values():
        other.heard(b"1 3 1", time.monotonic())
    return made


def waiting(made: Watch, seconds: float) -> tuple[int, str] | None:
    """Who is lost after so many seconds."""
    made.since = time.monotonic() - seconds
    return made.lost(1e9, 0.8 * made.allowed + 2)


def test_a_process_that_hangs_in_a_step() -> None:
    made = watch()
    made.others[1].heard(b"2 2 1", time.monotonic())
    assert waiting(made, 9.0) is None
    found = waiting(made, 11.0)
    assert found is not None and found[0] == 1 and "needs longer for a step" in found[1]


def test_one_that_hangs_between_two_epochs_is_given_more_time_but_not_all() -> None:
    made = watch()
    made.others[1].heard(b"2 2 0", time.monotonic())
    assert waiting(made, PATIENCE * 10.0 - 1) is None
    assert waiting(made, PATIENCE * 10.0 + 1) == (1, "hangs: it has been waited for 300 s")


def test_one_that_ended_since_it_lost_another() -> None:
    made = watch(size=3)
    made.others[2].heard(b"gone ", time.monotonic())
    assert waiting(made, 5.0) is None  # the one that both have lost is found by then
    found = waiting(made, 13.0)
    assert found is not None and found[0] == 2 and "lost its connection to another" in found[1]


def test_the_line_names_the_machine_and_the_whole_command(monkeypatch: pytest.MonkeyPatch) -> None:
    made = watch()
    assert made._line(1, "hangs") == "process 1 of 2 hangs; run the same command again"
    monkeypatch.setenv(OPTIONS, "--devices 2")
    made.go_on, made.machines = whole_command("diffnas search --resume runs/a"), ["10.0.0.1", "10.0.0.2"]
    said = "go on from the last checkpoint with: diffnas search --resume runs/a --devices 2"
    assert made._line(1, "hangs") == f"process 1 of 2 on 10.0.0.2 hangs; {said}"


@pytest.mark.parametrize(
    ("rank", "local", "lost", "speaks"),
    [(0, 0, 2, True), (1, 1, 2, False), (2, 0, 0, True), (3, 1, 0, False), (3, 1, 2, True), (1, 1, 0, True)],
)
def test_one_process_of_each_machine_speaks(
    rank: int, local: int, lost: int, speaks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, left = watch(rank, 4, local), []
    monkeypatch.setattr(made, "_leave", lambda: left.append(rank))
    made._leave_to_first(lost)
    assert bool(left) != speaks


def test_a_process_whose_launcher_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    made, asked, left = watch(), [], []
    monkeypatch.setattr("os.kill", lambda number, sent: asked.append(sent))
    monkeypatch.setattr(made, "_leave", lambda: left.append(True))
    assert made._orphaned(0.0) == 0.0
    monkeypatch.setenv(LAUNCHER, "1")
    monkeypatch.setattr("os.getppid", lambda: 2)
    since = made._orphaned(0.0)
    assert since and len(asked) == 1 and made._orphaned(since) == since and not left
    made._orphaned(since - PATIENCE * 10.0 - 1)
    assert left == [True] and len(asked) == 1


def test_an_error_is_noted_where_a_program_asks_for_it(tmp_path: Path) -> None:
    assert not noted("UserError", ["x"], {})
    assert noted("UserError", ["x"], {FAILURES: str(tmp_path), "RANK": "1"})
