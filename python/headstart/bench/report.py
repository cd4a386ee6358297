"""All tables of one device's folder, a part for each network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from headstart.bench.cost_table import energy_tables, speed_table
from headstart.compare.store import networks_of
from headstart.compare.table import Held, Table, about, budget_table, headline_table, quality_table, score_table


def tables(files: Mapping[str, Held]) -> list[Table]:
    """Of one network's files, by kind."""
    found: list[Table] = []
    if "quality" in files:
        makers = (headline_table, budget_table, quality_table, score_table)
        found += [table for table in (make(files["quality"]) for make in makers) if table.rows]
    found += [speed_table(files["speed"])] if "speed" in files else []
    return found + (energy_tables(files["energy"], files.get("quality")) if "energy" in files else [])


def markdown(folder: Path) -> str:
    """The tables of one device's folder as Markdown.

    Raises:
        ValueError: a file of another format or schema.
    """
    parts = []
    for name, files in networks_of(folder).items():
        parts += [f"### {name}", f"{about(files)}.", *(table.markdown() for table in tables(files))]
    return "\n\n".join(parts) + "\n"
