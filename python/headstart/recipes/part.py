"""Samples of a recipe on the disk: parts that are kept as they are done, shared out among processes."""

from __future__ import annotations

import json
import time
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headstart.io import DataError
from headstart.io.output import write, write_npz

RECORD = "recipe.json"
SHOWN = 200  # characters of two values in an error


class Part(NamedTuple):
    """Samples `offset .. offset + n - 1` of one way and seed."""

    slug: str
    seed: int
    offset: int
    n: int

    def path(self, folder: Path) -> Path:
        return folder / "samples" / self.slug / f"seed{self.seed}-{self.offset:08d}.npz"


def parts(slugs: list[str], seeds: int, n: int, size: int) -> list[Part]:
    """All parts of all ways and seeds, `size` samples each but for the last."""
    return [
        Part(slug, seed, offset, min(size, n - offset))
        for slug in slugs
        for seed in range(seeds)
        for offset in range(0, n, size)
    ]


def save(path: Path, samples: np.ndarray) -> None:
    write_npz(path, {"arr_0": samples})


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    write(path, lambda temporary: temporary.write_text(json.dumps(values, indent=1) + "\n"))


def load(path: Path, n: int) -> np.ndarray:
    """Samples of one part.

    Raises:
        DataError: a file that this recipe did not write.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            samples = file["arr_0"]
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged ({error}); delete it, and it is drawn again") from None
    if len(samples) != n:
        raise DataError(f"{path}: must hold {n} samples, got {len(samples)}; delete it, and it is drawn again")
    return samples


def await_file(path: Path) -> None:
    """Returns when another process has written the file."""
    while not path.exists():
        time.sleep(0.2)


def claim(folder: Path, settings: Mapping[str, Any], record: str = RECORD) -> None:
    """Writes what the run is of to `recipe.json` (or another record), or checks that the folder holds that very run.

    Raises:
        DataError: the folder holds a run with other settings, or its file cannot be read.
    """
    path = folder / record
    if not path.exists():
        write_json(path, settings)
        return
    try:
        held = dict(json.loads(path.read_text()))
    except (ValueError, TypeError):
        raise DataError(f"{path}: damaged; choose another folder") from None
    for name in sorted({*held, *settings}):
        if held.get(name) != settings.get(name):
            got, wanted = repr(held.get(name)), repr(settings.get(name))
            differs = f"is {got}, not {wanted}" if len(got + wanted) < SHOWN else "differ"
            raise DataError(f"{folder}: holds another run ({name} {differs}); choose another folder")
