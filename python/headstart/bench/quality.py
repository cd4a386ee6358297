"""`headstart bench quality`: scores at every number of network calls, for every start and solver, row by row."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import headstart as hs
from headstart.bench.case import Case
from headstart.bench.folder import strips_of
from headstart.bench.result import Result
from headstart.bench.score import Score
from headstart.bench.way import Way
from headstart.io.output import tile, to_bytes, write, write_png
from headstart.io.progress import track

PART = 250  # samples that are kept as soon as they are drawn
STRIP = 10  # samples of a way that are shown


@dataclass
class Quality:
    """One measurement: the case, its scores and its file.

    Fields:
        n: samples a row.
        sigma: horizon of the learned starts; None: chosen by the rule, with `threshold` nats.
    """

    case: Case
    score: Score
    result: Result
    n: int
    sigma: float | None = None
    threshold: float = 0.01

    def __post_init__(self) -> None:
        self.cache = cache_of(self.result)
        self.plans: dict[int, hs.Plan] = {}

    def prepare(self) -> None:
        """The horizon and the floor, worked out once."""
        found = self.result.found
        if "horizon" not in found:
            given: dict[str, Any] = {"sigma": self.sigma, "warning": None, "kl": []}
            found["horizon"] = self.case.horizon(self.threshold) if self.sigma is None else given
            self.result.save()
        if "floor" not in found:
            found["floor"] = self.score.floor(self.n)
            self.result.save()

    @property
    def horizon(self) -> float:
        return float(self.result.found["horizon"]["sigma"])

    def plan(self, nfe: int) -> None:
        """The plan for `nfe` calls: read back, or made and kept."""
        path = self.cache / f"plan-{nfe}.json"
        if not path.exists():
            self.case.plan(nfe, self.horizon).save(path)
        self.plans[nfe] = hs.load_plan(path)

    def part(self, way: Way, seed: int, first: int, count: int) -> dict[str, Any]:
        """Samples as bytes, their features and the seconds they took: read back, or drawn and kept."""
        path = self.cache / f"{way.key}-{seed}-{first}-{count}.pt"
        if not path.exists():
            x, seconds = self.case.draw(way, self.horizon, count, seed, first, self.plans)
            pixels = torch.from_numpy(to_bytes(x)).permute(0, 3, 1, 2).contiguous()
            held = {"pixels": pixels, "features": self.score.embed(as_images(pixels)), "seconds": seconds}
            write(path, lambda temporary: torch.save(held, temporary))
        return torch.load(path, weights_only=True)

    def row(self, way: Way, seed: int) -> dict[str, Any]:
        """The scores of one way and seed."""
        if way.start == "planned":
            self.plan(way.nfe)
        parts = [self.part(way, seed, first, min(PART, self.n - first)) for first in range(0, self.n, PART)]
        pixels, features = (torch.cat([part[name] for part in parts]) for name in ("pixels", "features"))
        scores = self.score(as_images(pixels), self.case.labels(0, self.n), features, seed)
        if seed == 0:
            picture = tile(pixels[:STRIP].permute(0, 2, 3, 1).numpy(), columns=STRIP)
            write_png(strips_of(self.result.path) / f"{way.key}.png", picture)
        sigma = {"classic": 80.0, "alone": 0.0}.get(way.start, self.horizon)
        plan = self.plans.get(way.nfe) if way.start == "planned" else None
        about = {"start": way.start, "solver": way.solver, "grid": way.grid, "nfe": way.nfe, "seed": seed, "n": self.n}
        extra = {} if plan is None else {"plan": plan.mode}
        return {**about, **extra, "sigma": sigma, "seconds": sum(part["seconds"] for part in parts), **scores}

    def run(self, ways: Sequence[Way], seeds: Sequence[int], limit: float | None = None) -> bool:
        """Every row that is missing, seed after seed; False where `limit` seconds were over first."""
        began = time.perf_counter()
        points = [(way, seed) for seed in seeds for way in ways if not self.result.has(f"{way.key}-{seed}")]
        total = sum(way.nfe + 1 for way, _ in points)
        with track("quality", total, True) as advance:
            self.prepare()
            for way, seed in points:
                if limit is not None and time.perf_counter() - began > limit:
                    return False
                self.result.add(f"{way.key}-{seed}", self.row(way, seed))
                for _ in range(way.nfe + 1):
                    advance(f"quality: {way.start} {way.solver} {way.nfe} done")
        return True


def cache_of(result: Result) -> Path:
    """Where samples and features are kept; those of other settings are others."""
    name = hashlib.sha256(json.dumps(result.settings, sort_keys=True).encode()).hexdigest()[:8]
    return result.path.parent / f"samples-{name}"


def as_images(pixels: Tensor) -> Tensor:
    """Bytes `[N, C, H, W]` as images in [-1, 1]."""
    return pixels.float() / 127.5 - 1
