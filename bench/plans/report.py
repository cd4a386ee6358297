"""The figures of `rows.json` as JSON, a report and the one plot."""

from __future__ import annotations

import json
import statistics
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Any

from bench.plans.method import NFE
from bench.plans.score import LAWS, passes
from headstart.compare.way import methods_of
from headstart.io.output import write

FIRST = ("2M", "Heun", "3M", "UniPC")  # the order of the page, solvers that came later behind
CLASSIC = tuple(f"{key} from 80" for key in dict.fromkeys((*FIRST, *methods_of("plan"))))
SHORT = ("learned start, 2M", "planned from 80", "planned, free history")


def best(rows: list[dict[str, Any]], name: str, nfe: int, score: str, seed: int | None = None) -> float | None:
    """Mean over seeds of the best grid's score, grids picked for each seed, number of calls and score."""
    seeds = sorted({row["seed"] for row in rows}) if seed is None else [seed]
    values = []
    for one in seeds:
        found = [abs(r[score]) for r in rows if (r["method"], r["nfe"], r["seed"]) == (name, nfe, one)]
        if not found:
            return None
        values.append(min(found))
    return statistics.mean(values)


def first_passing(rows: list[dict[str, Any]], floors: dict[int, Any], name: str) -> str:
    """For each seed the fewest calls from which some grid passes the gate, and still does with more calls."""
    cells = []
    fine = {row["seed"]: row for row in rows if row["method"] == "fine solution"}
    for seed, floor in sorted(floors.items()):
        held = None
        for nfe in reversed(NFE):
            tried = [r for r in rows if (r["method"], r["nfe"], r["seed"]) == (name, nfe, seed)]
            if not tried:
                continue
            if not any(passes(row, fine[seed], floor) for row in tried):
                break
            held = nfe
        cells.append(str(held) if held else f"> {NFE[-1]}")
    return " / ".join(cells)


def speedups(rows: list[dict[str, Any]], name: str, score: str) -> dict[int, float | None]:
    """Calls that the best classic needs for the same error (log-linear between its points), over the method's calls."""
    points = []
    for nfe in NFE:
        values = [v for v in (best(rows, classic, nfe, score) for classic in CLASSIC) if v is not None]
        if values and (not points or min(values) < points[-1][1]):
            points.append((nfe, min(values)))
    gains: dict[int, float | None] = {}
    for nfe in NFE:
        error = best(rows, name, nfe, score)
        if error is not None:
            gains[nfe] = None if (needed := calls_for(points, error)) is None else needed / nfe
    return gains


def calls_for(points: list[tuple[int, float]], error: float) -> float | None:
    """Calls at which the classic reaches `error`; None: more than were tried."""
    if points and error >= points[0][1]:
        return float(points[0][0])
    for (n, high), (m, low) in pairwise(points):
        if low <= error < high:
            return n + (m - n) * (log(high) - log(error)) / (log(high) - log(low))
    return None


def section(name: str, rows: list[dict[str, Any]], about: dict[str, Any], floors: dict[int, Any]) -> str:
    """One law's tables."""
    many = len({row["seed"] for row in rows})
    lines = [f"## {name}", "", f"{about['n']} samples a row, {many} seed(s), sigma_T {about['horizons']}.", ""]
    for score, title in (("rmse", "Paired RMSE"), ("median", "Paired median")):
        lines += [f"{title} to the fine solution from the same latents (classic: best grid for each cell):", ""]
        lines += ["| method | " + " | ".join(f"{n} calls" for n in NFE) + " |", "| --- |" + " ---: |" * len(NFE)]
        for method in (*CLASSIC, *SHORT):
            cells = [best(rows, method, nfe, score) for nfe in NFE]
            if any(cell is not None for cell in cells):
                lines.append(f"| {method} | " + " | ".join("" if c is None else f"{c:.4f}" for c in cells) + " |")
        for method in SHORT:
            gains = speedups(rows, method, score)
            texts = [f"{n}: {'more than tried' if g is None else f'{g:.2f}x'}" for n, g in gains.items()]
            lines.append(f"\nCalls of the best classic over those of *{method}* at equal error: {', '.join(texts)}.")
        lines.append("")
    lines += scores(rows, floors)
    return "\n".join(lines)


def scores(rows: list[dict[str, Any]], floors: dict[int, Any]) -> list[str]:
    """Scores of the law, and where the gate is passed."""
    first = min(row["seed"] for row in rows)
    known = [name for name in LAWS if rows[0].get(name) not in (None, "")]
    lines = ["Scores of the law, seed " + f"{first} (classic rows: the grid of least |likelihood| or RMSE):", ""]
    lines += ["| method | calls | " + " | ".join(known) + " |", "| --- | ---: |" + " ---: |" * len(known)]
    key = "likelihood" if "likelihood" in known else "rmse"
    for method in (*CLASSIC[:1], *SHORT, "zero calls", "fine solution"):
        for nfe in (0, *NFE):
            tried = [r for r in rows if (r["method"], r["nfe"], r["seed"]) == (method, nfe, first)]
            if tried:
                row = min(tried, key=lambda r: abs(r[key]))
                lines.append(f"| {method} | {nfe} | " + " | ".join(f"{row[k]:+.4f}" for k in known) + " |")
    if floors:
        cells = [f"{floors[first][k][0]:+.4f} ± {floors[first][k][1]:.4f}" for k in known]
        lines += [f"| exact samples (floor) | | {' | '.join(cells)} |", ""]
        lines += [
            "Fewest calls from which the gate (all scores within 3 of the floor's deviations of the fine solution's)"
        ]
        lines += [
            "is passed and held, for each seed; a classic or learned start passes where any of its grids does:",
            "",
        ]
        lines += [f"- {method}: {first_passing(rows, floors, method)}" for method in (*CLASSIC, *SHORT)]
    return [*lines, ""]


def plot(path: Path, laws: dict[str, list[dict[str, Any]]]) -> None:
    """Paired error against network calls."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(laws), figsize=(4.6 * len(laws), 3.8), squeeze=False)
    for axis, (name, rows) in zip(axes[0], laws.items(), strict=True):
        for method in (*CLASSIC, *SHORT):
            points = [(n, v) for n in NFE if (v := best(rows, method, n, "median")) is not None]
            if points:
                style = {"linestyle": "--" if method in CLASSIC else "-", "marker": "o", "markersize": 3}
                axis.plot(*zip(*points, strict=True), label=method, **style)
        axis.set(title=name, xlabel="network calls", yscale="log")
    axes[0][0].set_ylabel("median paired error, a coordinate")
    axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    write(path, lambda temporary: figure.savefig(temporary, dpi=110))


def report(out: Path, rows: list[dict[str, Any]], abouts: dict[str, Any]) -> None:
    """`plan.json`, `report.md` and `plan.png` in `out`."""
    laws = {name: [row for row in rows if row["case"] == name] for name in abouts}
    laws = {name: found for name, found in laws.items() if found}
    parts = [
        "# Plans beside classic solvers",
        "",
        "`python -m bench.plan --out bench/results/plan` made this page.",
        "",
    ]
    summary: dict[str, Any] = {}
    for name, found in laws.items():
        floors = {int(seed): floor for seed, floor in abouts[name]["floors"].items() if floor}
        parts.append(section(name, found, abouts[name], floors))
        summary[name] = {**abouts[name], "speedup": {m: speedups(found, m, "rmse") for m in SHORT}}
    parts += ["![Error against network calls](plan.png)", ""]
    write(out / "report.md", lambda path: path.write_text("\n".join(parts)))
    write(out / "plan.json", lambda path: path.write_text(json.dumps(summary, indent=1) + "\n"))
    plot(out / "plan.png", laws)
