"""What a system may lack: every module is imported, and a search runs, without fcntl, resource and SIGHUP."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

POORER = """
import importlib, importlib.abc, pkgutil, signal, sys

class Lacking(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("fcntl", "resource", "termios", "tty", "pty", "pwd", "grp"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

import torch  # what others need of the system is theirs to say
import diffnas
from diffnas import cli, runtime

for name in ("fcntl", "resource", "termios", "tty", "pty"):
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Lacking())
for name in ("SIGHUP", "SIGKILL", "SIGTSTP", "SIGWINCH"):
    delattr(signal, name)
optional = {"starlette", "uvicorn", "tensorboard", "wandb", "mlflow", "numba", "llvmlite", "triton", "pytest"}
for found in pkgutil.walk_packages(diffnas.__path__, "diffnas."):
    if found.name == "diffnas.__main__":
        continue
    try:
        importlib.import_module(found.name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in optional:
            raise
from diffnas.cli.main import main

tiny = ["search.epochs=1", "data.train_limit=64", "data.test_limit=32", "space.nodes=1"]
words = ["search", "darts-digits-tiny", "--run", sys.argv[1], "-q", *(w for text in tiny for w in ("-s", text))]
sys.exit(main(words) or main(["search", "--resume", sys.argv[1], "-s", "search.epochs=2", "-q"]))
"""


def test_a_system_without_fcntl_and_sighup(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", POORER, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert len((tmp_path / "run" / "search" / "metrics.jsonl").read_text().splitlines()) == 2
