"""Line charts as inline SVG, for the report: no script, no font, no file besides."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from training.run.report.templates import TEMPLATES

WIDTH, HEIGHT = 640, 250  # of the drawing's own coordinates; it scales with the page
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 34  # margins around the plot
MAX_HOVER = 60  # points of a line that answer to the pointer
_COLOURS = 4
MAX_POINTS = 300  # of a line; longer series are averaged in buckets
_UNIT_ROOM = 62  # at the right end of the x axis, for its unit
_LOG_FROM = 30  # ratio of extremes from which a positive quantity gets a logarithmic axis


@dataclass(frozen=True)
class Series:
    """A line: points (x, y); those with a y that is not finite are left out."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """Values `low`..`high` along `start`..`stop` of the drawing."""

    low: float
    high: float
    start: float
    stop: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """Coordinate of a value."""
        low, high, v = (math.log10(x) if self.is_log else x for x in (self.low, self.high, value))
        return self.start + (v - low) / (high - low) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """Four or so round values."""
        if self.is_log:
            exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            marks = [m * 10.0**e for e in exponents for m in ((1, 2, 5) if len(exponents) < 4 else (1,))]
            return [m for m in marks if self.low <= m <= self.high]
        step = round_up((self.high - self.low) / 4)
        first = math.ceil(self.low / step - 1e-9)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def chart(title: str, series: Sequence[Series], note: str = "", may_be_log: bool = False) -> Markup:
    """A captioned chart over kimg; an empty text if there is nothing to show."""
    drawn = [Series(s.name, condensed(s.points)) for s in series]
    drawn = [s for s in drawn if s.points]
    if not drawn:
        return Markup()
    x_axis, y_axis = _axes(drawn, may_be_log)
    return Markup(
        TEMPLATES.get_template("chart.html").render(
            title=title,
            note=note,
            lines=[_line(i % _COLOURS, s, x_axis, y_axis) for i, s in enumerate(drawn)],
            x_ticks=[(_place(x_axis, x), _x_label(x_axis, x)) for x in x_axis.ticks()],
            y_ticks=[(_place(y_axis, y), number(y)) for y in y_axis.ticks()],
            width=WIDTH,
            height=HEIGHT,
            left=LEFT,
            right=WIDTH - RIGHT,
            bottom=HEIGHT - BOTTOM,
        )
    )


def condensed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Finite points only, averaged in buckets if they are many."""
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    size = -(-len(finite) // MAX_POINTS)
    if size <= 1:
        return finite
    buckets = [finite[i : i + size] for i in range(0, len(finite), size)]
    return [(sum(x for x, _ in b) / len(b), sum(y for _, y in b) / len(b)) for b in buckets]


def round_up(value: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next((m * power for m in (1, 2, 2.5, 5) if m * power >= value * (1 - 1e-9)), 10 * power)


def number(value: float) -> str:
    """Short: 12,400, 3.14, 0.00021."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-4 else f"{value:.1e}"


def _axes(series: Sequence[Series], may_be_log: bool) -> tuple[Axis, Axis]:
    xs = [x for s in series for x, _ in s.points]
    ys = [y for s in series for _, y in s.points]
    low, high = min(ys), max(ys)
    is_log = may_be_log and low > 0 and high / low > _LOG_FROM
    if high - low < 1e-12 * max(abs(high), 1e-12):
        low, high = (low - abs(low) / 2, high + abs(high) / 2) if low else (0.0, 1.0)
    elif not is_log:
        margin = (high - low) * 0.06
        low, high = (0.0 if 0 <= low <= margin * 4 else low - margin), high + margin
    else:
        low, high = low / 1.15, high * 1.15
    right = max(xs) if max(xs) > min(xs) else min(xs) + 1
    return Axis(min(xs), right, LEFT, WIDTH - RIGHT), Axis(low, high, HEIGHT - BOTTOM, TOP, is_log)


def _place(axis: Axis, value: float) -> float:
    return round(axis.place(value), 1)


def _x_label(axis: Axis, value: float) -> str:
    """Nothing where the unit stands."""
    return "" if axis.place(value) > WIDTH - RIGHT - _UNIT_ROOM else number(value)


def _line(colour: int, series: Series, x_axis: Axis, y_axis: Axis) -> dict[str, Any]:
    """What the template draws of a line: its path, its end, and points that say their values under the pointer."""
    places = [(_place(x_axis, x), _place(y_axis, y)) for x, y in series.points]
    step = -(-len(places) // MAX_HOVER)
    shown = range(len(places) - 1, -1, -step)
    texts = [f"{series.name}: {number(y)} at {number(x)} kimg" for x, y in series.points]
    return {
        "name": series.name,
        "colour": colour,
        "last": number(series.points[-1][1]),
        "path": "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places),
        "end": places[-1],
        "hover": [(*places[i], texts[i]) for i in reversed(shown)],
    }
