"""The file of a measurement: written whole after every point, read back by a run that goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.bench.machine import describe
from headstart.io.output import write

SCHEMA = 1
FORMAT = "headstart-bench"


@dataclass
class Result:
    """A file of rows, one for each finished point.

    Fields:
        path: where it is kept.
        kind: "quality", "speed" or "energy".
        settings: what all rows share; a run with other settings does not go on with the file.
        device: what the next rows are measured on.
        rows: JSON values, each with its `key`.
        found: what the run worked out before its rows, such as a horizon.
        machines: what rows were measured on; a row's `machine` is an index.
    """

    path: Path
    kind: str
    settings: Mapping[str, Any]
    device: str = "cpu"
    rows: list[dict[str, Any]] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)
    machines: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Goes on with what is there.

        Raises:
            ValueError: the file is of another kind, schema or settings.
        """
        if self.path.exists():
            held = read(self.path, self.kind)
            if held["settings"] != json.loads(json.dumps(self.settings)):
                changed = [k for k, v in held["settings"].items() if json.loads(json.dumps(self.settings)).get(k) != v]
                raise ValueError(f"{self.path}: was measured with other settings ({', '.join(changed)}); move it away")
            self.rows, self.found, self.machines = held["rows"], held["found"], held["machines"]
        about = describe(self.device)
        same = [i for i, m in enumerate(self.machines) if {**m, "load": 0} == {**about, "load": 0}]
        if not same:
            self.machines.append(about)
        self.machine = same[0] if same else len(self.machines) - 1

    def has(self, key: str) -> bool:
        """Whether the point is done."""
        return any(row["key"] == key for row in self.rows)

    def add(self, key: str, row: Mapping[str, Any]) -> None:
        """Keeps a finished point."""
        self.rows.append({"key": key, "machine": self.machine, **row})
        self.save()

    def save(self) -> None:
        body = {
            "format": FORMAT, "schema": SCHEMA, "kind": self.kind, "machines": self.machines,
            "settings": dict(self.settings), "found": self.found, "rows": self.rows,
        }  # fmt: skip
        text = json.dumps(body, indent=1) + "\n"
        write(self.path, lambda path: path.write_text(text))


def read(path: Path, kind: str) -> dict[str, Any]:
    """A file of `kind`, as JSON values.

    Raises:
        ValueError: no such file, or another format, kind or schema.
    """
    try:
        held = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: is damaged, or no JSON text ({error})") from None
    if not isinstance(held, dict) or held.get("format") != FORMAT or held.get("kind") != kind:
        raise ValueError(f"{path}: is no file of headstart bench {kind}")
    if held.get("schema") != SCHEMA:
        raise ValueError(f"{path}: has schema {held.get('schema')!r}, this headstart reads {SCHEMA}")
    return held
