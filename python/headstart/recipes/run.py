"""The runner of every recipe: fit, plan, draw, score; each step kept as it is done, and left alone when run again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import headstart as hs
from headstart.data import Dataset
from headstart.metrics import Evaluator, neighbour_sheet
from headstart.output import tile, to_bytes, write_png
from headstart.progress import track
from headstart.recipes.part import RECORD, Part, await_file, claim, load, parts, save, write_json
from headstart.recipes.protocol import Laws, Protocol, Way, plans_of

GRID = 64
RESERVE = 0.5  # of the data: at most so much is held out of the fit


@dataclass(frozen=True)
class Job:
    """A protocol on a network and data.

    Fields:
        protocol: what is compared.
        denoiser: the network, guided where it is.
        data: what the start is fitted on, and held-out samples to score against; on the network's device.
        out: folder of everything.
        features: feature maps by name, for the scores.
        decode: pictures uint8 `[N, H, W, C]` of samples.
        n, seeds: samples a row and seed, and how many seeds.
        part, batch: samples a file, and at a time through the network.
        components: of the mixture; None: from the data.
        settings: what else tells this run from another, as JSON values.
    """

    protocol: Protocol
    denoiser: Any
    data: Dataset
    out: Path
    features: Mapping[str, Callable[[Tensor], Tensor] | None]
    decode: Callable[[Tensor], np.ndarray]
    n: int
    seeds: int = 3
    part: int = 500
    batch: int = 64
    components: int | None = None
    settings: Mapping[str, Any] | None = None


def run(job: Job, rank: int = 0, world: int = 1, progress: bool = False) -> dict[str, Any] | None:
    """The table of a recipe, written to `table.json` beside pictures; None of every process but the first.

    Sample i of a seed is the same whichever process draws it, so process `rank` of `world` takes every `world`-th part;
    the first one waits for the others' files. A run that was cut goes on where it was.

    Raises:
        ValueError: the folder holds another run, or there are too few data for n.
    """
    if 2 * job.n > len(job.data.images):
        raise ValueError(f"recipe: n must be at most half of the {len(job.data.images)} samples of data, got {job.n}")
    if rank != 0:
        await_file(job.out / RECORD)
    claim(job.out, settings_of(job))
    train, held = divide(job.data, job.n)
    laws = learn(job, train, rank, progress)
    ways = {way.slug: way for way in job.protocol.ways()}
    every = parts(list(ways), job.seeds, job.n, job.part)
    mine = [part for part in every[rank::world] if not part.path(job.out).exists()]
    with track("drawing", len(mine), progress) as advance:
        for part in mine:
            draw(job, ways[part.slug], laws, part)
            advance(f"drawing: {part.slug}")
    if rank != 0:
        return None
    for part in every:
        await_file(part.path(job.out))
    table = score(job, list(ways.values()), train.images, held, progress)
    write_json(job.out / "table.json", table)
    return table


def settings_of(job: Job) -> dict[str, Any]:
    """What must not change between two calls on one folder, as JSON gives it back."""
    ways = [(way.slug, way.sigma, way.grid) for way in job.protocol.ways()]
    shape, labels = list(job.data.images.shape), job.data.labels is not None
    own = {"ways": ways, "n": job.n, "seeds": job.seeds, "part": job.part, "data": shape, "labels": labels}
    own |= {"components": job.components, "features": list(job.features), **dict(job.settings or {})}
    return json.loads(json.dumps(own))


def divide(data: Dataset, n: int) -> tuple[Dataset, Tensor]:
    """What the start is fitted on, and held-out samples: the reference and, where enough, a floor's groups."""
    order = torch.randperm(len(data.images), generator=torch.Generator().manual_seed(0)).to(data.images.device)
    count = max(n, min(4 * n, int(RESERVE * len(order))))
    kept = order[count:]
    labels = None if data.labels is None else data.labels[kept]
    return Dataset(data.images[kept], labels, data.classes), data.images[order[:count]]


def learn(job: Job, train: Dataset, rank: int, progress: bool) -> Laws:
    """The mixture and the plans, from their files where they are written; the first process writes them."""
    fitted = job.out / "start.safetensors"
    if rank == 0 and not fitted.exists():
        hs.fit(train.images, job.components, labels=train.labels, progress=progress).save(fitted)
    await_file(fitted)
    mixture: Any = hs.load(fitted).to(train.images.device)
    laws = Laws(mixture, train.images, train.labels)
    for calls, path in plans_of(job.out, job.protocol).items():
        if rank == 0 and not path.exists():
            hs.plan(mixture.at(job.protocol.horizon), calls, progress=progress).save(path)
        await_file(path)
        laws.plans[calls] = hs.load_plan(path)
    return laws


def draw(job: Job, way: Way, laws: Laws, part: Part) -> None:
    """One part, `batch` samples at a time; classes go round, so that every seed has the same of each."""
    found = []
    for offset in range(part.offset, part.offset + part.n, job.batch):
        count = min(job.batch, part.offset + part.n - offset)
        labels = None
        if laws.labels is not None:
            known = laws.labels.unique()
            labels = known[torch.arange(offset, offset + count, device=known.device) % len(known)]
        x = way.draw(job.denoiser, laws, count, part.seed, offset, labels)
        found.append(x.float().cpu().numpy() if job.protocol.latents else to_bytes(x))
    save(part.path(job.out), np.concatenate(found))


def gather(job: Job, slug: str, seed: int) -> Tensor:
    """All samples of a way and seed, as the network makes them."""
    arrays = [
        load(part.path(job.out), part.n) for part in parts([slug], seed + 1, job.n, job.part) if part.seed == seed
    ]
    whole = torch.from_numpy(np.concatenate(arrays)).to(job.data.images.device)
    return whole if job.protocol.latents else whole.permute(0, 3, 1, 2).float() / 127.5 - 1


def score(job: Job, ways: list[Way], train: Tensor, held: Tensor, progress: bool) -> dict[str, Any]:
    """Every row's figures, mean and spread over seeds; a seed's are kept in `scores` as they are done."""
    rows, evaluator = [], None
    with track("scoring", len(ways) * job.seeds, progress) as advance:
        for way in ways:
            seeds = []
            for seed in range(job.seeds):
                path = job.out / "scores" / f"{way.slug}-seed{seed}.json"
                if not path.exists():
                    evaluator = evaluator or Evaluator(held, job.n, job.features, train, batch=job.batch)
                    write_json(path, evaluator(gather(job, way.slug, seed)).to_json())
                seeds.append(json.loads(path.read_text()))
                advance(f"scoring: {way.slug}")
            rows.append({"start": way.start, "solver": way.solver, "sigma": way.sigma, "nfe": way.calls} | join(seeds))
            picture(job, way, train)
    return {"protocol": job.protocol.name, "n": job.n, "seeds": job.seeds, "rows": rows}


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
    """The first samples of seed 0, and those nearest to the training set above their neighbours."""
    grid, near = job.out / f"{way.slug}.png", job.out / f"{way.slug}-nearest.png"
    if grid.exists() and near.exists():
        return
    samples = gather(job, way.slug, 0)
    write_png(grid, tile(job.decode(samples[:GRID])))
    if not job.protocol.latents:
        write_png(near, neighbour_sheet(samples, train))
