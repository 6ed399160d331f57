"""The commands that tell of runs: a page, figures and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from diffnas.cli.options import Runs, json_lines, print_lines
from diffnas.errors import UserError

AsMarkdown = Annotated[bool, typer.Option("--markdown", help="Print the table of the comparison in Markdown.")]
AsLatex = Annotated[bool, typer.Option("--latex", help="Print that table in LaTeX (booktabs).")]


def report(
    runs: Runs,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file to write (default, for the page of one run: RUN/report.html)."),
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write every figure as SVG and PDF into this folder too.")
    ] = None,
    markdown: AsMarkdown = False,
    latex: AsLatex = False,
) -> None:
    """Write a page about a run: one HTML file, to be opened in a browser.

    What ran, curves, strengths, the cell epoch by epoch, sizes, tests; of several runs, a comparison first. It needs no
    network and no other file. Every search, training and test leaves one in its run folder.

    [bold]diffnas report runs/first[/bold]

    [bold]diffnas report runs/seed0 runs/seed1 --out seeds.html[/bold]

    [bold]diffnas report runs --latex --out table.tex --figures figures[/bold]  the table instead of a page
    """
    if markdown or latex:
        lines = _table(runs, markdown, latex)
        if out is None:
            print_lines(*lines)
        else:
            _write_table(out, lines)
    else:
        from diffnas.reports.page import write_report

        path = write_report(runs, out)
        print_lines(f"report: {path}", kept=str(path))
    if figures is not None:
        from diffnas.reports.figures import write_figures

        print_lines(*(f"figure: {each}" for each in write_figures(runs, figures)), kept=str(figures))


def _table(runs: list[Path], markdown: bool, latex: bool) -> list[str]:
    """The lines of the comparison in Markdown or LaTeX."""
    from diffnas.reports import tables
    from diffnas.reports.compare import compared

    if markdown and latex:
        raise UserError("--markdown, --latex: choose one")
    return (tables.markdown if markdown else tables.latex)(compared(runs)).splitlines()


def _write_table(out: Path, lines: list[str]) -> None:
    from diffnas.reports.page import place_of
    from diffnas.runtime.files import write_text

    write_text(place_of(out), "".join(f"{line}\n" for line in lines))
    print_lines(f"table: {out}", kept=str(out))


def compare(
    runs: Runs,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the result of every run.")] = False,
    markdown: AsMarkdown = False,
    latex: AsLatex = False,
) -> None:
    """Compare runs: per recipe and data the number of results, their mean, deviation, 95 % interval and the best.

    Runs of one recipe whose settings differ stand apart. Searches and trainings without a result are counted.

    [bold]diffnas compare runs/*[/bold]
    """
    from diffnas.reports import tables
    from diffnas.reports.compare import compared

    if as_json + markdown + latex > 1:
        raise UserError("--json, --markdown, --latex: choose one")
    if markdown or latex:
        print_lines(*_table(runs, markdown, latex))
        return
    groups = compared(runs)
    lines = json_lines([group.facts() for group in groups]) if as_json else tables.terminal(groups)
    print_lines(*lines)
