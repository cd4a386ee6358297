"""The scores and pictures of a recipe, from the parts on the disk."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.io.output import tile, write_png
from headstart.io.progress import track
from headstart.metrics import Evaluator, neighbour_sheet
from headstart.recipes.job import Job
from headstart.recipes.part import load, parts, write_json
from headstart.recipes.way import Way

GRID = 64  # pictures of a row


def score(job: Job, train: Tensor, held: Tensor, progress: bool) -> dict[str, Any]:
    """Every row's figures, mean and spread over seeds; a seed's are kept in `scores` as they are done."""
    rows, evaluator, ways = [], None, job.ways()
    with track("scoring", len(ways) * job.seeds, progress) as advance:
        for way in ways:
            seeds = []
            for seed in range(job.seeds):
                path = job.out / "scores" / f"{way.slug}-seed{seed}.json"
                if not path.exists():
                    if evaluator is None:
                        evaluator = Evaluator(held, job.n, job.features, train, batch=job.batch, real=job.real())
                    write_json(path, evaluator(gather(job, way.slug, seed)).to_json())
                seeds.append(json.loads(path.read_text()))
                advance(f"scoring: {way.slug}")
            rows.append({"start": way.start, "solver": way.solver, "sigma": way.sigma, "nfe": way.calls} | join(seeds))
            picture(job, way, train)
    own = {"protocol": job.protocol.name, "n": job.n, "seeds": job.seeds, "reference": job.reference}
    return {**own, "rows": rows}


def gather(job: Job, slug: str, seed: int) -> Tensor:
    """All samples of a way and seed, as the network makes them."""
    arrays = [
        load(part.path(job.out), part.n) for part in parts([slug], seed + 1, job.n, job.part) if part.seed == seed
    ]
    whole = torch.from_numpy(np.concatenate(arrays)).to(job.data.images.device)
    return whole if job.protocol.latents else whole.permute(0, 3, 1, 2).float() / 127.5 - 1


def join(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures of several seeds as one: mean, and standard deviation over the seeds."""
    figures = []
    for same in zip(*(seed["figures"] for seed in seeds), strict=True):
        values = torch.tensor([one["value"] for one in same], dtype=torch.float64)
        spread = float(values.std()) if len(values) > 1 else None
        named = {name: same[0][name] for name in ("metric", "features")}
        figures.append(named | {"value": float(values.mean()), "spread": spread, "floor": same[0]["floor"]})
    return {"groups": seeds[0]["groups"], "figures": figures}


def picture(job: Job, way: Way, train: Tensor) -> None:
    """The first samples of seed 0, and those nearest to the training set above their neighbours there."""
    grid, near = job.out / f"{way.slug}.png", job.out / f"{way.slug}-nearest.png"
    if grid.exists() and near.exists():
        return
    samples = gather(job, way.slug, 0)
    write_png(grid, tile(job.decode(samples[:GRID])))
    write_png(near, neighbour_sheet(samples, train, pictures=job.decode))
