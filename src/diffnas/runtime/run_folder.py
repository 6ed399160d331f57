"""The run folder: what each command leaves and the next one needs.

    RUN/  report.html
      search/      recipe.yaml  environment.json  metrics.jsonl  genotypes/  genotype.json  cells.svg  cells.png  checkpoint/
                   finished.json  sizes.json  progress.json (where it is while it works)
      train/NAME/  recipe.yaml  environment.json  metrics.jsonl  genotype.json  weights.safetensors  test.json  checkpoint/
                   sizes.json  progress.json  digests.bin (of the images trained on)

Commands meet only in these files, so any step can be redone, replaced, or fed from a paper's appendix.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import Any

from diffnas.errors import RunError
from diffnas.runtime.files import LEFT_OVER, is_file, is_folder, read_bytes, write_text
from diffnas.runtime.rows import add_row, keep_rows, plain_json, read_rows

FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}")
METRICS = "metrics.jsonl"
log = logging.getLogger("diffnas")
SEAL = "# as the run wrote it, sha256 "


@dataclass(frozen=True)
class Part:
    """A command's folder within a run: a search, or one training."""

    path: Path

    @property
    def command(self) -> str:
        """The command that works in it: `search` or `train`."""
        return "search" if self.path.name == "search" else "train"

    @property
    def recipe(self) -> Path:
        """The resolved recipe, with where each value came from."""
        return self.path / "recipe.yaml"

    @property
    def genotype(self) -> Path:
        """The path of the genotype that was found or trained."""
        return self.path / "genotype.json"

    def genotypes(self, epoch: int) -> Path:
        """Returns the path of a search's genotype after `epoch` epochs."""
        return self.path / "genotypes" / f"epoch-{epoch:03d}.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoint"

    @property
    def weights(self) -> Path:
        """The trained weights."""
        return self.path / "weights.safetensors"

    @property
    def digests(self) -> Path:
        """The digests of the images trained on."""
        return self.path / "digests.bin"

    @property
    def begun(self) -> bool:
        """Whether it holds more than what a kill or a full disk in the first moments leaves."""
        return is_folder(self.path) and not all(_remains(self.path, path) for path in self.path.iterdir())

    def write_recipe(self, text: str) -> None:
        """Writes the resolved recipe under a digest of its text, unless it is there already."""
        sealed = f"{SEAL}{hashlib.sha256(text.encode()).hexdigest()}\n{text}"
        if not self.recipe.is_file() or self.recipe.read_bytes() != sealed.encode():
            write_text(self.recipe, sealed)

    def recipe_digest(self) -> str:
        """The SHA-256 of the recipe's file, seal and all."""
        return hashlib.sha256(self.recipe.read_bytes()).hexdigest()

    def recipe_is_changed(self) -> bool:
        """Whether the recipe is not what was written; False also for one that has no digest, as runs once had."""
        return self._recipe_fits() is False

    def recipe_is_sealed(self) -> bool:
        """Whether the recipe is what a run wrote, this one or another."""
        return self._recipe_fits() is True

    def _recipe_fits(self) -> bool | None:
        """Whether the recipe fits its digest; None where it has none."""
        head, _, text = self.recipe.read_bytes().partition(b"\n")
        if not head.startswith(SEAL.encode()):
            return None
        return head[len(SEAL) :].decode(errors="replace") == hashlib.sha256(text).hexdigest()

    def warn_of_recipe(self) -> None:
        """Warns if the recipe was edited since it was written."""
        if self.recipe.is_file() and (self.recipe_is_changed() or self._noted() not in (None, self.recipe_digest())):
            log.warning("%s: has changed since the run wrote it; it is read as it is now", self.recipe)

    def _noted(self) -> str | None:
        """The digest of the recipe that the last attempt ran by; None where nothing readable says so."""
        with contextlib.suppress(RunError):
            noted = self.read_json("environment.json")
            return noted.get("recipe") if isinstance(noted, dict) else None
        return None

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, one per epoch, without damaged ones; raises `RunError` where it cannot be read."""
        return read_rows(self.path / METRICS)

    def add_metrics(self, row: Mapping[str, Any]) -> None:
        """Appends one row."""
        add_row(self.path / METRICS, row)

    def drop_metrics(self, epoch: int) -> None:
        """Drops the rows of `epoch` and later, which a resumed run writes again, into a file beside; warns of gaps."""
        keep_rows(self.path / METRICS, epoch)

    def folder(self, name: str) -> Path:
        """Returns the subfolder `name`, creating it if needed."""
        path = self.path / name
        path.mkdir(exist_ok=True)
        return path

    def write_json(self, name: str, value: Any) -> None:
        """Writes `value` to the file `name`, whole or not at all."""
        write_text(self.path / name, plain_json(value, indent=1) + "\n")

    def read_json(self, name: str) -> Any:
        """Reads a file of `write_json`; raises `RunError` if it is absent or damaged."""
        try:
            return json.loads(read_bytes(self.path / name).decode("utf-8"))
        except OSError as error:
            raise RunError(f"{self.path / name}: cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError):
            raise RunError(f"{self.path / name}: damaged: not valid JSON; remove it to go on without") from None


def _remains(part: Path, path: Path) -> bool:
    """Whether `path` in the folder `part` is what a start leaves that was cut short before the recipe was written."""
    if path.is_dir():
        return not any(path.iterdir())
    early = {".lock"} if part.name == "search" else {".lock", "genotype.json", "environment.json"}
    return path.name in early or bool(LEFT_OVER.fullmatch(path.name))


@dataclass(frozen=True)
class Run:
    """A run folder at `path`, which need not exist yet."""

    path: Path

    @property
    def search(self) -> Part:
        """The search's folder."""
        return Part(self.path / "search")

    def main(self) -> Part:
        """Returns the part that has the run's recipe: its search, or its only training if nothing was searched."""
        searched = is_folder(self.search.checkpoints) or os.path.lexists(self.search.recipe)
        return self.search if searched else self.training()

    def train(self, name: str) -> Part:
        """Returns the folder of the training `name`; raises `RunError` for a name that leads outside."""
        if not FOLDER_NAME.fullmatch(name):
            raise RunError(f"--train {name}: must be letters, digits, dots, dashes and underscores; it names a folder")
        return Part(self.path / "train" / name)

    def trainings(self) -> list[str]:
        """Returns the names of the trainings, without those that were interrupted in their first moments."""
        folder = self.path / "train"
        folders = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
        return sorted(name for name in folders if FOLDER_NAME.fullmatch(name) and self.train(name).begun)

    def training(self, name: str | None = None) -> Part:
        """Returns the training `name`, or the only one; raises `RunError` listing them if there are several."""
        names = self.trainings()
        if name is None and len(names) == 1:
            return self.train(names[0])
        if name in names:
            return self.train(str(name))
        if not names:
            raise RunError(f"{self.path}: holds no training; make one with: diffnas train {quote(str(self.path))}")
        asked = "holds several trainings" if name is None else f"holds no training {name!r}"
        raise RunError(f"{self.path}: {asked}; choose one with --train: {', '.join(names)}")


def open_run(path: str | Path) -> Run:
    """Opens the run folder at `path`; raises `RunError` if there is none."""
    run = Run(Path(path))
    if is_folder(run.search.path) or (is_folder(path) and any((run.path / "train").glob("*/*.*"))):
        return run
    if not is_folder(path):
        raise RunError(f"run {path!s:.200}: {'is a file; name the run folder' if is_file(path) else 'does not exist'}")
    whole = _whole(run.path.absolute())
    hint = f"; it is a part of the run {whole}: name that" if whole else " (it has no search/ and no train/)"
    raise RunError(f"run {path}: is not a run folder{hint}")


def _whole(part: Path) -> Path | None:
    """Returns the run that contains `part`, or None."""
    if not (part / "recipe.yaml").is_file():
        return None
    return part.parent if part.name == "search" else part.parents[1] if part.parent.name == "train" else None


def new_run(path: str | Path | None, recipe: str) -> Run:
    """A run folder at `path` (default: runs/RECIPE-YYYYMMDD-HHMMSS)."""
    if path is not None:
        return Run(Path(path))
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    path = base = Path("runs") / f"{recipe}-{stamp}"
    for number in range(2, 1000):
        if not path.exists():
            break
        path = base.with_name(f"{base.name}-{number}")
    return Run(path)


def unclaim(part: Part) -> None:
    """Removes the folder of `part` if no checkpoint holds anything computed."""
    if not any(part.checkpoints.glob("*.pt")):
        shutil.rmtree(part.path, ignore_errors=True)
        with contextlib.suppress(OSError):  # other parts stay
            part.path.parent.rmdir()


def claim(part: Part, command: str) -> None:
    """Creates the folder of `part`; raises `RunError` if that fails or the folder is not empty."""
    run = part.path.parent if command == "search" else part.path.parent.parent
    if is_file(run):
        raise RunError(f"--run {run}: is a file; name a folder")
    if is_folder(run) and any(run.iterdir()) and not (is_folder(run / "search") or is_folder(run / "train")):
        raise RunError(f"--run {run}: holds other things; name a new folder, or an empty one")
    require_empty(part, command)
    try:
        part.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{part.path!s:.200}: cannot be made: {error.strerror}") from None


def require_empty(part: Part, command: str) -> None:
    """Raises `RunError` where `part` holds something already; asked once more by who holds the folder."""
    if not (is_file(part.path) or part.begun):
        return
    if is_folder(part.path) and not part.recipe.exists():
        raise RunError(f"{part.path}: is not empty, and has no recipe.yaml to go on with; name another with --run")
    run = part.path.parent if command == "search" else part.path.parent.parent
    raise RunError(
        f"{part.path}: is not empty; go on with: diffnas {command} --resume {quote(str(run))}, or name another with --run"
    )
