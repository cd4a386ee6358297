"""`headstart plan`: noise levels and coefficients for a few network calls, fitted on the start alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from headstart.cli.common import console, find_denoiser, find_device, guarded, require_file, require_seed, say, spread

HELDOUT = 64


@dataclass(frozen=True)
class PlanRequest:
    """Options of `headstart plan`."""

    start: Annotated[Path, typer.Option(help="File that `headstart fit` wrote.")]
    out: Annotated[Path, typer.Option(help="File to write (JSON text).")] = Path("plan.json")
    sigma: Annotated[float, typer.Option(help="Noise level sigma_T of the start.")] = 3.0
    nfe: Annotated[int, typer.Option(min=1, max=64, help="Network calls a sample.")] = 5
    sigma_start: Annotated[float | None, typer.Option(help="80, or sigma_T; default: the better one.")] = None
    free_history: Annotated[bool, typer.Option(help="Let the first rows use the start's own predictions.")] = True
    label: Annotated[int | None, typer.Option(min=0, help="Plan for this class alone.")] = None
    denoiser: Annotated[
        str | None, typer.Option(help="Network to calibrate with: zoo:fashion, diffusers:FOLDER or module:name.")
    ] = None
    heldout: Annotated[str | None, typer.Option(help="Data that neither was fitted on, for --denoiser.")] = None
    seed: Annotated[int, typer.Option(min=0, help="Seed of the trajectories.")] = 0
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; of the network.")] = "auto"


@guarded
@spread(PlanRequest)
def plan(options: PlanRequest) -> None:
    """Plan the way down for a few network calls, without calling the network, and write it to a text file."""
    require_file(options.out, "--out")
    require_seed(options.seed)
    if (options.denoiser is None) != (options.heldout is None):
        raise ValueError("--denoiser, --heldout: must be given together")
    if not options.start.is_file():
        raise FileNotFoundError(2, "no such file", str(options.start))
    from headstart.io import read_dataset
    from headstart.planning import plan as make_plan
    from headstart.start import load

    mixture: Any = load(options.start)
    law = mixture if options.label is None else mixture.given(options.label)
    extra: dict[str, Any] = {}
    if options.denoiser is not None and options.heldout is not None:
        where = find_device(options.device)
        data = read_dataset(options.heldout, None)
        data = data if options.label is None else data.only(options.label)
        law = law.to(where)
        extra = {"denoiser": find_denoiser(options.denoiser, where), "heldout": data.images[:HELDOUT].to(where)}
    made = make_plan(
        law.at(options.sigma), options.nfe, options.sigma_start, options.free_history, options.seed,
        progress=True, **extra,
    )  # fmt: skip
    made.save(options.out)
    found = made.provenance.get("calibration")
    if found is not None:
        say(f"network and start are at most {found['displacement']:.4f} apart at sigma_T, noise {found['noise']:.3f}")
    levels = ", ".join(f"{level:.3g}" for level in made.nodes)
    wrote = f"wrote {options.out}: {options.nfe} calls {made.mode}, sigma {levels}"
    console.print(wrote, markup=False, highlight=False, soft_wrap=True)
    errors = f"expected error on the start {made.expected_error:.4f} a coordinate"
    peer = f"best DPM++ 2M from 80 {made.classic_error:.4f}; {made.provenance['seconds']} s"
    console.print(f"{errors}; {peer}", markup=False, highlight=False, soft_wrap=True)
