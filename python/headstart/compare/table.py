"""Tables of measurements as rows of text, and as Markdown: the frame of all, and those of quality."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.compare.headline import LEARNED, budget, calls_text, full_seeds, group, headline, picked
from headstart.compare.quality import groups
from headstart.compare.way import HEUN_CALLS

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


def machine(held: Held) -> str:
    """What a file's last rows were measured on."""
    chip = held["machines"][-1]
    busy = "" if chip["load"] <= 0.5 else f", other work beside it (load {chip['load']:.1f})"
    return f"{chip['name']}, {chip['threads']} thread{'s' * (chip['threads'] > 1)}, torch {chip['torch']}{busy}"


def about(files: Mapping[str, Held]) -> str:
    """A network's setting: images, samples, horizon, machine."""
    held = files.get("quality") or next(iter(files.values()))
    given, parts = held["settings"], [held["settings"]["denoiser"]]
    if "horizon" in held["found"]:
        sizes = given.get("images", {})
        for name, what in (("train", "starts fitted to"), ("heldout", "compared with")):
            parts += [f"{what} {sizes[name]:,} images ({given[name]})"] if name in sizes else []
        parts += [f"framed to {given['side']} x {given['side']} in black"] if "side" in given else []
        parts.append(f"sigma_T {held['found']['horizon']['sigma']:.3g}")
    return "; ".join([*parts, machine(held)])


def number(value: float) -> str:
    """With one decimal where it is large (Lite0 features), with three where it is small (gradient features)."""
    return f"{value:.1f}" if abs(value) >= 20 else f"{value:.3f}"


def headline_table(held: Held) -> Table:
    """Network calls to reach a quality."""
    entries, seeds = headline(held["rows"]), len(full_seeds(held["rows"]))
    names = {"classic": "classic, from 80", **LEARNED}
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
        "Fewest network calls, of those tried, from which on the Frechet distance is at most the target's (once: that "
        "reach it, though more calls do not hold it); "
        f"{held['rows'][0]['n']:,} samples a row, {seeds} seed{'s' * (seeds > 1)}; in brackets 90 % of the "
        f"bootstrap over samples. sigma_T {held['found']['horizon']['sigma']:.3g}; solver, grid and sigma_T are picked "
        "on validation images."
    )
    return Table(title, columns, rows)


def budget_table(held: Held) -> Table:
    """Distances at a few calls, and the ratio of the excess over real images."""
    entries = budget(held["rows"], held["found"]["floor"]["fd"])
    names = {"classic": "best classic, from 80", **LEARNED}
    methods = [name for name in names if any(e["method"] == name for e in entries)]
    lines = []
    for nfe in dict.fromkeys(e["nfe"] for e in entries):
        own = {e["method"]: e for e in entries if e["nfe"] == nfe}
        lines.append([str(nfe), *(budget_cell(own[name]) if name in own else "" for name in methods)])
    title = (
        "Frechet distance at a given number of calls, and by what factor the best classic way lies farther above real "
        f"images (FD {number(held['found']['floor']['fd'])}) than the learned one, in brackets 90 % of the bootstrap "
        "over samples; solver and grid of both are picked on validation images."
    )
    return Table(title, ["calls", *(names[name] for name in methods)], lines)


def budget_cell(entry: Mapping[str, Any]) -> str:
    """`564.9 (2M, log)`, or `515.0: 1.25 (1.08 to 1.52)`; over several seeds with the deviation."""
    spread = "" if entry["spread"] is None else f" ± {number(entry['spread'])}"
    if entry["method"] == "classic":
        return f"{number(entry['fd'])}{spread} ({entry['way'][1]}, {entry['way'][2]})"
    if entry["ratio"] is None:
        return f"{number(entry['fd'])}{spread}"
    return f"{number(entry['fd'])}{spread}: {entry['ratio']:.2f} ({entry['low']:.2f} to {entry['high']:.2f})"


def compact_table(held: Held) -> Table:
    """Frechet distance of each start's picked way at every number of calls."""
    names = {"classic": "classic, from 80", **LEARNED}
    picks = {name: picked(held["rows"], name) for name in names}
    calls = sorted({nfe for own in picks.values() for nfe in own})
    lines = [[names[name], *(cell(own[n], n) if n in own else "" for n in calls)] for name, own in picks.items() if own]
    floor = number(held["found"]["floor"]["fd"])
    title = (
        "Frechet distance for each number of calls, less is better; each start with the solver and grid that "
        f"validation images pick there, real training images {floor}."
    )
    return Table(title, ["start", *(f"{n}" for n in calls)], lines)


def quality_table(held: Held) -> Table:
    """Frechet distance of every way at every number of calls."""
    rows = [row for row in held["rows"] if row["seed"] in full_seeds(held["rows"])]
    calls = sorted({row["nfe"] for row in rows if row["nfe"]})
    lines = []
    for start, solver, grid in groups():
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
    shown += [row for row in held["rows"] if row["seed"] == 0 and row["solver"] == "Heun" and row["nfe"] == HEUN_CALLS]
    for row in [
        r for r in shown if r["nfe"] in (0, 5, 9, HEUN_CALLS) and r["solver"] in ("none", "plan", "2M", "Heun")
    ]:
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
