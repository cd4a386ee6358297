"""The ops against a copy of the same bytes, plain torch and the usual libraries: `python -m bench.ops --out DIR`.

Paired measurements in one process on the CPU, single-threaded and on all threads of torch: contenders take turns, each
figure is a median over the turns with its interquartile range, and only ratios are claims. Takes about three minutes on
two idle cores; `--quick`: smaller sizes, well under a minute. Results: a table, and `ops.json` with every repetition.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

import headstart as hs
from bench.bench_affine import affine_case
from bench.bench_mixture import posterior_case
from bench.bench_noise import EAGER, noise_case, normal_case
from bench.measure import COMPILED, OURS, Case, paired, threads
from headstart import _core
from headstart.cli.common import find_chip
from headstart.output import write

SCHEMA = 1
TINY = 4


def overhead_cases() -> Iterator[Callable[[], Case]]:
    """A call at a tiny size: the time is the host's, beside one torch call with a result tensor given."""

    def add(case: Case) -> Case:
        x, y, out = (torch.ones(1, TINY) for _ in range(3))
        contenders = {OURS: case.contenders[OURS], "torch.add": lambda: torch.add(x, y, alpha=0.5, out=out)}
        return Case(f"overhead of {case.name}", case.size, {**contenders, EAGER: case.contenders[EAGER]}, calls=1000)

    yield lambda: add(noise_case(TINY))
    yield lambda: add(affine_case(TINY))
    yield lambda: add(affine_case(TINY, torch.bfloat16, scaled=True))
    yield lambda: overhead_of_posterior()


def overhead_of_posterior() -> Case:
    case = posterior_case(1, 2, k=2)
    return Case(f"overhead of {case.name}", case.size, {OURS: case.contenders[OURS]}, calls=200)


def all_cases(quick: bool) -> Iterator[Callable[[], Case]]:
    """What is measured, each made when its turn comes, so that only one is in memory."""
    large, rows = (2**20, 10_000) if quick else (2**24, 100_000)
    for n in (2**16, 2**20) if quick else (2**20, 2**24):
        yield partial(noise_case, n)
    yield partial(normal_case, large)
    yield partial(affine_case, large)
    yield partial(affine_case, large, torch.bfloat16)
    yield partial(affine_case, large, torch.bfloat16, scaled=True)
    yield partial(affine_case, large, noise=True)
    for d in (2, 40, 100):
        for denoise in (False, True):
            yield partial(posterior_case, rows, d, denoise=denoise)
    for d, k, rank in [(784, 32, 48)] + [(12_288, 16, 64)] * (not quick):
        for denoise in (False, True):
            yield partial(posterior_case, 256, d, k, rank, denoise=denoise)
    yield from overhead_cases()


def machine() -> dict[str, Any]:
    """What the figures were taken on; `commit` is None outside a clone, and ends in `+` where files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = None
    return {
        "name": find_chip(torch.device("cpu")), "processors": os.cpu_count(), "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0], "isa": _core.isa(), "build": _core.build_info(),
        "python": platform.python_version(), "torch": str(torch.__version__), "headstart": hs.__version__,
        "commit": commit,
    }  # fmt: skip


def table(case: Mapping[str, Any]) -> str:
    """The case as lines of text, one a contender."""
    threads = f", {case['threads']} thread{'s' * (case['threads'] > 1)}" if "threads" in case else ""
    turns = len(case["results"][0]["seconds"])
    lines = [f"{case['name']}{threads}  ({case['bytes'] / 1e6:,.1f} MB, {turns} repetitions)"]
    for row in case["results"]:
        speed = case["bytes"] / row["time_median"] / 1e9
        lines.append(
            f"  {row['contender']:<26} {1e6 * row['time_median']:>12,.1f} us +- {1e6 * row['time_spread']:<10,.1f}"
            f"{speed:>8.2f} GB/s   of copy {row['of_copy_median']:>7.3g} +- {row['of_copy_spread']:<8.2g}"
            f"ratio {row['ratio_median']:>7.3g} +- {row['ratio_spread']:.2g}"
        )
    return "\n".join(lines)


def measure(quick: bool, compile: bool, seconds: float) -> list[dict[str, Any]]:
    """Every case at one thread and at all, printed as it is done."""
    rows = []
    for count in sorted({1, torch.get_num_threads()}):
        with threads(count):
            for build in all_cases(quick):
                case = build()
                case = case.only(name for name in case.contenders if compile or name != COMPILED)
                rows.append({"threads": count, **paired(case, seconds=seconds)})
                print(table(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for ops.json")
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer repetitions")
    parser.add_argument("--compile", action="store_true", help="also time torch.compile (compiles for minutes)")
    parser.add_argument("--seconds", type=float, help="time for each case beyond three repetitions")
    arguments = parser.parse_args()
    began = time.perf_counter()
    seconds = arguments.seconds or (0.3 if arguments.quick else 1.5)
    about = machine()
    if about["load"] > 0.5:
        print(
            f"the machine is busy (load {about['load']:.1f}): what follows shows that this runs, no more",
            file=sys.stderr,
        )
    rows = measure(arguments.quick, arguments.compile, seconds)
    settings = {"quick": arguments.quick, "compile": arguments.compile, "seconds_a_case": seconds}
    report = {
        "schema": SCHEMA, "machine": about, "settings": settings, "seconds": time.perf_counter() - began, "cases": rows,
    }  # fmt: skip
    write(arguments.out / "ops.json", lambda path: path.write_text(json.dumps(report, indent=1) + "\n"))
    print(f"{len(rows)} cases in {report['seconds']:.0f} s: {arguments.out / 'ops.json'}")


if __name__ == "__main__":
    main()
