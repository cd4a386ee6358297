"""Charts as inline SVG, coloured by the page's own style sheet, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 440, 300  # about a phone's width, so that text stays readable there
LEFT, RIGHT, TOP, BOTTOM = 62, 10, 10, 40
STEPS = (1, 2, 5)
LETTER = 9  # width of one, at most


@dataclass(frozen=True)
class Series:
    """A line of points `(x, y)`, or `(x, y, low, high)` with a band from low to high.

    Fields:
        colour: index of one of the style sheet's colours.
        dashed: how a baseline is drawn.
        joined: False: points alone.
    """

    name: str
    points: Sequence[tuple[float, ...]]
    colour: int
    dashed: bool = False
    joined: bool = True


def ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten between the two."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    known = [step * 10.0**power for power in powers for step in STEPS]
    return [value for value in known if low <= value * (1 + 1e-9) and value <= high * (1 + 1e-9)]


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """A logarithmic axis from `low` at `start` to `high` at `end`."""
    span = math.log(high / low)
    return lambda value: start + (end - start) * math.log(value / low) / span


def plain(value: float) -> str:
    return f"{value:.12g}" if 1e-3 <= value < 1e5 else f"{value:.0e}"


def lines(
    series: Sequence[Series], x_label: str, y_label: str, floor: float | None = None, marks: Sequence[float] = (),
    ceiling: float | None = None,
) -> str:  # fmt: skip
    """A chart on two logarithmic axes, with its legend; a horizontal line at `floor`.

    `marks`: where the horizontal axis is labelled, in place of 1, 2, 5 times powers of ten; `ceiling`: the vertical
    axis ends at this many times the least value, lines go on beyond it.

    Raises:
        ValueError: no points, or one that is not above 0.
    """
    values = [point for one in series for point in one.points]
    heights = [y for point in values for y in point[1:]] + ([floor] if floor else [])
    if not values or min(min(point) for point in values) <= 0:
        raise ValueError(f"lines: needs points above 0, got {values}")
    left, right = (edge(point[0] for point in values) for edge in (min, max))
    low, high = min(heights) / 1.08, min(max(heights) * 1.08, (ceiling or math.inf) * min(heights))
    x = scale(left / 1.15, right * 1.15, LEFT, WIDTH - RIGHT)
    y = scale(low, high, HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_label)} against {escape(x_label)}">'
    ]
    for value in ticks(low, high):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{plain(value)}</text>')
    for value in marks or ticks(left / 1.15, right * 1.15):
        parts.append(f'<text x="{x(value):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{plain(value)}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    middle = (HEIGHT - BOTTOM) / 2
    parts.append(f'<text transform="translate(16 {middle}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>')
    if floor:
        parts.append(f'<line class="floor" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(floor):.1f}" y2="{y(floor):.1f}"/>')
    width, height = WIDTH - RIGHT - LEFT, HEIGHT - BOTTOM - TOP
    inside = f'x="{LEFT}" y="{TOP}" width="{width}" height="{height}" viewBox="{LEFT} {TOP} {width} {height}"'
    parts.append(f"<svg {inside}>")
    for one in series:
        parts += draw(one, x, y)
    parts.append("</svg>")
    return "".join([*parts, "</svg>", legend(series, floor)])


def draw(one: Series, x: Callable[[float], float], y: Callable[[float], float]) -> list[str]:
    """One series: its band, line and points, each point with its values as a tip."""
    kind, parts = f"c{one.colour}", []
    if one.joined and len(one.points) > 1 and all(len(point) == 4 for point in one.points):
        edges = [(point[0], point[2]) for point in one.points] + [(point[0], point[3]) for point in one.points[::-1]]
        parts.append(f'<polygon class="{kind}" points="{" ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in edges)}"/>')
    if one.joined:
        path = " ".join(f"{x(point[0]):.1f},{y(point[1]):.1f}" for point in one.points)
        parts.append(f'<polyline class="{kind}{" dashed" if one.dashed else ""}" points="{path}"/>')
    for point in one.points:
        at, middle = f"{x(point[0]):.1f}", f"{y(point[1]):.1f}"
        tip = escape(f"{one.name}: {point[0]:.4g}, {point[1]:.4g}")
        parts.append(f'<circle class="{kind}" cx="{at}" cy="{middle}" r="3"><title>{tip}</title></circle>')
    return parts


def legend(series: Sequence[Series], floor: float | None) -> str:
    entries = [
        f'<span><i class="c{one.colour}{" dashed" if one.dashed else ""}"></i>{escape(one.name)}</span>'
        for one in series
    ]
    entries += ['<span><i class="floor"></i>real images against real images</span>'] if floor else []
    return f'<div class="legend">{"".join(entries)}</div>'


def bars(rows: Sequence[tuple[str, float, bool]], unit: str) -> str:
    """Horizontal bars `(name, value, ours)` on a logarithmic axis that ends below the least value, names above them."""
    least, most = (edge(value for _, value, _ in rows) for edge in (min, max))
    labels = [f"{f'{value:.0f}' if value >= 100 else f'{value:.3g}'} {unit}" for _, value, _ in rows]
    x = scale(least / 2, max(most, least * 1.01), 0, WIDTH - 5 - LETTER * max(map(len, labels)))
    height = 34 * len(rows) + 6
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(unit)}">']
    for i, (name, value, ours) in enumerate(rows):
        top, width = 34 * i, x(value)
        parts.append(f'<text x="0" y="{top + 13}">{escape(name)}</text>')
        parts.append(f'<rect class="c{0 if ours else 7}" x="0" y="{top + 17}" width="{width:.1f}" height="11"/>')
        parts.append(f'<text x="{width + 5:.1f}" y="{top + 27}">{escape(labels[i])}</text>')
    return "".join([*parts, "</svg>"])
