"""The page of all measurements below a folder: one file, no script, nothing loaded from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from headstart.bench.chart import Series, bars, lines
from headstart.bench.cost_table import compact_speed_table, energy_tables, speed_table
from headstart.bench.quality_page import quality_part
from headstart.compare.store import folders_of, networks_of
from headstart.compare.table import about

Held = Mapping[str, Any]
STYLE = Path(__file__).with_name("page.css")


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
    """One device: a part for each network."""
    return "".join([f"<h2>{escape(folder.name)}</h2>", *map(network_part, networks_of(folder).items())])


def network_part(entry: tuple[str, Mapping[str, Held]]) -> str:
    """One network: its setting, quality, speed and energy, as far as these were measured."""
    name, files = entry
    parts = [f"<h3>{escape(name)}</h3><p>{escape(about(files))}.</p>"]
    if "quality" in files:
        parts.append(quality_part(files))
    if "speed" in files:
        parts.append(f"<h4>Speed</h4>{speed_bars(files['speed'])}{compact_speed_table(files['speed']).html()}")
        parts.append(f"<details><summary>All speeds</summary>{speed_table(files['speed']).html()}</details>")
    if "energy" in files:
        tables = "".join(table.html() for table in energy_tables(files["energy"], files.get("quality")))
        parts.append(f"<h4>Energy</h4>{tables}")
    settings = {
        kind: {k: v for k, v in file.items() if k in ("machines", "settings", "found")} for kind, file in files.items()
    }
    raw = escape(json.dumps(settings, indent=1))
    return "".join(
        [*parts, f"<details><summary>Machine and settings of {escape(name)}</summary><pre>{raw}</pre></details>"]
    )


def speed_bars(held: Held) -> str:
    """Time over headstart's of every sampler, at the largest batch of each solver."""
    parts = []
    for solver in dict.fromkeys(row["solver"] for row in held["rows"]):
        rows = [row for row in held["rows"] if row["solver"] == solver and "results" in row]
        row = max(rows, key=lambda row: (row["threads"], -row["side"], row["batch"]))
        kept = [r for r in row["results"] if r["contender"] != "copy" and "does nothing" not in r["contender"]]
        entries = [(r["contender"], 1e3 * r["time_median"], r["contender"].startswith("headstart")) for r in kept]
        where = f"{escape(solver)}, batch {row['batch']}, {row['side']} px"
        parts.append(f"<figure><figcaption>{where}</figcaption>{bars(entries, 'ms a call')}</figure>")
    return f'<div class="charts">{"".join(parts)}</div>'


def developer(path: Path) -> str:
    """A sampler's own time, or the ops beside a copy, from a file of `python -m bench.sampler` or `bench.ops`."""
    held = json.loads(path.read_text())
    most = max(case["threads"] for case in held["cases"])
    cases = [case for case in held["cases"] if case["threads"] == most]
    chip = f"<p>{escape(held['machine']['name'])}, {most} threads, torch {escape(held['machine']['torch'])}.</p>"
    if path.stem == "ops":
        points = [
            (case["arithmetic"] / case["bytes"], row["of_copy_median"])
            for case in cases if case.get("arithmetic") for row in case["results"] if row["contender"] == "headstart"
        ]  # fmt: skip
        chart = lines([Series("headstart's ops", points, 0, joined=False)], "operations a byte", "part of copy speed")
        return f"<h2>Roofline</h2>{chip}<figure>{chart}</figure>" if points else ""
    parts = []
    for case in [case for case in cases if "opaque" in case["name"]]:
        rows = [(r["contender"], r["copies_median"], r["contender"].startswith("headstart")) for r in case["results"]]
        shown = sorted((row for row in rows if row[0] != "copy"), key=lambda row: row[1])
        parts.append(f"<figure><figcaption>{case['name'].split()[1]}</figcaption>{bars(shown, 'copies')}</figure>")
    note = "<p>A network call's share of the sampler itself, in copies of the state; the network does nothing.</p>"
    return f'<h2>A sampler\'s own time</h2>{chip}{note}<div class="charts">{"".join(parts)}</div>'
