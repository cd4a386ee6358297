"""What the rows of a quality file say: network calls to reach a quality, and the quality at a number of calls."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from headstart.compare.way import HEUN, Way

CONFIDENCE = (0.05, 0.95)
BEST = "best classic"
LEARNED = {"learned": "learned start", "planned": "learned start, planned", "transport": "learned start, transport"}
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
    picks = {"classic": classic, **{name: picked(rows, name) for name in LEARNED}}
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
    heun = [row for row in rows if Way.of(row) == HEUN and row["seed"] in seeds]
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


CALLS = (3, 5, 7)


def shared(rows: Rows) -> set[int]:
    """Seeds that every way among these rows has."""
    seeds: dict[Any, set[int]] = {}
    for row in rows:
        seeds.setdefault(group(row), set()).add(row["seed"])
    return set.intersection(*seeds.values()) if seeds else set()


def pick(rows: Rows) -> list[dict[str, Any]]:
    """The rows, one a seed, of the way with the least mean validation distance over the seeds that all ways have."""
    seeds = shared(rows)
    ways: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        ways.setdefault(group(row), []).append(row)
    if not seeds:
        return []
    return min(ways.values(), key=lambda own: statistics.mean(r["fd_validation"] for r in own if r["seed"] in seeds))


def budget(rows: Rows, floor: float, calls: Sequence[int] = CALLS) -> list[dict[str, Any]]:
    """For each number of calls an entry for the classic start and for each method that was measured there.

    Solver and grid are picked by the validation distance, of `way`; `fd` is the mean distance to the test images over
    the seeds that all picked ways have, `spread` its standard deviation over these (None: one seed). `ratio` is the
    classic start's excess over the floor, what real images show, over the method's: `(FD_classic - floor) / (FD -
    floor)`, above 1 where the method is nearer to real images; `low` and `high` hold 90 % of its bootstrap over
    samples, paired. None where the method is not above the floor.
    """
    table = []
    for nfe in calls:
        at = [row for row in rows if row["nfe"] == nfe]
        picks = {name: pick([row for row in at if row["start"] == name]) for name in ("classic", *LEARNED)}
        picks = {name: own for name, own in picks.items() if own}
        seeds = shared([row for own in picks.values() for row in own])
        if "classic" not in picks or len(picks) < 2 or not seeds:
            continue
        kept = {name: [row for row in own if row["seed"] in seeds] for name, own in picks.items()}
        against, moved = pool(kept["classic"])
        for name, own in kept.items():
            fd, replicates = pool(own)
            ratios = sorted((a - floor) / (b - floor) for a, b in zip(moved, replicates, strict=True) if b > floor)
            whole = fd > floor and len(ratios) == len(replicates) and name != "classic"
            ends = [ratios[min(len(ratios) - 1, int(q * len(ratios)))] if whole else None for q in CONFIDENCE]
            figures = [row["fd"] for row in own]
            table.append({
                "nfe": nfe, "method": name, "way": list(group(own[0])), "fd": fd, "seeds": len(figures),
                "spread": statistics.stdev(figures) if len(figures) > 1 else None,
                "ratio": (against - floor) / (fd - floor) if whole else None, "low": ends[0], "high": ends[1],
            })  # fmt: skip
    return table


def overtaken(rows: Rows) -> dict[str, Any] | None:
    """From which number of calls on no learned method is better: the fewest at which, as at every larger number that
    both sides were tried at, the best classic way has the least test distance; None where there is none.

    Solver and grid of each side, and the method among the learned ones, are picked by the validation distance.
    """
    classic, found = picked(rows, "classic"), None
    learned = {name: picked(rows, name) for name in LEARNED}
    for nfe in sorted(classic, reverse=True):
        own = [chosen[nfe] for chosen in learned.values() if nfe in chosen]
        if not own:
            continue
        best = min(own, key=lambda rows: statistics.mean(row["fd_validation"] for row in rows))
        there, here = pool(classic[nfe])[0], pool(best)[0]
        if there > here:
            break
        way = {"classic": list(group(classic[nfe][0])), "learned": list(group(best[0]))}
        found = {"nfe": nfe, "classic": there, "learned": here, "ways": way}
    return found
