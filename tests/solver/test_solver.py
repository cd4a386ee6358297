"""Solvers: measured orders, exact marginals, the published special cases, edges of the grid."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

import headstart as hs
from conftest import GaussianLaw, MixtureLaw
from headstart.solver import Row, Solver, calls
from headstart.solver.unipc import exponential

ODE = [hs.Euler(), hs.Ancestral(0.0), hs.Heun(), hs.DPMpp2M(), hs.DPMppSDE2M(0.0), hs.DPMppSDE3M(0.0), hs.DPMpp3M()]
ODE += [hs.UniPC(), hs.UniPC(bh2=True)]
ODE_ORDERS = [1, 1, 2, 2, 2, 2, 3, 3, 3]
SDE = [hs.Ancestral(1.0), hs.Ancestral(0.5), hs.DDPM(), hs.EulerMaruyama(), hs.DPMppSDE2M(1.0), hs.DPMppSDE3M(1.0)]
EVERY = [*ODE, *SDE, hs.Heun(churn=hs.Churn(5.0))]


def levels(first: float, last: float, steps: int) -> list[float]:
    return torch.linspace(math.log(first), math.log(last), steps + 1, dtype=torch.float64).exp().tolist()


def fitted_order(errors: list[float]) -> float:
    """Slope of log2 error over halvings of the step."""
    logs = torch.tensor(errors, dtype=torch.float64).log2()
    return -float(logs.diff().mean())


@pytest.mark.parametrize("law", ["gaussian", "mixture"])
@pytest.mark.parametrize(("solver", "order"), list(zip(ODE, ODE_ORDERS, strict=True)))
def test_order_on_the_ode(solver: Solver, order: int, law: str) -> None:
    """From sigma = 400, where predictions hardly move, so that a multistep solver's first steps cost it nothing."""
    if law == "gaussian":
        denoiser, x = GaussianLaw(), torch.tensor([[300.0, -200.0], [50.0, 700.0]], dtype=torch.float64)
        exact = denoiser.flow(x, 400.0, 0.3)
    else:
        denoiser, x = MixtureLaw(), 400 * torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
        exact = hs.integrate(denoiser, x, torch.tensor(levels(400.0, 0.3, 4096)), hs.Heun())
    errors = []
    for steps in (64, 128, 256, 512) if order < 3 else (32, 64, 128):
        x_end = hs.integrate(denoiser, x, torch.tensor(levels(400.0, 0.3, steps), dtype=torch.float64), solver)
        errors.append(float((x_end - exact).abs().max()))
    assert fitted_order(errors) > order - 0.3
    if order < 3:
        assert fitted_order(errors) < order + 0.3
    assert solver.order == order


def moments(rows: list[Row], law: GaussianLaw, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance after the rows, exactly: every row is linear in the state, the past predictions and the noise.

    Each quantity is `(constant, coefficients of the independent normals)`, one normal a draw.
    """
    draws = len(rows) + 1

    def quantity(constant: torch.Tensor, which: int, scale: torch.Tensor | float) -> tuple[torch.Tensor, torch.Tensor]:
        coefficients = torch.zeros(draws, 2, dtype=torch.float64)
        coefficients[which] = torch.as_tensor(scale, dtype=torch.float64)
        return constant, coefficients

    x = quantity(law.mean, 0, (law.variance + sigma**2).sqrt())
    history: list[tuple[torch.Tensor, torch.Tensor]] = []
    for i, row in enumerate(rows):
        if row.sigma is not None:
            shrink = law.variance / (law.variance + row.sigma**2)
            history.insert(0, (law.mean + shrink * (x[0] - law.mean), shrink * x[1]))
        fresh = quantity(torch.zeros(2, dtype=torch.float64), i + 1, row.c)
        parts = [(row.a, x), *zip(row.b, history, strict=False), (1.0, fresh)]
        x = (sum(c * part[0] for c, part in parts), sum(c * part[1] for c, part in parts))
    return x[0], x[1].square().sum(dim=0)


@pytest.mark.parametrize("solver", SDE)
def test_weak_order_of_stochastic_solvers(solver: Solver, gaussian: GaussianLaw) -> None:
    errors = []
    for steps in (64, 128, 256, 512):
        grid = levels(20.0, 0.3, steps)
        mean, variance = moments(solver.rows(grid), gaussian, 20.0)
        exact = gaussian.variance + 0.3**2
        errors.append(float((variance - exact).abs().max() + (mean - gaussian.mean).abs().max()))
    assert abs(fitted_order(errors) - solver.order) < 0.3


@pytest.mark.parametrize("solver", SDE)
def test_stochastic_solvers_reach_the_mixture(solver: Solver, mixture_law: MixtureLaw) -> None:
    """Moments of 20,000 samples at a fine grid, within Monte-Carlo error and the solver's own first-order error."""
    start = hs.Classic((1,), 40.0)
    grid = torch.tensor([*levels(40.0, 0.01, 250), 0.0], dtype=torch.float64)
    x = hs.sample(mixture_law, start, 20_000, grid=grid, solver=solver, seed=1, dtype=torch.float64)
    exact_mean = (mixture_law.weight * mixture_law.mean).sum()
    second = (mixture_law.weight * (mixture_law.variance + mixture_law.mean**2)).sum()
    assert abs(x.mean() - exact_mean) < 0.06
    assert abs(x.square().mean() - second) < 0.15


@pytest.mark.parametrize("solver", EVERY)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_grids(solver: Solver, steps: int, gaussian: GaussianLaw) -> None:
    x, info = hs.sample(gaussian, hs.Classic((2,), 3.0), 5, steps, solver, return_info=True, dtype=torch.float64)
    assert x.isfinite().all()
    assert info.nfe == (2 * steps - 1 if isinstance(solver, hs.Heun) else steps)
    if steps == 1 and not (isinstance(solver, hs.Heun) and solver.churn):
        states = hs.Classic((2,), 3.0).sample(5).double()
        assert torch.allclose(x, gaussian(states, torch.tensor(3.0)))


@pytest.mark.parametrize("solver", EVERY)
def test_rows_keep_a_constant(solver: Solver) -> None:
    """Where `D = x = const` nothing may move: coefficients of state and predictions sum to 1."""
    rows = solver.rows([80.0, 9.0, 2.0, 1.9, 0.3, 0.0])
    assert all(abs(row.a + sum(row.b) - 1) < 1e-12 for row in rows)
    assert rows[-1].c == 0
    assert calls(rows) in (5, 9)


def test_special_cases_agree() -> None:
    grid = levels(10.0, 0.1, 7)

    def close(one: list[Row], two: list[Row]) -> bool:
        flat = [
            [(row.a, *row.b, row.c) for row in rows] for rows in (one, two)
        ]  # fmt: skip
        return all(
            math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-12)
            for first, second in zip(*flat, strict=True)
            for a, b in zip(first, second, strict=True)
        )

    assert close(hs.Ancestral(0.0).rows(grid), hs.Euler().rows(grid))
    assert close(hs.Ancestral(1.0).rows(grid), hs.DDPM().rows(grid))
    assert close(hs.DPMppSDE2M(0.0).rows(grid), hs.DPMpp2M().rows(grid))
    assert close(hs.Heun(churn=hs.Churn(0.0)).rows(grid), hs.Heun().rows(grid))


def test_heun_is_the_trapezoidal_rule() -> None:
    """Algorithm 1 of EDM written out, against the rows."""
    law = GaussianLaw()
    grid = [5.0, 2.0, 0.7, 0.0]
    x = torch.tensor([[3.0, -4.0]], dtype=torch.float64)
    want = x
    for t, s in pairwise(grid):
        slope = (want - law(want, torch.tensor(t))) / t
        trial = want + (s - t) * slope
        if s > 0:
            slope = (slope + (trial - law(trial, torch.tensor(s))) / s) / 2
        want = want + (s - t) * slope
    assert torch.allclose(hs.integrate(law, x, torch.tensor(grid), hs.Heun()), want, atol=1e-6)


@pytest.mark.parametrize("make", [hs.karras, hs.log_uniform])
def test_grids(make) -> None:
    grid = make(80.0, 0.002, 40)
    assert grid.dtype == torch.float64
    assert grid.shape == (41,)
    assert grid[0] == 80.0
    assert math.isclose(grid[-2], 0.002, rel_tol=1e-9)
    assert grid[-1] == 0
    assert (grid.diff() < 0).all()
    assert make(3.0, 0.1, 1).tolist() == [3.0, 0.0]
    for bad in ((0.1, 3.0, 5), (3.0, 0.0, 5), (3.0, 0.1, 0), (math.nan, 0.1, 5)):
        with pytest.raises(ValueError, match=make.__name__):
            make(*bad)


def test_large_rho_is_log_uniform() -> None:
    assert torch.allclose(hs.karras(80.0, 0.02, 20, rho=1e6), hs.log_uniform(80.0, 0.02, 20), rtol=1e-4)
    assert torch.allclose(hs.karras(8.0, 2.0, 4, rho=1.0), torch.tensor([8.0, 6.0, 4.0, 2.0, 0.0]).double())


def test_bad_solvers_and_grids() -> None:
    with pytest.raises(ValueError, match="eta must be in"):
        hs.Ancestral(1.5)
    for grid in ([1.0], [1.0, 2.0], [1.0, 1.0, 0.0], [1.0, -0.5]):
        with pytest.raises(ValueError, match="grid: levels must descend"):
            hs.Euler().rows(grid)


@pytest.mark.parametrize("power", [0, 1, 2])
def test_polynomials_in_lambda_are_integrated_exactly(power: int) -> None:
    """UniPC's weights, whose nodes lie on both sides of the step's end and above its beginning."""
    t, s, levels = 1.3, 0.4, (0.4, 1.3, 5.0)
    got = sum(w * (-math.log(x)) ** power for w, x in zip(exponential(t, s, levels), levels, strict=True))
    points = torch.linspace(-math.log(t), -math.log(s), 100_001, dtype=torch.float64)
    fine = float(torch.trapezoid((points + math.log(s)).exp() * points**power, points))
    assert got == pytest.approx(fine, rel=1e-7)


def test_unipc_calls_the_network_once_a_step(gaussian: GaussianLaw) -> None:
    """And its correction uses that call: the error is far below that of its predictor, which is 2M's."""
    x, grid = 400 * torch.ones(1, 2, dtype=torch.float64), torch.tensor(levels(400.0, 0.3, 64), dtype=torch.float64)
    assert calls(hs.UniPC().rows(grid.tolist())) == 64
    exact = gaussian.flow(x, 400.0, 0.3)
    unipc, plain = (hs.integrate(gaussian, x, grid, solver) - exact for solver in (hs.UniPC(), hs.DPMpp2M()))
    assert float(unipc.norm()) < 0.5 * float(plain.norm())


@pytest.mark.parametrize("rho", [1e-320, 1e-3, 1e18, math.inf, math.nan])
def test_a_warp_that_leaves_no_levels_is_refused(rho: float) -> None:
    with pytest.raises(ValueError, match="karras: rho must"):
        hs.karras(80.0, 0.02, 4, rho)


@pytest.mark.parametrize(
    "change", [{"noise": math.inf}, {"noise": math.nan}, {"sigma_min": math.nan}, {"sigma_min": 2.0, "sigma_max": 1.0}]
)
def test_churn_that_is_none_is_refused(change: dict) -> None:
    with pytest.raises(ValueError, match=r"Churn: (amount and noise|sigma_min) must be"):
        hs.Churn(**{"amount": 1.0, **change})
