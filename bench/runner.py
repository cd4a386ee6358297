"""What the measuring commands share: the machine, the cases one after another, the table, the JSON file."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from headstart.bench.measure import COMPILED, Contest, paired, threads
from headstart.io.machine import describe
from headstart.io.output import write

SCHEMA = 1


def table(case: Mapping[str, Any]) -> str:
    """The case as lines of text, one a contender."""
    threads = f", {case['threads']} thread{'s' * (case['threads'] > 1)}" if "threads" in case else ""
    turns = len(case["results"][0]["seconds"])
    lines = [f"{case['name']}{threads}  ({case['bytes'] / 1e6:,.1f} MB, {turns} repetitions)"]
    for row in case["results"]:
        speed = case["bytes"] / row["time_median"] / 1e9
        lines.append(
            f"  {row['contender']:<34} {1e6 * row['time_median']:>12,.1f} us +- {1e6 * row['time_spread']:<10,.1f}"
            f"{speed:>8.2f} GB/s   of copy {row['of_copy_median']:>7.3g} +- {row['of_copy_spread']:<8.2g}"
            f"copies {row['copies_median']:>7.3g} +- {row['copies_spread']:<8.2g}"
            f"ratio {row['ratio_median']:>7.3g} +- {row['ratio_spread']:.2g}"
        )
    return "\n".join(lines)


def measure(
    cases: Iterable[Callable[[], Contest]], seconds: float, compile: bool = False, device: str = "cpu"
) -> list[dict[str, Any]]:
    """Every case at one thread and at all of torch's (on a GPU once), printed as it is done."""
    rows, builds = [], list(cases)
    every = torch.get_num_threads()
    for count in sorted({1, every}) if device == "cpu" else [every]:
        with threads(count):
            for build in builds:
                case = build()
                case = case.only(name for name in case.contenders if compile or name != COMPILED)
                rows.append({"threads": count, **paired(case, device, seconds=seconds)})
                print(table(rows[-1]), flush=True)
    return rows


def run(
    name: str, out: Path, settings: Mapping[str, Any], cases: Iterable[Callable[[], Contest]], device: str = "cpu",
    **more: Any,
) -> None:  # fmt: skip
    """Measures the cases and writes `out/name.json`, with every repetition.

    Args:
        name: of the file.
        settings: `seconds_a_case`, `compile`, and what else the file should say of the run.
        more: further entries of the file.
    """
    began, about = time.perf_counter(), describe(device)
    if about["load"] > 0.5:
        print(
            f"the machine is busy (load {about['load']:.1f}): what follows shows that this runs, no more",
            file=sys.stderr,
        )
    rows = measure(cases, settings["seconds_a_case"], settings.get("compile", False), device)
    report = {
        "schema": SCHEMA, "machine": about, "settings": dict(settings), **more,
        "seconds": time.perf_counter() - began, "cases": rows,
    }  # fmt: skip
    write(out / f"{name}.json", lambda path: path.write_text(json.dumps(report, indent=1) + "\n"))
    print(f"{len(rows)} cases in {report['seconds']:.0f} s: {out / f'{name}.json'}")


def arguments(text: str | None, name: str) -> argparse.ArgumentParser:
    """The options that every measuring command has."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help=f"folder for {name}.json")
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer repetitions")
    parser.add_argument("--seconds", type=float, help="time for each case beyond three repetitions")
    return parser
