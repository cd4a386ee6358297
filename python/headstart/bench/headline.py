"""What the rows of a quality file say: network calls to reach a quality, with intervals."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from headstart.bench.way import HEUN

CONFIDENCE = (0.05, 0.95)
BEST = "best classic"
METHODS = {"learned": "learned start", "planned": "learned start, planned", "transport": "learned start, transport"}
Rows = Sequence[dict[str, Any]]
Point = tuple[float, list[float]]  # a distance, and its replicates


def group(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["start"], row["solver"], row["grid"]


def way_of(row: dict[str, Any]) -> list[Any]:
    """The fields of a `Way`."""
    return [*group(row), row["nfe"]]


def pool(rows: Rows) -> Point:
    """Mean distance over seeds, and its replicates: the mean of each seed's deviations from their own mean."""
    center = statistics.mean(row["fd"] for row in rows)
    moved = [[value - statistics.mean(row["fd_replicates"]) for value in row["fd_replicates"]] for row in rows]
    return center, [center + statistics.mean(values) for values in zip(*moved, strict=True)]


def picked(rows: Rows, start: str, solvers: Sequence[str] | None = None) -> dict[int, Rows]:
    """For each number of calls the rows, one a seed, of the solver and grid with the least validation distance."""
    chosen: dict[int, Rows] = {}
    seeds = full_seeds(rows)
    mine = [
        r for r in rows if r["start"] == start and r["seed"] in seeds and (solvers is None or r["solver"] in solvers)
    ]
    for nfe in sorted({row["nfe"] for row in mine}):
        ways: dict[Any, list[dict[str, Any]]] = {}
        for row in mine:
            if row["nfe"] == nfe:
                ways.setdefault(group(row), []).append(row)
        whole = [found for found in ways.values() if len(found) == max(map(len, ways.values()))]
        chosen[nfe] = min(whole, key=lambda found: statistics.mean(row["fd_validation"] for row in found))
    return chosen


def full_seeds(rows: Rows) -> set[int]:
    """Seeds that have as many rows as any: a run that was stopped leaves one with fewer, which is not compared."""
    counts = {seed: sum(row["seed"] == seed for row in rows) for seed in {row["seed"] for row in rows}}
    return {seed for seed, count in counts.items() if count == max(counts.values())}


def reached(curve: dict[int, Point], target: Point, replicate: int | None = None, first: bool = False) -> float:
    """The fewest calls from which on the distance is at most the target's, at every larger number tried as well;
    infinity where there are none.

    Args:
        curve: a method's distance at each number of calls that was tried.
        replicate: with the distances of that bootstrap replicate.
        first: the fewest calls at which it is so once, whatever more calls give.
    """
    pick = (lambda point: point[0]) if replicate is None else (lambda point: point[1][replicate])
    held = float("inf")
    for nfe, point in sorted(curve.items(), reverse=True):
        if pick(point) <= pick(target):
            held = nfe
        elif not first:
            break
    return held


def interval(curve: dict[int, Point], target: Point) -> tuple[float, float]:
    """90 % of the replicates' calls lie between these."""
    calls = sorted(reached(curve, target, i) for i in range(len(target[1])))
    low, high = (calls[min(len(calls) - 1, int(q * len(calls)))] for q in CONFIDENCE)
    return low, high


def headline(rows: Rows) -> list[dict[str, Any]]:
    """For each target (Heun with 79 calls from 80; the best classic row at any number of calls): calls to reach it and
    hold it at every larger number tried (`calls`, between `low` and `high`), and the fewest that reach it once
    (`first`). None: no number tried.

    The best classic row, and a method's solver and grid for each number of calls, are picked by the validation
    distance; distances compared are those to the test images. Intervals are of the bootstrap over samples, not of
    the choice of test images. The classic start against a row of its own: that row.
    """
    classic = picked(rows, "classic")
    picks = {"classic": classic, **{name: picked(rows, name) for name in METHODS}}
    curves = {name: {nfe: pool(found) for nfe, found in chosen.items()} for name, chosen in picks.items()}
    table = []
    for name, found in targets_of(rows, classic).items():
        target = pool(found)
        best = {name: found[0][name] for name in ("start", "solver", "grid", "nfe")}
        for method, curve in curves.items():
            if not curve:
                continue
            calls, first = reached(curve, target), reached(curve, target, first=True)
            low, high = interval(curve, target)
            if method == "classic" and name == BEST:
                calls = first = low = high = best["nfe"]
            ends = [None if value == float("inf") else int(value) for value in (calls, first, low, high)]
            way = None if ends[0] is None else way_of(picks[method][ends[0]][0])
            entry = {"way": way, "target": name, "of": best, "fd": target[0], "method": method, "tried": max(curve)}
            table.append(entry | dict(zip(("calls", "first", "low", "high"), ends, strict=True)))
    return table


def targets_of(rows: Rows, classic: dict[int, Rows]) -> dict[str, Rows]:
    """The rows that others are to reach, as far as these were measured."""
    seeds = full_seeds(rows)
    heun = [row for row in rows if (*group(row), row["nfe"]) == HEUN and row["seed"] in seeds]
    targets: dict[str, Rows] = {"Heun, 79 calls": heun} if heun else {}
    if classic:
        targets[BEST] = min(classic.values(), key=lambda found: statistics.mean(row["fd_validation"] for row in found))
    return targets


def calls_text(entry: dict[str, Any]) -> str:
    """`5 (4 to 7)`; `> 13` where no number tried held; `9, once at 5` where a smaller one did but not those between."""
    one, first, low, high = (
        f"> {entry['tried']}" if entry[name] is None else str(entry[name]) for name in ("calls", "first", "low", "high")
    )
    once = "" if first == one else f", once at {first}"
    return f"{one}{once}" if low == high == one else f"{one} ({low} to {high}){once}"


def summary(rows: Rows, found: dict[str, Any]) -> str:
    """The headline as text."""
    if not rows:
        return "no row is done"
    horizon, seeds = found["horizon"], full_seeds(rows)
    lines = [f"sigma_T {horizon['sigma']:.3g}" + (f" ({horizon['warning']})" if horizon["warning"] else "")]
    lines.append(f"{len(rows)} rows of {rows[0]['n']} samples; compared: {len(seeds)} seed(s)")
    for entry in headline(rows):
        of = f"{entry['of']['solver']} {entry['of']['grid']}, {entry['of']['nfe']} calls"
        target = f"{entry['target']} ({of}, FD {entry['fd']:.2f})"
        lines.append(f"calls of {entry['method']:<10} to reach and hold {target}: {calls_text(entry)}")
    return "\n".join(lines)
