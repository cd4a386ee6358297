"""The page's part on quality: charts, samples and tables."""

from __future__ import annotations

import base64
import statistics
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from headstart.bench.chart import Series, lines
from headstart.bench.energy import figures
from headstart.bench.measure import OURS
from headstart.compare.headline import full_seeds, group, pool
from headstart.compare.store import strips_of
from headstart.compare.table import NAMES, budget_table, headline_table, quality_table, score_table
from headstart.compare.way import Way

Held = Mapping[str, Any]
CEILING = 5.0  # of the least distance: where a chart of them ends
BUSY = 1.0  # load above which seconds are not those of the machine
SUFFIX = {"plan": "", "none": ""}
DRAWN = (  # start, solver, grid, colour, dashed
    ("learned", "2M", "log", 0, False), ("planned", "plan", "plan", 1, False), ("transport", "2M", "log", 2, False),
    ("classic", "2M", "log", 3, True), ("classic", "UniPC", "log", 4, True), ("classic", "Heun", "rho 7", 5, True),
    ("empirical", "2M", "log", 6, False), ("uninformed", "2M", "log", 7, True),
)  # fmt: skip
SHOWN = (  # ways whose samples come from the same latents, where there are any
    Way("classic", "Heun", "rho 7", 79), Way("classic", "2M", "log", 9), Way("classic", "2M", "log", 5),
    Way("transport", "2M", "log", 9), Way("transport", "2M", "log", 5), Way("planned", "plan", "plan", 5),
    Way("learned", "2M", "log", 5), Way("alone", "none", "none", 0),
)  # fmt: skip


def quality_part(held: Mapping[str, Held]) -> str:
    """Headline, charts, samples and tables of a network's files."""
    quality = held["quality"]
    warning = quality["found"]["horizon"]["warning"]
    note = f"<p>On sigma_T: {escape(warning)}.</p>" if warning else ""
    low = budget_table(quality)
    first = headline_table(quality).html() + (low.html() if low.rows else "")
    others = "".join(table.html() for table in (quality_table(quality), score_table(quality)))
    return f"{first}{note}<h4>Quality</h4><div class='charts'>{charts(held)}</div>{strips(quality['path'])}{others}"


def charts(held: Mapping[str, Held]) -> str:
    """Distance against network calls, seconds and joules, as far as these were measured."""
    rows = [row for row in held["quality"]["rows"] if row["seed"] in full_seeds(held["quality"]["rows"])]
    energy = held["energy"]["rows"] if "energy" in held else []
    joules = {row["key"].rpartition("-b")[0]: figures(row)["joules"] for row in energy}
    wanted: list[tuple[str, Any]] = [("network calls a sample", lambda own: float(own[0]["nfe"]))]
    busy = any(about["load"] > BUSY for about in held["quality"]["machines"])
    if not busy:
        wanted.append(("seconds a sample", lambda own: statistics.mean(row["seconds"] / row["n"] for row in own)))
    elif "speed" in held:  # what other work slowed down is no measurement; a call timed in turns with others is
        call = seconds_a_call(held["speed"])
        wanted.append(("seconds a sample in the network", lambda own: own[0]["nfe"] * call))
    wanted.append(("joules a sample", lambda own: joules.get(Way(*group(own[0]), own[0]["nfe"]).key)))
    drawn = []
    for label, of in wanted:
        series = [
            Series(
                NAMES[start] + SUFFIX.get(solver, f", {solver}"), curve(rows, (start, solver, grid), of), colour, dashed
            )
            for start, solver, grid, colour, dashed in DRAWN
        ]
        series = [one for one in series if one.points]
        if series:
            marks = sorted({x for one in series for x, *_ in one.points}) if label.startswith("network") else []
            floor = held["quality"]["found"]["floor"]["fd"]
            drawn.append(f"<figure>{lines(series, label, 'Frechet distance', floor, marks, CEILING)}</figure>")
    return "".join(drawn)


def seconds_a_call(speed: Held) -> float:
    """Of one sample in headstart's loop, at the largest batch of the least side."""
    rows = [row for row in speed["rows"] if "results" in row]
    row = max(rows, key=lambda row: (-row["side"], row["threads"], row["batch"]))
    return next(r["time_median"] for r in row["results"] if r["contender"] == OURS) / row["batch"]


def curve(rows: list[dict[str, Any]], which: tuple[str, str, str], of: Any) -> list[tuple[float, ...]]:
    """Points of one way: what `of` makes of its rows, the distance, and 90 % of its bootstrap."""
    points: list[tuple[float, ...]] = []
    for nfe in sorted({row["nfe"] for row in rows}):
        own = [row for row in rows if group(row) == which and row["nfe"] == nfe]
        x = of(own) if own else None
        if x:
            center, moved = pool(own)
            ordered = sorted(moved)
            points.append((x, center, ordered[len(moved) // 20], ordered[-1 - len(moved) // 20]))
    return points


def strips(quality: Path) -> str:
    """Samples of the ways that have a strip."""
    found = []
    for way in SHOWN:
        path = strips_of(quality) / f"{way.key}.png"
        if path.exists():
            data = base64.b64encode(path.read_bytes()).decode()
            name = f"{NAMES[way.start]}, {way.solver}, {way.nfe} calls"
            image = f'<img alt="{escape(name)}" src="data:image/png;base64,{data}">'
            found.append(f'<figure class="strip"><figcaption>{escape(name)}</figcaption>{image}</figure>')
    title = (
        "<h4>Samples</h4><p>A column is one latent, but for the last two rows, which draw from the learned start.</p>"
    )
    return title + "".join(found) if found else ""
