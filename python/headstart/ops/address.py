"""Where noise lives: the address that every draw is a function of."""

from __future__ import annotations

import enum
from typing import NamedTuple

from torch import Tensor


class Stream(enum.IntEnum):
    """Independent sequences of noise under one seed; part of every noise address."""

    START = 0
    SOLVER = 1
    COMPONENT = 2
    FACTOR = 3
    FLOOR = 4
    SCALE = 5
    NOISING = 6
    ORDER = 7
    DROP = 8


class Noise(NamedTuple):
    """The noise term `scale * z` of an affine row.

    `z` is standard normal; element e of row i is a function of (seed, offset + i, step, e, stream) alone, the same on
    every device, for every batch split.

    Fields:
        scale: standard deviation of the term.
        seed: key, an integer in [0, 2^64): all 64 bits count, nothing is folded; others are refused.
        step: which draw of the seed, in [0, 2^32).
        offset: sample index of row 0, in [0, 2^32).
        stream: which use, see `Stream`.
        origin: None, or int64 `[2]` on the state's device: seed (as a signed integer) and offset, read when the kernel
            runs, in place of the two above: what a captured CUDA graph is replayed with.
    """

    scale: float
    seed: int
    step: int
    offset: int = 0
    stream: int = Stream.SOLVER
    origin: Tensor | None = None
