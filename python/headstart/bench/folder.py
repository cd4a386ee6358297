"""The files of one device's folder: one of each kind for every network, named after it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from headstart.bench.result import read

KINDS = ("quality", "speed", "energy")
Held = dict[str, Any]


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
