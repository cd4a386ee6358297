"""Tables of the measurements, as Markdown for README and as HTML for the page."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from headstart.bench.energy import equal_quality, figures, ratios
from headstart.bench.headline import METHODS, calls_text, full_seeds, group, headline
from headstart.bench.result import read
from headstart.bench.speed import shares
from headstart.bench.way import GROUPS

Held = Mapping[str, Any]
NAMES = {
    "alone": "learned start alone, no network", "classic": "classic, from 80", "learned": "learned start",
    "planned": "learned start, planned", "transport": "learned start, same latents", "uninformed": "uninformed",
    "empirical": "empirical (memorizes)",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A title, the names of columns, and rows of text; the first `left` columns are words."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1

    def markdown(self) -> str:
        rule = ["---"] * self.left + ["---:"] * (len(self.columns) - self.left)
        lines = [self.columns, rule, *self.rows]
        return "\n".join([self.title, "", *(f"| {' | '.join(line)} |" for line in lines)])

    def html(self) -> str:
        def cells(row: Sequence[str], tag: str) -> str:
            kinds = ["" if i < self.left else ' class="n"' for i in range(len(row))]
            return "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for cell, kind in zip(row, kinds, strict=True))

        body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in self.rows)
        head = f"<tr>{cells(self.columns, 'th')}</tr>"
        table = f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"
        return f'<p>{escape(self.title)}</p><div class="wide">{table}</div>'


def setting(held: Held) -> str:
    """On what, and on which machine."""
    about, given = held["machines"][-1], held["settings"]
    busy = "" if about["load"] <= 0.5 else f", other work beside it (load {about['load']:.1f})"
    chip = f"{about['name']}, {about['threads']} thread{'s' * (about['threads'] > 1)}, torch {about['torch']}{busy}"
    return f"{given['denoiser']}; {chip}"


def headline_table(held: Held) -> Table:
    """Network calls to reach a quality."""
    entries, seeds = headline(held["rows"]), len(full_seeds(held["rows"]))
    names = {"classic": "classic, from 80", **METHODS}
    targets = {e["target"]: e for e in entries}
    columns = ["start"]
    for name, e in targets.items():
        of = f" ({e['of']['solver']}, {e['of']['grid']} grid, {e['of']['nfe']} calls)" if name == "best classic" else ""
        columns.append(f"calls to reach {name}{of}: FD {number(e['fd'])}")
    rows = []
    for method in dict.fromkeys(entry["method"] for entry in entries):
        cells = {e["target"]: calls_text(e) for e in entries if e["method"] == method}
        rows.append([names[method], *(cells.get(target, "") for target in targets)])
    title = (
        "Fewest network calls, of those tried, whose Frechet distance is at most the target's; "
        f"{held['rows'][0]['n']:,} samples a row, {seeds} seed{'s' * (seeds > 1)}; in brackets 90 % of the "
        f"bootstrap over samples. sigma_T {held['found']['horizon']['sigma']:.3g}; solver, grid and sigma_T are picked "
        "on validation images."
    )
    return Table(title, columns, rows)


def quality_table(held: Held) -> Table:
    """Frechet distance of every way at every number of calls."""
    rows = [row for row in held["rows"] if row["seed"] in full_seeds(held["rows"])]
    calls = sorted({row["nfe"] for row in rows if row["nfe"]})
    lines = []
    for start, solver, grid in GROUPS:
        mine = [row for row in rows if group(row) == (start, solver, grid)]
        if not mine:
            continue
        cells = [cell(mine, n) for n in calls]
        if start == "alone":  # it makes no call: one figure for the row
            cells = [f"0 calls: {cell(mine, 0)}", *[""] * (len(calls) - 1)]
        lines.append([NAMES[start], solver, grid, *cells])
    floor = number(held["found"]["floor"]["fd"])
    lines.append(["real training images", "", "", *[floor] * len(calls)])
    size = held["settings"]["feature_size"]
    kind = f"{held['settings']['features']} features" + (f", {size} px" if size else "")
    title = f"Frechet distance ({kind}) to held-out images for each number of calls, mean of seeds; less is better."
    return Table(title, ["start", "solver", "grid", *(f"{n}" for n in calls)], lines, left=3)


def cell(rows: Sequence[Mapping[str, Any]], nfe: int) -> str:
    values = [row["fd"] for row in rows if row["nfe"] == nfe]
    if not values:
        return ""
    spread = f" ± {number(statistics.stdev(values))}" if len(values) > 1 else ""
    return f"{number(statistics.mean(values))}{spread}"


def number(value: float) -> str:
    """With one decimal where it is large (Lite0 features), with three where it is small (gradient features)."""
    return f"{value:.1f}" if abs(value) >= 20 else f"{value:.3f}"


def score_table(held: Held) -> Table:
    """All scores of the most telling rows."""
    columns = [
        "start",
        "solver",
        "calls",
        "FD",
        "KID x 1000",
        "SWD",
        "MaxSWD",
        "class agreement",
        "neighbour",
        "copies",
    ]
    lines = []
    shown = [row for row in held["rows"] if row["seed"] == 0 and row["grid"] in ("log", "plan", "none")]
    shown += [row for row in held["rows"] if row["seed"] == 0 and row["solver"] == "Heun" and row["nfe"] == 79]
    for row in [r for r in shown if r["nfe"] in (0, 5, 9, 79) and r["solver"] in ("none", "plan", "2M", "Heun")]:
        lines.append([NAMES[row["start"]], row["solver"], str(row["nfe"]), *scores(row)])
    lines.append(["real training images", "", "", *scores(held["found"]["floor"])])
    title = (
        "Further scores, seed 0. Agreement: share of samples whose class, as a small classifier sees it, is the one "
        "asked for; neighbour: median distance to the nearest training image over that of held-out images; copies: "
        "share nearer than the held-out 1 % quantile (0.01 where nothing is memorized)."
    )
    return Table(title, columns, lines, left=2)


def scores(row: Mapping[str, Any]) -> list[str]:
    def text(name: str, digits: int, factor: float = 1.0) -> str:
        return f"{factor * row[name]:.{digits}f}" if name in row else ""

    return [
        number(row["fd"]), text("kid", 2, 1000), text("swd", 3), text("max_swd", 3), text("agreement", 3),
        text("neighbour", 2), text("copies", 3),
    ]  # fmt: skip


def speed_table(held: Held) -> Table:
    """Samples a second of every contender at every batch."""
    lines = []
    for row in held["rows"]:
        for entry in shares(row):
            own = f"{100 * entry['own']:.1f} %" if "own" in entry else ""
            memory = f"{row['memory'] / 2**20:.0f}" if own and row["memory"] is not None else ""
            lines.append([
                f"{row['solver']}, {row['units']} calls", f"{row['batch']} x {row['side']} px, {row['threads']} thr.",
                entry["contender"], f"{entry['samples_a_second']:.1f}", f"{1e3 * entry['seconds']:.1f}",
                f"{1e3 * entry['spread']:.1f}", f"{entry['ratio']:.3f}", own, memory,
            ])  # fmt: skip
    columns = [
        "solver",
        "batch",
        "sampler",
        "samples/s",
        "ms a batch",
        "IQR",
        "time over headstart's",
        "own share",
        "MiB",
    ]
    title = (
        "Whole samplers around the same network on the same grid, taking turns; medians. Own share: headstart's time "
        f"with a network that does nothing, over its time with the network. {setting(held)}."
    )
    return Table(title, columns, lines, left=3)


def energy_tables(held: Held, quality: Held | None) -> list[Table]:
    """Joules a sample, and the ratios at equal quality."""
    lines = []
    for row in held["rows"]:
        at = figures(row)
        joules = ["" if at[name] is None else f"{at[name]:.4g}" for name in ("joules", "above_idle")]
        lines.append(
            [NAMES[row["start"]], row["solver"], str(row["nfe"]), f"{1e3 * (at['seconds'] or 0):.2f}", *joules]
        )
    columns = ["start", "solver", "calls", "ms a sample", "J a sample", "J above idle"]
    tables = [Table(f"{held['found']['counter']}. {setting(held)}.", columns, lines, left=2)]
    if quality is not None and quality["rows"]:
        found = ratios(equal_quality(quality["rows"]), held["rows"])
        rows = [
            [r["target"], r["reference"], r["method"], f"{r['calls']:.2f}",
             *("" if r[name] is None else f"{r[name]:.2f}" for name in ("seconds", "joules", "above_idle"))]
            for r in found
        ]  # fmt: skip
        names = ["equal to", "reference", "method", "calls ratio", "seconds ratio", "joules ratio", "above idle ratio"]
        tables += [Table("At equal quality, the reference's over the method's.", names, rows, left=3)] if rows else []
    return tables


def tables(folder: Path) -> list[Table]:
    """Of one device's folder: what README quotes.

    Raises:
        ValueError: a file of another format or schema.
    """
    held = {k: read(folder / f"{k}.json", k) for k in ("quality", "speed", "energy") if (folder / f"{k}.json").exists()}
    held = {kind: file for kind, file in held.items() if file["rows"]}
    found: list[Table] = []
    if "quality" in held:
        found += [headline_table(held["quality"]), quality_table(held["quality"]), score_table(held["quality"])]
    found += [speed_table(held["speed"])] if "speed" in held else []
    return found + (energy_tables(held["energy"], held.get("quality")) if "energy" in held else [])


def markdown(folder: Path) -> str:
    """The tables of one device's folder as Markdown; errors as in `tables`."""
    return "\n\n".join(table.markdown() for table in tables(folder)) + "\n"
