"""The command: starts the stages in a process of their own, and another one for the rest where that one is lost."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from benchmarks.gpu.record import Record, read_mark

NAMES = (
    *("machine", "correct", "graph", "depthwise", "steps", "search"),
    *("nb201", "train", "deterministic", "profile", "compile"),
)
GRACE = 20.0  # seconds behind a stage's deadline after which it hangs
LOST = 75  # the exit code of a process whose device answers no more


def main() -> int:
    """Runs the stages and returns the exit code: 0, or 1 where one failed."""
    args = parser().parse_args()
    signal.signal(signal.SIGTERM, _leave)
    record, end = Record(args.out), time.monotonic() + args.seconds
    left = [name for name in NAMES if name in (args.only or NAMES)]
    failed = False
    while left and time.monotonic() < end:
        code, stage = _run(args, left, end - time.monotonic())
        if code in (0, 1):
            return int(failed or code)
        failed = True
        if stage is None:
            print(f"nothing could be started: exit code {code}", file=sys.stderr)
            return 1
        if code != LOST:
            record.add(
                stage, {"status": "lost", "error": f"the process ended with {code}; the others go on in a new one"}
            )
        left = left[left.index(stage) + 1 :]
    return int(failed)


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="What a GPU makes of diffnas.")
    found.add_argument("--data", type=Path, help="folder of the parquet files of CIFAR-10, for the real searches")
    found.add_argument(
        "--only", action="append", choices=NAMES, metavar="STAGE", help=f"of {', '.join(NAMES)}; may repeat"
    )
    found.add_argument("--seconds", type=float, default=540.0, help="for all stages together")
    found.add_argument("--device", default="cuda", help="cuda or cpu")
    found.add_argument("--tiny", action="store_true", help="the smallest sizes, to try the stages themselves")
    found.add_argument(
        "--out", type=Path, default=Path(os.environ.get("OUT", "runs/gpu")), help="folder of results.jsonl"
    )
    return found


def _run(args: argparse.Namespace, names: list[str], seconds: float) -> tuple[int, str | None]:
    """Runs the stages `names` in a process; its exit code, and the stage that it was in at its end."""
    told = {
        "data": str(args.data) if args.data else None,
        "device": args.device,
        "tiny": args.tiny,
        "out": str(args.out),
    }
    told |= {"names": names, "seconds": seconds, "lost": LOST}
    read_mark(args.out).unlink(missing_ok=True)
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.gpu.stages", json.dumps(told)])
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=0.5), _mark(args.out)[0]
            if time.time() > _mark(args.out)[1] + GRACE:
                process.kill()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _mark(out: Path) -> tuple[str | None, float]:
    """The stage at hand and when it is to end; none as long as none has begun."""
    try:
        stage, end = json.loads(read_mark(out).read_text())
    except (OSError, ValueError):
        return None, float("inf")
    return str(stage), float(end)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
