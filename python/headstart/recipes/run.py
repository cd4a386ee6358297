"""The runner of every recipe: fit, plan, draw, score; each step kept as it is done, and left alone when run again."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from headstart.io.output import to_bytes
from headstart.io.progress import track
from headstart.recipes.job import Job, divide, settings_of
from headstart.recipes.part import RECORD, Part, await_file, claim, parts, save, write_json
from headstart.recipes.score import score
from headstart.recipes.start import learn
from headstart.recipes.way import Laws, Way


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
    ways = {way.slug: way for way in job.ways()}
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
    table = score(job, train.images, held, progress)
    write_json(job.out / "table.json", table)
    return table


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
