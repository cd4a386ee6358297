"""Pictures of the measurements: `python -m bench.plot --out DIR [--results bench/results]`.

From every `ops.json` below the results `roofline-FOLDER.png`, from every `sampler.json` `peers-FOLDER.png`, FOLDER
being the folder of the file. Colours are chosen to be read on white and on black; the background is left empty.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.bench_sampler import RING
from bench.performance import RESULTS, best_other, every_thread, row_of
from headstart.bench.measure import COPY, OURS
from headstart.io.output import write

INK, ACCENT, OTHER = "#7a7a7a", "#d2601a", "#5b84b1"


def pyplot() -> Any:
    """matplotlib without a screen.

    Raises:
        ImportError: the extra `headstart[plots]` is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("bench.plot needs the extra: pip install 'headstart[plots]'") from error
    matplotlib.use("agg")
    settings = {"savefig.transparent": True, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    colours = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
    matplotlib.rcParams.update({**settings, **dict.fromkeys(colours, INK)})
    import matplotlib.pyplot as plt

    return plt


def roofline(report: Mapping[str, Any]) -> Any:
    """Speed as a part of the copy's against operations a byte: full dots headstart, empty ones the best other way."""
    plt = pyplot()
    cases = [c for c in every_thread(report) if c.get("arithmetic") and not c["name"].startswith("overhead")]
    if not cases:
        raise ValueError("no case with its arithmetic counted: run `python -m bench.ops` anew")
    figure, axes = plt.subplots(figsize=(9.5, 4.5), layout="constrained")
    axes.axhline(1, color=INK, linewidth=1)
    axes.annotate("copy", (1, 1), xycoords=("axes fraction", "data"), ha="right", va="bottom")
    cases.sort(key=lambda case: case["arithmetic"] / case["bytes"])
    for number, case in enumerate(cases, 1):
        x = case["arithmetic"] / case["bytes"] * 1.12 ** (number % 3 - 1)  # apart where cases have the same intensity
        ours, other = row_of(case, OURS)["of_copy_median"], best_other(case)["of_copy_median"]
        axes.plot([x, x], [ours, other], color=INK, linewidth=0.7, zorder=1)
        axes.plot(x, other, "o", markerfacecolor="none", color=OTHER)
        axes.plot(x, ours, "o", color=ACCENT)
        axes.plot([], [], " ", label=f"{number}  {case['name'].removesuffix(' ' + case['device'])}")
        axes.annotate(str(number), (x, ours), xytext=(4, 3), textcoords="offset points", fontsize=7)
    axes.set(xscale="log", yscale="log", xlabel="operations a byte", ylabel="part of copy speed")
    axes.set_title(f"full: headstart, empty: the best other way\n{machine(report)}", fontsize=9)
    figure.legend(loc="outside right center", frameon=False, fontsize=7, handlelength=0, handletextpad=0)
    return figure


def peers(report: Mapping[str, Any]) -> Any:
    """A sampler's own time per network call in copies of the state, one panel a kind of network."""
    plt = pyplot()
    figure, panels = plt.subplots(1, 2, figsize=(11, 6), sharex=True, layout="constrained")
    for axes, kind in zip(panels, ("opaque denoiser", "preconditioned network"), strict=True):
        bars(axes, [case for case in every_thread(report) if kind in case["name"]])
        axes.set(xscale="log", xlabel="copies of the state, a network call", title=kind)
        axes.xaxis.set_major_formatter("{x:g}")
    figure.suptitle(f"a sampler's own time, {machine(report)}", fontsize=9)
    return figure


def bars(axes: Any, cases: Sequence[Mapping[str, Any]]) -> None:
    """One group of bars a case, the quickest first, headstart's in its own colour."""
    place, labels = 0.0, {}
    for case in cases:
        labels[place] = case["name"].split()[1]
        rows = [row for row in case["results"] if row["contender"] != COPY]
        for row in sorted(rows, key=lambda row: row["copies_median"]):
            place += 1
            labels[place] = row["contender"]
            colour = ACCENT if row["contender"].startswith(OURS) else INK if row["contender"] == RING else OTHER
            axes.barh(place, row["copies_median"], color=colour, height=0.7)
            axes.annotate(
                f"{row['copies_median']:.3g}", (row["copies_median"], place), xytext=(3, 0),
                textcoords="offset points", va="center", fontsize=8,
            )  # fmt: skip
        place += 1.5
    axes.set_yticks(list(labels), list(labels.values()))
    for tick, text in zip(axes.yaxis.get_major_ticks(), labels.values(), strict=True):
        tick.tick1line.set_visible(False)
        tick.label1.set_weight("bold" if text in {case["name"].split()[1] for case in cases} else "normal")
    axes.invert_yaxis()
    axes.margins(x=0.15)


def machine(report: Mapping[str, Any]) -> str:
    about = report["machine"]
    return f"{about['name']}, {about['threads']} threads, torch {about['torch']}"


PICTURES = {"ops.json": ("roofline", roofline), "sampler.json": ("peers", peers)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the measurements")
    chosen = parser.parse_args()
    plt = pyplot()
    for file, (name, draw) in PICTURES.items():
        for source in sorted(chosen.results.rglob(file)):
            try:
                figure = draw(json.loads(source.read_text()))
            except ValueError as reason:
                print(f"no picture of {source}: {reason}")
                continue
            target = chosen.out / f"{name}-{source.parent.name}.png"
            write(target, lambda path, figure=figure: figure.savefig(path, dpi=150, metadata={"Software": None}))
            plt.close(figure)
            print(target)


if __name__ == "__main__":
    main()
