"""One Gaussian, and the choice of a mixture's size by held-out likelihood."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.laws import heavy_tails, modes
from headstart import ops
from headstart.fitting.selection import POINTS_PER_COMPONENT
from headstart.start import (
    Diagonal,
    Full,
    Gaussian,
    GaussianMixture,
    Isotropic,
    LowRank,
    StudentTMixture,
    fit,
    load,
)

FAMILIES = [Isotropic(), Diagonal(), Full(), LowRank(2)]


def blobs(n: int, dim: int, clusters: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Unit Gaussians far apart, and their clusters."""
    generator = torch.Generator().manual_seed(seed)
    mean, which = 12 * torch.randn(clusters, dim, generator=generator), torch.arange(n) % clusters
    return mean[which] + torch.randn(n, dim, generator=generator), which


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_one_gaussian_is_the_closed_form(family: object) -> None:
    data = blobs(500, 5, 1)[0].double() * torch.linspace(0.2, 3, 5)
    made = Gaussian.fit(data, family)
    assert isinstance(made, GaussianMixture)
    torch.testing.assert_close(made.components.mean[0], data.mean(0))
    exact = torch.cov(data.T, correction=0)
    found = ops.reference.covariance(made.components)[0]
    if family == Full():
        torch.testing.assert_close(found, exact)
    elif family == Diagonal():
        torch.testing.assert_close(found, exact.diagonal().diag())
    elif family == Isotropic():
        torch.testing.assert_close(found, exact.trace() / 5 * torch.eye(5).double())
    else:
        value = torch.linalg.eigvalsh(exact).flip(0)
        torch.testing.assert_close(torch.linalg.eigvalsh(found).flip(0)[:2], value[:2], rtol=1e-4, atol=0)
        assert float(made.components.variance) == pytest.approx(float(value[2:].mean()), rel=1e-4)
    assert made.report.log_likelihood == pytest.approx(float(made.log_prob(data).mean()))
    assert made.report.log_likelihood >= GaussianMixture.fit(data[:199], 1, family).log_prob(data).mean()


def test_one_gaussian_a_class(tmp_path) -> None:
    data, which = blobs(300, 3, 3)
    labels = torch.tensor([0, 4, 1])[which]
    made = Gaussian.fit(data, Full(), labels)
    assert made.class_weight.shape == (5, 3)
    for label in (0, 1, 4):
        own = Gaussian.fit(data[labels == label])
        torch.testing.assert_close(made.given(label).log_prob(data, 0.3), own.log_prob(data, 0.3))
    with pytest.raises(ValueError, match="no point of class 2"):
        made.at(1.0).sample(2, labels=2)
    made.save(tmp_path / "start")
    assert torch.equal(load(tmp_path / "start").at(1.0).sample(4, labels=4), made.at(1.0).sample(4, labels=4))
    assert not Gaussian.fit(data).conditional


def test_one_gaussian_of_images_with_constant_pixels() -> None:
    data = torch.randn(40, 1, 4, 4)
    data[:, :, 0] = -1
    made = Gaussian.fit(data, LowRank(4))
    assert made.at(1.0).sample(3).shape == (3, 1, 4, 4)
    assert made.log_prob(data).isfinite().all()
    with pytest.raises(ValueError, match="all points are equal"):
        Gaussian.fit(torch.ones(5, 2))
    with pytest.raises(ValueError, match=r"fit: covariance must be Isotropic\(\)"):
        Gaussian.fit(data, "full")


def test_auto_finds_the_number_of_clusters() -> None:
    data = blobs(1200, 4, 6)[0]
    made = GaussianMixture.fit(data, "auto", Isotropic())
    assert made.report.components == 6
    table = made.report.candidates
    assert [one.components for one in table[:4]] == [1, 2, 4, 8]
    assert max(one.components for one in table) <= 32  # the search ended early
    assert table[3].log_likelihood > table[2].log_likelihood + 1


def test_auto_finds_the_rank(tmp_path) -> None:
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(30, 3, generator=generator)).Q.T
    data = 4 * torch.randn(900, 3, generator=generator) @ axes + 0.3 * torch.randn(900, 30, generator=generator)
    made = GaussianMixture.fit(data, "auto", LowRank(24))
    assert made.report.covariance == "LowRank(rank=3)"
    assert len(made.weight) == 1
    made.save(tmp_path / "start")
    assert load(tmp_path / "start").report == made.report


def test_auto_is_the_default_fit_too() -> None:
    data = blobs(600, 3, 3)[0]
    assert fit(data, components="auto").report.components == 3
    assert fit(torch.randn(300, 40), components="auto").report.components == 1


def test_auto_of_heavy_tails_does_not_spend_components_on_them() -> None:
    data = heavy_tails(3, seed=2).sample(500).float()
    made = StudentTMixture.fit(data, "auto", Full())
    gaussian = GaussianMixture.fit(data, "auto", Full())
    assert len(made.weight) < len(gaussian.weight)
    score = max(one.log_likelihood for one in made.report.candidates)
    assert score > max(one.log_likelihood for one in gaussian.report.candidates)


def test_auto_holds_out_what_it_scores_on() -> None:
    """With points of its own to be scored on, one component a point would win; held out, it cannot."""
    made = GaussianMixture.fit(modes(2).sample(150).float(), "auto", Full())
    assert all(one.components <= 150 // POINTS_PER_COMPONENT for one in made.report.candidates)
    assert GaussianMixture.fit(torch.randn(20, 2), "auto", Isotropic()).report.components == 1
    with pytest.raises(ValueError, match='fit: data must have at least 20 points for "auto" components, got 19'):
        GaussianMixture.fit(torch.randn(19, 2), "auto", Isotropic())


@pytest.mark.parametrize("components", ["many", 2.5])
def test_bad_numbers_of_components_are_refused(components: object) -> None:
    with pytest.raises(ValueError, match='fit: components must be an integer or "auto", got'):
        GaussianMixture.fit(torch.randn(20, 2), components, Full())
