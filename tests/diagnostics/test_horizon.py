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
    assert bad.kl == 0  # equal laws: what the network loses above 3 is not the start's
    assert bad.warning is not None
    low = float(bad.warning.split("sigma ")[1].split()[0])
    assert 3 < low < 3.7
    assert bad.crossing is not None
    assert 2.5 < bad.crossing < 3


@pytest.mark.parametrize("name", ["one mean off", "other spreads"])
def test_a_network_that_is_worse_at_high_noise_hides_nothing(name: str) -> None:
    """The part below the crossing is what the exact denoiser finds there, however bad the network is above."""
    p, q = PAIRS[name]
    heldout = p.at(0).sample(4000, seed=5)

    def network(x: Tensor, sigma: Tensor) -> Tensor:
        return p.denoise(x, sigma) + (3.0 if sigma > 6 else 0.0)

    exact = hs.horizon(q, p.denoise, heldout, 0.3, 10.0, threshold=0.02, levels=40, batch=4000)
    found = hs.horizon(q, network, heldout, 0.3, 10.0, threshold=0.02, levels=40, batch=4000)
    assert exact.crossing is None
    assert found.crossing is not None
    assert 3 < found.crossing < 6
    assert found.initialization.crossing == found.crossing
    assert f"crossing at sigma {found.crossing:.3g}" in str(found.warning)
    below = found.levels < found.crossing
    beyond = float(exact.kl[int(below.sum())])
    torch.testing.assert_close(found.kl[below], exact.kl[below] - beyond, rtol=1e-6, atol=1e-9)
    assert bool((found.kl[~below] == 0).all())
    assert found.sigma <= found.crossing
    assert found.sigma > 0.3


def test_a_network_that_is_worse_everywhere_is_named() -> None:
    p = law("diagonal", 2)
    found = hs.horizon(p, lambda x, sigma: p.denoise(x, sigma) + 0.5, p.at(0).sample(1000), 0.3, 10.0, levels=20)
    assert found.sigma == pytest.approx(0.3)
    assert found.crossing == pytest.approx(0.3)
    assert "the start alone may do" in str(found.warning)


@pytest.mark.parametrize("owner", ["itself", "schedule"])
def test_the_sweep_ends_where_the_network_does(owner: str) -> None:
    class Network:
        def __init__(self) -> None:
            self.seen: list[float] = []
            if owner == "itself":
                self.sigma_max = 7.0
            else:
                self.schedule = type("Schedule", (), {"sigma_max": 7.0})()

        def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
            self.seen.append(float(sigma))
            return p.denoise(x, sigma)

    p = law("diagonal", 2)
    x, network = p.at(0).sample(150), Network()
    hs.horizon(p, network, x, 0.5, 3.0, levels=10)
    assert max(network.seen) == pytest.approx(7.0)
    hs.initialization_kl(p.at(1.0), network, x, levels=5, far=20.0)  # what is asked for is done
    assert max(network.seen) == pytest.approx(20.0)
    with pytest.raises(ValueError, match=r"sigma_max is 7; look at lower ones, or give far="):
        hs.horizon(p, network, x, 0.5, 4.0)


def test_numbers_are_checked_before_the_network_is_called() -> None:
    p, calls = law("diagonal", 2), []

    def network(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(1)
        return p.denoise(x, sigma)

    x = p.at(0).sample(120)
    for wrong, message in (
        ({"heldout": x[:99]}, r"horizon: heldout must be \[N >= 100, \*\[2\]\], got \[99, 2\]"),
        ({"low": 1e-320}, "horizon: low must be from 1e-100"),
        ({"heldout": x * math.nan}, "horizon: data must be finite"),
        ({"levels": 2}, "horizon: levels must be an integer of at least 3"),
        ({"threshold": math.nan}, "threshold above 0"),
        ({"law": hs.GaussianMixture}, "horizon: law must be fitted on clean data"),
        ({"batch": 0}, "horizon: batch must be"),
        ({"seed": -1}, "horizon: seed must be"),
        ({"cond": 3}, "horizon: cond must be a mapping"),
    ):
        given = {"law": p, "denoiser": network, "heldout": x, "low": 0.5, "high": 2.0, **wrong}
        with pytest.raises((ValueError, TypeError), match=message):
            hs.horizon(**given)  # type: ignore[arg-type]
    assert not calls


def test_progress_is_shown_where_asked_for(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import contextmanager

    steps: list[str] = []

    @contextmanager
    def track(title: str, total: int, show: bool):
        yield lambda description="": steps.append(f"{title} {total} {show}")

    monkeypatch.setattr("headstart.diagnostics.denoising.track", track)
    p = law("diagonal", 2)
    hs.horizon(p, p.denoise, p.at(0).sample(150), 0.5, 2.0, levels=6, batch=100, progress=True)
    assert steps == ["horizon 12 True"] * 12


def test_held_out_points_may_be_arrays() -> None:
    p, q = PAIRS["one mean off"]
    x = p.at(0).sample(200, seed=5)
    for call in (
        lambda points: hs.initialization_kl(q.at(1.0), p.denoise, points, levels=5).kl,
        lambda points: hs.horizon(q, p.denoise, points, 0.5, 2.0, levels=8).sigma,
        lambda points: hs.tail_check(q.at(1.0), points).p_value,
    ):
        assert call(x.numpy()) == call(x)
        assert call(x.flip(0).numpy()[::-1]) == call(x)  # negative strides


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", [slice(0, 1), slice(None)])
def test_tail_check_refuses_what_is_not_finite(bad: float, where: slice) -> None:
    p = law("diagonal", 2)
    x = p.at(0).sample(200)
    x[where, 0] = bad
    with pytest.raises(ValueError, match="tail_check: data must be finite"):
        hs.tail_check(p.at(1.0), x)

    class Start:
        shape, sigma = (2,), 1.0

        def sample(self, n: int, seed: int = 0, offset: int = 0) -> Tensor:
            return torch.full((n, 2), bad)

    with pytest.raises(ValueError, match="tail_check: start must give samples that are finite"):
        hs.tail_check(Start(), p.at(0).sample(200))


def test_a_tail_check_that_could_not_fail_is_refused() -> None:
    p = law("diagonal", 2)
    x = p.at(0).sample(200)
    for n in (0, -1, -(2**70), 2.5, True, "9"):
        with pytest.raises(ValueError, match="tail_check: n must be an integer of at least 1"):
            hs.tail_check(p.at(1.0), x, n)
    for n in (1, 100):
        with pytest.raises(ValueError, match="n must be so large that the check could fail"):
            hs.tail_check(p.at(1.0), x, n)
    for n in (1000, 2000):  # accepted, and able to fail
        assert hs.tail_check(p.at(1.0), 50 * x, n).p_value < 0.01


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
        (lambda p, x: hs.initialization_kl(p.at(1), p.denoise, x, far=1.5), "far must be at least 2"),
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
