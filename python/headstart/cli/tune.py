"""`headstart tune`: a plan fitted to the network that will run it, by forward calls alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from headstart.cli.common import (
    DENOISER,
    console,
    find_denoiser,
    find_device,
    guarded,
    require_file,
    require_seed,
    say,
    spread,
)


@dataclass(frozen=True)
class TuneRequest:
    """Options of `headstart tune`."""

    denoiser: Annotated[str, typer.Option(help=DENOISER)]
    start: Annotated[str, typer.Option(help="File that `headstart fit` wrote, or classic: from 80.")]
    out: Annotated[Path, typer.Option(help="File to write (JSON text).")] = Path("plan.json")
    data: Annotated[
        str | None, typer.Option(help="Clean data that samples should look like; default: the network's own samples.")
    ] = None
    sigma: Annotated[float, typer.Option(help="Noise level sigma_T of the start (classic: always 80).")] = 3.0
    nfe: Annotated[int, typer.Option(min=1, max=64, help="Network calls a sample.")] = 4
    plan: Annotated[Path | None, typer.Option(help="Plan to begin from, in place of --nfe.")] = None
    classes: Annotated[int | None, typer.Option(min=1, help="Tune over the labels 0 .. N-1 in turn.")] = None
    budget: Annotated[int, typer.Option(min=1, help="Network evaluations of one sample, at most.")] = 100_000
    n: Annotated[int | None, typer.Option(min=8, help="Latents of each set.")] = None
    free_history: Annotated[bool, typer.Option(help="Let the first rows use the start's own predictions.")] = True
    seed: Annotated[int, typer.Option(min=0, help="Seed of the latents.")] = 0
    batch: Annotated[int, typer.Option(min=1, help="Samples at a time.")] = 64
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto"


@guarded
@spread(TuneRequest)
def tune(options: TuneRequest) -> None:
    """Tune a plan on the network and write it to a text file; `headstart sample --plan` runs it."""
    require_file(options.out, "--out")
    require_seed(options.seed)
    if options.start != "classic" and not Path(options.start).is_file():
        raise FileNotFoundError(2, "no such file", options.start)
    import torch

    from headstart.io import read_dataset
    from headstart.planning import tune as make_plan
    from headstart.solver.plan import load_plan

    where = find_device(options.device)
    network: Any = find_denoiser(options.denoiser, where)
    given = options.nfe if options.plan is None else load_plan(options.plan)
    data = None if options.data is None else read_dataset(options.data, None).images.to(where)
    law = find_law(options, given, getattr(network, "shape", None) or (None if data is None else data.shape[1:]), where)
    cond = None if options.classes is None else {"label": torch.arange(options.classes, device=where)}
    rest: Any = {"budget": options.budget, "batch": options.batch, "free_history": options.free_history}
    rest |= {} if options.n is None else {"n": options.n}
    made = make_plan(given, network, law, "network" if data is None else data, cond, options.seed, **rest)
    made.save(options.out)
    report(made, options.out)


def find_law(options: TuneRequest, given: Any, shape: Any, device: Any) -> Any:
    """The start: of a file at the given plan's noise level or `--sigma`, or the classic one.

    Raises:
        ValueError: The classic one with no shape known.
    """
    from headstart.solver.plan import SIGMA_MAX
    from headstart.start import Classic, load

    if options.start == "classic":
        if shape is None:
            raise ValueError("--start: classic needs --data, or a denoiser of known shape")
        return Classic(tuple(shape), device=device)
    level = getattr(given, "sigma", SIGMA_MAX)
    return load(options.start).to(device).at(level if level < SIGMA_MAX else options.sigma)


def report(made: Any, out: Path) -> None:
    """Says what was made, and what held-out latents say of it."""
    found = made.provenance["tuned"]
    if found["kept"]:
        say("Nothing better was found on latents kept for that: the plan is the one it began from.")
    before, after = found["given"], found["held out"]
    levels = ", ".join(f"{level:.3g}" for level in made.nodes)
    for line in (
        f"wrote {out}: {made.nfe} calls {made.mode}, sigma {levels}",
        f"on held-out latents: merit {before['merit']:.3f} before, {after['merit']:.3f} tuned; distance to the fine "
        f"solution {before['error']:.4f} and {after['error']:.4f}; {found['evaluations']:,} network evaluations",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
