"""The runner of every experiment: draw, keep, score; each step is done once, and left alone when run again.

Sample i of a seed is the same whichever process draws it, so process `rank` of `world` takes every `world`-th part and
the first one, which scores, waits for the others' files.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from headstart.compare.store import Part, await_file, load_part, parts
from headstart.io.output import to_bytes, write_npz
from headstart.io.progress import track

Arrays = Mapping[str, np.ndarray]


class Station(Protocol):
    """The subject of a row, such as `way.Way`.

    Attributes:
        key: its name in files.
        start: name of the start.
        solver: name of the solver.
        nfe: network calls a sample.
    """

    @property
    def key(self) -> str: ...
    @property
    def start(self) -> str: ...
    @property
    def solver(self) -> str: ...
    @property
    def nfe(self) -> int: ...


P = TypeVar("P", bound=Station)
Q = TypeVar("Q", contravariant=True)


class Source(Protocol[Q]):
    """What ways are compared on, such as `case.Case`: fits what a way needs, and draws its samples."""

    def prepare(self, way: Q, /) -> None: ...
    def draw(self, way: Q, count: int, seed: int, first: int, /) -> tuple[Tensor, float]: ...


def nothing(samples: np.ndarray, seconds: float) -> Arrays:
    """Keeps nothing beside the samples."""
    return {}


S = TypeVar("S", bound=Source[Any])


def find_ranks() -> tuple[int, int]:
    """This process's number and how many there are, as torchrun says it; (0, 1) without."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


@dataclass
class Experiment(Generic[S]):
    """Samples of a case's ways.

    Attributes:
        case: what they are of.
        n: samples a way and seed; 0: nothing is drawn, the score of a point is all there is.
        size: samples a part, which is what is kept and shared out.
        folder: where parts are kept; None: in memory.
        exact: parts are of float32 samples `[N, *shape]`, not of pictures uint8 `[N, H, W, C]`.
        slug: the name of a way in files.
        keep: what else is kept of a part, from its samples and the seconds they took.
    """

    case: S
    n: int
    size: int
    folder: Path | None = None
    exact: bool = False
    slug: Callable[[Any], str] = lambda way: way.key
    keep: Callable[[np.ndarray, float], Arrays] = nothing
    memory: dict[Part, Arrays] = field(default_factory=dict)

    def parts(self, way: Station, seed: int) -> list[Part]:
        """Those of one way and seed."""
        return parts([self.slug(way)], [seed], self.n, self.size)

    def has(self, part: Part) -> bool:
        """Whether the part is drawn."""
        return part in self.memory if self.folder is None else part.path(self.folder).exists()

    def draw(self, way: Station, part: Part) -> None:
        """Draws one part and keeps it."""
        x, seconds = self.case.draw(way, part.n, part.seed, part.offset)
        samples = x.detach().float().cpu().numpy() if self.exact else to_bytes(x)
        arrays = {"arr_0": samples, **self.keep(samples, seconds)}
        if self.folder is None:
            self.memory[part] = arrays
        else:
            write_npz(part.path(self.folder), arrays)

    def gather(self, way: Station, seed: int) -> dict[str, np.ndarray]:
        """All parts of one way and seed as one: samples as `arr_0`, and what is kept beside.

        Raises:
            DataError: a damaged part.
        """
        mine = self.parts(way, seed)
        held = [self.memory[p] if self.folder is None else load_part(p.path(self.folder), p.n) for p in mine]
        return {name: np.concatenate([one[name] for one in held]) for name in held[0]}

    def drop(self, way: Station, seed: int) -> None:
        """Forgets the parts of one way and seed."""
        for part in self.parts(way, seed):
            self.memory.pop(part, None)
            if self.folder is not None:
                part.path(self.folder).unlink(missing_ok=True)

    def images(self, samples: np.ndarray) -> Tensor:
        """Samples of a part as the network makes them, `[N, *shape]`; pictures as images in [-1, 1]."""
        whole = torch.from_numpy(samples)
        return whole if self.exact else whole.permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


def run(
    experiment: Experiment[Any], points: Sequence[tuple[P, int]], score: Callable[[P, int], object], title: str,
    ranks: tuple[int, int] = (0, 1), limit: float | None = None, progress: bool = False,
) -> bool:  # fmt: skip
    """Draws the parts of every point that are missing, and has the point scored; False where time was over first.

    Args:
        experiment: whose samples.
        points: ways and seeds, in their order.
        score: called once for a point when all its samples are there, by the first process alone.
        title: of the progress bar, which counts network calls.
        ranks: this process's number, and how many there are.
        limit: seconds after which no point is begun.
    """
    began, number, (rank, world) = time.perf_counter(), 0, ranks
    if world > 1:  # all fits first: then no process waits for another but the one that scores
        for way in dict.fromkeys(way for way, _ in points):
            experiment.case.prepare(way)
    with track(title, sum(way.nfe + 1 for way, _ in points), progress) as advance:
        for way, seed in points:
            if limit is not None and time.perf_counter() - began > limit:
                return False
            experiment.case.prepare(way)
            mine = experiment.parts(way, seed)
            for part in mine:
                if number % world == rank and not experiment.has(part):
                    experiment.draw(way, part)
                number += 1
            if rank == 0:
                if experiment.folder is not None:
                    for part in mine:
                        await_file(part.path(experiment.folder))
                score(way, seed)
            for _ in range(way.nfe + 1):
                advance(f"{title}: {way.start} {way.solver} {way.nfe} done")
    return True
