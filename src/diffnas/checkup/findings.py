"""The checks behind `diffnas doctor`: packages, processor, disk, and devices.

Each check is a function that returns a `Finding`.  Those that need torch run in a process of their own
(`diffnas.checkup.torch_findings`): a torch that cannot be loaded, or that crashes on this machine, is a finding too.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from diffnas.checkup.finding import Finding
from diffnas.runtime.files import write_bytes
from diffnas.runtime.room import free_memory, in_words

NEEDED = {
    "torch": "2.11",
    "typing-extensions": "4.12",
    "numpy": "1.26",
    "pydantic": "2.11",
    "PyYAML": "6",
    "typer": "0.20",
    "rich": "13.7",
    "matplotlib": "3.9",
    "safetensors": "0.5",
    "scikit-learn": "1.5",
    "pillow": "10.3",
    "jinja2": "3.1.5",
    "scipy": "1.11",
}
"""What diffnas does not work without, and from which version on; as pyproject.toml has it."""
MODULES = {"typing-extensions": "typing_extensions", "PyYAML": "yaml", "scikit-learn": "sklearn", "pillow": "PIL"}
EXTRA = {
    "datasets": "CIFAR, SVHN, Penn Treebank and WikiText-2 fetched from the hub",
    "pyarrow": "parquet files of images and of `diffnas lookup` (comes with datasets)",
    "starlette": "`diffnas board`",
    "uvicorn": "`diffnas board`",
    "simplejpeg": "JPEGs decoded while they are needed, in two thirds of the time",
    "numba": "searches of the DARTS space on a CPU in half the time",
}
"""What can be done with packages that are not needed."""
VARIABLES = ("ATEN_", "CUDA_VISIBLE_DEVICES", "DIFFNAS_", "KMP_BLOCKTIME", "MKL_", "NUMBA_", "OMP_", "ONEDNN_", "TORCH")
"""Beginnings of environment variables that change what is computed, or how fast."""
PATIENCE = 120  # seconds; a step takes less than one


def check_all() -> dict[str, Any]:
    """`{"works": whether all that is needed works, "findings": [{name, state, said, remedy, facts}, ...]}`."""
    findings = [finding for check in CHECKS for finding in check()]
    return {
        "works": all(finding.state != "bad" for finding in findings),
        "findings": [asdict(each) for each in findings],
    }


def described(result: dict[str, Any]) -> Iterator[str]:
    """Formats the findings of `check_all` as lines in columns."""
    findings = result["findings"]
    width = max(len(each["name"]) for each in findings)
    for each in findings:
        yield f"{each['state']:<4}  {each['name']:<{width}}  {each['said']}"
        if each["remedy"]:
            yield f"{'':<4}  {'':<{width}}  -> {each['remedy']}"
    bad = [each["name"] for each in findings if each["state"] == "bad"]
    yield ""
    yield "everything needed works" if result["works"] else f"does not work: {', '.join(bad)}"


# -- checks that need nothing but Python


def python() -> Iterator[Finding]:
    """The interpreter, the system, and diffnas."""
    from diffnas import __version__

    facts = {"diffnas": __version__, "python": platform.python_version(), "platform": platform.platform()}
    yield Finding("diffnas", "ok", f"{__version__} in {Path(__file__).parents[1]}", facts=facts)
    yield Finding("python", "ok", f"{facts['python']} at {sys.executable} on {facts['platform']}")


def packages() -> Iterator[Finding]:
    """Checks the required packages; yields one finding if all are sound."""
    versions = {name: _version(name) for name in NEEDED}
    lacking = [name for name, least in NEEDED.items() if (_numbers(versions[name]) < _numbers(least))]
    broken = {name: said for name in NEEDED if name not in ("torch", *lacking) and (said := _broken(name))}
    good = ", ".join(f"{name} {version}" for name, version in versions.items() if name not in (*lacking, *broken))
    if good:
        yield Finding("packages", "ok", good, facts=versions)
    for name in lacking:
        said = f"{versions[name]} is too old" if versions[name] else "is not installed"
        yield Finding(
            name, "bad", f"{said}; {NEEDED[name]} or newer is needed", f'pip install "{name}>={NEEDED[name]}"'
        )
    for name, said in broken.items():
        yield Finding(name, "bad", f"cannot be loaded: {said}", f"pip install --force-reinstall {name}")


def extras() -> Iterator[Finding]:
    """Reports the optional packages and what each makes possible."""
    for name, use in EXTRA.items():
        version = _version(name)
        if version:
            yield Finding(name, "ok", f"{version}: {use}", facts={name: version})
        else:
            yield Finding(name, "note", f"is not installed, which is needed for {use}", f"pip install {name}")


def processor() -> Iterator[Finding]:
    """The processor, how much of it is free, and memory."""
    cores, free = _cores(), free_memory()
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    memory = f", {in_words(free)} of memory free" if free is not None else ""
    facts = {"processor": _model(), "cores": cores, "load": round(busy, 2), "free_memory": free}
    yield Finding("processor", "ok", f"{facts['processor']}, {cores} cores{memory}", facts=facts)
    said = f"{busy:.1f} processes on {cores} cores in the last minute"
    if busy < 0.75 * cores:
        yield Finding("load", "ok", said)
    else:
        yield Finding("load", "note", f"{said}: the machine is busy, and everything takes longer than it could")
    shown = {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)}
    if shown:
        said = ", ".join(f"{name}={value}" for name, value in shown.items())
        yield Finding("environment", "note", f"{said}: set from outside, and obeyed", facts=shown)


def disk() -> Iterator[Finding]:
    """Whether runs can be written here."""
    folder = Path("runs") if Path("runs").is_dir() else Path(".")
    probe = folder / ".diffnas-doctor"
    try:
        place = folder.absolute()
        write_bytes(probe, b"x" * 4096)
        probe.unlink()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        said = f"{folder}/ cannot be written: {error.strerror}"
        yield Finding("disk", "bad", said, "choose another folder with --run")
        return
    facts = {"folder": str(place), "free_disk": free}
    if free < 2**30:
        yield Finding("disk", "note", f"{place}: only {in_words(free)} are free", "free some, or choose --run", facts)
    else:
        yield Finding("disk", "ok", f"{place}: can be written, {in_words(free)} are free", facts=facts)


# -- checks that need torch


def computing() -> Iterator[Finding]:
    """Yields the findings of `diffnas.checkup.torch_findings`; if that ends early, one names the check it ended in."""
    path = os.pathsep.join(folder for folder in sys.path if folder)
    try:
        child = subprocess.run(
            [sys.executable or "python3", "-P", "-m", "diffnas.checkup.torch_findings"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PATIENCE,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
        )
        output, ended = child.stdout, _ended(child.returncode, child.stderr)
    except subprocess.TimeoutExpired as error:
        output, ended = (error.stdout or b"").decode("utf-8", "replace"), f"is not done after {PATIENCE} seconds"
    except OSError as error:
        output, ended = "", f"no process can be started: {error.strerror}"
    begun = "torch"
    for line in output.splitlines():
        try:
            read = json.loads(line)
        except ValueError:  # a library has printed something
            continue
        if "begins" in read:
            begun = read["begins"]
        else:
            yield Finding(**read)
    if ended:
        yield Finding(begun, "bad", ended, 'pip install --force-reinstall "torch>=2.11"' if begun == "torch" else "")


def _ended(code: int, errors: str) -> str:
    """Returns how the process ended in words, or an empty string if it ended normally."""
    if code == 0:
        return ""
    last = next((line for line in reversed(errors.splitlines()) if line.strip()), "")
    return f"crashed ({-code}: {_signal(-code)})" if code < 0 else f"cannot be used: {last[:300]}"


def _signal(number: int) -> str:
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return "a signal"


def _version(package: str) -> str:
    """The installed version, empty where there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _numbers(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: (2, 11) of `2.11rc1+cpu`."""
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, match[0].split("."))) if match else ()


def _broken(package: str) -> str:
    """Returns why an installed package cannot be loaded, or an empty string if it can."""
    try:
        import_module(MODULES.get(package, package))
    except Exception as error:  # noqa: BLE001 (a package may fail in any way when it is loaded)
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return ""


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _model() -> str:
    """The processor's name."""
    try:
        match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        match = None
    return match[1] if match else platform.processor() or platform.machine()


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (python, packages, extras, processor, disk, computing)
