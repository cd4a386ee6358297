"""Student-t mixtures: the fit finds what made the data, noised densities are convolutions, tails are exact."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from bench.laws import heavy_tails
from conftest import random_components
from headstart import ops
from headstart.start import (
    Diagonal,
    Full,
    GaussianMixture,
    Isotropic,
    LowRank,
    Start,
    StudentTMixture,
    load,
)
from headstart.start.scale_mixture import nodes, radius, radius_table, shape_of

KINDS = ["diagonal", "isotropic", "full", "rank1"]
FAMILIES = [Isotropic(), Diagonal(), Full(), LowRank(2)]


def mixture(kind: str = "rank1", k: int = 3, d: int = 2, df: tuple[float, ...] = (1.5, 3.0, 40.0)) -> StudentTMixture:
    class_weight = torch.eye(k)[[0, k - 1]] + torch.tensor([[0.5], [0.0]])
    df = torch.tensor(df[:k], dtype=torch.float64)
    return StudentTMixture(random_components(kind, k, d), torch.arange(1.0, k + 1), (d,), class_weight, df=df)


@pytest.mark.parametrize("df", [0.5, 1.0, 3.0, 7.0, 45.0, 1000.0])
def test_radius_inverts_the_gamma_law(df: float) -> None:
    special = pytest.importorskip("scipy.special")
    tiny = 2.0 ** -torch.linspace(1, 52, 4000, dtype=torch.float64)
    u = torch.cat([tiny, 1 - tiny, torch.tensor([0.25, 0.5, 2.0**-53, 0.5 + 2.0**-53])])
    table = radius_table(torch.tensor([9.0, df]))
    found = radius(table, torch.ones(len(u), dtype=torch.int64), u)
    below, above = special.gammaincinv(df / 2, u.numpy()), special.gammainccinv(df / 2, (1 - u).numpy())
    inverse = torch.where(u <= 0.5, torch.from_numpy(below), torch.from_numpy(above))
    torch.testing.assert_close(found, (0.5 * df / inverse).sqrt(), rtol=1e-12 if df < 40 else 2e-10, atol=0)
    assert radius(table, torch.tensor([1]), torch.ones(1).double()).isfinite().all()


@pytest.mark.parametrize("df", [0.5, 1.0, 3.0, 30.0, 1000.0])
@pytest.mark.parametrize("dim", [1, 10, 784])
def test_nodes_give_the_t_density(df: float, dim: int) -> None:
    """Without noise the integral is known; from the mean to 40 deviations, and where one sample in 1e9 falls."""
    w, log_mass = nodes(df, dim, 1.0)
    distance = torch.tensor([0, 1, dim, 1600, (40 + math.sqrt(dim)) ** 2, 1e9 ** (2 / max(df, 1))]).double()
    found = (log_mass + 0.5 * dim * (w / (2 * math.pi)).log() - 0.5 * distance[:, None] * w).logsumexp(1)
    peak = math.lgamma(0.5 * (df + dim)) - math.lgamma(0.5 * df) - 0.5 * dim * math.log(math.pi * df)
    exact = peak - 0.5 * (df + dim) * (distance / df).log1p()
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-8)


@pytest.mark.parametrize("df", [1.0, 3.0, 40.0])
@pytest.mark.parametrize("sigma", [0.0, 0.05, 1.0, 20.0])
def test_noised_density_is_the_convolution(df: float, sigma: float) -> None:
    """Against adaptive integration over the clean point, out to 40 noised deviations."""
    integrate = pytest.importorskip("scipy.integrate")
    components = ops.Components(*(torch.full((1, 1), value, dtype=torch.float64) for value in (0.3, 0.49)))
    made = StudentTMixture(components, torch.ones(1), (1,), df=torch.tensor([df]))
    peak = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(math.pi * df) / 0.7

    def clean(x: float) -> float:
        return peak * (1 + ((x - 0.3) / 0.7) ** 2 / df) ** (-(df + 1) / 2)

    for at in (0.3, 2.0, 0.3 + 40 * math.sqrt(0.49 + sigma**2)):

        def product(x: float, at: float = at) -> float:
            return clean(x) * math.exp(-0.5 * ((x - at) / sigma) ** 2) / sigma / math.sqrt(2 * math.pi)

        edges = sorted({at - 12 * sigma, -2.0, 0.3, 2.6, at, at + 12 * sigma})
        pieces = itertools.pairwise(edges) if sigma > 0 else ()
        parts = [integrate.quad(product, a, b, epsabs=0, epsrel=1e-11, limit=300)[0] for a, b in pieces]
        expected = sum(parts) if sigma > 0 else clean(at)
        found = float(made.log_prob(torch.tensor([[at]], dtype=torch.float64), sigma))
        assert found == pytest.approx(math.log(expected), abs=1e-8)


@pytest.mark.parametrize("sigma", [0.0, 0.4, 5.0])
def test_log_prob_is_the_law_of_the_samples(sigma: float) -> None:
    """In one dimension it integrates to 1, and its distribution function passes Kolmogorov's test on the samples."""
    start, n = mixture("isotropic", d=1, df=(2.5, 4.0, 40.0)).at(sigma), 20_000
    grid = torch.sinh(torch.linspace(-14, 14, 8001, dtype=torch.float64))
    density = start.log_prob(grid[:, None]).exp()
    cdf = torch.cat([torch.zeros(1).double(), torch.cumulative_trapezoid(density, grid)])
    assert float(cdf[-1]) == pytest.approx(1, abs=1e-4)
    x = start.sample(n, seed=11)[:, 0].sort().values
    at = torch.searchsorted(grid, x) - 1
    share = (x - grid[at]) / (grid[at + 1] - grid[at])
    gap = (torch.lerp(cdf[at], cdf[at + 1], share) - (torch.arange(n) + 0.5) / n).abs().max()
    assert gap < 1.95 / math.sqrt(n)  # exceeded once in a thousand laws


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sigma", [0.0, 0.7])
def test_log_prob_integrates_to_one_in_the_plane(kind: str, sigma: float) -> None:
    made = mixture(kind, df=(6.0, 8.0, 40.0))
    line = torch.sinh(torch.linspace(-5.5, 5.5, 160, dtype=torch.float64))
    step = 11 / 159 * (1 + line.square()).sqrt()
    points = torch.cartesian_prod(line, line)
    mass = made.log_prob(points, sigma, labels=0).exp() @ (step[:, None] * step).flatten()
    assert float(mass) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", [*KINDS[:3], "rank3"])
@pytest.mark.parametrize("sigma", [0.3, 5.0])
@pytest.mark.parametrize("label", [None, 1])
def test_denoiser_is_the_score(kind: str, sigma: float, label: int | None) -> None:
    made = mixture(kind, d=6)
    x = made.at(sigma).sample(20, seed=4).requires_grad_()
    assert not made.log_prob(x.detach(), sigma).requires_grad
    (score,) = torch.autograd.grad(made.log_prob(x, sigma, label).sum(), x)
    denoised = made.denoise(x.detach(), sigma, labels=label)
    torch.testing.assert_close(denoised, x.detach() + sigma**2 * score, rtol=1e-7, atol=1e-7)
    dense = ops.reference.mixture_posterior(x.detach(), made.components, made.weight.log(), sigma).denoised
    assert (denoised - dense).abs().max() > 1e-3  # it is not the Gaussian's


def test_density_without_noise_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    made, x = mixture("full", d=4), 10 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0)).double()
    dense = ops.reference.covariance(made.components)
    parts = [
        weight * stats.multivariate_t(mean.numpy(), scale.numpy(), df).pdf(x.numpy())
        for weight, mean, scale, df in zip(
            made.weight.tolist(), made.components.mean, dense, made.df.tolist(), strict=True
        )
    ]
    torch.testing.assert_close(made.log_prob(x), torch.as_tensor(sum(parts)).log(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(made.denoise(x, 0.0), x)


def test_many_degrees_of_freedom_are_a_gaussian_mixture() -> None:
    made = mixture("rank3", d=6, df=(2000.0, 2000.0, 2000.0))
    gaussian = GaussianMixture(made.components, made.weight, (6,))
    x = made.at(1.0).sample(50)
    torch.testing.assert_close(made.log_prob(x, 1.0), gaussian.log_prob(x, 1.0), rtol=0, atol=0.02)
    torch.testing.assert_close(made.denoise(x, 1.0), gaussian.denoise(x, 1.0), rtol=0, atol=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_have_addresses(dtype: torch.dtype) -> None:
    start, labels = mixture().to(dtype=dtype).at(1.0), torch.tensor([0, 1]).repeat(32)
    assert isinstance(start, Start)
    whole = start.sample(64, seed=1, labels=labels)
    assert whole.dtype == dtype
    parts = [start.sample(7, seed=1, labels=labels[:7]), start.sample(57, seed=1, offset=7, labels=labels[7:])]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(start.sample(64, seed=1)[17:18], start.sample(1, seed=1, offset=17))
    assert not torch.equal(whole, start.sample(64, seed=2, labels=labels))
    assert start.sample(0).shape == (0, 2)
    assert start.log_prob(whole).shape == (64,)
    assert start.denoise(whole[:0]).shape == (0, 2)


def test_noised_samples_keep_their_clean_point() -> None:
    made = mixture()
    n = ops.normal((9, 2), 3, 0, stream=ops.Stream.START, dtype=torch.float64, device="cpu")
    torch.testing.assert_close(made.at(2.0).sample(9, seed=3), made.at(0.0).sample(9, seed=3) + 2 * n)


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_log_likelihood_never_falls(family: object, dtype: torch.dtype) -> None:
    data = heavy_tails(5).sample(400, seed=1).to(dtype)
    history = StudentTMixture.fit(data, 3, family, tol=0.0, max_iter=15).report.history
    slack = 1e-9 if dtype == torch.float64 else 2e-4
    assert len(history) > 2
    assert all(later >= earlier - slack for earlier, later in itertools.pairwise(history))


@pytest.fixture(scope="module")
def fitted() -> tuple[object, StudentTMixture]:
    law = heavy_tails(10, seed=1)
    return law, StudentTMixture.fit(law.sample(100_000, seed=5).float(), 4, Full())


def test_fit_recovers_a_known_mixture(fitted) -> None:
    law, made = fitted
    order = torch.cdist(made.components.mean.double(), law.mean).argmin(0)
    assert sorted(order.tolist()) == [0, 1, 2, 3]
    torch.testing.assert_close(made.components.mean[order].double(), law.mean, rtol=0, atol=0.06)
    torch.testing.assert_close(made.weight[order], law.weight, rtol=0, atol=0.015)
    torch.testing.assert_close(made.df[order], torch.full((4,), 3.0).double(), rtol=0.08, atol=0)
    dense = ops.reference.covariance(made.components)[order]
    exact = law.factor @ law.factor.mT
    assert ((dense - exact).flatten(1).norm(dim=1) < 0.1 * exact.flatten(1).norm(dim=1)).all()
    assert made.report.df == tuple(made.df.tolist())
    assert made.report.converged


@pytest.mark.parametrize("sigma", [1.244, 0.801])
def test_tails_of_the_fit(fitted, sigma: float) -> None:
    """0.99 to 0.9999 quantiles of a million samples in three directions, against the exact ones of the law."""
    law, made = fitted
    x = made.at(sigma).sample(1_000_000, seed=2)
    for direction in torch.eye(10, dtype=torch.float64)[::4]:
        line, projected = law.project(direction), (x.double() @ direction).sort().values
        for level, tolerance in ((0.99, 0.03), (0.999, 0.05), (0.9999, 0.15)):
            found = float(projected[math.ceil(level * len(projected)) - 1])
            assert found == pytest.approx(line.quantile(level, sigma), rel=tolerance)


def test_gaussian_data_need_no_tails() -> None:
    generator = torch.Generator().manual_seed(0)
    data = torch.cat([torch.randn(4000, 3, generator=generator), 6 + 0.5 * torch.randn(2000, 3, generator=generator)])
    made, gaussian = StudentTMixture.fit(data, 2, Full(), tol=1e-7), GaussianMixture.fit(data, 2, Full(), tol=1e-7)
    assert made.df.min() > 100
    assert made.df.max() == 1000
    order = torch.cdist(made.components.mean, gaussian.components.mean).argmin(0)
    torch.testing.assert_close(made.components.mean[order], gaussian.components.mean, rtol=0, atol=0.01)
    assert made.report.log_likelihood == pytest.approx(gaussian.report.log_likelihood, abs=2e-3)
    dense, exact = (ops.reference.covariance(one.components) for one in (made, gaussian))
    torch.testing.assert_close(dense[order], exact, rtol=0.03, atol=0.02)


def test_degrees_of_freedom_may_be_given() -> None:
    data = heavy_tails(3).sample(500)
    assert StudentTMixture.fit(data, 2, Full(), df=(4, 4)).df.tolist() == [4.0, 4.0]
    assert StudentTMixture.fit(data, 2, Full(), df=(5, 9)).df.min() >= 5


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_file_round_trip_is_bit_identical(family: object, tmp_path) -> None:
    data = heavy_tails(6).sample(400).reshape(400, 2, 3).float()
    made = StudentTMixture.fit(data, 3, family, labels=torch.arange(400) % 4)
    made.save(tmp_path / "start")
    back = load(tmp_path / "start")
    assert isinstance(back, StudentTMixture)
    assert torch.equal(made.df, back.df)
    assert back.report == made.report
    assert torch.equal(made.at(2.0).sample(5, labels=1), back.at(2.0).sample(5, labels=1))
    assert torch.equal(made.given(2).log_prob(data[:5], 1.0), back.log_prob(data[:5], 1.0, labels=2))


def test_shapes_hold_the_covariance() -> None:
    for kind in KINDS:
        components = random_components(kind, 2, 4)
        shape = shape_of(components, 1)
        trace = ops.reference.covariance(components)[1].diagonal().sum()
        torch.testing.assert_close(shape.value @ shape.copies, trace)
        assert float(shape.copies.sum()) == 4


def test_dtypes_of_points() -> None:
    made, x = mixture(), torch.randn(4, 2)
    assert made.log_prob(x).dtype == torch.float32
    assert made.denoise(x.half(), 1.0).dtype == torch.float16
    levels = torch.tensor([0.5, 2.0, 0.5, 0.5])
    each = torch.cat([made.denoise(x[i : i + 1], levels[i]) for i in range(4)])
    torch.testing.assert_close(made.denoise(x, levels), each)


def bad_df(df: Tensor) -> StudentTMixture:
    return StudentTMixture(random_components("full", 2, 3), torch.ones(2), (3,), df=df)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bad_df(torch.ones(3)), r"StudentTMixture: df must be \[2\] from 0.5 to 2000, got float32 \[3\]"),
        (lambda: bad_df(torch.tensor([0.1, 3])), "StudentTMixture: df must be"),
        (lambda: bad_df(torch.tensor([math.nan, 3])), "StudentTMixture: df must be"),
        (lambda: StudentTMixture.fit(torch.randn(9, 2), 2, Full(), df=(3, 2)), "fit: df must be a range within 0.5 to"),
        (lambda: StudentTMixture.fit(torch.randn(9, 2), 10, Full()), "fit: components must be from 1 to N = 9 points"),
        (lambda: StudentTMixture.fit(torch.randn(9, 2), 0), "fit: components must be from 1"),
        (lambda: StudentTMixture.fit(torch.full((9, 2), math.nan), 1), "NaN or infinite"),
        (lambda: StudentTMixture.fit(torch.ones(9, 2), 1), "all points are equal"),
        (lambda: StudentTMixture.fit(torch.ones(9, 2).long(), 1), "fit: data must be floating"),
        (lambda: mixture().at(-1.0), "at: sigma must be finite and at least 0"),
        (lambda: mixture().log_prob(torch.zeros(3, 5)), r"log_prob: x must be floating \[B, 2\]"),
        (lambda: mixture().at(1.0).sample(3, labels=7), "sample: no point of class 7"),
    ],
)
def test_bad_input_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_singular_scale_needs_noise() -> None:
    components = ops.Components(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    made = StudentTMixture(components, torch.ones(1), (2,), df=torch.tensor([3.0]))
    with pytest.raises(ValueError, match="log_prob: sigma must be positive where a scale matrix is singular"):
        made.log_prob(torch.zeros(1, 2))
    assert made.log_prob(torch.zeros(1, 2), 0.5).isfinite().all()
    assert float(made.denoise(torch.ones(1, 2), 0.5)[0, 1]) == 0
