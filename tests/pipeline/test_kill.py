"""kill -9 in the middle of an epoch, then --resume: the end is that of an unbroken run, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import diffnas
from diffnas.runtime.checkpoint import load_checkpoint

# a checkpoint after every step, so that the kill falls between two of them in the middle of an epoch
ARGUMENTS = ["--set", "search.checkpoint_every=1e-6", "--set", "train.checkpoint_every=1e-6", "--set", "search.batch=8"]


def command(*arguments: str, folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "diffnas", *arguments]
    return subprocess.Popen(line, cwd=folder, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def run_to_end(*arguments: str, folder: Path) -> None:
    assert command(*arguments, folder=folder).wait(timeout=300) == 0


def kill_after(checkpoint: str, *arguments: str, folder: Path, part: Path) -> None:
    """Starts a command and kills it once a checkpoint later than `checkpoint` is there."""
    process = command(*arguments, folder=folder)
    deadline = time.monotonic() + 120
    while not any(path.name > checkpoint for path in (part / "checkpoint").glob("[0-9]*.pt")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL


def same_tensors(value: object, other: object) -> bool:
    if isinstance(value, dict) and isinstance(other, dict):
        return set(value) == set(other) and all(same_tensors(value[key], other[key]) for key in value)
    return value.equal(other) if hasattr(value, "equal") else value == other  # type: ignore[attr-defined]


@pytest.mark.parametrize("order", ["first", pytest.param("second", marks=pytest.mark.slow)])
def test_search(order: str, tmp_path: Path) -> None:
    unrolled = "true" if order == "second" else "false"
    arguments = ("search", "darts-digits-tiny", "--set", f"method.unrolled={unrolled}", *ARGUMENTS)
    run_to_end(*arguments, "--run", "whole", folder=tmp_path)
    # epoch 2 (counted from 1), past step 4 of 16
    kill_after("000100000004.pt", *arguments, "--run", "part", folder=tmp_path, part=tmp_path / "part" / "search")
    names = sorted(path.name for path in (tmp_path / "part" / "search" / "checkpoint").glob("[0-9]*.pt"))
    assert names[-1] < "000200000000.pt"  # it died within the epoch
    run_to_end("search", "--resume", "part", folder=tmp_path)
    whole, part = (diffnas.Run(tmp_path / name).search for name in ("whole", "part"))
    states = [load_checkpoint(found.checkpoints) for found in (whole, part)]
    for state in states:
        assert state is not None
        del state["state"]["seconds"]
    assert same_tensors(states[0], states[1])
    rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in found.metrics()] for found in (whole, part)]
    assert rows[0] == rows[1] and len(rows[0]) == 2
    assert whole.genotype.read_bytes() == part.genotype.read_bytes()


def test_train(tmp_path: Path) -> None:
    arguments = ("train", "darts-v2", "--recipe", "darts-digits-tiny", *ARGUMENTS)
    run_to_end(*arguments, "--run", "whole", folder=tmp_path)
    training = Path("train") / "darts-digits-tiny-seed0"
    kill_after("000001000002.pt", *arguments, "--run", "part", folder=tmp_path, part=tmp_path / "part" / training)
    assert not (tmp_path / "part" / training / "weights.safetensors").exists()
    run_to_end("train", "--resume", "part", folder=tmp_path)
    whole, part = ((tmp_path / name / training / "weights.safetensors").read_bytes() for name in ("whole", "part"))
    assert whole == part
    tests = [diffnas.test(tmp_path / name) for name in ("whole", "part")]
    assert tests[0] == tests[1]
