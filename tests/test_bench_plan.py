"""The evaluation of plans: its exact integrals, its gate, its speedups."""

from __future__ import annotations

import math

import pytest
import torch

import headstart as hs
from conftest import GaussianLaw

method = pytest.importorskip("bench.plans.method", reason="the benchmarks are not beside the tests")
report = pytest.importorskip("bench.plans.report")


@pytest.mark.parametrize("power", [0, 1, 2])
def test_polynomials_in_lambda_are_integrated_exactly(power: int) -> None:
    t, s, levels = 1.3, 0.4, (1.3, 2.0, 5.0)
    known = [(-math.log(level), torch.tensor((-math.log(level)) ** power, dtype=torch.float64)) for level in levels]
    got = float(method.exponential(torch.tensor(0.0, dtype=torch.float64), t, s, known))
    points = torch.linspace(-math.log(t), -math.log(s), 100_001, dtype=torch.float64)
    fine = float(torch.trapezoid((points + math.log(s)).exp() * points**power, points))
    assert got == pytest.approx(fine, rel=1e-7)


def test_the_corrector_raises_the_order(gaussian: GaussianLaw) -> None:
    """Errors against the exact flow fall about eightfold when steps are halved."""
    x = torch.tensor([[3.0, -2.0]], dtype=torch.float64) * 10
    errors = []
    for steps in (20, 40):
        levels = hs.log_uniform(10.0, 0.5, steps).tolist()[:-1]
        errors.append(float((method.UniPC().run(gaussian, x, levels) - gaussian.flow(x, 10.0, 0.5)).norm()))
    assert math.log2(errors[0] / errors[1]) > 2.0


def rows(name: str, values: dict[int, float], likelihood: float = 0.0) -> list[dict]:
    law = {"likelihood": likelihood, "mode_tv": 0.1, "swd": 0.1, "minor": 0.0}
    return [{"method": name, "grid": "", "seed": 0, "nfe": n, "rmse": v, "median": v, **law} for n, v in values.items()]


def test_speedup_is_in_calls_at_equal_error() -> None:
    found = rows("2M from 80", {3: 1.0, 5: 0.1, 7: 0.2, 9: 0.01}) + rows("planned from 80", {3: 0.1, 5: 0.001})
    gains = report.speedups(found, "planned from 80", "rmse")
    assert gains == {3: pytest.approx(5 / 3), 5: None}


def test_a_gate_must_be_held() -> None:
    floor = {0: {name: (0.1 if name in ("mode_tv", "swd") else 0.0, 0.01) for name in report.LAWS}}
    fine = rows("fine solution", {0: 0.0})
    good, bad = rows("2M from 80", {3: 1.0, 6: 1.0, 7: 1.0, 9: 1.0, 13: 1.0}), rows("2M from 80", {5: 1.0}, -1.0)
    assert report.first_passing(fine + good, floor, "2M from 80") == "3"
    assert report.first_passing(fine + good + bad, floor, "2M from 80") == "6"
    assert report.first_passing(fine + bad, floor, "2M from 80") == "> 13"
