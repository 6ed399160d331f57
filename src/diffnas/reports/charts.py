"""Line charts as SVG, in the colours of the page they stand on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 10, 30
MOST_POINTS = 400
LEAST_SPAN = 1e-2
LOG_FROM = 50.0  # the ratio of largest to smallest value from which a logarithmic axis is easier to read

Points = Sequence[tuple[int, float]]
"""(epoch, value), by epoch."""


@dataclass(frozen=True)
class Line:
    """A named curve, drawn in colour `colour` of the page (1 to 6)."""

    name: str
    points: Points
    colour: int
    dashed: bool = False


@dataclass(frozen=True)
class Band:
    """The area between two curves over the same epochs."""

    name: str
    low: Points
    high: Points


@dataclass(frozen=True)
class Chart:
    """Curves over epochs under one title; `marks` are epochs after which something changed, with what."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    marks: tuple[tuple[int, str], ...] = ()
    band: Band | None = None
    note: str = ""
    log: bool = False  # whether its axis may be logarithmic

    @property
    def svg(self) -> Markup:
        """The picture."""
        return draw(self)

    def is_logarithmic(self, values: Sequence[float]) -> bool:
        """Whether the axis of `values` is logarithmic."""
        low, high = min(values), max(values)
        return self.log and low > 0 and high / low >= LOG_FROM

    @property
    def legend(self) -> list[tuple[str, int, bool]]:
        """Name, colour and whether it is dashed, of every curve."""
        return [(line.name, line.colour, line.dashed) for line in self.lines]


class _Axes:
    """Where an epoch and a value are in the picture."""

    def __init__(self, epochs: Sequence[int], values: Sequence[float], log: bool) -> None:
        self.first, self.last = min(epochs), max(epochs)
        low, high = min(values), max(values)
        self.log = log
        if self.log:
            low, high = math.log10(low), math.log10(high)
        least = LEAST_SPAN * max(abs(low), abs(high), 1e-9)  # less is no news, and no axis can name it in a few digits
        margin = max((high - low) * 0.05, (least - (high - low)) / 2)
        self.low, self.high = low - margin, high + margin

    def x(self, epoch: float) -> float:
        span = max(1, self.last - self.first)
        return LEFT + (epoch - self.first) / span * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        place = math.log10(value) if self.log else value
        return TOP + (self.high - place) / (self.high - self.low) * (HEIGHT - TOP - BOTTOM)

    def rows(self) -> list[float]:
        """The values at which there is a line across."""
        if not self.log:
            return ticks(self.low, self.high)
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        every = [10.0**power * step for power in powers for step in (1, 2, 5)]
        inside = [value for value in every if self.low <= math.log10(value) <= self.high]
        return inside if len(inside) <= 7 else inside[:: math.ceil(len(inside) / 6)]

    def columns(self) -> list[int]:
        """The epochs that are named below, whole ones."""
        epochs = {round(tick) for tick in ticks(self.first, self.last) if self.first <= round(tick) <= self.last}
        return sorted(epochs or {self.first})


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most `most` round numbers from `low` to `high`."""
    span = high - low
    if span <= 1e-12 * max(abs(low), abs(high), 1e-100):
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if span / (power * factor) <= most - 1)
    first = math.ceil(low / step)
    return [(first + k) * step for k in range(int(high / step) - first + 1)]


def draw(chart: Chart) -> Markup:
    """The chart as an SVG element; empty where there is nothing to draw."""
    band = [chart.band.low, chart.band.high] if chart.band else []
    points = [point for one in [*(line.points for line in chart.lines), *band] for point in one]
    if not points:
        return Markup("")
    values = [value for _, value in points]
    axes = _Axes([epoch for epoch, _ in points], values, chart.is_logarithmic(values))
    parts = [*_grid(axes), *_marks(chart, axes)]
    if chart.band is not None and chart.band.low:
        around = [*_thin(chart.band.low), *reversed(_thin(chart.band.high))]
        parts.append(Markup('<polygon class="band" points="{}"/>').format(_places(axes, around)))
    for line in chart.lines:
        parts += _curve(axes, line)
    label = f"{chart.title}: " + ", ".join(line.name for line in chart.lines)
    head = Markup('<svg class="chart" role="img" viewBox="0 0 {} {}" aria-label="{}"><title>{}</title>')
    return Markup("").join([head.format(WIDTH, HEIGHT, label, label), *parts, Markup("</svg>")])


def _grid(axes: _Axes) -> list[Markup]:
    parts = []
    for value in axes.rows():
        y = f"{axes.y(value):.1f}"
        parts.append(Markup('<path class="grid" d="M{} {}H{}"/>').format(LEFT, y, WIDTH - RIGHT))
        parts.append(_text(LEFT - 4, float(y) + 3.5, _short(value), "end"))
    for epoch in axes.columns():
        parts.append(_text(axes.x(epoch), HEIGHT - BOTTOM + 14, str(epoch), "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 3, "epoch", "middle"))
    parts.append(Markup('<path class="axis" d="M{0} {1}V{2}H{3}"/>').format(LEFT, TOP, HEIGHT - BOTTOM, WIDTH - RIGHT))
    return parts


def _marks(chart: Chart, axes: _Axes) -> list[Markup]:
    parts = []
    for epoch, what in chart.marks:
        if axes.first <= epoch < axes.last:
            x = f"{axes.x(epoch + 0.5):.1f}"
            line = Markup('<path class="mark" d="M{} {}V{}"><title>{}</title></path>')
            parts.append(line.format(x, TOP, HEIGHT - BOTTOM, what))
    return parts


def _curve(axes: _Axes, line: Line) -> list[Markup]:
    points = _thin(line.points)
    style = Markup(' stroke-dasharray="5 3"') if line.dashed else Markup("")
    if len(points) == 1:
        x, y = axes.x(points[0][0]), axes.y(points[0][1])
        return [Markup('<circle class="c{} dot" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(line.colour, x, y)]
    shape = Markup('<polyline class="c{}"{} points="{}"><title>{}</title></polyline>')
    return [shape.format(line.colour, style, _places(axes, points), line.name)] if points else []


def _thin(points: Points) -> list[tuple[int, float]]:
    """At most about `MOST_POINTS` of `points`, the last among them."""
    step = math.ceil(len(points) / MOST_POINTS)
    return [*points[:-1:step], points[-1]] if points else []


def _places(axes: _Axes, points: Points) -> str:
    return " ".join(f"{axes.x(epoch):.1f},{axes.y(value):.1f}" for epoch, value in points)


def _text(x: float, y: float, said: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, said)


def _short(value: float) -> str:
    """A number beside an axis, in a few characters."""
    return f"{value:.0e}" if value and not 1e-3 <= abs(value) < 1e5 else f"{value:.6g}"
