"""Runs the tests that compare numbers as other CPUs and other versions of torch would: `make test-machines`.

A row is one run: a version of torch in an environment of its own, the instructions that torch and its convolution library may
use, and a number of threads.  The heap is checked throughout (MALLOC_CHECK_), and comparisons in float32 are held to a tenth
of their limits (`margins.py`).  What this machine or its environments lack is skipped, and said.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).parent
NUMERICAL = [
    "contract",
    "core",
    "data",
    "engine",
    "interop",
    "kernels",
    "methods",
    "pipeline",
    "runtime",
    "spaces",
    "tasks",
    "test_original.py",
]
LEVELS = {"DEFAULT": 0, "AVX2": 1, "AVX512": 2}  # as torch names what a CPU has
NEEDED = {"default": 0, "avx2": 1, "avx512": 2, "SSE41": 0, "AVX2": 1, "AVX512_CORE": 2}


@dataclass(frozen=True)
class Row:
    """One run; empty instructions: all that the CPU has."""

    torch: str
    aten: str = ""
    onednn: str = ""
    threads: int = 1


@dataclass
class Outcome:
    """How a row ended; `said` is set where it was skipped or did not end by itself."""

    said: str = ""
    version: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    margin: str = ""


ROWS = [
    Row("2.13.0", "default", "SSE41"),
    Row("2.13.0", "avx2", "AVX2"),
    Row("2.13.0", "avx512", "AVX512_CORE"),
    Row("2.13.0", "default", "AVX512_CORE", threads=2),
    Row("2.13.0", "avx2", "SSE41", threads=2),
    Row("2.13.0", "avx512", "AVX2", threads=2),
    Row("2.11.0"),
    Row("newest", threads=2),
]
"""Every set of instructions with one thread and with two."""


def main() -> int:
    """Runs the rows asked for; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="*", default=range(1, len(ROWS) + 1), help="which, from 1")
    parser.add_argument("--text", type=Path, help="a file for the table")
    parser.add_argument("tests", nargs="*", help="folders or files of tests in place of all that compare numbers")
    asked = parser.parse_args()
    lines = [HEAD]
    ended = []
    print(HEAD)
    for number in asked.rows:
        outcome = run(ROWS[number - 1], asked.tests or [str(HERE / name) for name in NUMERICAL])
        lines.append(line(number, ROWS[number - 1], outcome))
        ended.append(outcome)
        print(lines[-1], flush=True)
        if asked.text:
            asked.text.write_text("\n".join(lines) + "\n")
    return int(any(failed(outcome) for outcome in ended))


def run(row: Row, tests: list[str]) -> Outcome:
    """Runs `tests` as `row` says; what failed is printed."""
    python = HERE.parent / f".venv-{row.torch}" / "bin" / "python"
    version, capability = torch_of(python)
    lack = "this torch was not to be had" if not version else lacking(row, capability)
    if lack:
        return Outcome(f"skipped: {lack}", version)
    with tempfile.TemporaryDirectory() as folder:
        report, margins = Path(folder, "report.xml"), Path(folder, "margins.txt")
        processes = max(1, (os.cpu_count() or 1) // row.threads)
        command = [str(python), "-m", "pytest", *tests, "-m", "not slow", "-p", "margins", f"--junitxml={report}"]
        command += ["-n", str(processes), "--dist", "worksteal"]  # a process that dies does not take the others along
        began = time.monotonic()
        ended = subprocess.run(command, env=environment(row, margins), capture_output=True, text=True, check=False)
        outcome = Outcome("", version, {}, time.monotonic() - began, worst(margins))
        outcome.counts = counted(report)
        if ended.returncode:
            print(ended.stdout[-20_000:], ended.stderr[-5_000:], file=sys.stderr)
            outcome.said = "" if outcome.counts.get("failed") else f"ended with exit code {ended.returncode}"
        return outcome


def torch_of(python: Path) -> tuple[str, str]:
    """The version of torch there and what it finds in the CPU; empty where there is none."""
    code = "import torch; print(torch.__version__, torch.backends.cpu.get_cpu_capability())"
    free = {name: value for name, value in os.environ.items() if name not in ("ATEN_CPU_CAPABILITY", *ISA)}
    try:
        found = subprocess.run([str(python), "-c", code], env=free, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "", ""
    version, capability = found.split(maxsplit=1)
    return version, capability.strip()


ISA = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")


def lacking(row: Row, capability: str) -> str:
    """What the row asks of the CPU that it has not: variables that ask for it are ignored, or end the process."""
    if row.onednn and platform.machine() not in ("x86_64", "AMD64"):
        return f"{row.onednn} is for x86-64"
    level = LEVELS.get(capability, 0)
    return ", ".join(f"this CPU has no {name}" for name in (row.aten, row.onednn) if NEEDED.get(name, 0) > level)


def environment(row: Row, margins: Path) -> dict[str, str]:
    """The process's variables; glibc checks the heap only where its debugging library is loaded first."""
    asked = {"ATEN_CPU_CAPABILITY": row.aten, ISA[0]: row.onednn, "LD_PRELOAD": heap_checker()}
    return {
        **{name: value for name, value in os.environ.items() if name not in ISA},
        **{name: value for name, value in asked.items() if value},
        "OMP_NUM_THREADS": str(row.threads),
        "DIFFNAS_TEST_THREADS": str(row.threads),
        "DIFFNAS_MARGINS": str(margins),
        "MALLOC_CHECK_": "3",
        "PYTHONPATH": os.pathsep.join([str(HERE.parent / "src"), str(HERE)]),
    }


def heap_checker() -> str:
    """glibc's library that MALLOC_CHECK_ needs since 2.34; empty where it is not at hand."""
    return next((str(path) for path in Path("/lib").glob("*-linux-gnu/libc_malloc_debug.so.0")), "")


def counted(report: Path) -> dict[str, int]:
    """How many tests passed, failed and were skipped."""
    if not report.is_file():
        return {}
    suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    ran, *others = (int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped"))
    return {"passed": ran - sum(others), "failed": others[0] + others[1], "skipped": others[2]}


def worst(margins: Path) -> str:
    """The largest share of a limit that an error in float32 took, and the test."""
    lines = margins.read_text().splitlines() if margins.is_file() else []
    return max(lines, default="")


def failed(outcome: Outcome) -> bool:
    """Whether a row that was run did not pass; one that ran no test has not."""
    ran_nothing = not outcome.said and not outcome.counts.get("passed")
    return bool(outcome.counts.get("failed")) or outcome.said.startswith("ended") or ran_nothing


HEAD = """\
| row | torch | ATen | oneDNN | threads | passed | failed | skipped | seconds | largest float32 error / its limit |
|---|---|---|---|---|---|---|---|---|---|"""


def line(number: int, row: Row, outcome: Outcome) -> str:
    """A row of the table."""
    asked = [row.aten or "as it is", row.onednn or "as it is", str(row.threads)]
    first = [str(number), outcome.version or row.torch, *asked]
    if not outcome.counts:
        return f"| {' | '.join(first)} | {outcome.said} | | | | |"
    counts = [str(outcome.counts[name]) for name in ("passed", "failed", "skipped")]
    return f"| {' | '.join([*first, *counts, f'{outcome.seconds:.0f}', outcome.margin.partition(' ')[0]])} |"


if __name__ == "__main__":
    sys.exit(main())
