"""Rows of earlier versions in the one schema: `python -m bench.convert`, in place below `bench/results`.

`lighter.json` without a format, `plan/rows.csv` with `laws.json`, and `toy/toy.csv` become files that
`compare.store.read` takes and runs go on with; the CSV files are deleted. What is converted already is left alone.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.lighter import key_of as lighter_key
from bench.plans.method import slug
from bench.toy.plan import key_of as toy_key
from bench.toy.record import finite
from headstart.compare.store import FORMAT, stamped, write_json

RESULTS = Path(__file__).parent / "results"
WHOLE = ("seed", "nfe", "train", "n")  # columns of whole numbers
UNKNOWN = {"name": "not recorded"}  # the machine: earlier versions did not keep it
Rows = list[dict[str, Any]]


def number(name: str, text: str) -> Any:
    """A cell as it was before it was written; text that is no number stays."""
    try:
        return int(text) if name in WHOLE else float(text)
    except ValueError:
        return text


def read_table(path: Path) -> Rows:
    """The rows of a CSV file without their empty cells."""
    with path.open(newline="") as handle:
        return [{k: number(k, v) for k, v in row.items() if v or k == "grid"} for row in csv.DictReader(handle)]


def keep(path: Path, kind: str, settings: Mapping[str, Any], found: Mapping[str, Any], rows: Rows) -> None:
    """Writes the rows, each with its `key` already, as a file of one kind."""
    rows = [{"key": row.pop("key"), "machine": 0, **row} for row in rows]
    write_json(path, stamped(kind, {"machines": [UNKNOWN], "settings": settings, "found": found, "rows": rows}))


def convert_lighter(folder: Path) -> None:
    path = folder / "lighter.json"
    held: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"format": FORMAT}
    if "format" in held:
        return
    rows = [{"key": lighter_key(row), **row} for row in held["rows"]]
    found = {name: held[name] for name in ("networks", "floor")}
    keep(path, "lighter", {"n": held["n"], "images": held["images"]}, found, rows)


def convert_plan(folder: Path) -> None:
    """Keys of planned rows name no levels: those are worked out with the plan."""
    path, laws = folder / "rows.csv", folder / "laws.json"
    if not path.exists():
        return
    rows = read_table(path)
    for row in rows:
        grid = "" if row["method"].startswith("planned") else row["grid"]
        row["key"] = f"{row['case']}-{row['seed']}-{slug(row['method'], grid, row['nfe'])}"
    keep(folder / "rows.json", "plan", {"quick": False}, json.loads(laws.read_text()), rows)
    path.unlink()
    laws.unlink()


def convert_toy(folder: Path) -> None:
    path = folder / "toy.csv"
    if not path.exists():
        return
    rows = [{"key": toy_key(row), **finite(row)} for row in read_table(path)]
    keep(folder / "toy.json", "toy", {"quick": False}, {}, rows)
    path.unlink()


def main() -> None:
    convert_lighter(RESULTS / "lighter")
    convert_plan(RESULTS / "plan")
    convert_toy(RESULTS / "toy")


if __name__ == "__main__":
    main()
