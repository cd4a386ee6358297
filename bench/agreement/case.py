"""One comparison with another project's code: what is compared, how closely it must agree, and how it is run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


class Absent(ImportError):
    """What a comparison needs is not here; the message says how to get it."""


@dataclass(frozen=True)
class Case:
    """A comparison.

    Fields:
        ours, theirs: the two sides, by the names a user calls them by.
        setting: of both.
        bar: largest relative error allowed; 0: every number the same.
        error: runs both and gives the worst relative error; ImportError where their side is not installed.
        dtype: of the state, or of the network's weights.
    """

    ours: str
    theirs: str
    setting: str
    bar: float
    error: Callable[[], float]
    dtype: str = "float32"

    def __str__(self) -> str:
        return f"{self.ours}, {self.theirs}, {self.setting}, {self.dtype}"

    def row(self) -> dict[str, Any]:
        """The comparison as JSON values; `error` is None where their side is absent, and `absent` says why."""
        about = {"ours": self.ours, "theirs": self.theirs, "setting": self.setting, "dtype": self.dtype}
        try:
            found = self.error()
        except ImportError as reason:
            return {**about, "error": None, "bar": self.bar, "absent": str(reason)}
        return {**about, "error": found, "bar": self.bar, "agrees": found <= self.bar}


def distance(found: Tensor, wanted: Tensor) -> float:
    """Largest difference over the largest magnitude of what is wanted."""
    return ((found.double() - wanted.double()).abs().max() / wanted.double().abs().max()).item()


def words(options: dict[str, Any]) -> str:
    """Keyword arguments as text."""
    return ", ".join(f"{name}={value}" for name, value in options.items())
