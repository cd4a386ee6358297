"""The report of all measurements below a folder: tables as Markdown, and one page with charts and samples."""

from __future__ import annotations

import base64
import json
import statistics
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from headstart.bench.chart import Chart, Series, bars, lines
from headstart.bench.cost_table import compact_speed_table, energy_tables, speed_table
from headstart.bench.energy import figures
from headstart.bench.measure import OURS
from headstart.compare.headline import full_seeds, group, pool
from headstart.compare.store import folders_of, networks_of, strips_of
from headstart.compare.table import (
    NAMES,
    Held,
    Table,
    about,
    budget_table,
    headline_table,
    quality_table,
    score_table,
)  # fmt: skip
from headstart.compare.way import HEUN, Way, methods_of
from headstart.io.bound import parse_json, read_bytes

TEMPLATE = Path(__file__).with_name("page.html")
CEILING = 5.0  # of the least distance: where a chart of them ends
BUSY = 1.0  # load above which seconds are not those of the machine
DRAWN = (  # start, solver, grid, in the order of the colours
    ("learned", "2M", "log"), ("planned", "plan", "plan"), ("transport", "2M", "log"),
    ("classic", "2M", "log"), ("classic", "UniPC", "log"), ("classic", "Heun", "rho 7"),
    ("empirical", "2M", "log"), ("uninformed", "2M", "log"),
)  # fmt: skip
SHOWN = (  # ways whose samples come from the same latents, where there are any
    HEUN, Way("classic", "2M", "log", 9), Way("classic", "2M", "log", 5),
    Way("transport", "2M", "log", 9), Way("transport", "2M", "log", 5), Way("planned", "plan", "plan", 5),
    Way("learned", "2M", "log", 5), Way("alone", "none", "none", 0),
)  # fmt: skip


def tables(files: Mapping[str, Held]) -> list[Table]:
    """Of one network's files, by kind."""
    found: list[Table] = []
    if "quality" in files:
        makers = (headline_table, budget_table, quality_table, score_table)
        found += [table for table in (make(files["quality"]) for make in makers) if table.rows]
    found += [speed_table(files["speed"])] if "speed" in files else []
    return found + (energy_tables(files["energy"], files.get("quality")) if "energy" in files else [])


def markdown(folder: Path) -> str:
    """The tables of one device's folder as Markdown.

    Raises:
        ValueError: a file of another format or schema.
    """
    parts = []
    for name, files in networks_of(folder).items():
        parts += [f"### {name}", f"{about(files)}.", *(table.markdown() for table in tables(files))]
    return "\n\n".join(parts) + "\n"


def page(results: Path) -> str:
    """The page as text: one file, no script, nothing loaded from elsewhere.

    Raises:
        ValueError: no measurement below `results`, or one of another schema.
        ImportError: the extra `headstart[plots]` is not installed.
    """
    folders = folders_of(results)
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise ImportError("bench report: needs the extra: pip install 'headstart[plots]'") from error
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(
        TEMPLATE.read_text()
    )
    devices = [
        {"name": folder.name, "networks": [network_part(*entry) for entry in networks_of(folder).items()]}
        for folder in folders
    ]
    paths = [path for name in ("sampler", "ops") for path in sorted(results.rglob(f"{name}.json"))]
    return template.render(devices=devices, developer=[part for path in paths for part in developer(path)]) + "\n"


def network_part(name: str, files: Mapping[str, Held]) -> dict[str, Any]:
    """One network: its setting, quality, speed and energy, as far as these were measured."""
    part: dict[str, Any] = {"name": name, "about": about(files), "quality": None, "speed": None, "energy": None}
    if "quality" in files:
        quality = files["quality"]
        part["quality"] = {
            "first": [table for table in (headline_table(quality), budget_table(quality)) if table.rows],
            "warning": quality["found"]["horizon"]["warning"],
            "charts": list(quality_charts(files)),
            "strips": list(strips(quality["path"])),
            "tables": [quality_table(quality), score_table(quality)],
        }
    if "speed" in files:
        speed = files["speed"]
        charts = list(speed_charts(speed))
        part["speed"] = {"charts": charts, "compact": compact_speed_table(speed), "table": speed_table(speed)}
    if "energy" in files:
        part["energy"] = energy_tables(files["energy"], files.get("quality"))
    settings = {
        kind: {k: v for k, v in file.items() if k in ("machines", "settings", "found")} for kind, file in files.items()
    }
    return part | {"raw": json.dumps(settings, indent=1)}


def drawn_groups() -> list[tuple[str, str, str]]:
    """The lines of a chart: those of `DRAWN`, and every other solver from the classic start."""
    known = {solver for _, solver, _ in DRAWN}
    others = [("classic", key, one.usual) for key, one in methods_of("quality").items() if key not in known]
    return [*DRAWN, *others]


def quality_charts(held: Mapping[str, Held]) -> Iterator[Chart]:
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
    wanted.append(("joules a sample", lambda own: joules.get(Way.of(own[0]).key)))
    for label, of in wanted:
        series = []
        for colour, which in enumerate(drawn_groups()):
            name = NAMES[which[0]] + ("" if which[1] == "plan" else f", {which[1]}")
            series.append(Series(name, curve(rows, which, of), colour, which[0] in ("classic", "uninformed")))
        series = [one for one in series if one.points]
        if series:
            marks = sorted({x for one in series for x, *_ in one.points}) if label.startswith("network") else []
            floor = held["quality"]["found"]["floor"]["fd"]
            yield lines(series, label, "Frechet distance", floor, marks, CEILING)


def seconds_a_call(speed: Held) -> float:
    """Of one sample in headstart's loop, at the largest batch of the least side."""
    rows = [row for row in speed["rows"] if "results" in row]
    row = max(rows, key=lambda row: (-row["side"], row["threads"], row["batch"]))
    return next(r["time_median"] for r in row["results"] if r["contender"] == OURS) / row["batch"]


def curve(
    rows: list[dict[str, Any]], which: tuple[str, str, str], of: Callable[[list[dict[str, Any]]], float | None]
) -> list[tuple[float, ...]]:
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


def strips(quality: Path) -> Iterator[tuple[str, str]]:
    """Names of the ways that have a strip of samples, and its PNG file in base 64."""
    for way in SHOWN:
        path = strips_of(quality) / f"{way.key}.png"
        if path.exists():
            yield f"{NAMES[way.start]}, {way.solver}, {way.nfe} calls", base64.b64encode(path.read_bytes()).decode()


def speed_charts(held: Held) -> Iterator[Chart]:
    """Time over headstart's of every sampler, at the largest batch of each solver."""
    for solver in dict.fromkeys(row["solver"] for row in held["rows"]):
        rows = [row for row in held["rows"] if row["solver"] == solver and "results" in row]
        row = max(rows, key=lambda row: (row["threads"], -row["side"], row["batch"]))
        kept = [r for r in row["results"] if r["contender"] != "copy" and "does nothing" not in r["contender"]]
        entries = [(r["contender"], 1e3 * r["time_median"], r["contender"].startswith("headstart")) for r in kept]
        yield bars(entries, "ms a call", f"{solver}, batch {row['batch']}, {row['side']} px")


def developer(path: Path) -> list[dict[str, Any]]:
    """A sampler's own time, or the ops beside a copy, from a file of `python -m bench.sampler` or `bench.ops`."""
    held = parse_json(read_bytes(path), path)
    most = max(case["threads"] for case in held["cases"])
    cases = [case for case in held["cases"] if case["threads"] == most]
    chip = f"{held['machine']['name']}, {most} threads, torch {held['machine']['torch']}."
    if path.stem == "ops":
        points = [
            (case["arithmetic"] / case["bytes"], row["of_copy_median"])
            for case in cases if case.get("arithmetic") for row in case["results"] if row["contender"] == "headstart"
        ]  # fmt: skip
        series = [Series("headstart's ops", points, 0, joined=False)]
        chart = [lines(series, "operations a byte", "part of copy speed")] if points else []
        return [{"title": "Roofline", "about": chip, "charts": chart}] if points else []
    charts = []
    for case in [case for case in cases if "opaque" in case["name"]]:
        rows = [(r["contender"], r["copies_median"], r["contender"].startswith("headstart")) for r in case["results"]]
        shown = sorted((row for row in rows if row[0] != "copy"), key=lambda row: row[1])
        charts.append(bars(shown, "copies", case["name"].split()[1]))
    note = "A network call's share of the sampler itself, in copies of the state; the network does nothing."
    return [{"title": "A sampler's own time", "about": f"{chip} {note}", "charts": charts}]
