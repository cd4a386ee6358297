"""`headstart fit`: learn the start once, on clean data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from headstart.cli.common import console, find_device, guarded, require_file, require_seed, say


@guarded
def fit(
    data: Annotated[str, typer.Argument(help="Folder of images, .npy, .npz, .pt or idx file, or zoo:fashion.")],
    out: Annotated[Path, typer.Option(help="File to write (safetensors).")] = Path("start.safetensors"),
    components: Annotated[int | None, typer.Option(min=1, help="Mixture components; default: from the data.")] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Rank of a component; default: from the data.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the fit.")] = 0,
    max_iter: Annotated[int, typer.Option(min=1, help="Most passes of EM.")] = 100,
    size: Annotated[int | None, typer.Option(min=1, help="Crop and resize a folder's images to this side.")] = None,
    labels: Annotated[bool, typer.Option(help="Learn class weights where the data have labels.")] = True,
    label: Annotated[int | None, typer.Option(min=0, help="Fit on this class alone.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Fit a low-rank Gaussian mixture to DATA and write it to one safetensors file."""
    require_file(out, "--out")
    require_seed(seed)
    import headstart as hs
    from headstart.data import read_dataset

    where = find_device(device)
    dataset = read_dataset(data, size)
    if label is not None:
        dataset = dataset.only(label)
    known = dataset.labels if labels else None
    shape, n = tuple(dataset.images.shape[1:]), len(dataset.images)
    classes = "" if known is None else f", {len(known.unique())} classes"
    say(f"{n} samples of shape {'x'.join(map(str, shape))}{classes}")
    mixture = hs.fit(
        dataset.images.to(where),
        components=components,
        covariance=None if rank is None else hs.LowRank(rank),
        seed=seed,
        max_iter=max_iter,
        labels=None if known is None else known.to(where),
        progress=True,
    )
    mixture.save(out)
    console.print(f"wrote {out}: {len(mixture.weight)} components", markup=False, highlight=False, soft_wrap=True)
    if mixture.report is not None and mixture.report.heldout_log_likelihood is not None:
        likelihood = mixture.report.heldout_log_likelihood / math.prod(shape)
        console.print(f"held-out log-likelihood {likelihood:.4f} nats per dimension, {mixture.report.seconds:.1f} s")
