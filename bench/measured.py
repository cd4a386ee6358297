"""README's section on `headstart bench`, from the files of bench/results/cpu."""

from __future__ import annotations

from collections.abc import Mapping

from bench.performance import RESULTS, ROOT
from headstart.bench.cost_table import compact_speed_table, energy_tables
from headstart.compare.headline import budget, calls_text, headline, overtaken
from headstart.compare.store import networks_of
from headstart.compare.table import NAMES, Held, about, budget_table, compact_table, headline_table, number

FOLDER = RESULTS / "cpu"


def bench_section() -> str:
    """A part for every network, and where the full tables are."""
    parts = [part for name, files in networks_of(FOLDER).items() for part in network_part(name, files)]
    full = (FOLDER / "tables.md").relative_to(ROOT)
    end = f"All ways, scores and speeds are in [{full}]({full}). Distances of different networks, numbers of samples "
    return "\n\n".join([*parts, end + "or feature sizes do not compare."])


def headline_section() -> str:
    """What a learned start saves and where it does not, a line for every network with a quality file."""
    lines = [headline_line(name, files["quality"]) for name, files in networks_of(FOLDER).items() if "quality" in files]
    return "\n".join(lines)


def headline_line(name: str, held: Held) -> str:
    """Calls to hold the distance of Heun with 79, and the distances at the least number of calls compared."""
    rows = held["rows"]
    calls = {e["method"]: e for e in headline(rows) if e["target"] == "Heun, 79 calls"}
    floor = held["found"]["floor"]["fd"]
    compared = budget(rows, floor)
    least = compared[0]["nfe"]
    at = {e["method"]: e["fd"] for e in compared if e["nfe"] == least}
    last = overtaken(rows)
    end = "" if last is None else f" From {last['nfe']} calls on it is no better than the best classic sampler."
    return (
        f"- `{name}` ({rows[0]['n']:,} samples a row, Frechet distance to held-out images): a learned start needs "
        f"{calls_text(calls['learned'])} network calls for the quality of Heun's 79 from 80, the best classic sampler "
        f"{calls_text(calls['classic'])}; with {least} calls it is at {number(at['learned'])}, the best classic "
        f"sampler at {number(at['classic'])}, real images at {number(floor)}.{end}"
    )


def network_part(name: str, files: Mapping[str, Held]) -> list[str]:
    """One network: its setting, what its rows say, and their tables."""
    paths = ", ".join(f"`{held['path'].relative_to(ROOT)}`" for held in files.values())
    parts = [f"**{name}** ({about(files)}; {paths})"]
    if "quality" in files:
        held = files["quality"]
        parts += [limit(held), *(make(held).markdown() for make in (headline_table, budget_table, compact_table))]
    if "speed" in files:
        parts.append(compact_speed_table(files["speed"]).markdown())
    if "energy" in files:
        parts += [table.markdown() for table in energy_tables(files["energy"], files.get("quality"))]
    return parts


def limit(held: Held) -> str:
    """Where a learned start does not help."""
    found = overtaken(held["rows"])
    if found is None:
        return "At the largest number of calls tried with both, a learned start is still ahead of the best classic way."
    start, solver, _ = found["ways"]["learned"]
    _, best, grid = found["ways"]["classic"]
    with_solver = "" if solver == "plan" else f", {solver}"
    return (
        f"**From {found['nfe']} calls on a learned start does not help here**: at {found['nfe']} the best classic way "
        f"({best}, {grid} grid) is at {number(found['classic'])}, the best learned one ({NAMES[start]}{with_solver}) "
        f"at {number(found['learned'])}, and at no larger number of calls tried with both is that otherwise."
    )
