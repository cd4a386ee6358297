"""The page of all measurements below a folder: one file, no script, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import json
import statistics
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from headstart.bench.chart import Series, bars, lines
from headstart.bench.energy import figures
from headstart.bench.headline import full_seeds, group, pool
from headstart.bench.result import read
from headstart.bench.table import (
    NAMES,
    energy_tables,
    headline_table,
    quality_table,
    score_table,
    setting,
    speed_table,
)
from headstart.bench.way import Way

Held = Mapping[str, Any]
STYLE = Path(__file__).with_name("page.css")
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


def folders_of(results: Path) -> list[Path]:
    """Folders below `results` with measurements.

    Raises:
        ValueError: none.
    """
    found = {path.parent for kind in ("quality", "speed", "energy") for path in results.rglob(f"{kind}.json")}
    if not found:
        raise ValueError(f"bench report: no quality.json, speed.json or energy.json below {results}")
    return sorted(found)


def page(results: Path) -> str:
    """The page as text.

    Raises:
        ValueError: no measurement below `results`, or one of another schema.
    """
    folders = folders_of(results)
    parts = [section(folder) for folder in folders]
    parts += [developer(path) for name in ("sampler", "ops") for path in sorted(results.rglob(f"{name}.json"))]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    style = f"<title>headstart, measured</title><style>{STYLE.read_text()}</style>"
    body = "<h1>headstart, measured</h1>" + "".join(parts)
    return f'<!doctype html><html lang="en"><head>{head}{style}</head><body><main>{body}</main></body></html>\n'


def section(folder: Path) -> str:
    """One device."""
    held = {k: read(folder / f"{k}.json", k) for k in ("quality", "speed", "energy") if (folder / f"{k}.json").exists()}
    held = {kind: file for kind, file in held.items() if file["rows"]}
    parts = [f"<h2>{escape(folder.name)}</h2>"]
    if "quality" in held:
        parts.append(quality_part(held["quality"], held.get("energy"), folder))
    if "speed" in held:
        parts.append(f"<h3>Speed</h3>{speed_bars(held['speed'])}{speed_table(held['speed']).html()}")
    if "energy" in held:
        tables = "".join(table.html() for table in energy_tables(held["energy"], held.get("quality")))
        parts.append(f"<h3>Energy</h3>{tables}")
    settings = {
        kind: {k: v for k, v in file.items() if k in ("machines", "settings", "found")} for kind, file in held.items()
    }
    about = escape(json.dumps(settings, indent=1))
    return "".join([*parts, f"<details><summary>Machine and settings</summary><pre>{about}</pre></details>"])


def quality_part(held: Held, energy: Held | None, folder: Path) -> str:
    """Headline, charts, samples and tables."""
    rows = [row for row in held["rows"] if row["seed"] in full_seeds(held["rows"])]
    floor = held["found"]["floor"]["fd"]
    joules = {row["key"].rpartition("-b")[0]: figures(row)["joules"] for row in (energy or {"rows": []})["rows"]}
    charts = []
    for label, of in (
        ("network calls a sample", lambda own: float(own[0]["nfe"])),
        ("seconds a sample", lambda own: statistics.mean(row["seconds"] / row["n"] for row in own)),
        ("joules a sample", lambda own: joules.get(Way(*group(own[0]), own[0]["nfe"]).key)),
    ):
        series = [Series(f"{NAMES[s]}, {v}", curve(rows, (s, v, g), of), c, d) for s, v, g, c, d in DRAWN]
        series = [one for one in series if one.points]
        if series:
            marks = sorted({x for one in series for x, *_ in one.points}) if label.startswith("network") else []
            charts.append(f"<figure>{lines(series, label, 'Frechet distance', floor, marks)}</figure>")
    warning = held["found"]["horizon"]["warning"]
    note = f"<p>sigma_T {held['found']['horizon']['sigma']:.3g}; {escape(warning)}.</p>" if warning else ""
    tables = [headline_table(held), quality_table(held), score_table(held)]
    first, *others = (table.html() for table in tables)
    return (
        f"<p>{escape(setting(held))}.</p>{first}{note}<h3>Quality</h3><div class='charts'>{''.join(charts)}</div>"
        f"{strips(folder)}{''.join(others)}"
    )


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


def strips(folder: Path) -> str:
    """Samples of the ways that have a strip."""
    found = []
    for way in SHOWN:
        path = folder / "strips" / f"{way.key}.png"
        if path.exists():
            data = base64.b64encode(path.read_bytes()).decode()
            name = f"{NAMES[way.start]}, {way.solver}, {way.nfe} calls"
            image = f'<img alt="{escape(name)}" src="data:image/png;base64,{data}">'
            found.append(f'<figure class="strip"><figcaption>{escape(name)}</figcaption>{image}</figure>')
    title = (
        "<h3>Samples</h3><p>A column is one latent, but for the last two rows, which draw from the learned start.</p>"
    )
    return title + "".join(found) if found else ""


def speed_bars(held: Held) -> str:
    """Time over headstart's of every sampler, at the largest batch of each solver."""
    parts = []
    for solver in dict.fromkeys(row["solver"] for row in held["rows"]):
        rows = [row for row in held["rows"] if row["solver"] == solver and "results" in row]
        row = max(rows, key=lambda row: (row["threads"], -row["side"], row["batch"]))
        kept = [r for r in row["results"] if r["contender"] != "copy" and "does nothing" not in r["contender"]]
        entries = [(r["contender"], 1e3 * r["time_median"], r["contender"].startswith("headstart")) for r in kept]
        parts.append(
            f"<figure><figcaption>{solver}, batch {row['batch']}</figcaption>{bars(entries, 'ms a call')}</figure>"
        )
    return f'<div class="charts">{"".join(parts)}</div>'


def developer(path: Path) -> str:
    """A sampler's own time, or the ops beside a copy, from a file of `python -m bench.sampler` or `bench.ops`."""
    held = json.loads(path.read_text())
    most = max(case["threads"] for case in held["cases"])
    cases = [case for case in held["cases"] if case["threads"] == most]
    about = f"<p>{escape(held['machine']['name'])}, {most} threads, torch {escape(held['machine']['torch'])}.</p>"
    if path.stem == "ops":
        points = [
            (case["arithmetic"] / case["bytes"], row["of_copy_median"])
            for case in cases if case.get("arithmetic") for row in case["results"] if row["contender"] == "headstart"
        ]  # fmt: skip
        chart = lines([Series("headstart's ops", points, 0, joined=False)], "operations a byte", "part of copy speed")
        return f"<h2>Roofline</h2>{about}<figure>{chart}</figure>" if points else ""
    parts = []
    for case in [case for case in cases if "opaque" in case["name"]]:
        rows = [(r["contender"], r["copies_median"], r["contender"].startswith("headstart")) for r in case["results"]]
        shown = sorted((row for row in rows if row[0] != "copy"), key=lambda row: row[1])
        parts.append(f"<figure><figcaption>{case['name'].split()[1]}</figcaption>{bars(shown, 'copies')}</figure>")
    note = "<p>A network call's share of the sampler itself, in copies of the state; the network does nothing.</p>"
    return f'<h2>A sampler\'s own time</h2>{about}{note}<div class="charts">{"".join(parts)}</div>'
