"""Quality at a given number of network calls: the best classic way against each learned one."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from headstart.bench.headline import CONFIDENCE, METHODS, Rows, group, picked, pool

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
        picks = {name: pick([row for row in at if row["start"] == name]) for name in ("classic", *METHODS)}
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
    learned = {name: picked(rows, name) for name in METHODS}
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
