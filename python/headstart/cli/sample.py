"""`headstart sample`: the short way home from a learned start."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from headstart.cli.common import (
    DENOISER,
    SOLVERS,
    console,
    find_denoiser,
    find_device,
    find_solver,
    guarded,
    require_folder,
    require_seed,
    say,
    spread,
)


@dataclass(frozen=True)
class SampleRequest:
    """Options of `headstart sample`."""

    denoiser: Annotated[str, typer.Option(help=DENOISER)]
    start: Annotated[str, typer.Option(help="File that `headstart fit` wrote, or classic.")]
    out: Annotated[Path, typer.Option(help="Folder for the PNG files, grid.png and samples.npz.")]
    sigma: Annotated[float, typer.Option(help="Noise level to start from (classic: always 80).")] = 3.0
    steps: Annotated[int, typer.Option(min=1, help="Solver steps.")] = 7
    plan: Annotated[Path | None, typer.Option(help="File that `headstart plan` wrote, in place of --steps.")] = None
    n: Annotated[int, typer.Option(min=1, help="Number of samples.")] = 64
    label: Annotated[int | None, typer.Option(min=0, help="Class to sample.")] = None
    guidance: Annotated[float | None, typer.Option(help="Weight w of the class: D(null) + w (D(label) - D(null)).")] = (
        None
    )
    guidance_interval: Annotated[
        tuple[float, float] | None, typer.Option(metavar="LOW HIGH", help="Noise levels (low, high] of guidance.")
    ] = None
    seed: Annotated[int, typer.Option(min=0, help="Seed; sample i of a seed: its noise never changes.")] = 0
    solver: Annotated[str, typer.Option(help=f"One of {', '.join(SOLVERS)}.")] = "dpmpp2m"
    batch: Annotated[int, typer.Option(min=1, help="Samples at a time.")] = 64
    shape: Annotated[str | None, typer.Option(help="channels,height,width for --start classic.")] = None
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto"


def find_start(options: SampleRequest, sigma: float, known: tuple[int, ...] | None, device: Any) -> Any:
    """The start of `--start`: a file's law at `sigma`, or `classic`: `N(0, 80^2 I)` of `--shape`.

    Raises:
        ValueError: `classic` with a denoiser whose shape is not `known`, samples that are not images or not of that
            shape, or a `sigma` that leaves no way down.
        OSError: the file cannot be read.
    """
    from headstart.sampling.request import SIGMA_MIN
    from headstart.start import Classic, load

    name, shape = options.start, options.shape
    if name == "classic":
        if shape is None and known is not None:
            shape = ",".join(map(str, known))
        if shape is None or not all(part.strip().isdigit() and int(part) for part in shape.split(",")):
            raise ValueError(f"--shape: --start classic needs channels,height,width, for example 3,64,64, got {shape}")
        start: Any = Classic(tuple(int(part) for part in shape.split(",")), device=device)
    else:
        if not Path(name).is_file():
            raise FileNotFoundError(2, "no such file", name)
        if not sigma > SIGMA_MIN:
            raise ValueError(f"--sigma: must be above {SIGMA_MIN}, where the last step begins, got {sigma}")
        start = load(name).to(device).at(sigma)
    if len(start.shape) != 3 or start.shape[0] not in (1, 3, 4) or min(start.shape) < 1:
        raise ValueError(f"sample: the start must be of images (1, 3 or 4, height, width), got {tuple(start.shape)}")
    if known is not None and tuple(start.shape) != known:
        got = tuple(start.shape)
        raise ValueError(f"--start: {options.denoiser} denoises samples of shape {known}, got {got}")
    return start


def count_classes(network: Any) -> int | None:
    """How many classes the network of `--denoiser` knows, where it or its inner network says so."""
    return getattr(network, "classes", getattr(getattr(network, "net", None), "classes", None))


def find_guidance(network: Any, options: SampleRequest, weight: float) -> Any:
    """The network of `--denoiser` with classifier-free guidance.

    Raises:
        ValueError: it has no null class that is known here, no class is asked for, or a weight or interval that is out
            of range.
    """
    from headstart.guidance import guided

    interval = options.guidance_interval
    null = getattr(network, "null_label", getattr(getattr(network, "net", None), "classes", None))
    if null is None:
        known = "has no known null class; give module:attribute of an hs.guided(...)"
        raise ValueError(f"--guidance: {options.denoiser} {known}")
    if options.label is None:
        raise ValueError("--guidance: needs a class to be drawn to, --label")
    if not 0 <= weight < math.inf:
        raise ValueError(f"--guidance: must be a finite number of at least 0, got {weight}")
    if interval is not None and not 0 <= interval[0] < interval[1]:
        raise ValueError(f"--guidance-interval: must be LOW HIGH with 0 <= LOW < HIGH, got {interval}")
    return guided(network, weight, interval=interval or (0.0, math.inf), null={"label": null})


def where_broken(
    network: Any, law: Any, count: int, samples: tuple[int, ...], address: Mapping[str, Any], given: Mapping[str, Any]
) -> str:
    """What the error of samples that are not finite says: which, and the first network call that made one so.

    The batch is drawn again, which its address makes the same, up to that call.
    """
    from headstart.sampling import sample as draw
    from headstart.sampling.edge import Watched

    first = address["offset"] + samples[0]
    named = f"sample: {len(samples)} of {count} samples are not finite, the first is {first} of seed {address['seed']}"
    watched = Watched(network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            draw(watched, law, count, **address, **given)
        except ArithmeticError as found:
            return f"{named}: {found}; nothing was written"
    return f"{named}; nothing was written"


@guarded
@spread(SampleRequest)
def sample(options: SampleRequest) -> None:
    """Sample images and write one PNG each, grid.png, samples.npz (arr_0: uint8 [N, H, W, C]) and the floats."""
    require_folder(options.out)
    require_seed(options.seed)
    import torch

    from headstart.io.output import clipped_share, require_alone, sample_names, to_bytes, write_samples
    from headstart.io.progress import bars
    from headstart.sampling import sample_info
    from headstart.sampling.edge import NotFinite
    from headstart.solver.plan import load_plan
    from headstart.start.protocol import ConditionalStart

    require_alone(options.out, sample_names(options.n, options.seed))

    where, label, sigma = find_device(options.device), options.label, options.sigma
    network, method = find_denoiser(options.denoiser, where), find_solver(options.solver)
    planned = None if options.plan is None else load_plan(options.plan)
    if planned is not None and planned.ghost is not None:
        sigma = planned.sigma
    law = find_start(options, sigma, getattr(network, "shape", None), where)
    classes = count_classes(network)
    if label is not None and classes is not None and label >= classes:
        raise ValueError(f"--label: must be 0 to {classes - 1} for {options.denoiser}, got {label}")
    if options.guidance is not None:
        network = find_guidance(network, options, options.guidance)
    elif options.guidance_interval is not None:
        raise ValueError("--guidance-interval: needs --guidance")
    if label is not None and not (isinstance(law, ConditionalStart) and law.conditional):
        say(f"The start has no classes: label {label} goes to the denoiser alone.")
    given: Any = {"steps": options.steps, "solver": method} if planned is None else {"plan": planned}
    parts, seconds, calls = [], 0.0, 0
    with bars() as progress, warnings.catch_warnings():
        warnings.simplefilter("error", NotFinite)  # a picture of NaN is black, and an exit code 0 would say it is one
        task = progress.add_task("sampling", total=options.n)
        for offset in range(0, options.n, options.batch):
            count = min(options.batch, options.n - offset)
            cond = None if label is None else {"label": torch.full((count,), label, device=where)}
            address: Any = {"seed": options.seed, "offset": offset, "cond": cond}
            try:
                x, info = sample_info(network, law, count, **address, **given)
            except NotFinite as fault:
                raise ValueError(where_broken(network, law, count, fault.samples, address, given)) from None
            parts.append(x.cpu())
            seconds, calls = seconds + info.seconds, info.nfe
            progress.advance(task, count)
    values = torch.cat(parts)
    write_samples(options.out, to_bytes(values), options.seed, values=values)
    if share := clipped_share(values):
        told = "clipped in the pictures; samples.safetensors has them as they are"
        say(f"{share:.2%} of the values lie outside [-1, 1]: {told}.")
    cost = f"{calls} network calls a sample, {seconds:.1f} s"
    wrote = f"wrote {options.n} images, grid.png, samples.npz and samples.safetensors to {options.out}: {cost}"
    console.print(wrote, markup=False, highlight=False, soft_wrap=True)
