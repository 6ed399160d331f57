"""Two processes with a part of the batch each do what one does with the whole batch: every method, images and text.

Weights, architecture, running statistics, losses, right answers and rewards after three steps, and after steps that select,
in float64.  All of it is computed by one pair of processes.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SECONDS = 300


def launched(size: int, *arguments: str, script: Path) -> list[subprocess.CompletedProcess[str]]:
    """Runs `size` processes of a script as torchrun would, and waits for them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(size)}
    environment |= {"OMP_NUM_THREADS": "1", "DIFFNAS_KERNELS": "torch"}
    started = [
        subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    ended = []
    for process in started:
        try:
            out, err = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
        ended.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    return ended


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float | str]]:
    """The largest difference of every case, and where it is."""
    result = tmp_path_factory.mktemp("pair") / "result.json"
    ended = launched(2, str(result), script=HERE / "pair.py")
    assert all(process.returncode == 0 for process in ended), "\n".join(process.stderr[-3000:] for process in ended)
    rows: dict[str, list[float | str]] = json.loads(result.read_text())
    return rows


def test_every_method_equals_one_process(found: dict[str, list[float | str]]) -> None:
    require_equal(found)
    assert len(found) > 40


@pytest.mark.slow
def test_four_processes_and_pieces(tmp_path: Path) -> None:
    """Of seven images and five columns four processes get unequal parts, and some of them none."""
    ended = launched(4, str(tmp_path / "result.json"), "-pieces", script=HERE / "pair.py")
    assert all(process.returncode == 0 for process in ended), "\n".join(process.stderr[-3000:] for process in ended)
    rows = json.loads((tmp_path / "result.json").read_text())
    require_equal(rows)
    assert len(rows) == 2


def require_equal(found: dict[str, list[float | str]]) -> None:
    """Asserts that nothing differs by more than 1e-6 of its size."""
    off = {case: row[:2] for case, row in found.items() if not float(row[0]) <= 1e-6}
    assert not off
