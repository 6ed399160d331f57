"""The runs of a folder, read when something in them has changed and kept until it changes again."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

from markupsafe import Markup

from diffnas.boards.summary import Summary, held_locks, summarize
from diffnas.boards.survey import Signature, Survey, strays, survey
from diffnas.errors import RunError
from diffnas.reports.find_runs import run_folders
from diffnas.reports.page import run_parts
from diffnas.reports.run_facts import RunFacts, read_run
from diffnas.reports.templating import environment
from diffnas.reports.values import LARGEST_METRICS, MOST_ROWS, Metrics, MetricsFile, text

EVERY = 1.0  # seconds between two looks at the folder
PAUSE = 0.002  # seconds after each run that was read, for requests
WATCHED = 60.0  # seconds after a request in which it is looked at
MOST_OPEN = 8  # runs of which all is kept
AT_ONCE = 2 * 2**20  # bytes of a file of metrics that the list reads in one look, so that others are not kept waiting
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}")


class Reader:
    """Reads the runs in turn, their files of metrics on from where they were read to, `most` rows of each.

    Of a file it reads `at_once` bytes in one go.
    """

    def __init__(self, most: int, at_once: int) -> None:
        self.most, self.at_once = most, at_once
        self._files: dict[Path, MetricsFile] = {}

    def read(self, path: Path, frames: bool) -> RunFacts:
        """What the run folder at `path` holds; raises `RunError` where there is none."""
        return read_run(path, self._metrics, frames)

    def _metrics(self, path: Path, problems: list[str]) -> Metrics:
        return self._files.setdefault(path, MetricsFile(path, self.most, self.at_once)).read(problems)

    def is_behind(self, run: Path) -> bool:
        """Whether there is more to read of `run`."""
        return any(file.behind for path, file in self._files.items() if path.is_relative_to(run))

    def forget(self, run: Path) -> None:
        """Forgets the files of `run`."""
        self._files = {path: file for path, file in self._files.items() if not path.is_relative_to(run)}


class Library:
    """The runs in `folder`: a line about each, and the page of those that were opened.

    `refresh` looks at the folder; requests are answered with what it found, so none waits for another run to be read.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.looked = False  # whether the whole folder was read once
        self._lines: dict[str, Summary] = {}
        self._facts: dict[str, tuple[Survey, RunFacts]] = {}
        self._pages: OrderedDict[str, tuple[Signature, Markup]] = OrderedDict()
        self._reader, self._opened = Reader(2, AT_ONCE), Reader(MOST_ROWS, LARGEST_METRICS)
        self._recent: OrderedDict[Path, None] = OrderedDict()  # runs whose metrics `_opened` keeps
        self._reading, self._opening = threading.Lock(), threading.Lock()
        self._behind = set[str]()  # runs of which there is more to read
        self._asked = threading.Event()
        self._last_asked = time.monotonic()

    def lines(self) -> list[Summary]:
        """A line about each run: those that work first, then what was written last."""
        self._last_asked = time.monotonic()
        self._asked.set()
        lines = sorted(self._lines.copy().values(), key=lambda line: line.name)
        works = [line for line in lines if line.state == "running"]
        rest = [line for line in lines if line.state != "running"]
        return [*works, *sorted(rest, key=lambda line: line.touched, reverse=True)]

    def line(self, key: str) -> Summary | None:
        """The line about one run, None where there is none of that key."""
        self.lines()
        return self._lines.get(key)

    def facts(self, keys: list[str]) -> list[RunFacts]:
        """What the runs of those keys hold, but for most rows of metrics; those that are not read are left out."""
        return [facts for _, facts in self._known(keys)]

    def _known(self, keys: list[str]) -> list[tuple[Survey, RunFacts]]:
        """What is known of the runs of those keys; any may go at any time."""
        return [known for known in map(self._facts.get, keys) if known is not None]

    def watch(self, stop: threading.Event) -> None:
        """Looks at the folder again and again while somebody looks at the board."""
        while not stop.is_set():
            self.refresh()
            self._asked.clear()
            if time.monotonic() - self._last_asked > WATCHED:
                while not (self._asked.wait(EVERY) or stop.is_set()):
                    pass
            else:
                stop.wait(EVERY)

    def refresh(self) -> None:
        """Looks at the folder and reads the runs that have changed."""
        with self._reading:
            locks, seen = held_locks(), set[str]()
            for path in run_folders(self.folder):
                name = self._name(path)
                key = key_of(name)
                seen.add(key)
                self._lines[key] = self._line_of(key, name, path, locks)
            for key in set(self._lines) - seen:
                del self._lines[key]
                gone = self._facts.pop(key, None)
                if gone is not None:
                    self._reader.forget(gone[0].path)
            self.looked = True

    def _name(self, path: Path) -> str:
        """What the run at `path` is called: its path within the folder."""
        return path.absolute().name if path == self.folder else path.relative_to(self.folder).as_posix()

    def _line_of(self, key: str, name: str, path: Path, locks: set[int]) -> Summary:
        """The line about the run at `path`, whatever is wrong with it."""
        try:
            return self._look(key, name, path, locks)
        except Exception as error:  # noqa: BLE001 (one run must not take the others off the board)
            said = text(f"{type(error).__name__}: {error}", 200)
            return Summary(text(name, 100), key, "broken", note=said)

    def _look(self, key: str, name: str, path: Path, locks: set[int]) -> Summary:
        """The line about the run at `path`, read anew if its files have changed."""
        now, known = survey(path), self._facts.get(key)
        if known is None or known[0].signature != now.signature or key in self._behind:
            outside = strays(path, self.folder)
            if outside:
                self._facts.pop(key, None)
                said = f"leads outside the folder: {text(outside[0], 200)}"
                return Summary(text(name, 100), key, "not read", note=said)
            known = (now, replace(self._reader.read(path, frames=False), label=name))
            self._facts[key] = known
            (self._behind.add if self._reader.is_behind(path) else self._behind.discard)(key)
            time.sleep(PAUSE)
        return summarize(key, known[1], now, locks)

    def page(self, key: str) -> Markup | None:
        """The parts of the page of a run as HTML, None where there is no such run or it is not read."""
        known = self._facts.get(key)
        if known is None:
            return None
        with self._opening:
            signature, page = self._pages.pop(key, ((), Markup("")))
            if signature != known[0].signature:
                run = self._read_whole(known[0].path)
                if run is None:
                    return None
                page = Markup(environment().get_template("run.html").module.parts(run_parts(run)))  # type: ignore[attr-defined]
            self._pages[key] = (known[0].signature, page)
            if len(self._pages) > MOST_OPEN:
                self._pages.popitem(last=False)
        return page

    def whole(self, keys: list[str]) -> list[RunFacts]:
        """What the runs of those keys hold, with all that is drawn of their metrics."""
        with self._opening:
            read = (self._read_whole(seen.path, frames=False) for seen, _ in self._known(keys))
            return [run for run in read if run is not None]

    def _read_whole(self, path: Path, frames: bool = True) -> RunFacts | None:
        if strays(path, self.folder):
            return None
        self._recent.pop(path, None)
        self._recent[path] = None
        if len(self._recent) > MOST_OPEN:
            self._opened.forget(self._recent.popitem(last=False)[0])
        try:
            return replace(self._opened.read(path, frames), label=self._name(path))
        except (RunError, OSError):
            return None

    def version(self, *keys: str) -> str:
        """A digest of what pages of those runs, or of all, are made of."""
        lines = self.lines() if not keys else [line for line in map(self.line, keys) if line is not None]
        signatures = [seen.signature for seen, _ in self._known([line.key for line in lines])] if keys else []
        return hashlib.sha256(repr((lines, signatures, self.looked)).encode()).hexdigest()[:32]


def key_of(name: str) -> str:
    """What stands for the run `name` in an address: `exp1~seed0` for exp1/seed0, a digest where it has other characters."""
    parts = name.split("/")
    if all(PLAIN.fullmatch(part) for part in parts):
        return "~".join(parts)
    return "~" + hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
