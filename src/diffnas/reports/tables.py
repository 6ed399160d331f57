"""The comparison of several runs, for a terminal, and for a paper."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffnas.reports.compare import Group

HEADS = ("recipe", "data", "measure", "n", "mean", "std", "95 % interval", "best", "without a result")
NARROW_HEADS = ("recipe", *HEADS[3:-1])
WIDE = 150  # columns of a terminal from which everything has its own
WIDEST = 400  # characters of a line for a file or another program
TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"}
TEX |= {">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"}
TEX |= {char: f"\\{char}" for char in "&%$#_{}"}


def cells(group: Group) -> tuple[str, ...]:
    """A row of the table, as words."""
    name = f"{group.recipe} ({', '.join(group.differing)})" if group.differing else group.recipe
    low, high = group.interval or (None, None)
    between = "" if low is None or high is None else f"{low:.2f} to {high:.2f}"
    best = group.best
    said = "" if best is None or best.value is None else f"{best.value:.2f} ({best.run})"
    n = str(len(group.values))
    return name, group.data, group.measure, n, _two(group.mean), _two(group.std), between, said, group.missing


def _two(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def terminal(groups: Sequence[Group]) -> list[str]:
    """The lines of the table for a terminal: a narrow one says in the first column what others say in columns of their own."""
    width = None if sys.stdout.isatty() else WIDEST
    console = Console(width=width, color_system=None, highlight=False)
    narrow = console.width < WIDE
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for head in NARROW_HEADS if narrow else HEADS:
        right = head in {"n", "mean", "std"}
        table.add_column(head, justify="right" if right else "left", no_wrap=right, overflow="fold")
    for group in groups:
        table.add_row(*(Text(cell) for cell in (_narrow(group) if narrow else cells(group))))
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines() if line.strip()]


def _narrow(group: Group) -> tuple[str, ...]:
    """A row for a narrow terminal, what it is about on several lines."""
    _, data, measure, *numbers, _, missing = cells(group)
    best = group.best
    run = "" if best is None else f"best: {best.run}"
    about = filter(None, [data, measure, *group.differing, run, missing])
    return "\n  ".join([group.recipe, *about]), *numbers, "" if best is None else _two(best.value)


def markdown(groups: Sequence[Group]) -> str:
    """The table in Markdown."""
    lines = [_line(HEADS), "|" + "---|" * len(HEADS)]
    return "\n".join([*lines, *(_line(tuple(map(_plain, cells(group)))) for group in groups)])


def _line(row: Sequence[str]) -> str:
    return "| " + " | ".join(row) + " |"


def _plain(said: str) -> str:
    """Text in which nothing is Markdown or HTML."""
    escaped = "".join(f"\\{char}" if char in "\\`*_[]|#~" else char for char in said)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def latex(groups: Sequence[Group]) -> str:
    """The table in LaTeX, as `booktabs` has it."""
    head = " & ".join(tex(name) for name in HEADS) + r" \\"
    rows = [" & ".join(map(tex, cells(group))) + r" \\" for group in groups]
    start = [rf"\begin{{tabular}}{{lll{'r' * 5}l}}", r"\toprule", head, r"\midrule"]
    return "\n".join([*start, *rows, r"\bottomrule", r"\end{tabular}"])


def tex(said: str) -> str:
    """Text in which nothing is a command of TeX."""
    return "".join(TEX.get(char, char) for char in said)
