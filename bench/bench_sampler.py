"""A sampler's own time: whole runs with a network that costs nothing, per network call, in copies of the state.

The network returns one of two tensors made before the clock starts, in turn, so that a multistep solver reads two
different predictions as it would of a real one. The copy that is the unit repeats on one pair of tensors, which a cache
may hold; a contender that copies on through eight states shows what a copy costs where none does.

Every sampler carries the same states down the same grid; before any is timed, all are run on a Gaussian with its exact
denoiser and compared.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any

import pytest
import torch
from torch import Tensor

import headstart as hs
from headstart.bench.measure import OURS, Contest
from headstart.bench.peers import PEERS, SIGMA_DATA, Network, absent, preconditioned
from headstart.solver import calls

SHAPE, STEPS, SIGMA_MAX, SIGMA_MIN = (64, 3, 64, 64), 18, 80.0, 0.002
SAMPLE, RING = "headstart.sample, start drawn", "copy, 8 states in turn"
MEAN, VARIANCE = 0.3, 0.16
SOLVERS: dict[str, Any] = {"Heun": hs.Heun, "DPMpp2M": hs.DPMpp2M, "Euler": hs.Euler}


def null(x: Tensor) -> Network:
    """A network that computes nothing: `D(x, sigma)` or `F(x, c_noise)` alike."""
    given = cycle([torch.randn_like(x) for _ in range(4)])  # more than any solver keeps
    return lambda state, level: next(given)


def gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    """The denoiser of `N(MEAN, VARIANCE)`, the same in every element."""
    levels = sigma.to(x).reshape(-1, *[1] * (x.dim() - 1))
    return MEAN + VARIANCE / (VARIANCE + levels**2) * (x - MEAN)


def gaussian_raw(scaled: Tensor, c_noise: Tensor) -> Tensor:
    """The raw network whose preconditioned denoiser is `gaussian`, computed in float64."""
    sigma = (4 * c_noise.double()).exp().reshape(-1, *[1] * (scaled.dim() - 1))
    total = sigma**2 + SIGMA_DATA**2
    x = scaled.double() * total.sqrt()
    output = (gaussian(x, sigma) - SIGMA_DATA**2 / total * x) / (sigma * SIGMA_DATA / total.sqrt())
    return output.to(scaled.dtype)


def copy_on(x: Tensor, times: int) -> Callable[[], None]:
    """Copies `x` to the next of eight states, from there to the next, and so on."""
    ring = [x.clone() for _ in range(8)]

    def run() -> None:
        for i in range(times):
            ring[(i + 1) % 8].copy_(ring[i % 8])

    return run


def states(shape: tuple[int, ...] = SHAPE, steps: int = STEPS, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Where every run begins, and the noise levels it goes down."""
    x = SIGMA_MAX * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return x.to(device), hs.karras(SIGMA_MAX, SIGMA_MIN, steps)


def sampler_case(
    solver: str, raw: bool = False, shape: tuple[int, ...] = SHAPE, steps: int = STEPS, device: str = "cpu",
    exact: bool = False,
) -> Contest:  # fmt: skip
    """Runs of one solver and of the peers it is set beside.

    Args:
        solver: of `SOLVERS`.
        raw: the network is preconditioned (EDM's), and its two passes over the state count as the sampler's; else it
            is an opaque denoiser.
        shape: of the states.
        exact: with the exact network instead of one that computes nothing.
    """
    method = SOLVERS[solver]()
    x, grid = states(shape, steps, device)
    network = (gaussian_raw if raw else gaussian) if exact else null(x)
    ours: Any = hs.EDM(network, SIGMA_DATA) if raw else network
    start = hs.Classic(shape[1:], SIGMA_MAX, device=device)

    def drawn() -> None:
        hs.sample(ours, start, shape[0], grid=grid, solver=method)

    units = calls(method.rows(grid.tolist()))
    contenders: dict[str, Callable[[], Any]] = {
        OURS: lambda: hs.integrate(ours, x, grid, method),
        SAMPLE: drawn,
        RING: copy_on(x, units),
    }
    missing = absent()
    for name, peer in PEERS.items():
        if peer.solver == solver and name not in missing and (raw or not peer.raw):
            theirs = preconditioned(network) if raw and not peer.raw else network
            run = partial(peer.load(SIGMA_DATA), theirs, x, grid)
            contenders[name] = run if peer.same or not exact else partial(ignored, run)
    what = "preconditioned network" if raw else "opaque denoiser"
    name = f"sampler {solver} {what} {' x '.join(map(str, shape))} float32 {device}"
    small = partial(sampler_case, solver, raw, (4, 3, 8, 8), steps, device, exact=True)
    size, sample = 2 * x.numel() * x.element_size(), None if exact else small
    return Contest(name, size, contenders, 2e-5, sample=sample, units=units)


def ignored(run: Callable[[], Any]) -> None:
    """A run whose result is another method's."""
    run()


def all_cases(shape: tuple[int, ...] = SHAPE, device: str = "cpu") -> list[Callable[[], Contest]]:
    """Every solver with both kinds of network."""
    return [partial(sampler_case, solver, raw, shape, device=device) for solver in SOLVERS for raw in (False, True)]


BESIDE = [(peer.solver, raw, name) for name, peer in PEERS.items() for raw in (False, True) if raw or not peer.raw]
ROWS = [(solver, raw, name) for solver in SOLVERS for raw in (False, True) for name in (OURS, SAMPLE, RING)] + BESIDE


@pytest.mark.parametrize(("solver", "raw", "contender"), ROWS)
def bench_sampler(measured: Any, device: str, solver: str, raw: bool, contender: str) -> None:
    if contender in (missing := absent()):
        pytest.skip(missing[contender])
    measured(lambda: sampler_case(solver, raw, device=device), contender)
