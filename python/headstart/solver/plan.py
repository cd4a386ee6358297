"""A plan: noise levels and rows fitted on a start's own flow or on a network, as a value and as a text file.

Version 2 of the file adds the call level `told` to each row; version 1 is read as rows without one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from headstart.argument import require_number, require_path, shown
from headstart.io.bound import DataError, brief, parse_json, read_bytes
from headstart.io.output import write
from headstart.solver.row import Row, calls

FORMAT, VERSION = "headstart-plan", 2
SIGMA_MAX = 80.0  # of the classic start
MAX_BYTES = 2**24
MAX_SIGMA = 1e18  # of levels and coefficients in a file: the square is a number
MAX_PREDICTIONS = 8  # predictions that a row reads
PEERS = ("json", "diffusers", "k-diffusion")


class MadeFor(NamedTuple):
    """The start that a plan was made for.

    Attributes:
        shape: of one sample.
        components: number of them.
        sigma: noise level of the start that the plan was asked for; None: it was a mixture without one.
        fingerprint: of the mixture's components, see `Mixture.fingerprint`.
    """

    shape: tuple[int, ...]
    components: int
    sigma: float | None
    fingerprint: str

    @classmethod
    def read(cls, text: Mapping[str, Any]) -> MadeFor:
        """It back from a file.

        Raises:
            KeyError, TypeError, ValueError: something is missing, or of another kind.
        """
        shape, sigma = tuple(int(size) for size in text["shape"]), text["sigma"]
        if not isinstance(text["fingerprint"], str):
            raise TypeError(f"fingerprint must be a text, got {type(text['fingerprint']).__name__}")
        return cls(shape, int(text["components"]), None if sigma is None else float(sigma), text["fingerprint"])


@dataclass(frozen=True)
class Plan:
    """A table of rows for one number of network calls; made by `headstart.plan` or `headstart.tune`.

    `sample(..., plan=plan)` runs it.

    Where `ghost` is given, the first rows reuse two denoised predictions of the start itself, at the first noise level
    and at `ghost` above it, which cost no network call (free history).

    Attributes:
        nodes: noise levels `[nfe + 1]`, the last 0.
        table: a row for each network call.
        ghost: noise level of the oldest free prediction; None: no free history.
        expected_error: distance to the fine solution on the start's own flow (of a tuned plan: to the network's, on
            latents kept for that): root mean square over the coordinates, mean over samples (the few that change mode
            would rule a root mean square over samples).
        classic_error: the same for the best DPM-Solver++ 2M with as many calls, from the classic start (of a tuned
            plan: from its own start).
        provenance: how it was made: JSON values.
        made_for: the start it was made for, which `sample` asks of the one it is given; None: any (older files).
    """

    nodes: tuple[float, ...]
    table: tuple[Row, ...]
    ghost: float | None
    expected_error: float
    classic_error: float
    provenance: Mapping[str, Any] = field(default_factory=dict, hash=False)
    made_for: MadeFor | None = None

    order = 1  # fitted at one set of levels: no order in the step size is claimed

    def __post_init__(self) -> None:
        for name in ("nodes", "table"):
            if not isinstance(getattr(self, name), (list, tuple)):
                raise TypeError(f"Plan: {name} must be a tuple, got {shown(getattr(self, name))}")
        if not isinstance(self.provenance, Mapping):
            raise TypeError(f"Plan: provenance must be a mapping of names, got {shown(self.provenance)}")
        if not all(type(row) not in (str, bytes) and isinstance(row, Collection) for row in self.table) or not all(
            not hasattr(row, "dtype") and 2 <= len(row) <= len(Row._fields) for row in self.table
        ):
            raise TypeError("Plan: table must be of rows, each a Row(sigma, a, b, ...)")
        nodes = tuple(require_number("Plan", "nodes", level, "a tuple of numbers") for level in self.nodes)
        object.__setattr__(self, "nodes", nodes)
        object.__setattr__(self, "table", tuple(Row(*row) for row in self.table))
        for name in ("ghost", "expected_error", "classic_error"):
            value = getattr(self, name)
            if value is not None or name != "ghost":
                object.__setattr__(self, name, require_number("Plan", name, value))
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))
        descending = all(t > s >= 0 for t, s in zip(self.nodes, self.nodes[1:], strict=False))
        if len(self.nodes) < 2 or not descending or self.nodes[-1] != 0 or not math.isfinite(self.nodes[0]):
            raise ValueError(f"Plan: nodes must descend strictly to 0, got {list(self.nodes)}")
        if len(self.table) != len(self.nodes) - 1 or any(not sound(row) for row in self.table):
            raise ValueError("Plan: the table must have a row of finite numbers for each node above 0")
        free = 0 if self.ghost is None else 2
        for i, row in enumerate(self.table):
            if (
                row.sigma != self.nodes[i]
                or not 1 <= len(row.b) <= min(i + 1 + free, MAX_PREDICTIONS)
                or not row.commit
                or row.c
            ):
                raise ValueError(f"Plan: row {i} must be a deterministic step from {self.nodes[i]}, got {row}")
        if self.ghost is not None and not self.nodes[0] < self.ghost < math.inf:
            raise ValueError(f"Plan: ghost must be above the first node {self.nodes[0]}, got {self.ghost}")

    def __reduce__(self) -> tuple[type[Plan], tuple[Any, ...]]:
        """Pickles and copies by its fields: a read-only view of a mapping cannot be."""
        errors = self.expected_error, self.classic_error
        return type(self), (self.nodes, self.table, self.ghost, *errors, dict(self.provenance), self.made_for)

    @property
    def sigma(self) -> float:
        """Noise level where it starts."""
        return self.nodes[0]

    @property
    def nfe(self) -> int:
        """Network calls a sample."""
        return calls(self.table)

    @property
    def mode(self) -> str:
        """`from 80` (or another level), or `from sigma_T with free history`."""
        return f"from {self.sigma:g}" + (" with free history" if self.ghost is not None else "")

    def rows(self, grid: Sequence[float]) -> list[Row]:
        """The rows, as of any solver; `grid` must be the plan's own nodes.

        Raises:
            ValueError: another grid, or a plan with free history, which only `sample(plan=...)` can give it.
        """
        if self.ghost is not None:
            raise ValueError("Plan: rows with free history are run by sample(..., plan=plan), which makes that history")
        if len(grid) != len(self.nodes) or any(abs(a - b) > 1e-6 * b for a, b in zip(grid, self.nodes, strict=True)):
            raise ValueError(f"Plan: grid must be the plan's nodes {list(self.nodes)}, got {list(grid)}")
        return list(self.table)

    def save(self, path: str | Path) -> None:
        """Write a JSON text file, whole or not at all; `headstart.load_plan` reads it."""
        write(require_path("save", path), lambda temporary: temporary.write_text(self._text()))

    def export(self, to: str = "json") -> dict[str, Any] | str:
        """The table as numbers that other tools can run.

        With `D_i` the denoised prediction of state `x` at the call level `call_sigmas[i]`, step i is
        `x = a[i] x + sum_j b[i][j] D_{i-j}`; the state begins as a sample of the law at `sigmas[0]`, the last `x` is
        the result.

        Args:
            to: "json", the text that `save` writes; "k-diffusion", a mapping with `sigmas` `[nfe + 1]`, the last 0, as
                its samplers take them; "diffusers", the same with `sigmas` `[nfe]`, as its schedulers take them, which
                append the 0. The mappings also have `call_sigmas` `[nfe]`, `a` `[nfe]` and `b`, a list a row.

        Raises:
            ValueError: another tool, or a plan with free history, which depends on a start.
        """
        if to not in PEERS:
            raise ValueError(f"Plan.export: to must be one of {', '.join(PEERS)}, got {to!r}")
        if self.ghost is not None:
            raise ValueError("Plan.export: this plan uses the start's own predictions; make one without free history")
        if to == "json":
            return self._text()
        table: dict[str, Any] = {"sigmas": list(self.nodes if to == "k-diffusion" else self.nodes[:-1])}
        table["call_sigmas"] = [row.level for row in self.table]
        return table | {"a": [row.a for row in self.table], "b": [list(row.b) for row in self.table]}

    def _text(self) -> str:
        body = {"nodes": self.nodes, "rows": [row._asdict() for row in self.table], "ghost": self.ghost}
        errors = {"expected_error": self.expected_error, "classic_error": self.classic_error}
        made_for = None if self.made_for is None else self.made_for._asdict()
        text = {"format": FORMAT, "version": VERSION, **body, **errors, "provenance": dict(self.provenance)}
        text["made_for"] = made_for
        return json.dumps(text, indent=1) + "\n"


def sound(row: Row) -> bool:
    """Whether every coefficient is a finite number, and the call level is above 0."""
    numbers = all(
        isinstance(v, (int, float)) and math.isfinite(v) for v in (row.level, row.sigma, row.a, row.c, *row.b)
    )
    return numbers and row.level is not None and row.level > 0


def load_plan(path: str | Path) -> Plan:
    """The plan saved at `path`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, foreign, or of a later version.
    """
    path = require_path("load_plan", path)
    try:
        text = parse_json(read_bytes(path, MAX_BYTES), path)
    except FileNotFoundError:
        raise FileNotFoundError(f"load_plan: there is no file {path}") from None
    except DataError as error:
        raise ValueError(f"load_plan: {error}") from error
    if not isinstance(text, dict) or text.get("format") != FORMAT or type(text.get("version")) is not int:
        raise ValueError(f"load_plan: {path} is not a plan that headstart saved")
    if text["version"] > VERSION:
        reads = f"this headstart reads up to {VERSION}"
        raise ValueError(f"load_plan: {path} has version {brief(text['version'])}, {reads}: upgrade headstart")
    try:
        rows = tuple(read_row(row) for row in text["rows"])
        errors = float(text["expected_error"]), float(text["classic_error"])
        if text["ghost"] is not None and not 0 < text["ghost"] < MAX_SIGMA:
            raise ValueError(f"ghost must be a noise level below {MAX_SIGMA:g}, got {brief(text['ghost'])}")
        made_for = None if text.get("made_for") is None else MadeFor.read(text["made_for"])
        return Plan(tuple(text["nodes"]), rows, text["ghost"], *errors, dict(text["provenance"]), made_for)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"load_plan: {path} is damaged: {brief(error, 300)}") from error


def read_row(fields: Mapping[str, Any]) -> Row:
    """A row of a file, whose lists are tuples again.

    Raises:
        ValueError, TypeError, KeyError: a field is missing, of another kind, or a number whose use would overflow.
    """
    lists = {name: tuple(fields[name]) for name in ("b", "states") if name in fields}
    for name, value in fields.items():
        if name == "commit" and not isinstance(value, bool):
            raise ValueError(f"commit must be true or false, got {brief(value)}")
        for number in lists.get(name, (value,)) if name != "commit" else ():
            numeric = isinstance(number, (int, float)) and not isinstance(number, bool) and abs(number) < MAX_SIGMA
            if not numeric and number is not None:
                raise ValueError(f"{name} must be of numbers below {MAX_SIGMA:g}, got {brief(number)}")
    return Row(**{**fields, **lists})
