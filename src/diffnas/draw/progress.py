"""A search on a space whose cells are all known, epoch by epoch (after DrNAS, figure 1)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffnas.draw.layout import INK, PAPER
from diffnas.runtime.files import write_bytes

BAND, MIDDLE, CHOICE = "#c9dcec", "#4a7fb0", "#c2452d"


def write_progress(rows: Sequence[Mapping[str, Any]], folder: Path, stem: str = "progress") -> Path | None:
    """Writes `stem`.png: per data set the true accuracy of cells drawn from the search's belief and of its choice.

    `rows` are those of metrics.jsonl; None, and no file, where none of them has a table's accuracies.
    """
    known = [row for row in rows if "table" in row and "sampled" in row]
    if not known:
        return None
    path = folder / f"{stem}.png"
    write_bytes(path, draw_progress(known))
    return path


def draw_progress(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The picture as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(rows[-1]["table"])
    epochs = [row["epoch"] + 1 for row in rows]
    figure = Figure((4.2 * len(names), 3.6), dpi=120, facecolor=PAPER, layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        drawn = [row["sampled"][name] for row in rows]
        low, middle, high = ([cells[round(q * (len(cells) - 1))] for cells in drawn] for q in (0.0, 0.5, 1.0))
        chosen = [row["table"][name]["test"] for row in rows]
        best = chosen[-1] + rows[-1]["table"][name]["gap"]
        axes.fill_between(epochs, low, high, color=BAND, label=f"{len(drawn[-1])} sampled cells: worst to best")
        axes.plot(epochs, middle, color=MIDDLE, linewidth=1.4, label="their median")
        axes.plot(
            epochs, chosen, color=CHOICE, linewidth=1.8, marker="." if len(epochs) < 30 else "", label="the choice"
        )
        axes.axhline(best, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), label="the best cell there is")
        axes.set_title(f"{name}: {chosen[-1]:.2f} % of at most {best:.2f} %", color=INK, fontsize=10)
        axes.set_xlabel("epoch")
        axes.set_ylabel("test accuracy in the table, %")
        axes.set_ylim(max(0.0, min(*low, *chosen) - 3.0), best + 3.0)
        axes.margins(x=0.02)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(color=INK, alpha=0.12)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    file = io.BytesIO()
    FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})
    return file.getvalue()
