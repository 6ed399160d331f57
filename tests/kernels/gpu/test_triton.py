"""The Triton kernels without a GPU: in Triton's interpreter, and compiled for a card that is not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import diffnas

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed"),
]
HERE = Path(__file__).parent


def run(script: str) -> dict[str, float]:
    """What a program of its own prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(diffnas.__file__).parents[1])}
    line = [sys.executable, "-W", "error", str(HERE / script)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, float] = json.loads(done.stdout)
    return found


def test_the_interpreter_finds_what_pytorch_finds() -> None:
    """Against the same order of computation, and op by op in float64; in bfloat16 images are rounded, and a ReLU may flip."""
    found = run("interpreted.py")
    assert len(found) == 11
    for name, error in found.items():
        limit = {"float64": 1e-12, "bfloat16": 0.05}.get(name.split()[0], 1e-6)
        assert error < limit, (name, error)


def test_all_kernels_compile_for_a_gpu() -> None:
    """What the interpreter lets pass a compiler may refuse; and programs must fit into a multiprocessor's memory."""
    found = run("compiled.py")
    assert len(found) == 56 and max(found.values()) <= 64 * 1024
