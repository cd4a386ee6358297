"""Rows of the toy table as they are kept, and as the report reads them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from bench.toy.plan import COLUMNS


def finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row without figures that there are none of."""
    return {name: v for name, v in row.items() if not (isinstance(v, float) and math.isnan(v))}


def as_text(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every column of every row as text, empty where a row has none."""
    return [{name: str(row.get(name, "")) for name in COLUMNS} for row in rows]
