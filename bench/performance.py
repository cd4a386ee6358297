"""README's tables of speed, from the files of `python -m bench.ops` and `python -m bench.sampler`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.bench.measure import COPY, OURS

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench/results"
OPS = RESULTS / "ops/ops.json"
SAMPLER = RESULTS / "sampler/sampler.json"
EAGER = ("eager", "plain torch")  # the formula as one writes it first
PARTS = ("bare GEMM",)  # does a part of the work only


def performance_section() -> str:
    """The ops and the sampler's own time."""
    lines: list[str] = []
    for path, lines_of in ((OPS, ops_table), (SAMPLER, sampler_table)):
        there = lines_of(json.loads(path.read_text())) if path.exists() else [f"Not measured: {command(path)}."]
        lines += ["", *there] if lines else there
    return "\n".join(lines)


def every_thread(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The cases measured on all threads."""
    most = max(case["threads"] for case in report["cases"])
    return [case for case in report["cases"] if case["threads"] == most]


def row_of(case: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The row of the first of these contenders that the case has."""
    return next(row for name in names for row in case["results"] if row["contender"] == name)


def best_other(case: Mapping[str, Any]) -> dict[str, Any]:
    """The quickest row that is neither headstart's, nor the copy, nor a part of the work."""
    rows = [row for row in case["results"] if row["contender"] not in (COPY, *PARTS)]
    return min((row for row in rows if not row["contender"].startswith(OURS)), key=lambda row: row["ratio_median"])


def ops_table(report: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{measured_on(report, OPS)} Contenders take turns; medians. Part of copy speed: the time of a copy that moves "
        "the same bytes over headstart's. The other two columns: another way's time over headstart's, above 1 where "
        "headstart takes less; eager is the formula as first written in torch, the best other way also `out=` forms, "
        "fused torch functions and libraries.",
        "",
        "| op | MB | part of copy speed | eager | best other way |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for case in every_thread(report):
        if case["name"].startswith("overhead"):
            continue
        eager, best = row_of(case, *EAGER), best_other(case)
        lines.append(
            f"| {case['name']} | {case['bytes'] / 1e6:,.1f} | {row_of(case, OURS)['of_copy_median']:.3f} | "
            f"{eager['ratio_median']:.2f} | {best['ratio_median']:.2f} ({best['contender']}) |"
        )
    return lines


def sampler_table(report: Mapping[str, Any]) -> list[str]:
    settings, cases = report["settings"], every_thread(report)
    shape = " x ".join(map(str, settings["shape"]))
    peers = ", ".join(f"{name} {version}" for name, version in report["peers"].items()) or "none installed"
    lines = [
        f"A sampler's own time: {settings['steps']} steps with a network that returns a tensor made beforehand, states "
        f"{shape} float32, per network call in copies of the state (median +- interquartile range). The copy repeats "
        "on one pair of tensors, so a cache may hold it; `copy, 8 states in turn` is one that moves on. Opaque: any "
        "denoiser; preconditioned: EDM's `c_skip x + c_out F(c_in x)` counted as well. "
        f"{measured_on(report, SAMPLER)} Peers: {peers}.",
        "",
        "| sampler | solver | opaque | preconditioned |",
        "| --- | --- | ---: | ---: |",
    ]
    for solver in dict.fromkeys(case["name"].split()[1] for case in cases):
        opaque, preconditioned = ([c for c in cases if f" {solver} {k}" in c["name"]] for k in ("opaque", "precond"))
        for name in dict.fromkeys(row["contender"] for case in (*opaque, *preconditioned) for row in case["results"]):
            if name != COPY:
                lines.append(f"| {name} | {solver} | {copies(opaque, name)} | {copies(preconditioned, name)} |")
    return lines


def copies(cases: list[dict[str, Any]], contender: str) -> str:
    rows = [row for case in cases for row in case["results"] if row["contender"] == contender]
    return f"{rows[0]['copies_median']:.1f} +- {rows[0]['copies_spread']:.1f}" if rows else ""


def measured_on(report: Mapping[str, Any], path: Path) -> str:
    """How, where and into which file."""
    about, threads = report["machine"], max(case["threads"] for case in report["cases"])
    chip = f"{about['name']}, {about['isa']}, {threads} threads, torch {about['torch']}"
    busy = "" if about["load"] <= 0.5 else f"; other work ran beside it (load {about['load']:.1f})"
    return f"{command(path)} on {chip}{busy}."


def command(path: Path) -> str:
    """What makes the file."""
    return f"`python -m bench.{path.stem} --out {path.parent.relative_to(ROOT)}`"
