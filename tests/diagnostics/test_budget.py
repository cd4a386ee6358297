"""The error budget against Gaussians, where every part has a closed form, and against its own inequality."""

from __future__ import annotations

import math
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

import headstart as hs
from headstart import ops

GRID = hs.log_uniform(2.0, 0.2, 8)[:-1]


def gaussian(variance: float, mean: float = 0.0, d: int = 3) -> hs.GaussianMixture:
    components = ops.Components(torch.full((1, d), mean).double(), torch.full((1, 1), variance).double(), None, None)
    return hs.GaussianMixture(components, torch.ones(1), (d,))


def divergence(p: float, q: float, gap: float, d: int = 3) -> float:
    """KL between normals of variances p and q whose means are `gap` apart in each coordinate."""
    return 0.5 * d * ((p + gap**2) / q - 1 + math.log(q / p))


def test_parts_of_a_gaussian_are_the_closed_forms() -> None:
    v, off, d = 1.5, 0.1, 3
    law, start = gaussian(v), gaussian(1.0, 0.3).at(2.0)

    def shifted(x: Tensor, sigma: Tensor) -> Tensor:
        return law.denoise(x, sigma) + off

    found = hs.error_budget(law, start, shifted, GRID, n=4000, paths=16)
    levels = GRID.tolist()
    assert found.initialization.nats == pytest.approx(divergence(v + 4, 5.0, 0.3), abs=4 * found.initialization.error)
    assert found.score.nats == pytest.approx(d * off**2 * (0.5 / levels[-1] ** 2 - 0.5 / levels[0] ** 2), rel=1e-9)
    expected = 0.0
    for t, s in pairwise(levels):
        # int_s^t (mmse(t) - mmse(r)) / r^3 dr with mmse(r) = v r^2 / (v + r^2)
        mmse = v * t**2 / (v + t**2)
        inner = 0.5 * math.log((t**2 / (v + t**2)) / (s**2 / (v + s**2)))
        expected += d * (mmse * 0.5 * (s**-2 - t**-2) - inner)
    assert found.discretization.nats == pytest.approx(expected, abs=4 * found.discretization.error + 1e-3 * expected)
    assert found.discretization.error < 0.1 * expected


def test_measured_kl_of_a_gaussian_is_the_closed_form() -> None:
    v, off = 1.5, 0.1
    law, start = gaussian(v), gaussian(1.0, 0.3).at(2.0)

    def shifted(x: Tensor, sigma: Tensor) -> Tensor:
        return law.denoise(x, sigma) + off

    mean, variance = 0.3, 5.0  # of the sampler's law, carried down the rows
    for row in hs.DDPM().rows(GRID.tolist()):
        shrink = v / (v + row.sigma**2)
        gain = row.a + row.b[0] * shrink
        mean, variance = gain * mean + row.b[0] * off, gain**2 * variance + row.c**2
    low = float(GRID[-1])
    exact = divergence(v + low**2, variance, mean)
    found = hs.error_budget(law, start, shifted, GRID, n=4000, paths=64)
    assert found.measured.nats == pytest.approx(exact, abs=4 * found.measured.error + 0.02 * exact)
    assert found.measured.error < 0.1 * exact
    assert found.measured.nats < found.bound


@pytest.mark.parametrize("steps", [2, 5, 20])
def test_measured_kl_obeys_the_bound_on_a_mixture(steps: int) -> None:
    components = ops.Components(
        torch.tensor([[-1.0, 0], [1.5, 1]]).double(), torch.full((2, 1), 0.1).double(), None, None
    )
    law = hs.GaussianMixture(components, torch.tensor([0.3, 0.7]), (2,))
    start = hs.fit(law.at(0).sample(2000, seed=4), components=1).at(1.5)
    grid = hs.log_uniform(1.5, 0.2, steps + 1)
    found = hs.error_budget(law, start, law.denoise, grid, hs.Ancestral(eta=1.0), n=1000, paths=32)
    assert found.score.nats == 0
    assert len(found.score_steps) == len(found.sigma) - 1 == steps
    assert float(found.discretization_steps.sum()) == pytest.approx(found.discretization.nats)
    slack = 3 * (found.measured.error + found.initialization.error + found.discretization.error)
    assert -3 * found.measured.error < found.measured.nats < found.bound + slack


def test_the_plot_needs_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    law = gaussian(1.0)
    found = hs.error_budget(law, law.at(2.0), law.denoise, GRID, n=10, paths=1)
    pytest.importorskip("matplotlib")
    found.plot(tmp_path / "budget.png")
    assert (tmp_path / "budget.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"headstart\[plots\]"):
        found.plot(tmp_path / "none.png")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"solver": hs.DPMpp2M()}, "DDPM's steps"),
        ({"solver": hs.Heun()}, "DDPM's steps"),
        ({"grid": [3.0, 1.0]}, "begin at the start's sigma"),
        ({"n": 1}, "at least 2"),
    ],
)
def test_wrong_input_is_named(change: dict, message: str) -> None:
    law = gaussian(1.0)
    arguments = {"law": law, "start": law.at(2.0), "denoiser": law.denoise, "grid": GRID} | change
    with pytest.raises(ValueError, match=message):
        hs.error_budget(**arguments)
