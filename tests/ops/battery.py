"""dieharder fed with the raw words of the compiled Philox, in each order in which noise reads the counter."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from headstart import _core

REASON = None if shutil.which("dieharder") else "dieharder is not installed (Debian: apt-get install dieharder)"
BLOCK = 2**18  # counters


def words(seeds: int, rows: int, groups: int, seed: int, offset: int = 0) -> np.ndarray:
    """Words `[seeds, rows, groups, 4]` of consecutive seeds, samples and groups of elements."""
    out = np.empty((seeds, rows, groups, 4), np.uint32)
    address = _core.Address(seed=seed, offset=offset)
    _core.words(_core.WordsParams(seeds=seeds, rows=rows, groups=groups, address=address, out=out.ctypes.data), 1)
    return out


# Block k of the stream of a seed, in the order written.
ORDERS: dict[str, Callable[[int, int], np.ndarray]] = {
    "element": lambda seed, k: words(1, BLOCK >> 14, 2**14, seed, k * (BLOCK >> 14)),
    "sample": lambda seed, k: words(1, BLOCK, 1, seed, k * BLOCK),
    "seed": lambda seed, k: words(BLOCK, 1, 1, seed + k * BLOCK),
}


class Result(NamedTuple):
    """One line of dieharder's table."""

    name: str
    parameter: int
    tsamples: int
    psamples: int
    p: float
    verdict: str  # PASSED, WEAK (p outside 0.005 .. 0.995) or FAILED (outside 1e-6 .. 1 - 1e-6)


def dieharder(stream: Callable[[int], np.ndarray], options: list[str]) -> list[Result]:
    """The results of one dieharder call that reads blocks 0, 1, ... of `stream` until it has had enough."""
    command = ["dieharder", "-g", "200", *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            k = 0
            while True:
                process.stdin.write(stream(k).data)
                k += 1
        except BrokenPipeError:
            table = process.stdout.read().decode()
    lines = [[field.strip() for field in line.split("|")] for line in table.splitlines() if line.count("|") == 5]
    rows = [fields for fields in lines if fields[-1] in ("PASSED", "WEAK", "FAILED")]
    return [Result(name, int(n), int(t), int(p), float(value), verdict) for name, n, t, p, value, verdict in rows]
