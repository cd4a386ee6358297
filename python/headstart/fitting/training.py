"""Settings of a training run: how data are noised, the numbers of the optimizer, and the checkpoint it resumes from."""

from __future__ import annotations

import math
import time
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from headstart import ops
from headstart.argument import require_number, require_path, shown
from headstart.io import output
from headstart.io.bound import brief
from headstart.io.tensor_file import read_tensors
from headstart.ops.check import is_integer


@runtime_checkable
class Noising(Protocol):
    """A regime of noising, as given to the `fit` of a flow. Noise is addressed: resuming draws the same."""

    def once(self, data: Tensor, sigma: float, seed: int) -> Tensor:
        """The points `[N, D]` as they are kept before the first epoch."""
        ...

    def each(self, batch: Tensor, sigma: float, seed: int, epoch: int, first: int) -> Tensor:
        """The points to learn from in a batch `[B, D]`, whose first point is number `first` of the epoch."""
        ...


@dataclass(frozen=True)
class Fixed:
    """One noised copy of the data, `x_i = x_0i + sigma n_i`, at every epoch."""

    def once(self, data: Tensor, sigma: float, seed: int) -> Tensor:
        return add_noise(data, sigma, seed, 0, 0)

    def each(self, batch: Tensor, sigma: float, seed: int, epoch: int, first: int) -> Tensor:
        return batch


@dataclass(frozen=True)
class Dynamic:
    """Fresh noise at each epoch: the exact objective `E_{x_0, n} log p(x_0 + sigma n)`, and a regularizer."""

    def once(self, data: Tensor, sigma: float, seed: int) -> Tensor:
        return data

    def each(self, batch: Tensor, sigma: float, seed: int, epoch: int, first: int) -> Tensor:
        return add_noise(batch, sigma, seed, epoch, first)


def add_noise(data: Tensor, sigma: float, seed: int, epoch: int, first: int) -> Tensor:
    """`data + sigma n`, `n` addressed by (seed, epoch, first + i); epochs count from 1, 0 is the copy kept."""
    return ops.noise(data, sigma, seed, epoch, first, stream=ops.Stream.NOISING)


@dataclass(frozen=True)
class Training:
    """How to train.

    Args:
        noise: `Fixed()` or `Dynamic()`.
        epochs: most passes over the data.
        batch: points in a step.
        learning_rate: of AdamW.
        heldout: share of the points held out, in [0, 1).
        patience: epochs without a better held-out likelihood after which training stops; None: never.
        seed: seed of split, weights, order and noise.
        checkpoint: file to resume from and to write to; None: no file.
        decay: weight decay of AdamW; 0 is Adam.
        average: decay of the running average of the weights a step, which is then what is kept; 0: none.
        drop: probability that a label is replaced by the null label.
        bfloat16: on CUDA, run the network in bfloat16 while training.

    Raises:
        ValueError: a number out of its range.
    """

    noise: Noising
    epochs: int
    batch: int
    learning_rate: float
    heldout: float = 0.1
    patience: int | None = None
    seed: int = 0
    checkpoint: str | Path | None = None
    decay: float = 0.0
    average: float = 0.0
    drop: float = 0.0
    bfloat16: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.noise, Noising) or isinstance(self.noise, type):
            raise ValueError(f"fit: noise must be Fixed() or Dynamic(), got {self.noise!r}")
        for name in ("epochs", "batch", "patience"):
            value = getattr(self, name)
            if (value is not None or name != "patience") and (not isinstance(value, int) or value < 1):
                raise ValueError(f"fit: {name} must be an integer of at least 1, got {value!r}")
        for name in ("learning_rate", "heldout", "average", "drop"):
            object.__setattr__(self, name, require_number("fit", name, getattr(self, name)))
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"fit: learning_rate must be above 0, got {self.learning_rate}")
        for name in ("heldout", "average", "drop"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"fit: {name} must be in [0, 1), got {getattr(self, name)}")
        if not is_integer(self.seed) or not 0 <= self.seed < 2**64:
            raise ValueError(f"fit: seed must be in [0, 2^64), got {shown(self.seed)}")
        object.__setattr__(self, "seed", int(self.seed))

    def identity(self) -> dict[str, Any]:
        """The settings that a resumed run must share; `epochs` and `patience` may change."""
        fixed = ("batch", "learning_rate", "heldout", "seed", "decay", "average", "drop", "bfloat16")
        return {"noise": repr(self.noise), **{name: getattr(self, name) for name in fixed}}


SECONDS = 30.0  # between two writes
FORMAT = "headstart-training"


class Checkpoint:
    """The state of a training run at the end of its last epoch, in one file that appears whole or not at all.

    Args:
        path: file to read and to replace; None keeps nothing.
        run: settings that tell the run from others (JSON values); a file with other settings is refused.

    Raises:
        ValueError: the file is damaged, foreign or another run's.
    """

    def __init__(self, path: str | Path | None, run: dict[str, Any]) -> None:
        self.path, self.run = None if path is None else require_path("fit", path, "checkpoint"), run
        self.state: dict[str, Any] | None = None
        self.written = time.monotonic()

    def read(self, device: torch.device) -> dict[str, Any] | None:
        """The state kept, or None where there is no file."""
        if self.path is None or not self.path.exists():
            return None
        try:
            held = read_tensors(self.path)
            if held["format"] != FORMAT:
                raise ValueError(brief(held["format"]))
            run, state = dict(held["run"]), copy(held["state"], device)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"fit: checkpoint {self.path} is damaged or no training run of headstart") from error
        for name, value in self.run.items():
            if run.get(name) != value:
                there = f"{name} is {brief(run.get(name))} there, {brief(value)} here"
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
        """Writes the state held; where it cannot, warns, and leaves the file that was there.

        Warns:
            RuntimeWarning: the disk is full, or the folder is gone: a run of days must not end for its checkpoint.
        """
        if self.path is None or self.state is None:
            return
        content = {"format": FORMAT, "run": self.run, "state": self.state}
        try:
            output.write(self.path, lambda temporary: torch.save(content, temporary))
        except (OSError, RuntimeError) as error:  # torch's writer says it with a RuntimeError
            reason = error.strerror if isinstance(error, OSError) and error.strerror else brief(error, 200)
            left = "the one before stays" if self.path.exists() else "there is none"
            text = f"fit: checkpoint {self.path} could not be written ({reason}); {left}, and training goes on"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
        self.written = time.monotonic()


def copy(value: Any, device: torch.device | None = None) -> Any:
    """Nested dictionaries and lists with every tensor cloned, onto the device where one is given."""
    if isinstance(value, Tensor):
        return value.detach().clone() if device is None else value.to(device)
    if isinstance(value, dict):
        return {key: copy(item, device) for key, item in value.items()}
    return [copy(item, device) for item in value] if isinstance(value, list) else value


def digest(data: Tensor | None) -> int:
    """CRC-32 of a tensor's bytes, 0 for None: enough to notice other data."""
    found = 0
    for rows in () if data is None else data.split(4096):
        found = zlib.crc32(rows.cpu().contiguous().numpy().tobytes(), found)
    return found
