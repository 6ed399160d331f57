"""The GPU's benchmark on a CPU: every stage runs at the smallest size, and none takes another along."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import correct, machine, searches, stages, steps
from benchmarks.gpu.context import Context, attempted
from benchmarks.gpu.record import Record
from PIL import Image

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(CPU, True, None, Record(tmp_path), time.monotonic() + 60)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of parquet files like those of CIFAR-10."""
    folder = tmp_path / "images"
    folder.mkdir()
    for split, count in (("train", 40), ("test", 10)):
        encoded = []
        for pixels in np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8):
            out = io.BytesIO()
            Image.fromarray(pixels).save(out, "PNG")
            encoded.append(out.getvalue())
        table = pyarrow.table({"img": encoded, "label": [*range(10)] * (count // 10)})
        pyarrow.parquet.write_table(table, folder / f"{split}-0.parquet")
    return folder


def run(out: Path, *arguments: str) -> tuple[int, dict[str, list[dict[str, Any]]], str]:
    """The exit code, the results by stage, and what was said on standard error."""
    line = [
        sys.executable,
        "-m",
        "benchmarks.gpu",
        "--device",
        "cpu",
        "--tiny",
        "--out",
        str(out),
        *arguments,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src"), "PYTHONWARNINGS": "error"}
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    rows = [json.loads(row) for row in (out / "results.jsonl").read_text().splitlines()]
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["stage"], []).append(row)
    assert list(found)[0] == "environment" and len(rows) == len(done.stdout.splitlines())
    return done.returncode, found, done.stderr


def ends(found: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    return {stage: rows[-1]["status"] for stage, rows in found.items() if stage != "environment"}


def test_the_stages_are_those_of_the_command() -> None:
    assert tuple(stage.name for stage in stages.STAGES) == command.NAMES
    assert sum(stage.seconds for stage in stages.STAGES) < command.parser().parse_args([]).seconds - 20 < 540


def test_every_quick_stage_runs_on_a_cpu(tmp_path: Path, images: Path) -> None:
    chosen = [name for name in command.NAMES if name not in ("nb201", "compile")]
    only = [part for name in chosen for part in ("--only", name)]
    code, found, said = run(tmp_path / "out", "--data", str(images), *only)
    assert (code, ends(found)) == (0, dict.fromkeys(chosen, "done")) and "Warning" not in said
    assert {"torch", "commit", "tf32", "packages", "cudnn", "machine"} <= set(found["environment"][0])
    rows = [row for stage in found.values() for row in stage]
    assert not [row for row in rows if "error" in row]
    assert len([row for row in found["steps"] if row.get("median_ms", 0) > 0]) == 22
    assert len(found["graph"]) == 6 and all(row["ok"] for row in found["graph"][:-1])
    assert len(found["train"]) == 5 and len(found["deterministic"]) == 6 and found["deterministic"][-2]["ok"]
    compared = [row for row in found["correct"] if "ok" in row]
    assert len(compared) == 24 and all(row["ok"] for row in compared if row["precision"] == "float32")
    (searched,) = [row for row in found["search"] if row.get("case") == "darts-cifar10"]
    assert (searched["exit"], searched["epochs"], searched["orderly"], searched["stopped"]) == (0, 2, True, False)
    assert "Warning" not in searched["log"]


@pytest.mark.slow
def test_compiled_steps(tmp_path: Path) -> None:
    code, found, _ = run(tmp_path / "out", "--only", "compile")
    assert code == 0 and len([row for row in found["compile"] if "median_ms" in row]) == 4


@pytest.mark.slow
def test_the_search_on_nasbench201(tmp_path: Path, images: Path) -> None:
    code, found, _ = run(tmp_path / "out", "--data", str(images), "--only", "nb201")
    assert code == 0 and len(found["nb201"][0]["accuracy"]) == 2


# ---- how stages end --------------------------------------------------------------------------------------------------


def staged(context: Context, results: Any) -> tuple[bool, list[dict[str, Any]]]:
    well = stages.run(stages.Stage("some", 1.0, lambda _: results), context)
    return well, context.record.found


def test_a_stage_that_fails_keeps_what_it_found(context: Context) -> None:
    def fails() -> Iterator[dict[str, Any]]:
        yield {"case": 1}
        raise ValueError("no")

    well, rows = staged(context, fails())
    assert not well and rows[0]["case"] == 1
    assert (rows[1]["status"], rows[1]["error"]) == ("failed", "ValueError: no") and "test_gpu.py" in rows[1]["at"]
    assert [json.loads(line) for line in context.record.path.read_text().splitlines()] == rows


def test_a_stage_is_cut_at_its_time_even_within_a_case(tmp_path: Path) -> None:
    context = Context(CPU, True, None, Record(tmp_path), time.monotonic() + 0.3)

    def slow() -> Iterator[dict[str, Any]]:
        yield {"case": 1}
        yield attempted({"case": 2}, lambda: {"never": time.sleep(60)})

    started = time.monotonic()
    well, rows = staged(context, slow())
    assert well and [row.get("status") for row in rows] == [None, "cut"] and time.monotonic() - started < 30
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_case_that_fails_is_a_result() -> None:
    assert attempted({"case": 1}, lambda: {"x": 1 // 0})["error"].startswith("ZeroDivisionError")


def arguments(out: Path, **others: Any) -> argparse.Namespace:
    found = command.parser().parse_args(["--device", "cpu", "--tiny", "--out", str(out)])
    vars(found).update(others)
    return found


def test_a_process_that_is_lost_leaves_the_other_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def process(args: argparse.Namespace, names: list[str], seconds: float) -> tuple[int, str | None]:
        seen.append(list(names))
        return {"depthwise": (-11, "depthwise"), "steps": (command.LOST, "steps"), "train": (0, None)}[names[0]]

    monkeypatch.setattr(command, "_run", process)
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    monkeypatch.setattr(
        sys, "argv", ["gpu", "--out", str(tmp_path), *["--only", "depthwise", "--only", "steps", "--only", "train"]]
    )
    assert command.main() == 1
    assert seen == [["depthwise", "steps", "train"], ["steps", "train"], ["train"]]
    (row,) = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert (row["stage"], row["status"]) == ("depthwise", "lost") and "-11" in row["error"]


def test_a_process_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "GRACE", 0.0)
    late = f"import json, time; open({str(tmp_path / '.stage')!r}, 'w').write(json.dumps(['steps', time.time()]))"
    popen = subprocess.Popen
    monkeypatch.setattr(
        command.subprocess, "Popen", lambda _: popen([sys.executable, "-c", f"{late}; time.sleep(300)"])
    )
    assert command._run(arguments(tmp_path), ["steps"], 60.0) == (-signal.SIGKILL, "steps")


def test_without_a_gpu_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    told = {
        "data": None,
        "device": "cuda",
        "tiny": True,
        "out": str(tmp_path),
        "names": ["steps"],
        "seconds": 9,
        "lost": 75,
    }
    assert stages.main(told) == 1
    assert "there is no GPU here; use --device cpu --tiny" in capsys.readouterr().err


def test_stages_share_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def timed(context: Context) -> list[dict[str, Any]]:
        given.append(round(context.left()))
        return []

    wanted = [("a", 10, False), ("b", 20, True), ("c", 30, False), ("d", 40, False)]
    monkeypatch.setattr(stages, "STAGES", [stages.Stage(name, seconds, timed, rest) for name, seconds, rest in wanted])
    told = {"data": None, "device": "cpu", "tiny": True, "out": str(tmp_path), "names": list("abcd"), "lost": 75}
    assert stages.main({**told, "seconds": 200.4}) == 0 and given == [10, 130, 30, 40]
    given.clear()
    assert stages.main({**told, "seconds": 45.4}) == 0 and given == [10, 30, 40]
    assert "no time left" in (tmp_path / "results.jsonl").read_text()


# ---- what they find --------------------------------------------------------------------------------------------------


def test_a_search_that_is_stopped_tells_how_far_it_came() -> None:
    log = "search epoch 1  step 12/390  train 2.3 10%\nsearch epoch 1  step 40/390  train 2.2 12%"
    assert searches._epochs([], log) == {"epochs": 0, "step": "40/390"}
    rows = [{"seconds": 9.0}, {"seconds": 5.0}, {"seconds": 7.0}]
    assert searches._epochs(rows, log) == {"epochs": 3, "epoch_s": [9.0, 5.0, 7.0], "epochs_per_minute": 10.0}


def test_a_command_is_stopped_in_order(tmp_path: Path) -> None:
    stops = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
print("search epoch 1  step 3/9", flush=True)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # it may have come before
signal.pause()
"""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        found = searches._command([sys.executable, "-c", stops], tmp_path / "log", 0.01)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    assert (found["stopped"], found["exit"], found["orderly"]) == (True, 130, True)
    assert searches._epochs([], found["log"])["step"] == "3/9"
    found = searches._command([sys.executable, "-c", "1 / 0"], tmp_path / "log", 60.0)
    assert (found["stopped"], found["exit"], found["orderly"]) == (False, 1, False) and "ZeroDivision" in found["log"]


def test_searches_without_data_say_so(context: Context) -> None:
    assert list(searches.nb201(context))[0]["absent"] == searches.NO_DATA


def test_the_fastest_form_is_profiled(context: Context) -> None:
    assert steps._fastest(context) == "eager fast"
    for form, median in (("eager plain", 3.0), ("graph plain", 1.0), ("eager fast", 2.0)):
        context.record.add("steps", {"case": steps.REFERENCE, "form": form, "median_ms": median})
    assert steps._fastest(context) == "graph plain"


def test_a_wrong_gradient_is_told_from_rounding(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    found_by = correct.found_by

    def wrong(search: Any, batches: Any, order: Any) -> dict[str, torch.Tensor]:
        found = found_by(search, batches, order)
        exact = search.weights[0].dtype == torch.float64
        return found if exact else {name: 1.1 * value for name, value in found.items()}

    monkeypatch.setattr(correct, "found_by", wrong)
    row = next(iter(correct.run(context)))
    assert row["draws"] == correct.DRAWS and not row["ok"] and row["arch"] == pytest.approx(0.1, rel=0.1)


def test_the_environment_has_what_numbers_depend_on() -> None:
    found = machine.environment(CPU)
    assert found["torch"] == torch.__version__ and found["packages"]["numpy"] == np.__version__
    assert set(found["tf32"]) == {"matmul", "convolution"}
