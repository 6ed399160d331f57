"""Modules compiled by torch.compile, and what a compilation leaves for the next one in the user's cache."""

from __future__ import annotations

import hashlib
import stat
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diffnas.kernels.own_cache import folder_for, only_mine
from diffnas.runtime.console import log
from diffnas.runtime.files import read_bytes, write_bytes

BACKEND = "inductor"
LARGEST = 2**29  # bytes of what is kept; that of a network of 20 cells is some MiB


def compiled(module: nn.Module) -> nn.Module:
    """Compiles `module` by torch.compile as it runs; where that is impossible, warns and returns it unchanged."""
    reason = no_compiler(next(module.parameters()).device)
    if reason is not None:
        log.warning("search.compile: %s; the search goes on without", reason)
        return module
    # a supernet runs in as many forms as it has cells and passes, more than torch's default allows for one function
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 256)
    module.compile(dynamic=False)
    return module


def no_compiler(device: torch.device) -> str | None:
    """Returns why nothing can be compiled for `device`, or None if it can."""
    try:
        if device.type == "cpu":
            from torch._inductor.cpp_builder import get_cpp_compiler

            get_cpp_compiler()
        else:
            import_module("triton")
    except Exception as error:  # noqa: BLE001 (torch names its own error types for a missing compiler, and they move)
        return f"no compiler ({str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__})"
    return None


class Compiled:
    """A network that is compiled when it is first called; its random numbers are those of the network as it is.

    What was kept under `key`, all that the compilation depends on, makes the compilation short.  Where the network cannot be
    compiled, a line says so and it runs as it is.
    """

    def __init__(self, network: nn.Module, key: str) -> None:
        self.network, self.kept = network, _file(key)
        self.failed = False
        self.known = self.kept is not None and _read(self.kept)
        options: dict[str, Any] = {"fallback_random": True} if BACKEND == "inductor" else {}
        self.call = torch.compile(network, dynamic=False, backend=BACKEND, options=options or None)

    def __call__(self, inputs: Any) -> Any:
        """The outputs of the network for `inputs`."""
        if self.failed:
            return self.network(inputs)
        try:
            # the way back is compiled at once: it must not be found impossible after statistics were updated
            with torch._functorch.config.patch(force_non_lazy_backward_lowering=True):
                return self.call(inputs)
        except torch._dynamo.exc.TorchDynamoException as error:
            self.failed = True
            reason = " ".join(str(error).split("\n\n")[0].split())[:200] or type(error).__name__
            log.warning("train.compile: %s; the training goes on without", reason)
            return self.network(inputs)

    def said(self, seconds: float) -> None:
        """Says how long the first step took, and keeps what was compiled, where there is a place for it."""
        if self.failed:
            return
        how = "with parts that an earlier compilation has left" if self.known else "compilation included"
        log.info("train.compile: the first step took %.1f s, %s", seconds, how)
        if self.kept is not None:
            _write(self.kept)


def _file(key: str) -> Path | None:
    folder = folder_for("compiled")
    made = "\0".join([key, BACKEND, str(torch.__version__), sys.version])
    return None if folder is None else folder / f"{hashlib.sha256(made.encode()).hexdigest()[:32]}.artifacts"


def _read(path: Path) -> bool:
    """Whether what is kept at `path`, which only its user could write, was taken over."""
    try:
        if not only_mine(path.lstat()) or not stat.S_ISREG(path.lstat().st_mode):
            return False
        return torch.compiler.load_cache_artifacts(read_bytes(path, LARGEST)) is not None
    except Exception:  # noqa: BLE001 (a file that is damaged in any way is as good as none)
        return False


def _write(path: Path) -> None:
    try:
        made = torch.compiler.save_cache_artifacts()
        if made is not None:
            write_bytes(path, made[0])
            path.chmod(0o600)
    except Exception as error:  # noqa: BLE001 (then the next training compiles anew)
        log.debug("train.compile: nothing is kept: %s", error)
