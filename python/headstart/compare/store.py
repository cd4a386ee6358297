"""Files of experiments: JSON of one schema, samples in parts, all written whole and read back by a run that goes on."""

from __future__ import annotations

import json
import re
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headstart.io.bound import DataError, parse_json, read_bytes
from headstart.io.machine import describe
from headstart.io.output import write

SCHEMA = 1
FORMAT = "headstart-bench"
KINDS = ("quality", "speed", "energy")
RECORD = "recipe.json"
SHOWN = 200  # characters of two values in an error
Held = dict[str, Any]


@dataclass
class Result:
    """A file of rows, one for each finished point.

    Attributes:
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
        body = {"machines": self.machines, "settings": dict(self.settings), "found": self.found, "rows": self.rows}
        write_json(self.path, stamped(self.kind, body))


def read(path: Path, kind: str) -> dict[str, Any]:
    """A file of `kind`, as JSON values.

    Raises:
        ValueError: no such file, or another format, kind or schema.
    """
    held = parse_json(read_bytes(path), path)
    if not isinstance(held, dict) or held.get("format") != FORMAT or held.get("kind") != kind:
        raise ValueError(f"{path}: is no file of headstart bench {kind}")
    if held.get("schema") != SCHEMA:
        raise ValueError(f"{path}: has schema {held.get('schema')!r}, this headstart reads {SCHEMA}")
    return held


def name_of(denoiser: str) -> str:
    """What files of a denoiser are called after: a name of the zoo, a file's stem, `module-attribute`."""
    place, _, rest = denoiser.partition(":")
    text = Path(rest).stem if place in ("zoo", "edm", "diffusers") else denoiser
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "denoiser"


def path_of(folder: Path, kind: str, denoiser: str) -> Path:
    """Where the rows of a denoiser are kept: `KIND-NAME.json`, or `KIND.json` where an earlier version began it.

    Raises:
        ValueError: a `KIND.json` that cannot be read.
    """
    path, old = folder / f"{kind}-{name_of(denoiser)}.json", folder / f"{kind}.json"
    if not path.exists() and old.exists() and read(old, kind)["settings"].get("denoiser") == denoiser:
        return old
    return path


def strips_of(path: Path) -> Path:
    """The folder of the pictures that go with a quality file."""
    return path.with_name(path.stem.replace("quality", "strips", 1))


def files_of(folder: Path) -> list[Path]:
    """Every file of a measurement in the folder, those named after a network last."""
    found = [path for kind in KINDS for path in folder.glob(f"{kind}*.json")]
    named = [path for path in found if re.fullmatch(f"({'|'.join(KINDS)})(-.+)?", path.stem)]
    return sorted(named, key=lambda path: path.stem)


def folders_of(results: Path) -> list[Path]:
    """Folders below `results` with measurements.

    Raises:
        ValueError: none.
    """
    found = {path.parent for kind in KINDS for path in results.rglob(f"{kind}*.json") if files_of(path.parent)}
    if not found:
        raise ValueError(f"bench report: no quality, speed or energy file (quality-NAME.json) below {results}")
    return sorted(found)


def networks_of(folder: Path) -> dict[str, dict[str, Held]]:
    """For every network, by name, its files that have rows, by kind; each with the `path` it was read from.

    Raises:
        ValueError: a file of another format or schema.
    """
    networks: dict[str, dict[str, Held]] = {}
    for path in files_of(folder):
        kind, _, name = path.stem.partition("-")
        held = read(path, kind)
        if held["rows"]:
            known = networks.setdefault(name or name_of(held["settings"].get("denoiser", "")), {})
            known.pop(kind, None)  # a file named after the network is the newer one
            known[kind] = {**held, "path": path}
    return {name: {kind: own[kind] for kind in KINDS if kind in own} for name, own in sorted(networks.items())}


class Part(NamedTuple):
    """Samples `offset .. offset + n - 1` of one way, by its name in files, and seed."""

    slug: str
    seed: int
    offset: int
    n: int

    def path(self, folder: Path) -> Path:
        return folder / "samples" / self.slug / f"seed{self.seed}-{self.offset:08d}.npz"


def parts(slugs: Iterable[str], seeds: Iterable[int], n: int, size: int) -> list[Part]:
    """All parts of all ways and seeds, `size` samples each but for the last."""
    seeds = list(seeds)
    return [
        Part(slug, seed, offset, min(size, n - offset))
        for slug in slugs
        for seed in seeds
        for offset in range(0, n, size)
    ]


def load_part(path: Path, n: int) -> dict[str, np.ndarray]:
    """The arrays of one part, its `n` samples as `arr_0`.

    Raises:
        DataError: a file that no experiment wrote.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
            samples = arrays["arr_0"]
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged ({error}); delete it, and it is drawn again") from None
    if len(samples) != n:
        raise DataError(f"{path}: must hold {n} samples, got {len(samples)}; delete it, and it is drawn again")
    return arrays


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes JSON text, whole or not at all."""
    write(path, lambda temporary: temporary.write_text(json.dumps(values, indent=1) + "\n"))


def stamped(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a file of some kind, with the format and schema that readers look for."""
    return {"format": FORMAT, "schema": SCHEMA, "kind": kind, **values}


def await_file(path: Path) -> None:
    """Returns when another process has written the file."""
    while not path.exists():
        time.sleep(0.2)


def once(path: Path, make: Callable[[], object], rank: int) -> None:
    """Has the first process make a file that is missing, and the others wait for it."""
    if rank == 0 and not path.exists():
        make()
    await_file(path)


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
        held = dict(parse_json(read_bytes(path), path))
    except (ValueError, TypeError):
        raise DataError(f"{path}: damaged; choose another folder") from None
    for name in sorted({*held, *settings}):
        if held.get(name) != settings.get(name):
            got, wanted = repr(held.get(name)), repr(settings.get(name))
            differs = f"is {got}, not {wanted}" if len(got + wanted) < SHOWN else "differ"
            raise DataError(f"{folder}: holds another run ({name} {differs}); choose another folder")
