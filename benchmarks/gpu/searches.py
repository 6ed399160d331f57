"""Real searches through the command line, for as long as there is time, and steps that must not wait for the device."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.build import OurStep
from benchmarks.gpu.context import Context, Result, Results, absent, attempted
from benchmarks.replays import replay, steadied
from diffnas.data.augment import Augment
from diffnas.data.feeds import Feed
from diffnas.data.images import Images
from diffnas.engine.method import Method
from diffnas.engine.replay import WARM
from diffnas.engine.search_steps import SearchSteps
from diffnas.methods.beta_darts import BetaDARTS
from diffnas.methods.darts import DARTS
from diffnas.methods.pcdarts import PCDARTS
from diffnas.methods.smooth_darts import SmoothDARTS
from diffnas.runtime.run_folder import Run

STOP = 15.0  # seconds for an orderly stop
TINY = {
    "darts-cifar10": ("space.channels=2", "space.layers=2", "space.nodes=1", "search.batch=10", "search.epochs=2"),
    "nb201-drnas": ("space.channels=2", "space.layers=1", "search.batch=10", "search.epochs=2"),
}
METHODS: dict[str, Method] = {
    "darts": DARTS(),
    "darts second order": DARTS(unrolled=True),
    "pcdarts": PCDARTS(),
    "beta-darts": BetaDARTS(),
    "smooth-darts adv": SmoothDARTS(perturbation="adv", steps=1),
}
"""Methods whose steps wait for nothing."""
NO_DATA = "it needs --data, the folder of CIFAR-10"


def darts(context: Context) -> Results:
    """Steps under PyTorch's watch for waits, then DARTS on CIFAR-10: epochs a minute."""
    yield from _unwaited(context)
    yield _searched(context, "darts-cifar10")


def nb201(context: Context) -> Results:
    """DrNAS on NAS-Bench-201: what the table says of its cell after every epoch."""
    yield _searched(context, "nb201-drnas")


def _unwaited(context: Context) -> Iterator[Result]:
    for name, method in METHODS.items():
        what = {"case": "a step that waits for nothing", "method": name}
        if context.cuda:
            for form in ("eager", "graph"):
                yield attempted(what | {"form": form}, partial(_watched, context, method, form))
        else:
            yield absent(what, "only CUDA tells who waits")


def _watched(context: Context, method: Method, form: str) -> Result:
    """A step, its batches included, in which PyTorch raises where the host waits for the device."""
    device = context.device
    case = OurStep(
        channels=4, layers=2, partial=4 if isinstance(method, PCDARTS) else 1, method=method, device=str(device)
    )
    search = case.search() if form == "eager" else steadied(case.search())
    steps = SearchSteps(search)
    own = replay(steps)
    step = steps.take if form == "eager" else own.step
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (64, 3, 32, 32), generator=draw, dtype=torch.uint8)
    images = Images(pixels, torch.arange(64) % 10, tuple("0123456789")).to(device)
    augment = Augment(4, True, 0, (0.5,) * 3, (0.25,) * 3)
    feeds = {half: Feed(images, None, 16, augment, seed=0, name=half).epoch(0) for half in ("train", "valid")}
    for k in range(WARM + 1):
        step({half: feed[k] for half, feed in feeds.items()})
    if own.off is not None:
        raise RuntimeError(own.off)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this watch does not see every wait yet
        torch.cuda.set_sync_debug_mode("error")
    try:
        step({half: feed[WARM + 1] for half, feed in feeds.items()})
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {"ok": True}


def _searched(context: Context, recipe: str) -> Result:
    what = {"case": recipe}
    if context.data is None:
        return absent(what, NO_DATA)
    given = [f"data.path={context.data}", f"device={context.device}", "log.every=5"]
    given += ["search.draws=device"] if recipe == "nb201-drnas" else []  # so that steps can be graphs
    given += TINY[recipe] if context.tiny else ["data.test_limit=256"]
    sets = [part for value in given for part in ("--set", value)]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder, "run")
        line = [sys.executable, "-m", "diffnas", "search", recipe, "--run", str(run), *sets]
        found = _command(line, Path(folder, "log"), context.left() - STOP)
        return what | found | _epochs(Run(run).search.metrics(), found["log"])


def _command(line: Sequence[str], log: Path, seconds: float) -> Result:
    """Runs a command and asks it to stop after `seconds`; how that went, and the end of what it said."""
    started = time.monotonic()
    with log.open("wb") as said:
        process = subprocess.Popen(line, stdout=said, stderr=said)
        try:
            stopped = _stop_after(process, seconds)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    code, text = process.returncode, log.read_text(encoding="utf-8", errors="replace")
    orderly = code == (130 if stopped else 0)
    return {
        "seconds": time.monotonic() - started,
        "stopped": stopped,
        "exit": code,
        "orderly": orderly,
        "log": text[-1500:],
    }


def _stop_after(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Waits for the end of `process`, or asks it to stop after `seconds`; whether it was asked."""
    try:
        process.wait(timeout=max(0.0, seconds))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=STOP)
        return True
    return False


def _epochs(rows: list[dict[str, Any]], log: str) -> Result:
    """The epochs that were finished and how fast they were; without any, how far the first has come."""
    found: Result = {"epochs": len(rows)}
    if rows:
        later = [row["seconds"] for row in rows[1:] or rows]
        found["epoch_s"] = [row["seconds"] for row in rows]
        found["epochs_per_minute"] = 60.0 * len(later) / max(sum(later), 1e-9)
    tables = [row["table"]["cifar10"] for row in rows if "cifar10" in row.get("table", {})]
    if tables:
        found |= {"accuracy": [row["test"] for row in tables], "rank": [row["rank"] for row in tables]}
    steps = re.findall(r"step (\d+)/(\d+)", log)
    return found | ({"step": "/".join(steps[-1])} if steps and not rows else {})
