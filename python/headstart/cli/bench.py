"""`headstart bench quality | speed | energy | report`: what users decide on, measured here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from headstart.cli.bench_quality import Denoiser, Device, Out, Quick, Side, find_data, find_out, numbers, quality
from headstart.cli.common import console, find_denoiser, find_device, guarded, require_file, say, spread

bench = typer.Typer(
    help="Measure quality for each network call, speed and energy, and make one page of it.", no_args_is_help=True
)
bench.command()(quality)


@dataclass(frozen=True)
class SpeedRequest:
    """Options of `headstart bench speed`."""

    denoiser: Denoiser = "zoo:fashion"
    batches: Annotated[
        str | None, typer.Option(help="Samples at a time; default 1,8,64, on a GPU 512 as well, as far as they fit.")
    ] = None
    sides: Annotated[
        str | None,
        typer.Option(
            help="Sides of the images, the first one with every batch; default: the network's, 2 and 4 times."
        ),
    ] = None
    channels: Annotated[int, typer.Option(min=1, help="Of the images.")] = 1
    steps: Annotated[int, typer.Option(min=1, help="Solver steps.")] = 9
    seconds: Annotated[float, typer.Option(min=0.0, help="Time a point, beyond three repetitions.")] = 10.0
    compile: Annotated[bool, typer.Option(help="Also with the network compiled by torch.")] = True
    limit: Annotated[float | None, typer.Option(help="Seconds after which no point is begun.")] = None
    out: Out = None
    device: Device = "auto"
    quick: Quick = False


@bench.command()
@guarded
@spread(SpeedRequest)
def speed(options: SpeedRequest) -> None:
    """Samples a second and latency of whole samplers around one network, headstart's and others'.

    The default takes about an hour on two CPU cores, most of it the largest batch and side; --limit ends it between
    points, and the next run goes on there.
    """
    steps, seconds, compile = options.steps, options.seconds, options.compile
    where = find_device(options.device)
    folder = find_out(options.out, where)
    import torch

    from headstart.bench.peers import versions
    from headstart.bench.speed import SOLVERS, Speed, points, shares
    from headstart.compare.case import side_of
    from headstart.compare.store import Result, path_of

    network = find_denoiser(options.denoiser, where)
    own = side_of(network) or 28
    wanted = [own, 2 * own, 4 * own] if options.sides is None else numbers(options.sides, "--sides")
    counts = options.batches or ("1,8,64" if where.type == "cpu" else "1,8,64,512")
    if options.quick:
        counts, wanted, steps, seconds, compile = "1,2", [own], 3, 0.0, False
    settings = {
        "denoiser": options.denoiser,
        "channels": options.channels,
        "seconds": seconds,
        "compile": compile,
        "peers": versions(),
    }
    result = Result(path_of(folder, "speed", options.denoiser), "speed", settings, str(where))
    most = torch.get_num_threads() if where.type == "cpu" else 1
    chosen = points(list(SOLVERS), numbers(counts, "--batches"), wanted, most, steps)
    run = Speed(network, options.channels, result, where, seconds, compile)
    done = run.run(chosen, options.limit)
    for name, reason in result.found["absent"].items():
        say(f"left out: {name} ({reason})")
    for row in result.rows:
        for name, reason in row.get("erring", {}).items():
            say(f"{row['key']}: left out {name} ({reason})")
        for entry in shares(row):
            figures = f"{entry['samples_a_second']:10.1f} samples/s   {entry['ratio']:6.3f} x headstart's time"
            console.print(f"{row['key']:<26} {entry['contender']:<36} {figures}", markup=False, soft_wrap=True)
    say(f"{'wrote' if done else 'time is over, some points are missing; wrote'} {result.path}")


@dataclass(frozen=True)
class EnergyRequest:
    """Options of `headstart bench energy`."""

    denoiser: Denoiser = "zoo:fashion"
    train: Annotated[str, typer.Option(help="Images that starts are fitted to.")] = "zoo:fashion"
    heldout: Annotated[str, typer.Option(help="Held-out images, for a horizon that no quality file says.")] = (
        "zoo:fashion"
    )
    side: Side = None
    batch: Annotated[int, typer.Option(min=1, help="Samples at a time.")] = 64
    seconds: Annotated[float, typer.Option(min=0.0, help="Time a way: 30 at least for a figure to quote.")] = 30.0
    out: Out = None
    device: Device = "auto"
    quick: Quick = False


@bench.command()
@guarded
@spread(EnergyRequest)
def energy(options: EnergyRequest) -> None:
    """Joules a sample of ways of equal quality (those of the denoiser's quality file), by its counter."""
    batch, seconds = options.batch, options.seconds
    where = find_device(options.device)
    folder = find_out(options.out, where)
    from headstart.bench.energy import USUAL, Energy, equal_quality, figures, find_counter
    from headstart.compare.case import Case, require_side, split
    from headstart.compare.store import Result, path_of, read

    counter = find_counter(where)
    if isinstance(counter, str):
        say(counter)
    path = path_of(folder, "quality", options.denoiser)
    held = read(path, "quality") if path.exists() else None
    ways = list(dict.fromkeys(pair["way"] for pair in equal_quality(held["rows"]))) if held and held["rows"] else []
    known, unseen = find_data(options.train, options.heldout, options.side)
    network = find_denoiser(options.denoiser, where)
    require_side(options.denoiser, network, known.images, where)
    case = Case(network, known, *split(unseen), device=str(where))
    measured = held["found"]["horizon"] if held and not options.quick else None
    case.sigma = 3.0 if options.quick else float((measured or case.find_horizon(0.01))["sigma"])
    if options.quick:
        batch, seconds = 2, 0.0
    settings = {
        "denoiser": options.denoiser,
        "train": Path(options.train).name,
        "seconds": seconds,
        "sigma": case.sigma,
    }
    settings |= {} if options.side is None else {"side": options.side}
    result = Result(path_of(folder, "energy", options.denoiser), "energy", settings, str(where))
    found = None if isinstance(counter, str) else counter
    result.found["counter"] = counter if isinstance(counter, str) else counter.name
    Energy(case, found, result, batch, seconds).run(ways or USUAL)
    for row in result.rows:
        at = figures(row)
        joules = (
            "" if at["joules"] is None else f"   {at['joules']:.4g} J a sample, {at['above_idle']:.4g} J above idle"
        )
        console.print(
            f"{row['key']:<32} {1e3 * (at['seconds'] or 0):9.3f} ms a sample{joules}", markup=False, soft_wrap=True
        )
    say(f"wrote {result.path}")


@bench.command()
@guarded
def report(
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("report.html"),
    results: Annotated[Path, typer.Option(help="Folder below which the JSON files are.")] = Path("bench/results"),
    tables: Annotated[Path | None, typer.Option(help="Write the tables to this file too, as Markdown.")] = None,
) -> None:
    """One self-contained page of all measurements below a folder."""
    require_file(out, "--out")
    if tables is not None:
        require_file(tables, "--tables")
    from headstart.bench.report import markdown, page
    from headstart.compare.store import folders_of
    from headstart.io.output import write

    text = page(results)
    write(out, lambda path: path.write_text(text))
    if tables is not None:
        rendered = "\n".join(f"## {folder.name}\n\n{markdown(folder)}" for folder in folders_of(results))
        write(tables, lambda path: path.write_text(rendered))
    say(f"wrote {out}: {len(text) / 1e3:.0f} kB")
