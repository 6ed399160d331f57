"""What a result depends on besides its recipe: versions, commit, device, threads."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from diffnas.errors import RunError
from diffnas.run import Part

FILE = "environment.json"


def version_of(package: str) -> str:
    """The installed version of `package`, "absent" where there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def recorded(part: Part) -> dict[str, Any]:
    """What environment.json holds, nothing where it is absent; raises `RunError` where it is damaged."""
    if not (part.path / FILE).exists():
        return {}
    read = part.read_json(FILE)
    if not isinstance(read, dict) or not isinstance(read.get("attempts", []), list):
        raise RunError(f"{part.path / FILE}: damaged; remove it to go on without")
    return read


def record(part: Part, **facts: Any) -> None:
    """Adds `facts` to environment.json."""
    part.write_json(FILE, recorded(part) | facts)


def record_attempt(part: Part, device: torch.device, seed: int, at: str) -> None:
    """Adds this attempt (a start, or a resumption `at` some place) to environment.json; other facts stay."""
    earlier = recorded(part)
    attempt = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "at": at,
        "diffnas": version_of("diffnas"),
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version_of("numpy"),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "seed": seed,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    kept = {key: value for key, value in earlier.items() if key not in {*attempt, "attempts"}}
    part.write_json(FILE, {**attempt, **kept, "attempts": [*earlier.get("attempts", []), attempt]})


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
