"""`headstart bench quality`: scores at every number of network calls; options, names and data that `bench` shares."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from headstart.cli.common import DENOISER, console, find_denoiser, find_device, guarded, require_folder, say, spread

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
    from headstart.io.machine import find_chip

    chip = "cpu" if device.type == "cpu" else re.sub(r"[^a-z0-9]+", "-", find_chip(device).lower()).strip("-")
    out = out or Path("bench/results") / chip
    require_folder(out)
    return out


def find_data(train: str, heldout: str, side: int | None = None) -> tuple[Any, Any]:
    """Training and held-out images, in a frame where a side is given; `zoo:NAME` as held-out data are the zoo's test
    images."""
    from headstart import zoo
    from headstart.compare.case import frame
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
    from headstart.compare.case import cropped
    from headstart.zoo.network import SIDE, classifier

    if not denoiser.startswith("zoo:") or train.labels is None:
        return None
    return classifier() if train.images.shape[-1] == SIDE else cropped(classifier(), SIDE)


def find_features(name: str, size: int, train: Any, device: str) -> tuple[str, Any]:
    """The feature map, and its name; without a name the best that is installed."""
    from headstart.compare.score import find_features as find

    if name != "auto":
        return name, find(name, size, train, device)
    try:
        return "lite0", find("lite0", size, train, device)
    except ImportError as error:
        say(f"{error}; gradient features are used instead")
        return "gradient", find("gradient", size, train, device)


@dataclass(frozen=True)
class QualityRequest:
    """Options of `headstart bench quality`."""

    denoiser: Denoiser = "zoo:fashion"
    train: Annotated[str, typer.Option(help="Images that starts are fitted to.")] = "zoo:fashion"
    heldout: Annotated[str, typer.Option(help="Held-out images: half picks, half gives figures.")] = "zoo:fashion"
    side: Side = None
    n: Annotated[int, typer.Option(min=20, help="Samples a row.")] = 10_000
    nfe: Annotated[str, typer.Option(help="Network calls.")] = "1,2,3,4,5,6,7,9,13,19,39,79"
    starts: Annotated[str, typer.Option(help="Starts.")] = (
        "alone,classic,learned,planned,transport,uninformed,empirical"
    )
    solvers: Annotated[str | None, typer.Option(help="Solvers, 2M,Heun for example; default: all.")] = None
    seeds: Annotated[int, typer.Option(min=1, help="Seeds, one after another.")] = 3
    sigma: Annotated[float | None, typer.Option(help="sigma_T; default: chosen by the rule of hs.horizon.")] = None
    threshold: Annotated[float, typer.Option(help="Nats of that rule.")] = 0.01
    features: Annotated[str, typer.Option(help="lite0, gradient, or auto.")] = "auto"
    feature_size: Annotated[int, typer.Option(min=32, max=224, help="Side of images for lite0.")] = 112
    limit: Annotated[float | None, typer.Option(help="Seconds after which no row is begun.")] = None
    out: Out = None
    device: Device = "auto"
    quick: Quick = False


@guarded
@spread(QualityRequest)
def quality(options: QualityRequest) -> None:
    """Scores of samples at every number of network calls; a run that was stopped goes on where it was."""
    n, nfe, seeds, features, sigma = options.n, options.nfe, options.seeds, options.features, options.sigma
    where = find_device(options.device)
    folder = find_out(options.out, where)
    from headstart.compare.case import Case, require_side, split
    from headstart.compare.headline import summary
    from headstart.compare.quality import Quality, cache_of, ways
    from headstart.compare.score import Score
    from headstart.compare.store import Result, path_of
    from headstart.compare.way import methods_of

    if options.quick:
        n, nfe, seeds, features, sigma = min(n, 100), "3,5", 1, "gradient", sigma or 3.0
    solvers = list(methods_of("quality")) if options.solvers is None else options.solvers.split(",")
    chosen = ways(numbers(nfe, "--nfe"), options.starts.split(","), solvers)
    known, unseen = find_data(options.train, options.heldout, options.side)
    network = find_denoiser(options.denoiser, where)
    require_side(options.denoiser, network, known.images, where)
    name, mapping = find_features(features, options.feature_size, known.images, str(where))
    settings = {
        "denoiser": options.denoiser, "train": Path(options.train).name, "heldout": Path(options.heldout).name,
        "n": n, "sigma": sigma, "threshold": options.threshold, "features": name,
        "feature_size": options.feature_size if name == "lite0" else None,
        "images": {"train": len(known.images), "heldout": len(unseen.images)},
    } | ({} if options.side is None else {"side": options.side})  # fmt: skip
    result = Result(path_of(folder, "quality", options.denoiser), "quality", settings, str(where))
    case = Case(network, known, *split(unseen), device=str(where))
    run = Quality(
        case,
        Score(case, mapping, find_judge(options.denoiser, known), cache_of(result)),
        result,
        n,
        sigma,
        options.threshold,
    )
    done = run.run(chosen, range(seeds), options.limit)
    console.print(summary(result.rows, result.found), markup=False, highlight=False, soft_wrap=True)
    say(f"{'wrote' if done else 'time is over, some rows are missing; wrote'} {result.path}")
