"""iPNDM, DEIS and the analytical first step: the published formulas written out in slopes, against the rows."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

import headstart as hs
from conftest import GaussianLaw, MixtureLaw
from headstart.solver import Row, Solver, calls

GRIDS = [[80.0, 20.0, 7.0, 2.0, 0.5, 0.03, 0.0], [5.0, 4.0, 1.0, 0.3]]
SOLVERS = [*(hs.IPNDM(steps) for steps in (1, 2, 3, 4)), *(hs.DEIS(steps) for steps in (1, 2, 3))]
BASHFORTH = {1: [1.0], 2: [1.5, -0.5], 3: [23 / 12, -4 / 3, 5 / 12], 4: [55 / 24, -59 / 24, 37 / 24, -3 / 8]}


def polynomial_integral(nodes: list[float], values: list[Tensor], end: float) -> Tensor:
    """Of the polynomial through the values from the first node to `end`, by its coefficients."""
    at = torch.tensor(nodes, dtype=torch.float64) / nodes[0]  # scaled, so that the matrix is sound
    vandermonde = at[:, None] ** torch.arange(len(nodes), dtype=torch.float64)
    flat = torch.stack([value.flatten() for value in values])
    coefficients = torch.linalg.lstsq(vandermonde, flat).solution
    powers = torch.arange(1, len(nodes) + 1, dtype=torch.float64)[:, None]
    edge = end / nodes[0]
    return (nodes[0] * (coefficients * (edge**powers - 1) / powers).sum(0)).reshape(values[0].shape)


def by_slopes(law: MixtureLaw, x: Tensor, grid: list[float], solver: Solver, analytic: bool) -> Tensor:
    """The published loop: slopes `(x - D) / t` kept, newest first."""
    slopes: list[Tensor] = []
    levels: list[float] = []
    for i, (t, s) in enumerate(pairwise(grid)):
        slope = x / math.sqrt(1 + t**2) if analytic and i == 0 else (x - law(x, torch.tensor(t))) / t
        if isinstance(solver, hs.IPNDM):
            slopes = [slope, *slopes][: solver.steps]
            weights = BASHFORTH[len(slopes)]
            x = x + (s - t) * sum(w * d for w, d in zip(weights, slopes, strict=True))
        else:
            assert isinstance(solver, hs.DEIS)
            slopes, levels = [slope, *slopes][: solver.steps + 1], [t, *levels][: solver.steps + 1]
            x = x + polynomial_integral(levels, slopes, s)
    return x


@pytest.mark.parametrize("analytic", [False, True])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_rows_are_the_published_loop(
    solver: Solver, grid: list[float], analytic: bool, mixture_law: MixtureLaw
) -> None:
    x = grid[0] * torch.linspace(-2, 2, 7, dtype=torch.float64)[:, None]
    run = hs.AFS(solver) if analytic else solver
    got = hs.integrate(mixture_law, x, torch.tensor(grid, dtype=torch.float64), run)
    want = by_slopes(mixture_law, x, grid, solver, analytic)
    assert float((got - want).abs().max()) < 1e-9 * float(want.abs().max())


@pytest.mark.parametrize("solver", [hs.IPNDM(4), hs.DEIS(3), hs.AFS(hs.IPNDM(3)), hs.AFS(hs.DPMpp2M())])
def test_preconditioned_networks_give_the_same(solver: Solver) -> None:
    """Predictions enter unfolded there, each as a state and an output: more tensors than one pass takes."""
    law, seen = GaussianLaw(), []

    def network(x: Tensor, level: Tensor) -> Tensor:
        sigma = (4 * level).exp()
        seen.append(float(sigma))
        state = x * (0.25 + sigma**2).sqrt()
        skip, out = 0.25 / (0.25 + sigma**2), sigma * 0.5 / (0.25 + sigma**2).sqrt()
        return (law(state, sigma) - skip * state) / out

    x, grid = 80 * torch.randn(5, 2, generator=torch.Generator().manual_seed(0)).double(), hs.karras(80.0, 0.05, 6)
    plain, folded = (hs.integrate(one, x, grid, solver) for one in (law, hs.EDM(network)))
    assert torch.allclose(plain, folded, rtol=1e-5, atol=1e-6)
    assert len(seen) == 6 - isinstance(solver, hs.AFS)


@pytest.mark.parametrize("solver", [hs.AFS(hs.IPNDM(2)), hs.AFS(hs.DPMpp2M()), hs.AFS(hs.UniPC()), hs.AFS(hs.Heun())])
def test_the_analytical_first_step_saves_one_call(solver: hs.AFS, gaussian: GaussianLaw) -> None:
    grid = hs.log_uniform(80.0, 0.05, 5)
    calls_made: list[float] = []

    def counted(x: Tensor, sigma: Tensor) -> Tensor:
        calls_made.append(float(sigma))
        return gaussian(x, sigma)

    _, info = hs.sample(counted, hs.Classic((2,)), 3, solver=solver, grid=grid, return_info=True)
    whole = calls(solver.solver.rows(grid.tolist()))
    assert info.nfe == len(calls_made) == whole - 1
    assert 80.0 not in calls_made


def test_orders_on_equal_steps(gaussian: GaussianLaw) -> None:
    """In `t`, from a high level where the first steps cost nothing; iPNDM's weights are exact for equal steps only."""
    x = torch.tensor([[3.0, -4.0]], dtype=torch.float64)
    for solver, order in ((hs.IPNDM(2), 2), (hs.DEIS(1), 2), (hs.DEIS(2), 3)):
        errors = []
        for steps in (64, 128, 256):
            rows = solver.rows(torch.linspace(6, 2, steps + 1, dtype=torch.float64).tolist())
            grid = torch.linspace(6, 2, steps + 1, dtype=torch.float64)
            errors.append(float((hs.integrate(gaussian, x, grid, solver) - gaussian.flow(x, 6.0, 2.0)).norm()))
            assert calls(rows) == steps
        slope = -float(torch.tensor(errors, dtype=torch.float64).log2().diff().mean())
        assert slope > min(order, 2) - 0.3  # the first step is Euler's: its local error is of second order


def test_refusals() -> None:
    for bad in (0, 5, 2.0, True):
        with pytest.raises(ValueError, match="IPNDM: steps must be an integer from 1 to 4"):
            hs.IPNDM(bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="DEIS: steps must be an integer from 1 to 3"):
        hs.DEIS(4)
    for nothing in (2, hs.DEIS):
        with pytest.raises(TypeError, match="AFS: solver must be a solver"):
            hs.AFS(nothing)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"AFS: the first row of .* makes no call"):
        hs.AFS(hs.Heun(churn=hs.Churn(40.0))).rows([80.0, 1.0, 0.0])


def test_a_constant_is_kept() -> None:
    """Where `D = x = const` nothing may move: coefficients of states and predictions sum to 1."""
    for solver in SOLVERS:
        rows: list[Row] = solver.rows([80.0, 9.0, 2.0, 1.9, 0.3, 0.0])
        assert all(abs(row.a + sum(row.b) + sum(row.states) - 1) < 1e-12 for row in rows)
