"""Line charts as inline SVG, for the report: no script, no font, no file besides."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 250  # of the drawing's own coordinates; it scales with the page
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 34  # margins around the plot
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


def chart(title: str, series: Sequence[Series], note: str = "", may_be_log: bool = False) -> str:
    """A captioned chart over kimg; an empty string if there is nothing to show."""
    drawn = [Series(s.name, condensed(s.points)) for s in series]
    drawn = [s for s in drawn if s.points]
    if not drawn:
        return ""
    x_axis, y_axis = _axes(drawn, may_be_log)
    body = _grid(x_axis, y_axis) + "".join(_line(i, s, x_axis, y_axis) for i, s in enumerate(drawn))
    legend = "".join(_legend_entry(i, s) for i, s in enumerate(drawn))
    hint = f'<p class="note">{escape(note)}</p>' if note else ""
    return (
        f'<figure><figcaption><h3>{escape(title)}</h3><div class="legend">{legend}</div></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{body}</svg>{hint}</figure>'
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


def _grid(x_axis: Axis, y_axis: Axis) -> str:
    parts = []
    for value in y_axis.ticks():
        y = y_axis.place(value)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>')
    for value in x_axis.ticks():
        x = x_axis.place(value)
        if x > WIDTH - RIGHT - _UNIT_ROOM:
            continue
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 12}" text-anchor="middle">{number(value)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT} {HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>')
    parts.append(f'<text class="unit" x="{WIDTH - RIGHT}" y="{HEIGHT - 12}" text-anchor="end">kimg</text>')
    return "".join(parts)


def _line(index: int, series: Series, x_axis: Axis, y_axis: Axis) -> str:
    places = [(x_axis.place(x), y_axis.place(y)) for x, y in series.points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    x, y = places[-1]
    dot = f'<circle class="dot s{index % 4}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    return f'<path class="line s{index % 4}" d="{path}"/>{dot}'


def _legend_entry(index: int, series: Series) -> str:
    last = number(series.points[-1][1])
    return f'<span><i class="s{index % 4}"></i>{escape(series.name)} <b>{last}</b></span>'
