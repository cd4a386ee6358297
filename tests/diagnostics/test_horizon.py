"""The initialization error and the horizon, against laws whose KL is known by Monte Carlo."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import Tensor

import headstart as hs
from conftest import random_components
from headstart import ops
from headstart.diagnostics.tails import find_p_values

SIGMA_T = 0.9


def law(kind: str, d: int, seed: int = 0, shift: float = 0.0) -> hs.GaussianMixture:
    components = random_components(kind, 4, d, seed)
    weight = torch.tensor([0.1, 0.2, 0.3, 0.4]).double()
    return hs.GaussianMixture(components._replace(mean=components.mean + shift), weight, (d,))


def monte_carlo(p: hs.GaussianMixture, start: hs.MixtureStart | hs.Classic, n: int = 100_000) -> tuple[float, float]:
    x = p.at(start.sigma).sample(n, seed=77)
    ratio = p.log_prob(x, start.sigma) - start.log_prob(x)
    return float(ratio.mean()), float(ratio.std()) / math.sqrt(n)


PAIRS = {
    "one mean off": (law("diagonal", 2), law("diagonal", 2, shift=0.4)),
    "one Gaussian": (law("rank3", 7), None),
    "other spreads": (law("diagonal", 40), law("isotropic", 40)),
    "no learning": (law("diagonal", 5), hs.Classic((5,), SIGMA_T)),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("exact", [False, True])
def test_kl_matches_monte_carlo(name: str, exact: bool) -> None:
    p, q = PAIRS[name]
    if q is None:
        q = hs.fit(p.at(0).sample(2000, seed=9), components=1, covariance=hs.Full())
    start = q if isinstance(q, hs.Classic) else q.at(SIGMA_T)
    expected, doubt = monte_carlo(p, start)
    found = hs.initialization_kl(start, p.denoise, p.at(0).sample(4000, seed=5), batch=4000, exact=exact)
    assert expected > 0.05
    assert abs(found.kl - expected) < 0.1 * expected + 3 * doubt
    assert abs(found.kl - expected) < 0.02 * expected + 4 * math.hypot(found.standard_error, doubt)
    assert found.warning is None
    assert abs(found.remainder) < 0.01 * found.kl


def test_standard_error_covers_the_spread() -> None:
    p, q = PAIRS["one mean off"]
    found = [hs.initialization_kl(q.at(1.0), p.denoise, p.at(0).sample(400, seed=s), seed=s, batch=400)
             for s in range(20)]  # fmt: skip
    spread = float(torch.tensor([one.kl for one in found]).std())
    claimed = sum(one.standard_error for one in found) / len(found)
    assert 0.6 < spread / claimed < 1.6


def test_equal_laws_are_at_zero_and_a_bad_network_is_named() -> None:
    p = law("diagonal", 5)
    heldout = p.at(0).sample(2000, seed=3)
    same = hs.initialization_kl(p.at(SIGMA_T), p.denoise, heldout)
    assert same.kl == 0
    assert same.warning is None

    def noisy(x: Tensor, sigma: Tensor) -> Tensor:
        return p.denoise(x, sigma) + (0.5 if sigma > 3 else 0.0)

    bad = hs.initialization_kl(p.at(SIGMA_T), noisy, heldout)
    assert bad.kl < 0
    assert bad.warning is not None
    low = float(bad.warning.split("sigma ")[1].split()[0])
    assert 3 < low < 3.7


def test_labels_reach_both_denoisers() -> None:
    p = law("diagonal", 3)
    weight = torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]).double()
    p = hs.GaussianMixture(p.components, p.weight, (3,), weight)
    label = torch.arange(501) % 2
    x = p.at(0).sample(501, seed=1, labels=label)

    def network(x: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
        return p.denoise(x, sigma, label)

    assert hs.initialization_kl(p.at(1), network, x, batch=100, cond={"label": label}).kl == 0


def test_horizon_is_where_the_kl_falls_below_the_threshold() -> None:
    p, q = PAIRS["one mean off"]
    heldout = p.at(0).sample(4000, seed=5)
    found = hs.horizon(q, p.denoise, heldout, 0.3, 10.0, threshold=0.02, levels=40, batch=4000, exact=True)
    exact, _ = monte_carlo(p, q.at(found.sigma))
    assert exact == pytest.approx(0.02, rel=0.25)
    assert exact <= 0.0205
    assert "stays above" not in str(found.warning)
    assert bool((found.kl.diff() <= 0).all())
    same = hs.initialization_kl(q.at(found.sigma), p.denoise, heldout, batch=4000, exact=True)
    assert found.initialization.kl == pytest.approx(same.kl, rel=0.05)
    missed = hs.horizon(q, p.denoise, heldout, 0.3, 1.0, threshold=1e-3, levels=40, batch=4000)
    assert missed.sigma == pytest.approx(1.0, rel=0.2)
    assert "stays above" in str(missed.warning)


def student(n: int, d: int, seed: int, df: int = 3) -> Tensor:
    z = ops.normal((n, d + df), seed, dtype=torch.float64)
    return z[:, :d] / (z[:, d:].square().sum(1, keepdim=True)).sqrt()


def test_tail_check_sees_light_tails_where_the_kl_is_small() -> None:
    d, sigma = 10, 1.0
    data = student(22_000, d, 0)
    gaussian = hs.GaussianMixture.fit(data[2000:], components=1, covariance=hs.Full())
    light = hs.tail_check(gaussian.at(sigma), data[:2000])
    assert not light.passed
    assert light.observed > 2 * light.expected
    near = hs.tail_check(hs.Empirical(data[2000:]).at(sigma), data[:2000])
    assert near.passed
    assert "2000 held-out points" in near.tested


def test_tail_check_rejects_the_truth_as_rarely_as_it_says() -> None:
    p = law("diagonal", 3)
    found = [hs.tail_check(p.at(0.5), p.at(0).sample(200, seed=s + 100), n=2000, seed=s) for s in range(40)]
    assert sum(one.p_value < 0.2 for one in found) <= 16  # 8 expected at most
    assert all(one.passed for one in found)


def test_hypergeometric_p_values() -> None:
    from scipy.stats import hypergeom

    table = find_p_values(1000, 80, 25)
    for k in (0, 2, 5, 12):
        expected = 2 * min(hypergeom.cdf(k, 1000, 80, 25), hypergeom.sf(k - 1, 1000, 80, 25))
        assert float(table[k]) == pytest.approx(min(1, expected), rel=1e-9)


def test_dip_horizon_of_two_points() -> None:
    """`(1/2) N(-a, s^2) + (1/2) N(a, s^2)` is unimodal exactly when `s >= a`."""
    pytest.importorskip("diptest")
    side = torch.where(ops.uniform(8000, 1) > 0.5, 1.0, -1.0).double()[:, None]
    found = hs.dip_horizon(2 * side + 0.3 * ops.normal((8000, 1), 2, dtype=torch.float64), 0.0, 20.0, projections=8)
    assert 1.0 < found.sigma < 2.2  # the test cannot see a shallow dip
    assert found.rejected <= 0.25
    assert found.rejected_clean == 1
    unimodal = hs.dip_horizon(ops.normal((2000, 50), 3), 0.0, 20.0, projections=8, level=0.001)
    assert unimodal.sigma == 0


def test_dip_horizon_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diptest", None)
    with pytest.raises(ImportError, match=r"headstart\[horizon\]"):
        hs.dip_horizon(torch.rand(100, 2), 0.0, 1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, x: hs.initialization_kl(p.at(0), p.denoise, x), "sigma must be"),
        (lambda p, x: hs.initialization_kl(p.at(1), p.denoise, x[:, :1]), "heldout must be"),
        (lambda p, x: hs.initialization_kl(p.at(1), p.denoise, x, far=1.5), "far at least 2"),
        (lambda p, x: hs.initialization_kl(hs.Empirical(x).at(1), p.denoise, x), "EmpiricalStart"),
        (lambda p, x: hs.initialization_kl(p.at(1), lambda x, sigma: x / 0, x), "finite"),
        (lambda p, x: hs.horizon(p, p.denoise, x, 2, 1), "low < high"),
        (lambda p, x: hs.tail_check(p.at(1), x[:10]), "N >= 100"),
        (lambda p, x: hs.dip_horizon(x, 2, 1), "low < high"),
    ],
)
def test_wrong_input_is_named(call: object, message: str) -> None:
    p = law("diagonal", 2)
    with pytest.raises((ValueError, TypeError), match=message):
        call(p, p.at(0).sample(120))  # type: ignore[operator]
