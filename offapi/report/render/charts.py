"""Charts as inline SVG: lines over steps, and dots with intervals. All text is escaped.

Series differ in colour (Okabe and Ito's, which colour-blind readers can distinguish) and in dashes
or marks. Colours are classes, since they follow the page's scheme. Left out: animation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from offapi.report.render.axes import Scale, brief, scale, steps
from offapi.stats.interval import Interval
from offapi.text.display import shorten

WIDTH, HEIGHT, LOW = 420, 230, 120  # pixels; LOW is the height of a minor chart
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 10, 36
SLOTS = 7  # styles of a series: enough for a comparison's four recipes and three references
MARK = 4  # pixels
CORNERS: Mapping[int, Sequence[tuple[float, float]]] = {  # square, diamond, triangle
    1: ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    2: ((0, -1.4), (1.4, 0), (0, 1.4), (-1.4, 0)),
    3: ((0, -1.3), (1.2, 1), (-1.2, 1)),
}
MANY = 240  # points of a line; more are averaged

Point = tuple[float, float | None]


@dataclass(frozen=True)
class Series:
    """A line, with or without marks. It is broken where y is None."""

    name: str
    points: tuple[Point, ...]
    slot: int = 0
    marks: bool = False
    raw: tuple[Point, ...] = ()  # drawn faintly behind, if the points are a moving average

    @property
    def known(self) -> list[tuple[float, float]]:
        """The points that have a y."""
        return _known(self.points)


@dataclass(frozen=True)
class Chart:
    """A chart: its title, lines and axes."""

    title: str
    series: tuple[Series, ...]
    unit: str = ""
    x: str = "step"
    zero: bool = True  # the y axis begins at 0
    share: bool = False  # the y axis goes from 0 to 1
    note: str = ""
    minor: bool = False  # drawn low: good to know, not what matters

    @property
    def height(self) -> int:
        """The height in pixels."""
        return LOW if self.minor else HEIGHT

    @property
    def legend(self) -> list[tuple[str, Markup]]:
        """Each series' name and its style."""
        return [(line.name, _swatch(line)) for line in self.series]

    @property
    def summary(self) -> str:
        """The chart as text, one sentence per series, for readers who cannot see it."""
        return " ".join(map(_summary, self.series))

    @property
    def svg(self) -> Markup:
        """The drawing."""
        return _draw(self)


def thin(points: Sequence[Point]) -> tuple[Point, ...]:
    """Return at most `MANY` points; if there are more, average neighbours."""
    width = -(-len(points) // MANY)
    return (
        tuple(_mean(points[i : i + width]) for i in range(0, len(points), width))
        if width > 1
        else tuple(points)
    )


def smooth(points: Sequence[Point]) -> tuple[Point, ...]:
    """Return the centred moving average over a fifteenth of the points; few points stay."""
    half = len(points) // 30
    return tuple(
        (x, _mean(points[max(0, i - half) : i + half + 1])[1]) for i, (x, _) in enumerate(points)
    )


def draw_intervals(
    title: str, rows: Sequence[tuple[str, Sequence[tuple[str, int, Interval]]]]
) -> Markup:
    """Draw rates with 95% intervals: a block per field, with lines of (name, slot, interval)."""
    across = Scale(0, 1, 14, WIDTH - 14, (0, 0.25, 0.5, 0.75, 1))
    parts, y = [], 4.0
    for field, bars in rows:
        parts.append(
            Markup('<text class="label" x="20" y="{}">{}</text>').format(y + 12, shorten(field, 48))
        )
        y += 22
        for name, slot, one in bars:
            parts.append(_interval(across, y, field, name, slot, one))
            y += 14
        y += 8
    foot = [
        Markup('<line class="grid" x1="{0}" x2="{0}" y1="0" y2="{1}"/>').format(across.at(tick), y)
        for tick in across.ticks
    ]
    foot += [_text(across.at(tick), y + 16, f"{100 * tick:g}%", "middle") for tick in across.ticks]
    summary = " ".join(
        f"{field}: {name} {one.percent()}." for field, bars in rows for name, _, one in bars
    )
    return _frame(title, summary, y + 24, [*foot, *parts])


def _draw(chart: Chart) -> Markup:
    known = [point for one in chart.series for point in (*one.known, *_known(one.raw))]
    across = steps((x for x, _ in known), LEFT, WIDTH - RIGHT)
    if chart.x != "step":
        across = scale((x for x, _ in known), LEFT, WIDTH - RIGHT)
    values = [0.0, 1.0] if chart.share else [y for _, y in known]
    count = 2 if chart.minor else 5
    up = scale(values, chart.height - BOTTOM, TOP, zero=chart.zero, count=count)
    inside = [
        *_axes(across, up, chart),
        *(mark for one in chart.series for mark in _series(one, across, up)),
    ]
    return _frame(chart.title, chart.summary, chart.height, inside)


def _known(points: Iterable[Point]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if y is not None]


def _axes(across: Scale, up: Scale, chart: Chart) -> list[Markup]:
    line = Markup('<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/>')
    parts, foot = [], chart.height - BOTTOM
    for tick in up.ticks:
        parts.append(line.format("grid", LEFT, WIDTH - RIGHT, up.at(tick), up.at(tick)))
        parts.append(_text(LEFT - 6, up.at(tick) + 4, brief(tick), "end"))
    for tick in across.ticks:
        parts.append(line.format("axis", across.at(tick), across.at(tick), foot, foot + 4))
        anchor = "end" if across.at(tick) > WIDTH - 24 else "middle"
        parts.append(_text(across.at(tick), foot + 16, brief(tick), anchor))
    parts.append(line.format("axis", LEFT, WIDTH - RIGHT, foot, foot))
    return [*parts, _text((LEFT + WIDTH - RIGHT) / 2, chart.height - 5, chart.x, "middle")]


def _series(one: Series, across: Scale, up: Scale) -> Iterable[Markup]:
    """Draw a line, broken where a value is missing, and its marks.

    A single value between two gaps is a mark too.
    """
    for piece in _pieces(one.raw, across, up):
        yield _line(piece, "faint", one.slot)
    for piece in _pieces(one.points, across, up):
        if len(piece) > 1:
            yield _line(piece, "line", one.slot)
        if one.marks or len(piece) == 1:
            yield from (_mark(x, y, one.slot) for x, y in piece)


def _pieces(points: Iterable[Point], across: Scale, up: Scale) -> list[list[tuple[float, float]]]:
    """Split the points at gaps, and convert them to pixels."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None:
            pieces.append([])
        else:
            pieces[-1].append((across.at(x), up.at(y)))
    return [piece for piece in pieces if piece]


def _line(piece: Sequence[tuple[float, float]], kind: str, slot: int) -> Markup:
    path = "M" + "L".join(f"{x:g} {y:g}" for x, y in piece)
    return Markup('<path class="{} s{}" d="{}"/>').format(kind, slot, path)


def _interval(across: Scale, y: float, field: str, name: str, slot: int, one: Interval) -> Markup:
    whisker = Markup('<line class="whisker s{}" x1="{}" x2="{}" y1="{}" y2="{}"/>')
    drawn = whisker.format(slot, across.at(one.low), across.at(one.high), y, y)
    title = Markup("<title>{}, {}: {}%</title>").format(field, name, one.percent())
    return Markup("<g>{}{}{}</g>").format(title, drawn, _mark(across.at(one.mean), y, slot))


def _mark(x: float, y: float, slot: int) -> Markup:
    """Draw a circle, square, diamond or triangle by slot, so that styles differ without colour."""
    shape = slot % 4
    if shape == 0:
        return Markup('<circle class="mark s{}" cx="{:g}" cy="{:g}" r="{}"/>').format(
            slot, x, y, MARK
        )
    path = " ".join(f"{x + MARK * dx:g},{y + MARK * dy:g}" for dx, dy in CORNERS[shape])
    return Markup('<polygon class="mark s{}" points="{}"/>').format(slot, path)


def _swatch(one: Series) -> Markup:
    line = Markup('<path class="line s{}" d="M1 7L27 7"/>').format(one.slot)
    mark = _mark(14, 7, one.slot) if one.marks else ""
    return Markup('<svg class="swatch" viewBox="0 0 28 14" aria-hidden="true">{}{}</svg>').format(
        line, mark
    )


def swatch(slot: int) -> Markup:
    """Return the style of an interval's dot, for a legend."""
    return _swatch(Series("", (), slot, marks=True))


def _frame(title: str, summary: str, height: float, inside: Sequence[Markup]) -> Markup:
    head = Markup(
        '<svg class="chart" viewBox="0 0 {} {:g}" role="img"><title>{}</title><desc>{}</desc>'
    )
    return head.format(WIDTH, height, title, summary) + Markup("").join(inside) + Markup("</svg>")


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:g}" y="{:g}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def _summary(one: Series) -> str:
    if not one.known:
        return f"{one.name}: no values."
    (x0, y0), (x1, y1) = one.known[0], one.known[-1]
    values = [y for _, y in one.known]
    ends = f"{brief(y0)} at {brief(x0)}" + (
        f" to {brief(y1)} at {brief(x1)}" if len(values) > 1 else ""
    )
    return f"{one.name}: {ends}; lowest {brief(min(values))}, highest {brief(max(values))}."


def _mean(points: Sequence[Point]) -> Point:
    values = [y for _, y in points if y is not None]
    return points[-1][0], sum(values) / len(values) if values else None
