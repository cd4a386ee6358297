"""What a recipe is asked to do: a protocol on a network and data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.io import Dataset
from headstart.recipes.protocol import Protocol
from headstart.recipes.way import Way

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
        flow: whether a TarFlow is fitted too, its rows beside the others.
        real: features `[M, F]` of real pictures by the name of their map, for maps that are not to take `data`'s.
        reference: what samples are compared with, in words.
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
    flow: bool = False
    real: Callable[[], Mapping[str, Tensor]] = dict
    reference: str = "held-out data"

    def ways(self) -> list[Way]:
        """Every row of the table."""
        extra = self.protocol.flow_ways(self.data.labels is not None) if self.flow else []
        *ways, control = self.protocol.ways()
        return [*ways, *extra, control]


def settings_of(job: Job) -> dict[str, Any]:
    """What must not change between two calls on one folder, as JSON gives it back.

    A TarFlow's rows are kept apart from it (see `flow.json`): they may join a run that was begun without them.
    """
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
