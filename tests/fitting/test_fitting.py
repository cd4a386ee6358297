"""EM: it climbs, it finds what made the data, it agrees with other implementations, and it survives bad data."""

from __future__ import annotations

import io
import itertools
import math

import pytest
import torch
from rich.console import Console
from rich.progress import Progress, TextColumn
from torch import Tensor

from headstart.fitting import FitReport, Recipe, fit_mixture
from headstart.fitting import em as em_module
from headstart.fitting import law as expectation
from headstart.fitting.em import lloyd, seed_centres
from headstart.fitting.law import MixtureState, expect, wide
from headstart.ops import Components
from headstart.start import Diagonal, Full, GaussianMixture, Isotropic, LowRank, fit

FAMILIES = [Isotropic(), Diagonal(), Full(), LowRank(3), LowRank(0)]


def blobs(n: int, dim: int, clusters: int, gap: float = 8.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Points of well separated Gaussians with different covariances, float64, and their clusters."""
    generator = torch.Generator().manual_seed(seed)
    mean = gap * torch.randn(clusters, dim, generator=generator, dtype=torch.float64)
    factor = torch.randn(clusters, dim, dim, generator=generator, dtype=torch.float64) / math.sqrt(dim)
    which = torch.arange(n) % clusters
    z = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    return mean[which] + torch.einsum("nde,ne->nd", factor[which], z), which


def covariance(mixture: GaussianMixture) -> Tensor:
    _, variance, axes, spread = mixture.components
    dense = torch.diag_embed(variance.expand_as(mixture.components.mean))
    if axes is not None and spread is not None:
        dense = dense + axes.mT @ (spread[..., None] * axes)
    return dense


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_log_likelihood_never_falls(family, dtype):
    data = torch.cat([blobs(600, 6, 4, gap=0.7)[0], blobs(400, 6, 3, gap=1.0, seed=1)[0]]).to(dtype)
    history = GaussianMixture.fit(data, 6, family, tol=0.0, max_iter=40).report.history
    slack = 1e-9 if dtype == torch.float64 else 2e-4
    assert len(history) > 5
    assert all(later >= earlier - slack for earlier, later in itertools.pairwise(history))


@pytest.mark.parametrize(("family", "kind"), [(Full(), "full"), (Diagonal(), "diag"), (Isotropic(), "spherical")])
def test_agrees_with_scikit_learn(family, kind):
    mixture_of = pytest.importorskip("sklearn.mixture").GaussianMixture
    data, _ = blobs(190, 3, 3)  # below 200 points none is held out, so both see the same
    ours = GaussianMixture.fit(data, 3, family, tol=1e-10)
    theirs = mixture_of(3, covariance_type=kind, tol=1e-10, reg_covar=0, random_state=0, n_init=3).fit(data.numpy())
    order = torch.cdist(ours.components.mean, torch.from_numpy(theirs.means_)).argmin(0)
    assert sorted(order.tolist()) == [0, 1, 2]
    torch.testing.assert_close(ours.components.mean[order], torch.from_numpy(theirs.means_), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.weight[order], torch.from_numpy(theirs.weights_), rtol=1e-6, atol=1e-6)
    theirs_covariance = torch.from_numpy(theirs.covariances_)
    if kind != "full":
        theirs_covariance = torch.diag_embed(theirs_covariance.reshape(3, -1).expand(3, 3))
    torch.testing.assert_close(covariance(ours)[order], theirs_covariance, rtol=1e-5, atol=1e-6)
    assert ours.report.log_likelihood == pytest.approx(theirs.score(data.numpy()), abs=1e-6)


def test_float32_follows_float64_where_the_spread_is_huge():
    """Points of rank 3 in 784 dimensions: the variance off the axes is a millionth of the data's mean variance."""
    generator = torch.Generator().manual_seed(0)
    mean, axes = 3 * torch.randn(3, 784, generator=generator), torch.randn(3, 3, 784, generator=generator)
    which = torch.arange(600) % 3
    data = mean[which] + torch.einsum("nr,nrd->nd", torch.randn(600, 3, generator=generator), axes[which])
    single, double = (GaussianMixture.fit(x, 3, LowRank(3), tol=0.0, max_iter=12) for x in (data, data.double()))
    assert wide(single.extremes, 0.0)
    assert not wide(single.extremes, 1.0)
    history = single.report.history
    assert all(later >= earlier - 0.1 for earlier, later in itertools.pairwise(history))
    assert single.report.log_likelihood == pytest.approx(double.report.log_likelihood, abs=1)
    assert single.log_prob(data).dtype == torch.float32
    torch.testing.assert_close(single.log_prob(data).double(), double.log_prob(data.double()), rtol=0, atol=1)
    candidates = torch.nn.functional.one_hot(which, 3).bool() | True
    state = MixtureState(single.components, single.weight)
    exact = float(double.log_prob(data.double()).mean())
    assert expect(data, torch.arange(600), state, candidates)[0] == pytest.approx(exact, abs=1)


def test_responsibilities_sum_to_one_in_many_dimensions():
    generator = torch.Generator().manual_seed(0)
    data, k = torch.randn(64, 20_000, generator=generator), 3
    mean = 1e-3 * torch.randn(k, 20_000, generator=generator)
    state = MixtureState(Components(mean, torch.ones(k, 1)), torch.full((k,), 1 / k, dtype=torch.float64))
    for candidates in (None, torch.ones(64, k, dtype=torch.bool)):
        _, responsibility = expect(data, torch.arange(64), state, candidates)
        torch.testing.assert_close(responsibility.sum(1), torch.ones(64), rtol=0, atol=1e-6)


def test_recovers_a_known_low_rank_mixture():
    dim, rank, n = 20, 2, 6000
    generator = torch.Generator().manual_seed(3)
    mean = 3 * torch.randn(3, dim, generator=generator)
    axes = torch.linalg.qr(torch.randn(3, dim, rank, generator=generator)).Q.mT
    spread, floor = torch.tensor([[9.0, 4.0], [6.0, 3.0], [8.0, 2.0]]), 0.25
    which = torch.multinomial(torch.tensor([0.5, 0.3, 0.2]), n, replacement=True, generator=generator)
    z = torch.randn(n, rank, generator=generator) * spread[which].sqrt()
    data = mean[which] + torch.einsum("nr,nrd->nd", z, axes[which])
    data = data + math.sqrt(floor) * torch.randn(n, dim, generator=generator)
    mixture = GaussianMixture.fit(data, 3, LowRank(rank), tol=1e-6)
    order = torch.cdist(mixture.components.mean, mean).argmin(0)
    torch.testing.assert_close(mixture.components.mean[order], mean, rtol=0, atol=0.4)
    torch.testing.assert_close(mixture.weight[order].float(), torch.tensor([0.5, 0.3, 0.2]), rtol=0, atol=0.02)
    torch.testing.assert_close(mixture.components.variance[order], torch.full((3, 1), floor), rtol=0.03, atol=0)
    torch.testing.assert_close(mixture.components.spread[order], spread, rtol=0.12, atol=0)
    overlap = torch.linalg.svdvals(mixture.components.axes[order] @ axes.mT)
    assert overlap.min() > 0.99


def test_one_low_rank_component_is_principal_component_analysis():
    data = blobs(150, 10, 1)[0] * torch.linspace(3, 0.1, 10, dtype=torch.float64)
    mixture = GaussianMixture.fit(data, 1, LowRank(4), tol=1e-13, max_iter=500)
    eigenvalue = torch.linalg.eigvalsh(torch.cov(data.T, correction=0)).flip(0)
    floor = eigenvalue[4:].mean()
    torch.testing.assert_close(mixture.components.variance[0, 0], floor, rtol=1e-6, atol=0)
    torch.testing.assert_close(mixture.components.spread[0], eigenvalue[:4] - floor, rtol=1e-6, atol=0)
    axes = mixture.components.axes[0]
    torch.testing.assert_close(axes @ axes.mT, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-12)


def test_same_data_and_seed_give_the_same_mixture():
    data = blobs(500, 8, 4, gap=1.0)[0].float()
    first, second = (GaussianMixture.fit(data, 4, LowRank(2), seed=5) for _ in range(2))
    for a, b in zip(first.components, second.components, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(first.weight, second.weight)


def test_stages_and_lists_lose_nothing(monkeypatch):
    """Each variant may end in an optimum of its own; on the mean of three seeds none is a worse one by half a nat."""
    data = blobs(4000, 40, 8, gap=3.0)[0].float()

    def heldout() -> float:
        fits = [GaussianMixture.fit(data, 8, LowRank(4), seed=seed) for seed in range(3)]
        return sum(fit.report.heldout_log_likelihood for fit in fits) / 3

    whole = heldout()
    monkeypatch.setattr(em_module, "SUBSAMPLE", 500)
    monkeypatch.setattr(em_module, "SUBSAMPLE_PER_COMPONENT", 50)
    assert heldout() > whole - 0.5
    monkeypatch.setattr(expectation, "SHORT", 0.0)
    assert heldout() > whole - 0.5
    assert GaussianMixture.fit(data, 1, LowRank(4)).report.heldout_log_likelihood < whole - 2


def test_heldout_log_likelihood_is_that_of_points_not_seen():
    data = blobs(1000, 5, 3, gap=1.0)[0]
    report = GaussianMixture.fit(data, 3, Full()).report
    assert (report.n, report.heldout) == (950, 50)
    assert abs(report.heldout_log_likelihood - report.log_likelihood) < 1.0
    assert GaussianMixture.fit(data[:150], 3, Full()).report.heldout_log_likelihood is None


def test_seeds_are_distinct_points_and_lloyd_finds_blobs():
    data, which = blobs(300, 4, 5, gap=20.0)
    seeds = seed_centres(data, 5, torch.Generator().manual_seed(0))
    assignment = lloyd(data, seeds)
    assert len(set(zip(assignment.tolist(), which.tolist(), strict=True))) == 5
    duplicates = data[:3].repeat(10, 1)
    assert len(seed_centres(duplicates, 8, torch.Generator().manual_seed(0))) == 3


def test_collapsed_components_are_dropped_and_reported():
    data = blobs(3, 4, 3)[0].repeat(50, 1)  # three distinct points
    mixture = GaussianMixture.fit(data, 8, LowRank(2))
    assert mixture.report.components == len(mixture.weight) == 3
    assert mixture.report.dropped == 5
    assert mixture.log_prob(data).isfinite().all()
    lonely = torch.cat([blobs(100, 4, 1)[0], torch.full((1, 4), 1e3, dtype=torch.float64)])
    assert GaussianMixture.fit(lonely, 2, Diagonal()).report.dropped == 1


def test_as_many_components_as_points():
    mixture = GaussianMixture.fit(blobs(6, 3, 2)[0], 6, LowRank(2))
    assert mixture.log_prob(torch.zeros(2, 3)).isfinite().all()


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_constant_pixels_keep_the_least_variance(family):
    data = blobs(300, 6, 2)[0]
    data[:, 4] = -1.0
    mixture = GaussianMixture.fit(data, 2, family)
    assert mixture.log_prob(data).isfinite().all()
    assert (covariance(mixture).diagonal(dim1=1, dim2=2) > 0).all()


def test_rank_is_capped_by_dimension_and_points():
    assert GaussianMixture.fit(blobs(100, 3, 1)[0], 1, LowRank(64)).components.axes.shape == (1, 2, 3)
    few = GaussianMixture.fit(blobs(12, 30, 1)[0], 1, LowRank(16)).components
    assert few.axes.shape == (1, 16, 30)
    assert (few.spread[0, 6:] == 0).all()
    assert (few.spread[0, :6] > 0).all()
    assert few.variance[0, 0] > 0


def test_one_dimension_and_image_shapes():
    assert GaussianMixture.fit(torch.randn(300, 1), 2).log_prob(torch.zeros(4, 1)).shape == (4,)
    image = GaussianMixture.fit(torch.randn(300, 2, 4, 3), 2, LowRank(5))
    assert image.shape == (2, 4, 3)
    assert image.at(1.0).sample(3).shape == (3, 2, 4, 3)


def test_half_precision_data_is_fitted_in_float32():
    assert GaussianMixture.fit(torch.randn(100, 4).half(), 1).components.mean.dtype == torch.float32


def test_labels_give_the_weights_of_each_class():
    data, which = blobs(900, 4, 3, gap=20.0)
    mixture = GaussianMixture.fit(data, 3, Full(), labels=torch.tensor([0, 3, 3])[which])
    assert mixture.class_weight.shape == (4, 3)
    assert sorted(mixture.class_weight[0].tolist()) == pytest.approx([0, 0, 1], abs=1e-12)
    assert sorted(mixture.class_weight[3].tolist()) == pytest.approx([0, 0.5, 0.5], abs=1e-12)
    torch.testing.assert_close(mixture.class_weight.sum(1), torch.tensor([1.0, 0, 0, 1]).double())


def test_sparse_labels_take_no_table_of_points_by_classes():
    data, labels = blobs(300, 4, 2)[0], torch.arange(300) % 2 * (2**20 - 1)
    table = GaussianMixture.fit(data, 1, Isotropic(), labels=labels).class_weight  # one_hot would take 2.3 GB
    assert table.shape == (2**20, 1)
    assert table.sum() == 2
    with pytest.raises(ValueError, match=r"fit: labels must be below 2\^20 = 1048576, got 1000000000"):
        GaussianMixture.fit(data, 1, Isotropic(), labels=torch.full((300,), 10**9))


def test_any_seed_of_the_noise_fits():
    data = blobs(50, 3, 2)[0]
    assert GaussianMixture.fit(data, 2, Diagonal(), seed=2**64 - 1).report.seed == 2**64 - 1
    for seed in (-1, 2**64, 1.0, True, None):
        with pytest.raises(ValueError, match=r"fit: seed must be an integer in \[0, 2\^64\), got"):
            GaussianMixture.fit(data, 2, Diagonal(), seed=seed)


def test_all_64_bits_of_a_seed_enter_the_fit():
    data = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    means = [GaussianMixture.fit(data, 5, Diagonal(), seed=seed).components.mean for seed in (7, 7 + 2**32, 7 + 2**63)]
    for i in range(3):
        assert not torch.equal(means[i], means[i - 1])


def test_defaults_follow_the_size_of_the_data():
    assert fit(torch.randn(50, 2)).report.covariance == "Full()"
    small = fit(torch.randn(400, 64))
    assert small.report.components >= 1
    assert small.report.covariance.startswith("LowRank")


def test_progress_and_report(monkeypatch):
    screen = io.StringIO()
    columns = (TextColumn("{task.description}"),)
    console = Console(file=screen, force_terminal=True)
    monkeypatch.setattr("headstart.io.progress.bars", lambda: Progress(*columns, console=console))
    mixture = GaussianMixture.fit(blobs(300, 3, 2)[0], 2, Full(), progress=True)
    assert "nats per dimension" in screen.getvalue()
    assert FitReport.from_dict(mixture.report.to_dict()) == mixture.report


BAD = [
    (torch.zeros(10, 4, dtype=torch.uint8), {}, r"fit: data must be floating .*, got uint8 \[10, 4\] on cpu; scale"),
    (torch.zeros(10, 4, dtype=torch.int64), {}, r"fit: data must be floating \[N, .*, got int64 \[10, 4\] on cpu$"),
    (torch.zeros(10), {}, r"fit: data must be floating \[N, \*shape\], got float32 \[10\]"),
    ([[1.0]], {}, "fit: data must be floating .*, got list"),
    (torch.zeros(0, 4), {}, "fit: data must not be empty"),
    (torch.ones(10, 4), {}, "all points are equal"),
    (torch.ones(1, 4), {"components": 1}, "all points are equal"),
    (torch.randn(10, 4).index_fill(0, torch.tensor([3]), math.nan), {}, "got 4 values that are NaN or infinite"),
    (torch.full((10, 4), math.inf), {}, "NaN or infinite"),
    (torch.randn(10, 4) * 1e30, {}, "its squares overflow"),
    (torch.randn(10, 4), {"components": 32}, "fit: components must be from 1 to N = 10 points, got 32"),
    (torch.randn(10, 4), {"components": 0}, "fit: components must be from 1"),
    (torch.randn(10, 4), {"max_iter": 0}, "fit: max_iter must be an integer of at least 1"),
    (torch.randn(10, 4), {"covariance": "full"}, r"fit: covariance must be Isotropic\(\), .*, got 'full'"),
    (torch.randn(10, 4), {"covariance": Full}, "fit: covariance must be"),
    (torch.randn(10, 4), {"tol": math.nan}, "tol must be at least 0"),
    (torch.randn(10, 4), {"labels": torch.zeros(9, dtype=torch.int64)}, r"fit: labels must be integers \[10\], got"),
    (torch.randn(10, 4), {"labels": torch.zeros(10)}, r"fit: labels must be integers \[10\], got float32"),
    (torch.randn(10, 4), {"labels": -torch.ones(10).long()}, "fit: labels must be at least 0, got -1"),
]


@pytest.mark.parametrize(("data", "options", "message"), BAD)
def test_bad_input_is_refused(data, options, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture.fit(data, **{"components": 2, "covariance": Diagonal(), **options})


def test_bad_rank_is_refused():
    with pytest.raises(ValueError, match="LowRank: rank must be an integer of at least 0, got -1"):
        LowRank(-1)


def test_fit_mixture_reports_each_iteration():
    seen: list[float] = []
    fitted = fit_mixture(blobs(150, 3, 2)[0], Recipe(2, Full()), tick=seen.append)
    assert tuple(seen) == fitted.report.history
