"""Plug-ins: modules that call `diffnas.register`, loaded because the user named or installed them.

A file or module is named on the command line (`--plugin`) or in `read_recipe(..., plugins=[...])`.  An installed package may
name a module in its entry points, group `diffnas.plugins`; who installed it has agreed.  torch is loaded only by plug-ins
that need it.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from collections.abc import Iterable
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from shlex import quote
from types import CodeType, ModuleType
from typing import Any

from diffnas.errors import PluginError
from diffnas.registry import OWNERS, digest_of
from diffnas.runtime.console import log
from diffnas.runtime.files import read_bytes

GROUP = "diffnas.plugins"
PREFIX = "diffnas_plugin_"  # of the names that modules get which are loaded from a file
_files: dict[Path, str] = {}  # what was loaded, and its digest then
_installed = "wanted"  # "wanted", "loaded" or "off"


def load_plugins(names: Iterable[str | Path]) -> None:
    """Loads each file or module of `names`, once; raises `PluginError` with a line for each that cannot be."""
    lines: list[str] = []
    for name in names:
        before = dict(OWNERS)
        try:
            fresh = _load(str(name))
        except PluginError as error:
            lines += error.lines
            continue
        if fresh and before == OWNERS:
            log.warning("--plugin %s: registers nothing (call diffnas.register in it)", name)
    if lines:
        raise PluginError(*lines)


def load_installed() -> None:
    """Loads what installed packages offer, once; one that cannot be loaded is a warning that names it."""
    global _installed
    if _installed != "wanted":
        return
    _installed = "loaded"
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            entry.load()
        except Exception as error:  # noqa: BLE001 (it is others' code)
            log.warning("plug-in %s of package %s: cannot be loaded: %s", entry.name, _package(entry), _said(error))


def plugin_hint(kind: str, name: Any, recipe: str) -> str:
    """Returns the hint for an unknown name: how to load a plug-in, and which one a run folder was made with."""
    for entry in _of_run(recipe):
        if (entry.get("kind"), entry.get("name")) == (kind, name):
            return f"; this run was made with --plugin {quote(str(entry.get('file') or entry.get('module')))}"
    own = "data set" if kind == "data" else kind
    return f"; for a {own} of your own, name its module: --plugin FILE.py"


def _of_run(recipe: str) -> list[dict[str, Any]]:
    """Returns the plug-ins recorded in the run folder of a recipe's file, if it is in one."""
    try:
        read = json.loads(read_bytes(Path(recipe).with_name("environment.json"), 2**20))
    except (OSError, ValueError, RecursionError):
        return []
    entries = read.get("plugins") if isinstance(read, dict) else None
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def leave_out_installed() -> None:
    """Loads no plug-in of an installed package from here on (`--no-plugins`)."""
    global _installed
    _installed = "off"


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value


def _load(name: str) -> bool:
    """Loads one; whether it had not been loaded yet."""
    if name.endswith(".py") or "/" in name or "\\" in name:
        return _load_file(name)
    known = name in sys.modules
    try:
        importlib.import_module(name)
    except PluginError as error:
        raise PluginError(*(f"--plugin {name}: {line}" for line in error.lines)) from None
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise PluginError(f"--plugin {name}: there is no such module; a file ends in .py") from None
        raise PluginError(f"--plugin {name}: cannot be loaded: {_said(error)}") from None
    except Exception as error:  # noqa: BLE001 (it is the user's code)
        raise PluginError(f"--plugin {name}: cannot be loaded: {_said(error)}") from None
    return not known


def _load_file(name: str) -> bool:
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise PluginError(f"--plugin {name}: there is no such file")
    digest = digest_of(path)
    if _files.get(path) == digest:
        return False
    module = _module(name, path)
    try:
        assert module.__spec__ is not None and module.__spec__.loader is not None
        module.__spec__.loader.exec_module(module)
    except PluginError as error:
        sys.modules.pop(module.__name__, None)
        raise PluginError(*(f"--plugin {name}: {line}" for line in error.lines)) from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 (it is the user's code)
        sys.modules.pop(module.__name__, None)
        raise PluginError(f"--plugin {name}: cannot be loaded: {_said(error, str(path))}") from None
    _files[path] = digest
    return True


class Uncached(SourceFileLoader):
    """A loader that always compiles the source: cached bytecode may be stale within a second."""

    def get_code(self, fullname: str) -> CodeType:
        """The code of the module."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _module(name: str, path: Path) -> ModuleType:
    """Creates a module for the file, under a name that cannot replace another module."""
    module_name = f"{PREFIX}{path.stem}"
    spec = spec_from_file_location(module_name, path, loader=Uncached(module_name, str(path)))
    if spec is None:
        raise PluginError(f"--plugin {name}: is no Python file; its name must end in .py")
    module = module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look their module up while they are made
    return module


def _said(error: BaseException, file: str | None = None) -> str:
    """Formats the error on one line, with the last line of `file` that led to it."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    at = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {error}{at}"
