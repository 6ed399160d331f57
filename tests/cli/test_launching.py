"""`--devices`: processes that the command line starts, and what is said when one of them is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffnas.cli.main import main
from diffnas.runtime.run_folder import Run

TINY = ["-s", "search.batch=8", "-s", "data.train_limit=40", "-s", "data.test_limit=60", "-q"]
TINY += ["-s", "space.channels=2", "-s", "space.layers=2", "-s", "space.nodes=1"]


def started(*arguments: str) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DIFFNAS_KERNELS": "torch"}
    return subprocess.Popen(
        [sys.executable, "-m", "diffnas", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def process_of(launcher: int, rank: int) -> int:
    """The process of that rank, among the children of the launcher."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (path / "environ").read_text().split("\0")
        except (OSError, ValueError):
            continue
        if parent == launcher and f"RANK={rank}" in variables:
            return int(path.name)
    raise AssertionError("there is no such process")


@pytest.mark.slow
def test_two_processes_search_and_one_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = started(
        "search", "darts-digits-tiny", *TINY, "-s", "search.epochs=1", "--run", str(run), "--devices", "2"
    )
    out, err = command.communicate(timeout=200)
    assert command.returncode == 0, err
    assert out.count("run folder:") == 1 and len(Run(run).search.metrics()) == 1
    assert Run(run).search.read_json("environment.json")["processes"] == 2
    assert main(["search", "--resume", str(run), "-s", "search.epochs=2"]) == 0
    assert len(Run(run).search.metrics()) == 2


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("number", "rank"),
    [
        (signal.SIGKILL, 1),
        pytest.param(signal.SIGKILL, 0, marks=pytest.mark.slow),
        pytest.param(signal.SIGSTOP, 0, marks=pytest.mark.slow),
        pytest.param(signal.SIGSTOP, 1, marks=pytest.mark.slow),
    ],
)
def test_a_lost_process_is_named(tmp_path: Path, number: signal.Signals, rank: int) -> None:
    run = tmp_path / "run"
    options = ["-s", "search.epochs=900", "--run", str(run), "--devices", "2", "--rank-timeout", "10"]
    command = started("search", "darts-digits-tiny", *TINY, *options)
    try:
        end = time.monotonic() + 100
        while not any(Run(run).search.checkpoints.glob("*.pt")) and time.monotonic() < end:
            time.sleep(0.2)
        os.kill(process_of(command.pid, rank), number)
        _, err = command.communicate(timeout=60)
    finally:
        command.kill()
    assert command.returncode == 1 and err.count("\n") == 1
    assert f"process {rank} of 2 has died, has stopped" in err
    assert any(Run(run).search.checkpoints.glob("*.pt"))
    if number == signal.SIGKILL and rank == 1:
        assert (
            main(["search", "--resume", str(run), "-s", "search.epochs=1"]) == 0
        )  # with fewer than were begun: it ends
        assert Run(run).search.genotype.is_file()


def test_machines_must_be_told_how_to_meet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "darts-digits-tiny", "--nodes", "2"]) == 2
    assert "--node-rank, from 0 to 1, and --main HOST:PORT" in capsys.readouterr().err
