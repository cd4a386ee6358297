"""`headstart bench quality`: scores at every number of network calls, for every start and solver, row by row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.compare.case import Case
from headstart.compare.run import Experiment, run
from headstart.compare.score import Score
from headstart.compare.store import Result, strips_of
from headstart.compare.way import HEUN, METHODS, Way, exists, methods_of
from headstart.io.output import tile, write_png

NFE = (1, 2, 3, 4, 5, 6, 7, 9, 13, 19, 39, 79)
CALLS = (5, 7, 3, 9, 4, 13, 6, 19, 2, 1, 39, 79)  # the most telling first
STARTS = ("alone", "classic", "learned", "planned", "transport", "uninformed", "empirical")
TELLING = (  # (start, solver, grid), the most telling first
    ("alone", "none", "none"), ("learned", "2M", "log"), ("classic", "2M", "log"), ("planned", "plan", "plan"),
    ("transport", "2M", "log"), ("classic", "UniPC", "log"), ("classic", "Heun", "rho 7"), ("classic", "3M", "log"),
    ("empirical", "2M", "log"), ("classic", "2M", "rho 7"), ("uninformed", "2M", "log"),
    ("learned", "UniPC", "log"), ("learned", "Heun", "log"), ("learned", "3M", "log"),
    ("classic", "Heun", "log"), ("classic", "UniPC", "rho 7"), ("classic", "3M", "rho 7"),
    ("transport", "UniPC", "log"), ("transport", "Heun", "log"), ("transport", "3M", "log"),
    ("empirical", "UniPC", "log"), ("empirical", "Heun", "log"), ("empirical", "3M", "log"),
    ("uninformed", "UniPC", "log"), ("uninformed", "Heun", "log"), ("uninformed", "3M", "log"),
)  # fmt: skip
PART = 250  # samples that are kept as soon as they are drawn
STRIP = 10  # samples of a way that are shown


def groups() -> list[tuple[str, str, str]]:
    """Every (start, solver, grid), the most telling first: those of `TELLING`, then other solvers from every start."""
    known = methods_of("quality")
    found = [group for group in TELLING if group[1] in known or group[1] in ("none", "plan")]
    for solver, method in known.items():
        both = sorted(("log", "rho 7"), key=lambda grid: grid != method.usual)
        every = [("classic", grid) for grid in both]
        every += [(start, "log") for start in ("learned", "transport", "empirical", "uninformed")]
        found += [(start, solver, grid) for start, grid in every if (start, solver, grid) not in found]
    return found


def ways(nfe: Iterable[int], starts: Iterable[str], solvers: Iterable[str]) -> list[Way]:
    """Every way of these calls, starts and solvers, the most telling first.

    Raises:
        ValueError: an unknown start or solver, or a number of calls below 1.
    """
    nfe, starts, solvers = sorted(set(nfe)), set(starts), set(solvers)
    for name, given, known in (("starts", starts, STARTS), ("solvers", solvers, METHODS)):
        if not given <= set(known):
            raise ValueError(
                f"bench: {name} must be of {', '.join(known)}, got {', '.join(sorted(given - set(known)))}"
            )
    if not nfe or nfe[0] < 1:
        raise ValueError(f"bench: nfe must be at least 1, got {nfe}")
    found: list[tuple[float, Way]] = []
    for place, (start, solver, grid) in enumerate(groups()):
        if start == "alone" and start in starts:
            found.append((-2, Way(start, solver, grid, 0)))
        elif start in starts and solver in {*solvers, "plan"}:
            rank = {n: CALLS.index(n) if n in CALLS else len(CALLS) for n in nfe if exists(solver, n)}
            own = [(place + 1.5 * rank[n], Way(start, solver, grid, n)) for n in rank]
            found += [(-1 if way == HEUN else at, way) for at, way in own]
    return [way for _, way in sorted(found, key=lambda pair: pair[0])]


@dataclass
class Quality:
    """One measurement: the case, its scores and its file.

    Attributes:
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
        cache = cache_of(self.result)
        self.case.folder = cache
        self.experiment = Experiment(self.case, self.n, PART, cache, keep=self.keep)

    def keep(self, samples: np.ndarray, seconds: float) -> dict[str, np.ndarray]:
        """What is kept beside the samples of a part: their features, and the seconds they took."""
        features = self.score.embed(self.experiment.images(samples))
        return {"features": features.numpy(), "seconds": np.array([seconds])}

    def prepare(self) -> None:
        """The horizon and the floor, worked out once."""
        found = self.result.found
        if "horizon" not in found:
            given: dict[str, Any] = {"sigma": self.sigma, "warning": None, "kl": []}
            found["horizon"] = self.case.find_horizon(self.threshold) if self.sigma is None else given
            self.result.save()
        self.case.sigma = float(found["horizon"]["sigma"])
        if "floor" not in found:
            found["floor"] = self.score.floor(self.n)
            self.result.save()

    def row(self, way: Way, seed: int) -> dict[str, Any]:
        """The scores of one way and seed, whose samples are drawn."""
        held = self.experiment.gather(way, seed)
        pixels, features = held["arr_0"], torch.from_numpy(held["features"])
        scores = self.score(self.experiment.images(pixels), self.case.labels(0, self.n), features, seed)
        if seed == 0:
            write_png(strips_of(self.result.path) / f"{way.key}.png", tile(pixels[:STRIP], columns=STRIP))
        about = {"start": way.start, "solver": way.solver, "grid": way.grid, "nfe": way.nfe, "seed": seed, "n": self.n}
        extra = {"plan": self.case.plan(way.nfe).mode} if way.solver == "plan" else {}
        return {
            **about,
            **extra,
            "sigma": way.horizon(self.case.sigma),
            "seconds": held["seconds"].sum().item(),
            **scores,
        }

    def run(self, ways: Sequence[Way], seeds: Iterable[int], limit: float | None = None) -> bool:
        """Every row that is missing, seed after seed; False where `limit` seconds were over first."""
        self.prepare()
        points = [(way, seed) for seed in seeds for way in ways if not self.result.has(f"{way.key}-{seed}")]

        def add(way: Way, seed: int) -> None:
            self.result.add(f"{way.key}-{seed}", self.row(way, seed))

        return run(self.experiment, points, add, title="quality", limit=limit, progress=True)


def cache_of(result: Result) -> Path:
    """Where samples, features and fits are kept; those of other settings are others."""
    name = hashlib.sha256(json.dumps(result.settings, sort_keys=True).encode()).hexdigest()[:8]
    return result.path.parent / f"samples-{name}"
