"""How a flow is trained: the numbers of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.fitting.noise import Noising


@dataclass(frozen=True)
class Training:
    """How to train.

    Args:
        noise: `Fixed()` or `Dynamic()`.
        epochs: Most passes over the data.
        batch: Points in a step.
        learning_rate: Of AdamW.
        heldout: Share of the points held out, in [0, 1).
        patience: Epochs without a better held-out likelihood after which training stops; None: never.
        seed: Seed of split, weights, order and noise.
        checkpoint: File to resume from and to write to; None: no file.
        decay: Weight decay of AdamW; 0 is Adam.
        average: Decay of the running average of the weights a step, which is then what is kept; 0: none.
        drop: Probability that a label is replaced by the null label.
        bfloat16: On CUDA, run the network in bfloat16 while training.

    Raises:
        ValueError: A number out of its range.
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
        if not hasattr(self.noise, "each") or isinstance(self.noise, type):
            raise ValueError(f"fit: noise must be Fixed() or Dynamic(), got {self.noise!r}")
        for name in ("epochs", "batch", "patience"):
            value = getattr(self, name)
            if (value is not None or name != "patience") and (not isinstance(value, int) or value < 1):
                raise ValueError(f"fit: {name} must be an integer of at least 1, got {value!r}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"fit: learning_rate must be above 0, got {self.learning_rate}")
        for name in ("heldout", "average", "drop"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"fit: {name} must be in [0, 1), got {getattr(self, name)}")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"fit: seed must be in [0, 2^64), got {self.seed}")

    def identity(self) -> dict[str, Any]:
        """What a resumed run must share; `epochs` and `patience` may change."""
        fixed = ("batch", "learning_rate", "heldout", "seed", "decay", "average", "drop", "bfloat16")
        return {"noise": repr(self.noise), **{name: getattr(self, name) for name in fixed}}
