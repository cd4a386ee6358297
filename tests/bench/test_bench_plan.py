"""The evaluation of plans: its gate, its speedups."""

from __future__ import annotations

import pytest

report = pytest.importorskip("bench.plans.report", reason="the benchmarks are not beside the tests")


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
