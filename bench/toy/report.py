"""The report of the toy table: `report.md` and its plots, from the rows alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.toy.bars import bars
from bench.toy.law import LEVEL, Toy
from headstart.io.output import write

Rows = list[dict[str, Any]]
METRICS = {
    "max_swd": "max-sliced W2",
    "bulk": "max-sliced W2 of the 0.1..0.9 bulk",
    "swd": "sliced W2",
    "gap": "likelihood gap, nats",
    "modes": "mode weights, total variation",
    "tail_99": "0.99 quantile ratio, worst direction",
    "tail_999": "0.999 quantile ratio, worst direction",
}
TICKS = (3, 5, 7, 9, 13, 19, 27, 39)
PANEL = ("classic", "uninformed", "empirical", "gmm", "tmix", "flow dynamic")


def select(rows: Rows, **wanted: Any) -> Rows:
    """Rows whose columns are as wanted."""
    return [row for row in rows if all(str(row[name]) == str(value) for name, value in wanted.items())]


def figure(rows: Rows, column: str) -> str:
    """Mean over seeds, and their standard deviation."""
    values = [float(row[column]) for row in rows if row[column] not in ("", "nan")]
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3g}{spread}"


def ordered(values: Iterable[Any]) -> list[Any]:
    """Without repetitions, in order."""
    return list(dict.fromkeys(values))


def start_table(rows: Rows) -> list[str]:
    """The starts themselves: KL twice, tails, seconds."""
    lines = [
        "| start | train | KL, Monte Carlo | KL, denoising errors | 0.999 quantile | 0.9999 quantile | fit, s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for start, train in ordered((row["start"], row["train"]) for row in rows):
        some = select(rows, start=start, train=train)
        columns = ("kl", "immse", "start_tail_0.999", "start_tail_0.9999", "fit_seconds")
        lines.append(f"| {start} | {train} | " + " | ".join(figure(some, column) for column in columns) + " |")
    return lines


def sample_table(rows: Rows) -> list[str]:
    """Every metric of every start, solver and number of calls."""
    lines = [
        "| start | solver | NFE | " + " | ".join(METRICS.values()) + " |",
        "| --- | --- | ---: |" + " ---: |" * len(METRICS),
    ]
    for start, solver, nfe in ordered((row["start"], row["solver"], row["nfe"]) for row in rows):
        some = select(rows, start=start, solver=solver, nfe=nfe)
        cells = [figure(some, metric) for metric in METRICS]
        lines.append(f"| {start} | {solver} | {nfe} | " + " | ".join(cells) + " |")
    return lines


def budget_table(rows: Rows) -> list[str]:
    """The parts of the bound beside the measured KL."""
    if not rows:
        return []
    columns = ("initialization", "score", "discretization", "measured")
    lines = [
        "**Error budget of DDPM from sigma_T to 0.05** (`hs.error_budget`, nats; measured from above, 16 paths)", "",
        "| start | denoiser | " + " | ".join(columns) + " |", "| --- | --- |" + " ---: |" * len(columns),
    ]  # fmt: skip
    for start, denoiser in ordered((row["start"], row["denoiser"]) for row in rows):
        some = select(rows, start=start, denoiser=denoiser)
        lines.append(f"| {start} | {denoiser} | " + " | ".join(figure(some, column) for column in columns) + " |")
    return [*lines, ""]


def law_section(toy: Toy, rows: Rows) -> list[str]:
    """Everything about one law."""
    main = max(int(row["train"]) for row in rows)
    scored = [row for row in rows if row["solver"] not in ("start", "budget")]
    exact = select(scored, train=main, denoiser="exact")
    error = figure(select(exact, start="exact samples"), "gap_error")
    lines = [
        f"## {toy.name}", "",
        f"sigma_T = {toy.sigma_T:g}, {toy.n:,} samples a row, training points {main:,} unless said; the likelihood gap "
        f"of exact samples has standard deviation {error}.", "",
        "**The starts at sigma_T**", "", *start_table([row for row in rows if row["solver"] == "start"]), "",
        *budget_table(select(rows, solver="budget")), "**Exact denoiser**", "", *sample_table(exact), "",
    ]  # fmt: skip
    trained = select(scored, denoiser="network")
    if trained:
        lines += ["**Trained denoiser**", "", *sample_table(trained), ""]
    for train in ordered(row["train"] for row in scored if int(row["train"]) != main):
        lines += [f"**{int(train):,} training points**", "", *sample_table(select(scored, train=train)), ""]
    return lines


def write_report(out: Path, rows: Rows, toys: Mapping[str, Toy], skipped: Mapping[str, str]) -> None:
    """Writes `report.md` and the plots into `out`; `notes.md` there, where someone wrote one, goes below the bars."""
    notes = out / "notes.md"
    present = {name: toy for name, toy in toys.items() if select(rows, law=name)}
    lines = [
        "# Toy laws", "",
        "Written by `python -m bench.toy`; every figure is in `toy.json`. Mean ± standard deviation over seeds "
        "(training set, fit, samples and references change with the seed; flows and networks are trained once, and "
        "only their samples change).",
        "",
        "- `exact samples` is the floor: a second exact sample scored against the first, at the same n.",
        "- solver `none`: the fitted law sampled at sigma = 0, without a denoiser: what a metric it passes is worth.",
        f"- likelihood gap: mean log-density under the law, of samples plus noise of {LEVEL:g}, less that of exact "
        "samples so noised; above 0 means contracted.",
        "- quantile ratios: 1 is exact. Those of a start come from 1,000,000 samples (100,000 for light tails and for "
        "few training points) against exact quantiles of the noised law, the worst of 12 directions and both ends; "
        "those of samples, from the direction of the max-sliced distance.",
        "- KL from denoising errors: `hs.initialization_kl` with the exact denoiser on 4,000 held-out points.",
        "- sliced distances use at most 10,000 samples a side; the maximum is found by an ascent from a few "
        "directions, a lower bound. Grids: 2M log-uniform to 0.02; Heun from 80 Karras (rho 7, [0.002, 80]), else "
        "(rho 7, to 0.02); DDPM the 40 levels of (rho 2, [2e-4, 3]) cut at sigma_T.",
        *[f"- left out: {start}, {reason}" for start, reason in skipped.items()], "",
        *bars(rows), "", *([notes.read_text()] if notes.exists() else []),
        "![Max-sliced distance against calls](max_swd.png)", "", "![Likelihood gap against calls](gap.png)", "",
    ]  # fmt: skip
    for name, toy in present.items():
        lines += law_section(toy, select(rows, law=name))
    write(out / "report.md", lambda path: path.write_text("\n".join(lines)))
    for column in ("max_swd", "gap"):
        plot(out / f"{column}.png", rows, list(present), column)


def plot(path: Path, rows: Rows, laws: list[str], column: str) -> None:
    """One panel a law: a metric against the calls of 2M, exact denoiser, main training size; the floor dashed."""
    from matplotlib.figure import Figure

    width = min(3, len(laws))
    drawing = Figure(figsize=(4 * width, 3 * math.ceil(len(laws) / width)), layout="constrained")
    for axis, law in zip(drawing.subplots(math.ceil(len(laws) / width), width, squeeze=False).flat, laws, strict=False):
        mine = select(rows, law=law, denoiser="exact")
        main = max(int(row["train"]) for row in mine)
        for start in PANEL:
            some = select(mine, start=start, solver="2M", train=main)
            calls = sorted({int(row["nfe"]) for row in some})
            means = [statistics.mean(abs(float(row[column])) for row in select(some, nfe=nfe)) for nfe in calls]
            axis.plot(calls, means, marker=".", label=start)
        floor = [row["gap_error" if column == "gap" else column] for row in select(mine, start="exact samples")]
        axis.axhline(statistics.mean(map(float, floor)), color="0.5", linestyle="--", label="exact samples")
        axis.set(xscale="log", yscale="log", xlabel="network calls", title=law, ylabel=METRICS[column])
        axis.set_xticks(TICKS, list(map(str, TICKS)))
        axis.minorticks_off()
    drawing.legend(*drawing.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=7, fontsize="small")
    write(path, lambda temporary: drawing.savefig(temporary, dpi=80))
