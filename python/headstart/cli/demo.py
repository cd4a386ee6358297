"""`headstart demo`: what a learned start buys, on images and a network that ship with the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.cli.common import (
    console,
    find_device,
    guarded,
    require_file,
    require_folder,
    require_seed,
    say,
)

if TYPE_CHECKING:
    from headstart.compare.demo import DemoRow

PICTURE_COLUMNS = 12


def show(rows: list[DemoRow], floor: tuple[float, float], n: int) -> None:
    """Prints the table."""
    from rich.table import Table

    table = Table(title=f"{n} samples a row against 500 held-out images (lower is better)")
    for name in ("start", "solver", "sigma_T", "NFE", "seconds", "SWD", "FD"):
        table.add_column(name, justify="left" if name in ("start", "solver") else "right")
    for index, row in enumerate(rows):
        last = index + 1 == len(rows) or rows[index + 1].start != row.start
        cells = (f"{row.sigma_T:g}", str(row.nfe), f"{row.seconds:.2f}", f"{row.swd:.4f}", f"{row.fd:.3f}")
        table.add_row(row.start, row.solver, *cells, end_section=last)
    table.add_row("real training images", "floor", "", "", "", f"{floor[0]:.4f}", f"{floor[1]:.3f}")
    console.print(table)


@guarded
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the picture.")] = Path("headstart-demo"),
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the table to this file too.")] = None,
    n: Annotated[int, typer.Option(min=1, help="Samples a row: at least 300, for the scores, at most 2,000.")] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the fit and of every sample.")] = 0,
    metric_n: Annotated[int, typer.Option(min=40, hidden=True)] = 300,
) -> None:
    """Fit a start to the shipped images, sample from it and the usual starts, and compare: a table, a picture."""
    require_folder(out)
    if json_file is not None:
        require_file(json_file, "--json")
    require_seed(seed)
    import torch

    from headstart import zoo
    from headstart.compare import demo as comparison
    from headstart.compare.case import Case
    from headstart.compare.score import Distances
    from headstart.compare.store import stamped, write_json
    from headstart.io import Dataset
    from headstart.io.machine import find_chip
    from headstart.io.output import write_png
    from headstart.start import Classic

    where = find_device(device)
    network = zoo.denoiser("fashion", device=where)
    train, test = zoo.images("fashion", "train")[0], zoo.images("fashion", "test")[0]
    count = min(max(n, metric_n), len(train))
    if n > count:
        say(f"--n: the floor is of {count} training images, so a row has at most {count} samples, not {n}")
    say(f"fitting a start to {len(train)} images of Fashion-MNIST")
    known, horizon = Dataset(train.to(where)), comparison.HORIZON
    case = Case(network, known, sigma=horizon, device=where, seed=seed, batch=comparison.CHUNK)
    score = Distances(train, test)
    rows = comparison.compare(case, score, count, seed)
    floor = score.floor(count)
    show(rows, floor, count)
    z = Classic(case.shape, sigma_max=1.0, device=where).sample(PICTURE_COLUMNS, seed)
    write_png(out / "demo.png", comparison.draw_sheet(comparison.side_by_side(case, z)))
    say(f"wrote {out / 'demo.png'}")
    if json_file is not None:
        machine = {
            "device": str(where),
            "name": find_chip(where),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        table = comparison.to_json(rows, floor, n=count, seed=seed, machine=machine)
        write_json(json_file, stamped("demo", table))
        say(f"wrote {json_file}")
