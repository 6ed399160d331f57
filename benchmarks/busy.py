"""How long an epoch of the demo's search takes beside other programs: as torch's threads wait of themselves, and as ours do.

    python -m benchmarks.busy [--rounds N]

Other programs are loops of Python, none, one, and one for every CPU: running when the search begins, or started after its
first epoch.  `torch` is what there was without `diffnas.runtime.sharing`: all threads, spinning as libgomp has it.
Everything is run in turns, and each search is printed as it ends; each figure of the table is the median of the epochs of all
rounds.  `torch` is run on the idle machine alone: beside loops an epoch of it can take a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.measure import environment, table
from diffnas.runtime.sharing import cpus

EPOCHS = 5
SPIN = "300000"  # libgomp's own number where nothing is set; naming it leaves threads as they are


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2)
    rounds = parser.parse_args().rounds
    loads = sorted({1, cpus()})
    cases = [(0, False, form) for form in FORMS] + [
        (loops, later, "ours") for loops in loads for later in (False, True)
    ]
    found: dict[tuple[int, bool, str], list[float]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            found[case] += epochs(*case)
            print(*case, found[case], flush=True)
    usual = statistics.median(found[0, False, "torch"])
    rows = []
    for (loops, later, form), seconds in found.items():
        middle = statistics.median(seconds)
        when = "-" if not loops else "after epoch 1" if later else "from the start"
        rows.append(
            [str(loops), when, form, f"{middle:.2f}", f"{min(seconds):.2f}-{max(seconds):.2f}", f"{middle / usual:.2f}"]
        )
    for key, value in environment(torch.device("cpu")).items():
        print(f"{key + ':':<9} {value}")
    print()
    print(table(["loops", "running", "threads", "s/epoch", "range", "of idle"], rows))


FORMS = {"torch": {"OMP_NUM_THREADS": str(cpus()), "GOMP_SPINCOUNT": SPIN}, "ours": {}}


def epochs(loops: int, later: bool, form: str) -> list[float]:
    """The seconds of each epoch but the first, beside so many `loops`."""
    hidden = {"OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}
    variables = {key: value for key, value in os.environ.items() if key not in hidden} | FORMS[form]
    with tempfile.TemporaryDirectory() as folder:
        others = [] if later else start(loops)
        rows = Path(folder) / "run" / "search" / "metrics.jsonl"
        command = [sys.executable, "-m", "diffnas", "search", "darts-digits", "--run", f"{folder}/run", "-q"]
        command += ["--set", f"search.epochs={EPOCHS}"]
        search = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while later and not rows.exists() and search.poll() is None:
                time.sleep(0.05)
            others += start(loops) if later else []
            if search.wait():
                raise SystemExit(f"{' '.join(command)} ended with {search.returncode}")
        finally:
            for other in others:
                other.kill()
        return [json.loads(line)["seconds"] for line in rows.read_text().splitlines()][1:]


def start(loops: int) -> list[subprocess.Popen[bytes]]:
    """So many programs that keep a CPU busy each."""
    return [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]


if __name__ == "__main__":
    main()
