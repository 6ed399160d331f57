"""A line of the log for each epoch, in columns that fit a terminal of 80, under a head that names them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from diffnas.runtime.console import duration, log

MEANINGS = {
    "search": {
        "train": ["train: batches that train the weights"],
        "valid": ["valid: batches that train the architecture"],
        "score": [
            "score: the data of the architecture again, not augmented, on running statistics;",
            "       an absurd one in the first epochs (a loss of 150) is harmless: the",
            "       statistics have not settled yet, and nothing depends on it",
        ],
    },
    "train": {
        "train": ["train: batches that train the weights"],
        "valid": ["valid: held-out data, to choose by"],
        "test": ["test: data that nothing is chosen by"],
    },
}
SKIPS = "skips: skip connections in the normal cell"
TABLE = "table: test accuracy of the present cell as the benchmark's table has it"
DATA = "data: of that time, what steps waited for images to be decoded"
SHORT = {"accuracy": "acc"}


class EpochLines:
    """The lines of one `command`, "search" or "train"; a head before the first, and where a column is new."""

    def __init__(self, command: str) -> None:
        self.meanings = MEANINGS[command]
        self._columns: dict[str, int] = {}  # head -> width
        self._explained = set[str]()

    def say(self, row: Mapping[str, Any], epoch: int, epochs: int) -> None:
        """Logs the line of `row`, which ends `epoch` (from 1) of `epochs`."""
        cells = {
            "epoch": f"{epoch}/{epochs}",
            **dict(self._measures(row)),
            **({"skips": str(row["skips_normal"])} if "skips_normal" in row else {}),
            "time": duration(row["seconds"]),
            **({"data": duration(row["data_seconds"])} if "data_seconds" in row else {}),
            "left": duration(row["seconds"] * (epochs - epoch)) if epoch < epochs else "",
        }
        if not cells.keys() <= self._columns.keys():
            self._say_head(row, cells)
        cells |= dict.fromkeys(self._columns.keys() - cells.keys(), "")
        log.info("%s", "  ".join(f"{cells[head]:>{width}}" for head, width in self._columns.items()).rstrip())
        if "table" in row:
            said = ", ".join(f"{data} {known['test']:.2f}%" for data, known in row["table"].items())
            log.info("%s", f"{'':{self._columns['epoch']}}  table: {said}")

    def _measures(self, row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """(head, values) for every kind of data; of a text, its perplexity says it all."""
        for name in self.meanings:
            named = {key.removeprefix(f"{name}_"): value for key, value in row.items() if key.startswith(f"{name}_")}
            if "perplexity" in named:
                named = {"perplexity": named["perplexity"]}
            if named:
                heads = " ".join(SHORT.get(key, key) for key in named)
                yield f"{name} {heads}", " ".join(_short(key, value) for key, value in named.items())

    def _say_head(self, row: Mapping[str, Any], cells: Mapping[str, str]) -> None:
        """Logs what is new among the columns, and the head of all."""
        for name, lines in self._meanings(row, cells):
            if name not in self._explained:
                self._explained.add(name)
                for line in lines:
                    log.info("%s", line)
        known = {**dict.fromkeys(self._columns, ""), **cells}
        first = [head for name in self.meanings for head in known if head.startswith(f"{name} ")]
        heads = ["epoch", *first, *(["skips"] if "skips" in known else []), "time"]
        heads += [*(["data"] if "data" in known else []), "left"]
        widths = {"epoch": 2 * len(cells["epoch"].partition("/")[2]) + 1, "time": 6, "data": 6, "left": 6}
        self._columns = {head: max(len(head), len(known[head]), widths.get(head, 0)) for head in heads}
        log.info("%s", "  ".join(f"{head:>{width}}" for head, width in self._columns.items()))

    def _meanings(self, row: Mapping[str, Any], cells: Mapping[str, str]) -> Iterator[tuple[str, list[str]]]:
        """What each column of `cells`, and the table of `row`, means."""
        names = {head.partition(" ")[0] for head in cells}
        yield from ((name, lines) for name, lines in self.meanings.items() if name in names)
        if "skips" in cells:
            yield "skips", [SKIPS]
        if "data" in cells:
            yield "data", [DATA]
        if "table" in row:
            yield "table", [TABLE]


def _short(quantity: str, value: float) -> str:
    """A value in a few characters."""
    if quantity == "accuracy":
        return f"{value:.2f}%"
    digits = 2 if quantity == "perplexity" else 3
    return f"{value:.{digits}f}" if abs(value) < 100 else f"{value:.4g}"
