"""`headstart bench speed`: whole samplers around one network, headstart's beside those users would pick instead."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle
from typing import Any

import torch
from torch import Tensor

from headstart.bench.measure import OURS, Contest, high_water, paired, threads, verify
from headstart.bench.peers import PEERS, SIGMA_DATA, absent, preconditioned
from headstart.compare.store import Result
from headstart.compare.way import EDM_SIGMA_MIN, SIGMA_MAX, methods_of
from headstart.denoiser import EDM
from headstart.io.progress import track
from headstart.sampling import Sampler, sample
from headstart.solver import Solver, calls
from headstart.solver.grid import karras
from headstart.start import Classic

SOLVERS: dict[str, Solver] = {type(m.solver).__name__: m.solver for m in methods_of("speed").values()}
COMPILED, GRAPH, NULL = "headstart, network compiled", "headstart, CUDA graph", "headstart, network that does nothing"
AGREE = 1e-2  # of the largest entry: how far two samplers of one method may be apart in float32


@dataclass(frozen=True)
class Point:
    """One comparison: solver, batch, side of the images, threads of torch, solver steps."""

    solver: str
    batch: int
    side: int
    threads: int
    steps: int

    @property
    def key(self) -> str:
        return f"{self.solver}-b{self.batch}-s{self.side}-t{self.threads}-n{self.steps}"


def points(solvers: Sequence[str], batches: Sequence[int], sides: Sequence[int], most: int, steps: int) -> list[Point]:
    """Every batch at the first side; the other sides, and powers of two of threads, at the middle batch."""
    middle = batches[len(batches) // 2]
    every = [Point(solver, batch, sides[0], most, steps) for batch in batches for solver in solvers]
    every += [Point(solvers[0], middle, side, most, steps) for side in sides[1:]]
    counts = [1 << i for i in range(most.bit_length()) if 1 << i < most]
    return every + [Point(solvers[0], middle, sides[0], count, steps) for count in counts]


@dataclass
class Speed:
    """One measurement.

    Attributes:
        denoiser: around whose network every sampler runs.
        channels: of the images.
        seconds: time a point, beyond three repetitions.
        compile: whether the network compiled by torch takes part.
    """

    denoiser: Any
    channels: int
    result: Result
    device: torch.device
    seconds: float = 5.0
    compile: bool = False

    def contest(self, point: Point) -> Contest:
        """Contenders on the same grid (EDM's, rho 7), and headstart with a network that costs nothing."""
        shape = (self.channels, point.side, point.side)
        solver = SOLVERS[point.solver]
        grid = karras(SIGMA_MAX, EDM_SIGMA_MIN, point.steps, 7.0)
        start = Classic(shape, SIGMA_MAX, device=self.device)
        x = start.sample(point.batch)
        draw = partial(sample, start=start, n=point.batch, grid=grid, solver=solver)
        contenders: dict[str, Callable[[], Any]] = {OURS: lambda: draw(self.denoiser)}
        if self.device.type == "cuda":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                sampler = Sampler(self.denoiser, start, batch=point.batch, grid=grid, solver=solver)
            if sampler.graphed:
                contenders[GRAPH] = sampler
        if self.compile:
            contenders[COMPILED] = partial(draw, self.compiled())
        nothing = self.nothing(x)
        contenders[NULL] = partial(forget, partial(draw, nothing))
        contenders |= self.peers(point, x, grid)
        units, size = calls(solver.rows(grid.tolist())), 2 * x.numel() * x.element_size()
        return Contest(point.key, size, contenders, AGREE, units=units)

    def compiled(self) -> Any:
        """The denoiser with its raw network compiled, or itself compiled where it has none."""
        torch._dynamo.reset()
        if isinstance(self.denoiser, EDM):
            return self.around(torch.compile(self.denoiser.net))
        return torch.compile(self.denoiser)

    def around(self, net: Any) -> EDM:
        """The denoiser's preconditioning of another raw network."""
        return EDM(net, self.denoiser.sigma_data, self.denoiser.dtype)

    def nothing(self, x: Tensor) -> Any:
        """A denoiser that computes nothing, preconditioned where the network is."""
        given = cycle([torch.randn_like(x), torch.randn_like(x)])

        def network(state: Tensor, level: Tensor) -> Tensor:
            return next(given)

        return self.around(network) if isinstance(self.denoiser, EDM) else network

    def peers(self, point: Point, x: Tensor, grid: Tensor) -> dict[str, Callable[[], Any]]:
        """The samplers of other projects that are installed, of the same solver; those that precondition for themselves
        are given the raw network."""
        missing = absent()
        found: dict[str, Callable[[], Any]] = {}
        raw: Any = self.denoiser.net if isinstance(self.denoiser, EDM) else None
        sigma_data = SIGMA_DATA if raw is None else self.denoiser.sigma_data
        opaque = self.denoiser if raw is None else preconditioned(raw, sigma_data)
        for name, peer in PEERS.items():
            if peer.solver == point.solver and name not in missing and not (peer.raw and raw is None):
                run = partial(peer.load(sigma_data), raw if peer.raw else opaque, x, grid)
                found[name] = run if peer.same else partial(forget, run)
        return found

    def row(self, point: Point) -> dict[str, Any]:
        """Times a network call of every contender, and the memory of headstart's."""
        with threads(point.threads), torch.no_grad():
            case = self.contest(point)
            memory = high_water(case.contenders[OURS], self.device)
            erring = self.erring(case)
            sound = case.only(name for name in case.contenders if name not in erring)
            measured = paired(sound, self.device.type, self.seconds, most=50, verified=True)
        return {**asdict(point), "memory": memory, "erring": erring, **measured}

    def erring(self, case: Contest) -> dict[str, str]:
        """Why each contender beside headstart that fails, or whose result is another, does; it takes no part."""
        expected, found = case.contenders[OURS](), {}
        for name, run in case.contenders.items():
            try:
                verify(Contest(name, 0, {OURS: lambda: expected, name: run}, case.tolerance))
            except Exception as error:
                if name == OURS or exhausted(error):
                    raise
                found[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return found

    def run(self, chosen: Sequence[Point], limit: float | None = None) -> bool:
        """Every point that is missing; False where `limit` seconds were over first. A batch that does not fit into
        memory is kept as a row that says so, and ends the larger ones."""
        began, full = time.perf_counter(), 0
        left = [point for point in chosen if not self.result.has(point.key)]
        self.result.found["absent"] = absent()
        with track("speed", len(left), True) as advance:
            for point in left:
                if limit is not None and time.perf_counter() - began > limit:
                    return False
                if not full or point.batch * point.side**2 < full:
                    try:
                        row = self.row(point)
                    except (RuntimeError, MemoryError) as error:
                        if not exhausted(error):
                            raise
                        reason = (str(error) or "out of memory").splitlines()[0]
                        full, row = point.batch * point.side**2, {**asdict(point), "failed": reason}
                    self.result.add(point.key, row)
                advance(f"speed: {point.key} done")
        return True


def exhausted(error: Exception) -> bool:
    """Whether there was not enough memory, as torch says it of a GPU or of the machine."""
    kinds = (torch.OutOfMemoryError, MemoryError)
    return isinstance(error, kinds) or "can't allocate memory" in str(error)


def forget(run: Callable[[], object]) -> None:
    """A run whose result is another method's, and not compared."""
    run()


def shares(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Of every contender of a row: samples a second, seconds a batch, interquartile range of these, time over
    headstart's, and of headstart the share that is the sampler's own."""
    times = {result["contender"]: result for result in row.get("results", [])}
    for name, found in times.items():
        if name in ("copy", NULL):
            continue
        seconds = found["time_median"] * row["units"]
        entry = {"contender": name, "seconds": seconds, "spread": found["time_spread"] * row["units"],
                 "samples_a_second": row["batch"] / seconds, "ratio": found["ratio_median"]}  # fmt: skip
        if name == OURS and NULL in times:
            entry["own"] = times[NULL]["time_median"] / found["time_median"]
        yield entry
