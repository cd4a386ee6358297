"""The toy laws: densities integrate, samples follow them, denoisers are scores, tails are exact."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from bench.laws import Law, heavy_tails, modes

LAWS = [modes(2), modes(40), heavy_tails(2), heavy_tails(10)]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: f"df={law.df}, D={law.dim}")
def test_samples_have_the_law(law: Law) -> None:
    n = 40_000
    x = law.sample(n, seed=1)
    torch.testing.assert_close(law.sample(5, seed=1, offset=7), x[7:12], rtol=1e-12, atol=1e-12)
    if law.df is None:
        second = x.square().mean()
        assert float(second) == pytest.approx(1, abs=0.05)
        torch.testing.assert_close(x.mean(0), torch.zeros(law.dim).double(), rtol=0, atol=0.05)
    line = law.project(torch.eye(law.dim).double()[0])
    for sigma in (0.0, 0.8):
        noised = law.sample(n, seed=1, sigma=sigma)[:, 0]
        for level in (0.1, 0.5, 0.99):
            above = float((noised > line.quantile(level, sigma)).double().mean())
            assert above == pytest.approx(1 - level, abs=5 * math.sqrt(level * (1 - level) / n))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: f"df={law.df}, D={law.dim}")
@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_denoiser_is_the_score(law: Law, sigma: float) -> None:
    x = law.sample(50, seed=3, sigma=sigma).requires_grad_()
    (score,) = torch.autograd.grad(law.log_prob(x, sigma).sum(), x)
    torch.testing.assert_close(law.denoise(x.detach(), sigma), x.detach() + sigma**2 * score, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_noised_t_density_is_the_convolution(sigma: float) -> None:
    stats, integrate = pytest.importorskip("scipy.stats"), pytest.importorskip("scipy.integrate")
    law = heavy_tails(1)
    for at in (0.0, 1.5, 30.0):
        expected = 0.0
        for weight, mean, scale in zip(law.weight, law.mean[:, 0], law.factor[:, 0, 0], strict=True):
            density = stats.t(3, float(mean), float(scale)).pdf
            if sigma == 0:
                expected += float(weight) * density(at)
                continue
            noise = stats.norm(at, sigma).pdf
            pieces = [at - 12 * sigma, at, at + 12 * sigma]
            expected += float(weight) * sum(
                integrate.quad(lambda x, d=density, n=noise: d(x) * n(x), a, b, epsrel=1e-12, limit=500)[0]
                for a, b in itertools.pairwise(pieces)
            )
        found = float(law.log_prob(torch.tensor([[at]]), sigma))
        assert found == pytest.approx(math.log(expected), abs=1e-9)
