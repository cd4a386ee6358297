"""How closely headstart agrees with the code of EDM, EDM2, diffusers and k-diffusion: `python -m bench.agreement --out DIR`.

Each row runs a network, a sampler or a pipeline of theirs and ours on the same input, on small networks of the projects'
own classes with fixed weights; its error is the largest difference over the largest magnitude. What is compared with
EDM and EDM2 needs checkouts, named by `HEADSTART_EDM` and `HEADSTART_EDM2`; the rest `pip install ".[bench]"
transformers` and `pip install --no-deps k-diffusion`. A row whose peer is absent says so. Takes two or three minutes.
Results: `agreement.json`, and the table in `agreement.md`. The status is 1 where an error is above its bar.
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.agreement import edm, k_diffusion, pipeline, scheduler
from bench.agreement.case import Case
from headstart.compare.table import Table
from headstart.io.machine import describe
from headstart.io.output import write

SCHEMA = 1
PARTS = {"edm": edm, "scheduler": scheduler, "pipeline": pipeline, "k_diffusion": k_diffusion}
LIBRARIES = ("diffusers", "transformers", "k-diffusion")
CHECKOUTS = ("HEADSTART_EDM", "HEADSTART_EDM2")


def cases(only: list[str] | None = None) -> Iterator[Case]:
    """The comparisons of some parts, or of all."""
    for name, part in PARTS.items():
        if only is None or name in only:
            yield from part.cases()


def versions() -> dict[str, str]:
    """Of the libraries and checkouts that are here: a version, or a commit where the checkout is a clone."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    for variable in CHECKOUTS:
        if folder := os.environ.get(variable):
            done = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True)
            commit = done.stdout.strip() if done.returncode == 0 else "(a folder without its history)"
            found[f"NVlabs/{variable.removeprefix('HEADSTART_').lower()}"] = commit
    return found


def table(report: Mapping[str, Any]) -> Table:
    """A row a comparison."""
    about, lines = report["machine"], []
    for row in report["cases"]:
        error = f"absent: {row['absent']}" if row["error"] is None else f"{row['error']:.1e}" if row["error"] else "0"
        wrong = "" if row.get("agrees", True) else " (above the bar)"
        lines.append([row["ours"], row["theirs"], row["setting"], row["dtype"], f"{error}{wrong}", f"{row['bar']:g}"])
    peers = ", ".join(f"{name} {version}" for name, version in report["peers"].items())
    title = (
        "Largest difference over the largest magnitude, same input and weights; `python -m bench.agreement --out "
        f"bench/results/agreement` on {about['name']}, torch {about['torch']}; {peers}."
    )
    return Table(title, ["headstart", "other", "setting", "dtype", "error", "bar"], lines, left=4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for agreement.json and agreement.md")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts to compare, default: all")
    given = parser.parse_args()
    began, about, rows = time.perf_counter(), describe(), []
    for case in cases(given.only):
        rows.append(case.row())
        print(json.dumps(rows[-1]), flush=True)
    report = {
        "schema": SCHEMA, "machine": about, "settings": {"only": given.only}, "peers": versions(),
        "seconds": time.perf_counter() - began, "cases": rows,
    }  # fmt: skip
    given.out.mkdir(parents=True, exist_ok=True)
    write(given.out / "agreement.json", lambda path: path.write_text(json.dumps(report, indent=1) + "\n"))
    write(given.out / "agreement.md", lambda path: path.write_text(table(report).markdown() + "\n"))
    apart = sum(not row.get("agrees", True) for row in rows)
    absent = sum(row["error"] is None for row in rows)
    print(f"{len(rows)} comparisons, {absent} absent, {apart} above the bar: {given.out / 'agreement.md'}")
    raise SystemExit(apart > 0)


if __name__ == "__main__":
    main()
