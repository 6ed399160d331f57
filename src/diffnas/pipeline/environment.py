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


def version_of(package: str) -> str:
    """The installed version of `package`, "absent" where there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def record_attempt(part: Part, device: torch.device, seed: int, at: str) -> None:
    """Adds this attempt (a start, or a resumption `at` some place) to environment.json."""
    earlier: Any = []
    if (part.path / "environment.json").exists():
        read = part.read_json("environment.json")
        earlier = read.get("attempts") if isinstance(read, dict) else None
        if not isinstance(earlier, list):
            raise RunError(f"{part.path / 'environment.json'}: damaged; remove it to go on without")
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
    part.write_json("environment.json", {**attempt, "attempts": [*earlier, attempt]})


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
