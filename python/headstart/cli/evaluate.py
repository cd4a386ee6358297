"""`headstart eval`: how near samples come to data, each figure beside its real-against-real floor."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.cli.common import console, find_device, guarded, require_file, require_seed, say, spread

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from headstart.metrics import Evaluation

FEATURES = ("gradient", "pixels", "lite0", "inception:FILE", "dinov2:FILE.pth or FOLDER")


def find_features(name: str, real: Tensor, device: torch.device) -> Any:
    """The feature map called `name`; None for the samples themselves.

    Raises:
        ValueError: an unknown name, a path that is missing, or data that are no images.
        ImportError: its extra is not installed.
    """
    from headstart import metrics

    kind, _, path = name.partition(":")
    if name == "pixels":
        return None
    if real.ndim != 4 or real.shape[1] not in (1, 3):
        raise ValueError(f"--features: {kind} takes images of 1 or 3 channels, got {list(real.shape[1:])} each; pixels")
    if name == "gradient":
        return metrics.GradientFeatures.fit(real)
    if name == "lite0":
        return metrics.Lite0Features(device=device)
    if kind == "inception" and path:
        return metrics.InceptionFeatures(path, device=device)
    if kind == "dinov2" and path:
        return metrics.Dinov2Features(path, device=device)
    raise ValueError(f"--features: must be one of {', '.join(FEATURES)}, got {name!r}")


def counting(function: Any, tick: Callable[[], None]) -> Any:
    """The feature map, and a tick a batch."""

    def call(x: Tensor) -> Tensor:
        tick()
        return x.flatten(1) if function is None else function(x)

    return call


def show(result: Evaluation, title: str) -> None:
    """Prints the table."""
    from rich.table import Table

    table = Table(title=title)
    for name in ("metric", "features", "samples", "+-", "real (floor)", "n"):
        table.add_column(name, justify="left" if name in ("metric", "features") else "right")
    for figure in result.figures:
        floor, error = (f"{x:.4g}" if x is not None else "" for x in (figure.floor, figure.error))
        kind = figure.features.partition(":")[0]
        table.add_row(figure.metric, kind, f"{figure.value:.4g}", error, floor or "-", str(result.n))
    console.print(table)


@dataclass(frozen=True)
class EvaluateRequest:
    """Options of `headstart eval`."""

    samples: Annotated[str, typer.Argument(help="Folder or zip of images, .npy, .npz, .pt, .safetensors file.")]
    data: Annotated[str, typer.Argument(help="Real ones, in the same forms, or zoo:fashion.")]
    features: Annotated[
        list[str] | None, typer.Option(help=f"Any of {', '.join(FEATURES)}; again for more; default: gradient.")
    ] = None
    train: Annotated[str | None, typer.Option(help="What the samples' law was learned from, apart from DATA.")] = None
    n: Annotated[int | None, typer.Option(min=2, help="Take so many of each; default: all, equally many.")] = None
    out: Annotated[Path | None, typer.Option(help="Write the table to this JSON file.")] = None
    grid: Annotated[
        Path | None, typer.Option(help="PNG of samples above their nearest training images (without --train: of DATA).")
    ] = None
    size: Annotated[int | None, typer.Option(min=1, help="Crop and resize images to this side.")] = None
    seed: Annotated[int, typer.Option(min=0, help="Seed of the choice of n.")] = 0
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 64
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto"


@guarded
@spread(EvaluateRequest)
def evaluate(options: EvaluateRequest) -> None:
    """Compare SAMPLES with DATA: distances on features and pixels, tails, memorization, each beside its floor."""
    for path, option in ((options.out, "--out"), (options.grid, "--grid")):
        if path is not None:
            require_file(path, option)
    require_seed(options.seed)
    from headstart import metrics
    from headstart.io import read_dataset
    from headstart.io.output import write, write_png
    from headstart.io.progress import bars

    where, n = find_device(options.device), options.n
    names = options.features or ["gradient"]

    def read(source: str) -> Tensor:
        return read_dataset(source, options.size, progress=True).images.to(where)

    made, real = read(options.samples), read(options.data)
    known = None if options.train is None else read(options.train)
    if n is None and len(made) != len(real):
        few = min(len(made), len(real))
        got = f"{len(made)} samples and {len(real)} of data"
        raise ValueError(f"eval: figures of unequal n cannot be compared, got {got}; --n {few} takes so many of each")
    maps = {name: find_features(name, real if known is None else known, where) for name in names}
    with bars() as progress:
        task = progress.add_task("comparing, batches of images", total=None)
        counted = {name: counting(map_, lambda: progress.advance(task)) for name, map_ in maps.items()}
        result = metrics.evaluate(made, real, counted, known, n, options.seed, options.batch)
    show(result, f"{result.n} samples of {options.samples} against {result.n} of {options.data}")
    if result.groups == 0:
        say(f"No floor: it takes another {result.n} real samples, in DATA or --train (or a smaller --n).")
    if options.grid is not None:
        write_png(options.grid, metrics.neighbour_sheet(made, real if known is None else known))
        say(f"wrote {options.grid}")
    if options.out is not None:
        given = {"samples": options.samples, "data": options.data, "train": options.train, "seed": options.seed}
        table = {**given, **result.to_json()}
        write(options.out, lambda path: path.write_text(json.dumps(table, indent=1) + "\n"))
        say(f"wrote {options.out}")
