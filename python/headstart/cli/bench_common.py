"""What the commands of `headstart bench` share: their options, names of files and data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from headstart.cli.common import DENOISER, require_folder, say

Out = Annotated[Path | None, typer.Option(help="Folder of the JSON file; default bench/results/DEVICE.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Quick = Annotated[bool, typer.Option("--quick", help="Tiny sizes: shows that it runs, its figures say nothing.")]
Denoiser = Annotated[str, typer.Option(help=DENOISER)]
Side = Annotated[
    int | None, typer.Option(min=1, help="Frame images in black up to this side, as a network of that side saw them.")
]


def numbers(text: str, option: str) -> list[int]:
    """Integers of at least 0 between commas.

    Raises:
        ValueError: anything else.
    """
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise ValueError(f"{option}: must be numbers between commas, got {text!r}")
    return [int(part) for part in text.split(",")]


def find_out(out: Path | None, device: Any) -> Path:
    """The folder of results, named after the device where none is given."""
    from headstart.bench.machine import find_chip

    chip = "cpu" if device.type == "cpu" else re.sub(r"[^a-z0-9]+", "-", find_chip(device).lower()).strip("-")
    out = out or Path("bench/results") / chip
    require_folder(out)
    return out


def find_data(train: str, heldout: str, side: int | None = None) -> tuple[Any, Any]:
    """Training and held-out images, in a frame where a side is given; `zoo:NAME` as held-out data are the zoo's test
    images."""
    from headstart import zoo
    from headstart.bench.frame import frame
    from headstart.io import Dataset, read_dataset

    known = read_dataset(train)
    place, _, name = heldout.partition(":")
    unseen = Dataset(*zoo.images(name, "test")) if place == "zoo" else read_dataset(heldout)
    if unseen.images.shape[1:] != known.images.shape[1:]:
        shapes = f"{list(known.images.shape[1:])}, got {list(unseen.images.shape[1:])}"
        raise ValueError(f"--heldout: samples must be shaped like --train's, {shapes}")
    return (known, unseen) if side is None else (frame(known, side), frame(unseen, side))


def find_judge(denoiser: str, train: Any) -> Any:
    """The zoo's classifier, of images 28 wide, for what its networks make of them; None for other denoisers."""
    from headstart.bench.frame import cropped
    from headstart.zoo.classifier import SIDE, classifier

    if not denoiser.startswith("zoo:") or train.labels is None:
        return None
    return classifier() if train.images.shape[-1] == SIDE else cropped(classifier(), SIDE)


def find_features(name: str, size: int, train: Any, device: str) -> tuple[str, Any]:
    """The feature map, and its name; without a name the best that is installed."""
    from headstart.bench.score import find_features as find

    if name != "auto":
        return name, find(name, size, train, device)
    try:
        return "lite0", find("lite0", size, train, device)
    except ImportError as error:
        say(f"{error}; gradient features are used instead")
        return "gradient", find("gradient", size, train, device)
