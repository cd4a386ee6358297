"""The grid of a dynamic programme on a network's own trajectories."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
import torch
from torch import Tensor

import headstart as hs
from conftest import MixtureLaw
from headstart.planning.trajectory import FINE, WEIGHT, best_path, costs


def test_the_path_is_the_cheapest_of_all() -> None:
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(8, 8, generator=generator, dtype=torch.float64).triu(1)
    cost[cost == 0] = torch.inf
    for steps in (1, 2, 3, 5, 7):
        every = [(0, *inner, 7) for inner in combinations(range(1, 7), steps - 1)]

        def price(path: tuple[int, ...]) -> float:
            *early, last = [float(cost[i, j]) for i, j in pairwise(path)]
            return WEIGHT * sum(early) + last

        assert price(tuple(best_path(cost, steps))) == pytest.approx(min(map(price, every)), rel=1e-12)


def test_costs_are_misses_of_one_euler_step() -> None:
    levels = [4.0, 2.0, 1.0]
    states = [torch.tensor([[8.0]]), torch.tensor([[5.0]]), torch.tensor([[2.0]])]
    cost = costs(states, levels)
    assert float(cost[0, 1]) == float(cost[1, 2]) == 0.0  # neighbours are Euler steps apart
    assert float(cost[0, 2]) == pytest.approx(abs(2.0 - (8.0 - 3 * 1.5)))
    assert cost[1, 0] == torch.inf


def test_it_beats_the_uniform_grid_in_log_sigma(mixture_law: MixtureLaw) -> None:
    """Euler's error to the fine solution, from the same latents, on a law of two modes."""
    start = hs.Classic((1,), 20.0, dtype=torch.float64)
    seen = 0

    def counted(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal seen
        seen += len(x)
        return mixture_law(x, sigma)

    grid = hs.gits(counted, start, 6, n=64)
    assert seen == (FINE - 1) * 64
    assert grid.shape == (7,)
    assert grid[0] == 20.0
    assert grid[-2] == pytest.approx(0.02)
    assert grid[-1] == 0
    assert bool((grid.diff() < 0).all())
    x = start.sample(500, seed=1)
    fine = hs.integrate(mixture_law, x, hs.log_uniform(20.0, 0.005, 400), hs.Heun())

    def error(levels: Tensor) -> float:
        return float((hs.integrate(mixture_law, x, levels, hs.Euler()) - fine).abs().mean())

    assert error(grid) < 0.9 * error(hs.log_uniform(20.0, 0.02, 6))
    assert torch.equal(grid, hs.gits(mixture_law, start, 6, n=64))


def test_refusals_come_before_any_call() -> None:
    def never(x: Tensor, sigma: Tensor) -> Tensor:
        raise AssertionError("the network was called")

    start = hs.Classic((1,), 20.0)
    for nfe in (0, FINE + 1, 2.0, True):
        with pytest.raises(ValueError, match="gits: nfe must be an integer from 1 to"):
            hs.gits(never, start, nfe)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="gits: n must be"):
        hs.gits(never, start, 4, n=0)
    with pytest.raises(ValueError, match="gits: sigma_min must be"):
        hs.gits(never, start, 4, sigma_min=20.0)
    with pytest.raises(TypeError, match="gits: denoiser must be"):
        hs.gits(None, start, 4)
    with pytest.raises(TypeError, match="gits: start must be"):
        hs.gits(never, hs.Classic, 4)  # type: ignore[arg-type]
    assert hs.gits(never, start, 1).tolist() == [20.0, 0.0]
