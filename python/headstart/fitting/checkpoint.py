"""A training run on disk, so that a run that was stopped goes on as if it had not been."""

from __future__ import annotations

import pickle
import time
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart import output

SECONDS = 30.0  # between two writes
FORMAT = "headstart-training"


class Checkpoint:
    """The state of a training run at the end of its last epoch, in one file that appears whole or not at all.

    Args:
        path: File to read and to replace; None keeps nothing.
        run: What makes the run what it is (JSON values): another run's file is refused.

    Raises:
        ValueError: The file is damaged, foreign or another run's.
    """

    def __init__(self, path: str | Path | None, run: dict[str, Any]) -> None:
        self.path, self.run = None if path is None else Path(path), run
        self.state: dict[str, Any] | None = None
        self.written = time.monotonic()

    def read(self, device: torch.device) -> dict[str, Any] | None:
        """The state kept, or None where there is no file."""
        if self.path is None or not self.path.exists():
            return None
        try:
            held = torch.load(self.path, map_location=device, weights_only=True)
            if held["format"] != FORMAT:
                raise ValueError(held["format"])
            run, state = held["run"], held["state"]
        except (RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"fit: checkpoint {self.path} is damaged or no training run of headstart") from error
        for name, value in self.run.items():
            if run.get(name) != value:
                there = f"{name} is {run.get(name)!r} there, {value!r} here"
                raise ValueError(
                    f"fit: checkpoint {self.path} belongs to another run: {there}; remove it to start anew"
                )
        return state

    def keep(self, state: dict[str, Any]) -> None:
        """Holds a copy of the state, and writes it where the last write is `SECONDS` old."""
        if self.path is None:
            return
        self.state = copy(state)
        if time.monotonic() - self.written > SECONDS:
            self.write()

    def write(self) -> None:
        """Writes the state held."""
        if self.path is None or self.state is None:
            return
        content = {"format": FORMAT, "run": self.run, "state": self.state}
        output.write(self.path, lambda temporary: torch.save(content, temporary))
        self.written = time.monotonic()


def copy(value: Any) -> Any:
    """Nested dictionaries and lists with every tensor cloned."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: copy(item) for key, item in value.items()}
    return [copy(item) for item in value] if isinstance(value, list) else value


def digest(data: Tensor | None) -> int:
    """CRC-32 of a tensor's bytes, 0 for None: enough to notice other data."""
    found = 0
    for rows in () if data is None else data.split(4096):
        found = zlib.crc32(rows.cpu().contiguous().numpy().tobytes(), found)
    return found
