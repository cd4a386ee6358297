"""Charts by matplotlib as inline SVG, coloured by the page's own style sheet, so that they follow light and dark.

A figure is drawn in stand-in colours, one for each custom property of the style sheet, and the SVG names the property
in their place. Letters stay text.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from typing import Any

WIDTH, HEIGHT = 420, 300  # of a chart, about a phone's width, so that letters stay readable there
LETTERS = 14
COLOURS = 8  # of the style sheet: --c0 to --c7
INK, FAINT = "#010101", "#020202"  # stand for --ink and --faint; "#c0000i" for --ci
FLOOR = (0, (2, 4))
STEPS = (1, 2, 5)


@dataclass(frozen=True)
class Series:
    """A line of points `(x, y)`, or `(x, y, low, high)` with a band from low to high.

    Attributes:
        colour: index of one of the style sheet's colours.
        dashed: how a baseline is drawn.
        joined: False: points alone.
    """

    name: str
    points: Sequence[tuple[float, ...]]
    colour: int
    dashed: bool = False
    joined: bool = True


@dataclass(frozen=True)
class Chart:
    """An SVG, and the entries of its legend.

    Attributes:
        svg: the picture.
        series: the lines that the legend names.
        floor: whether it has a line of real images.
        caption: above the picture.
    """

    svg: str
    series: Sequence[Series] = ()
    floor: bool = False
    caption: str = ""


def canvas(height: float) -> tuple[Any, Any]:
    """A figure of the chart's width, and its axes; no state of matplotlib is touched.

    Raises:
        ImportError: the extra `headstart[plots]` is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("bench report: needs the extra: pip install 'headstart[plots]'") from error
    figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[:].set_visible(False)
    axes.tick_params(which="both", length=0, labelsize=LETTERS, labelcolor=INK)
    return figure, axes


def to_svg(figure: Any, label: str) -> str:
    """The figure as inline SVG, with the style sheet's colours, and identifiers that no other figure has."""
    from matplotlib import rc_context

    buffer = StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "headstart", "text.parse_math": False}
    with rc_context({**settings, "font.sans-serif": ["DejaVu Sans"]}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    size = re.search(r'viewBox="[^"]*"', text)
    assert size is not None
    head = f'<svg {size[0]} role="img" aria-label="{escape(label)}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    text = head + text[text.index(">") + 1 :]
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>|<!--.*?-->", "", text, flags=re.DOTALL)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", text)
    scope = f"f{zlib.crc32(text.encode()):08x}-"
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{scope}", text)
    text = re.sub(r"#c0000(\d)", r"var(--c\1)", text)
    return text.replace(INK, "var(--ink)").replace(FAINT, "var(--faint)").strip()


def ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten between the two."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    known = [step * 10.0**power for power in powers for step in STEPS]
    return [value for value in known if low <= value * (1 + 1e-9) and value <= high * (1 + 1e-9)]


def plain(value: float) -> str:
    return f"{value:.12g}" if 1e-3 <= value < 1e5 else f"{value:.0e}"


def colour(index: int) -> str:
    return f"#c0000{index % COLOURS}"


def lines(
    series: Sequence[Series], x_label: str, y_label: str, floor: float | None = None, marks: Sequence[float] = (),
    ceiling: float | None = None,
) -> Chart:  # fmt: skip
    """A chart on two logarithmic axes; a horizontal line at `floor`.

    `marks`: where the horizontal axis is labelled, in place of 1, 2, 5 times powers of ten; `ceiling`: the vertical
    axis ends at this many times the least point, lines go on beyond it.

    Raises:
        ValueError: no points, or one that is not above 0.
    """
    values = [point for one in series for point in one.points]
    heights = [y for point in values for y in point[1:]] + ([floor] if floor else [])
    if not values or min(min(point) for point in values) <= 0:
        raise ValueError(f"lines: needs points above 0, got {values}")
    left, right = (edge(point[0] for point in values) for edge in (min, max))
    least = min(point[1] for point in values)
    low, high = min(heights) / 1.08, min(max(heights) * 1.08, (ceiling or math.inf) * least)
    figure, axes = canvas(HEIGHT)
    axes.set(xscale="log", yscale="log", xlim=(left / 1.15, right * 1.15), ylim=(low, high))
    for axis, places in ((axes.xaxis, marks or ticks(left / 1.15, right * 1.15)), (axes.yaxis, ticks(low, high))):
        axis.set_ticks(places, labels=[plain(value) for value in places])
        axis.set_ticks([], minor=True)
    axes.set_xlabel(x_label, color=INK, fontsize=LETTERS)
    axes.set_ylabel(y_label, color=INK, fontsize=LETTERS)
    axes.grid(axis="y", color=FAINT, linewidth=1)
    if floor:
        axes.axhline(floor, color=INK, linestyle=FLOOR, linewidth=1)
    for one in series:
        x, y, *band = zip(*one.points, strict=True)
        given: Mapping[str, Any] = {"color": colour(one.colour), "marker": "o", "markersize": 6}
        style = ("--" if one.dashed else "-") if one.joined else "none"
        axes.plot(x, y, linestyle=style, linewidth=2, **given)
        if band and one.joined and len(x) > 1:
            axes.fill_between(x, *band, color=colour(one.colour), alpha=0.15, linewidth=0)
    return Chart(to_svg(figure, f"{y_label} against {x_label}"), series, bool(floor))


def bars(rows: Sequence[tuple[str, float, bool]], unit: str, caption: str) -> Chart:
    """Horizontal bars `(name, value, ours)` on a logarithmic axis that ends below the least value, names above them."""
    least, most = (edge(value for _, value, _ in rows) for edge in (min, max))
    figure, axes = canvas(34 * len(rows) + 6)
    axes.set(xscale="log", xlim=(least / 2, max(most, least * 1.01) * (2 * most / least) ** 0.4))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_axis_off()
    for i, (name, value, ours) in enumerate(rows):
        axes.barh(i + 0.25, value - least / 2, height=0.33, left=least / 2, color=colour(0 if ours else 7))
        number = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
        axes.text(least / 2, i - 0.02, name, color=INK, fontsize=LETTERS, va="bottom")
        place = {"xytext": (5, 0), "textcoords": "offset points", "va": "center", "color": INK, "fontsize": LETTERS}
        axes.annotate(f"{number} {unit}", (value, i + 0.25), **place)
    return Chart(to_svg(figure, unit), caption=caption)
