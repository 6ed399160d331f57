"""The environment that a result depends on besides its recipe: versions, commit, device, threads."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from diffnas.errors import RunError
from diffnas.kernels.form import form
from diffnas.recipe.plugins_used import changed_since
from diffnas.recipe.recipe import Recipe
from diffnas.runtime.console import log
from diffnas.runtime.distributed import world
from diffnas.runtime.run_folder import Part

NAME = "environment.json"


def version_of(package: str) -> str:
    """The installed version of `package`, "absent" where there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def makers(device: torch.device) -> dict[str, Any]:
    """Returns what the last digits of a result depend on, for environment.json and checkpoints."""
    return {
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "kernels": form(device),
        **({"processes": world().size} if world().size > 1 else {}),
    }


def recorded(part: Part) -> dict[str, Any]:
    """Reads environment.json, empty if it is absent; raises `RunError` where it is damaged."""
    if not (part.path / NAME).exists():
        return {}
    read = part.read_json(NAME)
    known = read.get("attempts", []) if isinstance(read, dict) else None
    if not isinstance(known, list) or not all(isinstance(attempt, dict) for attempt in known):
        raise RunError(f"{part.path / NAME}: damaged; remove it to go on without")
    record: dict[str, Any] = read
    return record


def changed_plugins(part: Part, recipe: Recipe) -> list[str]:
    """Yields a line for each plug-in of `recipe` whose file has changed since `part` was begun."""
    return list(changed_since(recipe, recorded(part).get("plugins") or []))


def record(part: Part, **facts: Any) -> None:
    """Adds `facts` to environment.json; they stay there, whatever attempts follow."""
    part.write_json(NAME, recorded(part) | facts)


def record_note(part: Part, note: str | None) -> None:
    """Adds what a person notes about a run, where that is anything."""
    if note:
        record(part, notes=[*(recorded(part).get("notes") or []), note])


def record_attempt(part: Part, device: torch.device, seed: int, at: str, facts: Mapping[str, Any], **kept: Any) -> None:
    """Adds this attempt (a start, or a resumption `at` some place) to environment.json, with its `facts`.

    What is `kept`, and was recorded besides the last attempt, stays; but for the digest of the weights, which this attempt
    may write anew.
    """
    earlier, known = recorded(part), attempts(part)
    attempt = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "at": at,
        "diffnas": version_of("diffnas"),
        "commit": _commit(),
        "python": platform.python_version(),
        "numpy": version_of("numpy"),
        "platform": platform.platform(),
        **makers(device),
        "seed": seed,
        "command": _command(),
        **facts,
    }
    own = {"attempts", "weights", *attempt, *(known[-1] if known else {})}
    stays = {key: value for key, value in earlier.items() if key not in own} | kept
    part.write_json(NAME, {**attempt, **stays, "attempts": [*known, attempt]})


def _command() -> str:
    """How this process was started, as one would type it."""
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    return shlex.join([name, *sys.argv[1:]])


def record_divergence(part: Part, reason: str) -> None:
    """Adds to the last attempt that it diverged, and how."""
    known = attempts(part)
    last = {**(known[-1] if known else {}), "diverged": reason}
    part.write_json(NAME, {**recorded(part), **last, "attempts": [*known[:-1], last]})


def has_diverged(part: Part) -> bool:
    """Whether the last attempt ended because a number was no longer finite."""
    attempted = attempts(part)
    return bool(attempted) and "diverged" in attempted[-1]


def attempts(part: Part) -> list[dict[str, Any]]:
    """The attempts so far; raises `RunError` where environment.json is damaged."""
    recorded_attempts: list[dict[str, Any]] = recorded(part).get("attempts", [])
    return recorded_attempts


@contextmanager
def as_begun(part: Part, checkpoint: Mapping[str, Any] | None, device: torch.device) -> Iterator[None]:
    """Runs a block with as many torch threads as when the run began, so that sums agree to the last digit.

    Says in a line where another number is asked for, and where another version of torch or device goes on with `checkpoint`.
    """
    made, now = _makers_then(part, checkpoint), makers(device)
    made = {"kernels": "torch", **made}  # what earlier versions had
    for name in ("torch", "device", "kernels") if part.path.name == "search" else ("torch", "device"):
        if made.get(name, now[name]) != now[name]:
            what = "; so do numbers that a GPU draws (dropout, search.draws=device)" * (name == "device")
            text = "%s: the run comes from %s and goes on with %s; its last digits may differ from here on%s"
            log.warning(text, name, made[name], now[name], what)
    before, threads = torch.get_num_threads(), made.get("threads")
    processes = made.get("processes", 1)
    if processes != world().size:
        text = (
            "processes: the run comes from %s and goes on with %d; batches and draws stay the same; where statistics of"
            " batch normalisation are per process (statistics=process), they are of other samples from here on"
        )
        log.warning(text, processes, world().size)
        threads = before
    if type(threads) is not int or not 1 <= threads <= 4096:
        threads = before
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) != threads:
        text = "OMP_NUM_THREADS=%s: the run began with %d and keeps to that, so that its numbers stay the same"
        log.warning(text, asked, threads)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _makers_then(part: Part, checkpoint: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The `makers` in a checkpoint; where it is too old to have them, or is None, what the attempts say."""
    makers = (checkpoint or {}).get("makers")
    if isinstance(makers, dict):
        return makers
    known = attempts(part)
    return {**known[-1], "threads": known[0].get("threads")} if known else {}


def _commit() -> str | None:
    """The commit of the checkout diffnas runs from, None where it is installed otherwise."""
    here = Path(__file__).parent
    try:
        shown = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return shown.stdout.strip() or None
