"""`headstart bench quality`: scores at every number of network calls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headstart.cli.bench_common import (
    Denoiser,
    Device,
    Out,
    Quick,
    Side,
    find_data,
    find_features,
    find_judge,
    find_out,
    numbers,
)
from headstart.cli.common import console, find_denoiser, find_device, guarded, say


@guarded
def quality(
    denoiser: Denoiser = "zoo:fashion",
    train: Annotated[str, typer.Option(help="Images that starts are fitted to.")] = "zoo:fashion",
    heldout: Annotated[str, typer.Option(help="Held-out images: half picks, half gives figures.")] = "zoo:fashion",
    side: Side = None,
    n: Annotated[int, typer.Option(min=20, help="Samples a row.")] = 10_000,
    nfe: Annotated[str, typer.Option(help="Network calls.")] = "1,2,3,4,5,6,7,9,13,19,39,79",
    starts: Annotated[
        str, typer.Option(help="Starts.")
    ] = "alone,classic,learned,planned,transport,uninformed,empirical",
    solvers: Annotated[str, typer.Option(help="Solvers.")] = "2M,Heun,UniPC,3M",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds, one after another.")] = 3,
    sigma: Annotated[float | None, typer.Option(help="sigma_T; default: chosen by the rule of hs.horizon.")] = None,
    threshold: Annotated[float, typer.Option(help="Nats of that rule.")] = 0.01,
    features: Annotated[str, typer.Option(help="lite0, gradient, or auto.")] = "auto",
    feature_size: Annotated[int, typer.Option(min=32, max=224, help="Side of images for lite0.")] = 112,
    limit: Annotated[float | None, typer.Option(help="Seconds after which no row is begun.")] = None,
    out: Out = None,
    device: Device = "auto",
    quick: Quick = False,
) -> None:
    """Scores of samples at every number of network calls; a run that was stopped goes on where it was."""
    where = find_device(device)
    folder = find_out(out, where)
    from headstart.bench.case import Case, split
    from headstart.bench.folder import path_of
    from headstart.bench.frame import require_side
    from headstart.bench.headline import summary
    from headstart.bench.quality import Quality, cache_of
    from headstart.bench.result import Result
    from headstart.bench.score import Score
    from headstart.bench.way import ways

    if quick:
        n, nfe, seeds, features, sigma = min(n, 100), "3,5", 1, "gradient", sigma or 3.0
    chosen = ways(numbers(nfe, "--nfe"), starts.split(","), solvers.split(","))
    known, unseen = find_data(train, heldout, side)
    network = find_denoiser(denoiser, where)
    require_side(denoiser, network, known.images, where)
    name, mapping = find_features(features, feature_size, known.images, str(where))
    settings = {
        "denoiser": denoiser, "train": Path(train).name, "heldout": Path(heldout).name, "n": n, "sigma": sigma,
        "threshold": threshold, "features": name, "feature_size": feature_size if name == "lite0" else None,
        "images": {"train": len(known.images), "heldout": len(unseen.images)},
    } | ({} if side is None else {"side": side})  # fmt: skip
    result = Result(path_of(folder, "quality", denoiser), "quality", settings, str(where))
    case = Case(network, known, *split(unseen), device=str(where))
    run = Quality(
        case, Score(case, mapping, find_judge(denoiser, known), cache_of(result)), result, n, sigma, threshold
    )
    done = run.run(chosen, range(seeds), limit)
    console.print(summary(result.rows, result.found), markup=False, highlight=False, soft_wrap=True)
    say(f"{'wrote' if done else 'time is over, some rows are missing; wrote'} {result.path}")
