"""`headstart plan`: noise levels and coefficients for a few network calls, fitted on the start alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from headstart.cli.common import console, find_denoiser, find_device, guarded, require_file, require_seed, say

HELDOUT = 64


@guarded
def plan(
    start: Annotated[Path, typer.Option(help="File that `headstart fit` wrote.")],
    out: Annotated[Path, typer.Option(help="File to write (JSON text).")] = Path("plan.json"),
    sigma: Annotated[float, typer.Option(help="Noise level sigma_T of the start.")] = 3.0,
    nfe: Annotated[int, typer.Option(min=1, max=64, help="Network calls a sample.")] = 5,
    sigma_start: Annotated[float | None, typer.Option(help="80, or sigma_T; default: the better one.")] = None,
    free_history: Annotated[bool, typer.Option(help="Let the first rows use the start's own predictions.")] = True,
    label: Annotated[int | None, typer.Option(min=0, help="Plan for this class alone.")] = None,
    denoiser: Annotated[
        str | None, typer.Option(help="Network to calibrate with: zoo:fashion, diffusers:FOLDER or module:name.")
    ] = None,
    heldout: Annotated[str | None, typer.Option(help="Data that neither was fitted on, for --denoiser.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the trajectories.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; of the network.")] = "auto",
) -> None:
    """Plan the way down for a few network calls, without calling the network, and write it to a text file."""
    require_file(out, "--out")
    require_seed(seed)
    if (denoiser is None) != (heldout is None):
        raise ValueError("--denoiser, --heldout: must be given together")
    if not start.is_file():
        raise FileNotFoundError(2, "no such file", str(start))
    import headstart as hs
    from headstart.io import read_dataset

    mixture: Any = hs.load(start)
    law = mixture if label is None else mixture.given(label)
    extra: dict[str, Any] = {}
    if denoiser is not None and heldout is not None:
        where = find_device(device)
        data = read_dataset(heldout, None)
        data = data if label is None else data.only(label)
        law = law.to(where)
        extra = {"denoiser": find_denoiser(denoiser, where), "heldout": data.images[:HELDOUT].to(where)}
    made = hs.plan(law.at(sigma), nfe, sigma_start, free_history, seed, progress=True, **extra)
    made.save(out)
    found = made.provenance.get("calibration")
    if found is not None:
        say(f"network and start are at most {found['displacement']:.4f} apart at sigma_T, noise {found['noise']:.3f}")
    levels = ", ".join(f"{level:.3g}" for level in made.nodes)
    console.print(
        f"wrote {out}: {nfe} calls {made.mode}, sigma {levels}", markup=False, highlight=False, soft_wrap=True
    )
    errors = f"expected error on the start {made.expected_error:.4f} a coordinate"
    peer = f"best DPM++ 2M from 80 {made.classic_error:.4f}; {made.provenance['seconds']} s"
    console.print(f"{errors}; {peer}", markup=False, highlight=False, soft_wrap=True)
