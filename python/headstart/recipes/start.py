"""The starts of a recipe: fitted once, by the first process, and read from their files from then on."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import headstart as hs
from headstart.io import Dataset
from headstart.recipes.job import Job
from headstart.recipes.part import await_file, claim
from headstart.recipes.protocol import plans_of
from headstart.recipes.way import Laws

FLOW = "flow.json"  # what the TarFlow of a folder is


def learn(job: Job, train: Dataset, rank: int, progress: bool) -> Laws:
    """The mixture, the plans and, where asked for, the TarFlow; the first process writes them.

    Raises:
        ValueError: as the fits, or the folder holds another TarFlow.
    """
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
    if job.flow:
        laws.flow = learn_flow(job, train, rank, progress)
    return laws


def learn_flow(job: Job, train: Dataset, rank: int, progress: bool) -> hs.TarFlow:
    """The TarFlow at the horizon; its training is kept in `flow.pt` while it lasts, and goes on from there."""
    settings = json.loads(json.dumps({**asdict(job.protocol.flow), "sigma": job.protocol.horizon}))
    fitted, training = job.out / "flow.safetensors", job.out / "flow.pt"
    if rank == 0:
        claim(job.out, settings, FLOW)
        if not fitted.exists():
            options: dict[str, Any] = {name: value for name, value in settings.items() if name != "guidance"}
            options |= {"labels": train.labels, "checkpoint": training, "progress": progress}
            hs.TarFlow.fit(train.images, **options).save(fitted)
        training.unlink(missing_ok=True)
    await_file(fitted)
    flow: Any = hs.load(fitted).to(train.images.device)
    return flow
