"""Transport: the flow of a mixture, its inverse, its law, and the latents a seed stands for."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

import headstart as hs
from conftest import random_components
from headstart.metrics import sliced_wasserstein
from headstart.start.transport import TOLERANCE, adams, levels, second_moments


def mixture(kind: str = "rank2", dtype: torch.dtype = torch.float64, classes: bool = False) -> hs.GaussianMixture:
    components = random_components(kind, k=4, d=5, dtype=dtype)
    weight = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]])
    return hs.GaussianMixture(components, weight[0], (5,), weight if classes else None)


def latents(n: int, d: int = 5, dtype: torch.dtype = torch.float64) -> Tensor:
    return hs.ops.normal((n, d), 7, 0, dtype=dtype, device="cpu")


@pytest.mark.parametrize("kind", ["rank2", "full", "diagonal", "isotropic"])
@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_against_a_fine_solution(kind: str, sigma: float) -> None:
    law, z = mixture(kind), latents(100)
    fine = hs.integrate(law.denoise, 80 * z, hs.log_uniform(80.0, sigma, 250)[:-1], hs.Heun())
    error = (law.transport(z, sigma) - fine).square().mean().sqrt()
    assert error < 3 * TOLERANCE * second_moments(law).mean().sqrt()
    assert error < 1e-3 * (80 * z - fine).square().mean().sqrt()


def test_one_gaussian_has_a_flow_in_closed_form() -> None:
    components = random_components("diagonal", k=1, d=5)
    law, z = hs.GaussianMixture(components, torch.ones(1), (5,)), latents(50)
    mean, variance = components.mean[0], components.variance[0]
    exact = mean + ((variance + 0.25) / (variance + 6400)).sqrt() * (80 * z - mean)
    assert torch.allclose(law.transport(z, 0.5), exact, atol=5e-3)


def test_round_trip() -> None:
    """Carried down, then up by another solver in fine steps, a latent comes back."""
    law, z, sigma = mixture(), latents(60), 1.0
    x = law.transport(z, sigma)
    ups = hs.log_uniform(80.0, sigma, 400)[:-1].flip(0).tolist()
    for low, high in pairwise(ups):
        slope = (x - law.denoise(x, low)) / low
        ahead = x + (high - low) * slope
        x = x + (high - low) / 2 * (slope + (ahead - law.denoise(ahead, high)) / high)
    assert (x / 80 - z).square().mean().sqrt() < 5e-3


def test_the_law_is_that_of_the_start() -> None:
    start = mixture(dtype=torch.float32).at(1.5)
    carried = start.transport(latents(4000, dtype=torch.float32))
    drawn, other = start.sample(4000, seed=1), start.sample(4000, seed=2)
    floor = sliced_wasserstein(drawn, other)
    assert sliced_wasserstein(carried, other) < 1.5 * floor + 0.01
    assert abs(float(start.log_prob(carried).mean() - start.log_prob(drawn).mean())) < 0.1


def test_a_latent_goes_to_the_same_place_in_any_batch() -> None:
    law, z = mixture(), latents(40)
    whole = law.transport(z, 0.7)
    again = mixture()  # chooses its steps at the first call, here of one latent
    parts = [again.transport(z[i : i + 1], 0.7) for i in range(3)] + [again.transport(z[3:], 0.7)]
    assert levels(law, 0.7, 80.0) == levels(again, 0.7, 80.0)
    assert torch.allclose(whole, torch.cat(parts), atol=1e-12)


def test_sample_takes_latents_so_a_seed_keeps_its_image() -> None:
    law, z = mixture(), latents(30)
    grid = hs.log_uniform(80.0, 0.01, 200)
    classic = hs.sample(law.denoise, hs.Classic((5,)), 30, grid=grid, latents=z, dtype=torch.float64)
    short = hs.sample(law.denoise, law.at(1.0), 30, steps=60, latents=z, dtype=torch.float64)
    assert (classic - short).square().mean(1).sqrt().median() < 0.02
    assert torch.allclose(short, hs.sample(law.denoise, law.at(1.0), 30, steps=60, latents=z, batch=7, dtype=z.dtype))


def test_classes_are_carried_by_their_own_flows() -> None:
    law, z = mixture(classes=True), latents(6)
    label = torch.tensor([0, 1, 0, 1, 1, 0])
    both = law.at(1.0).transport(z, label)
    for c in (0, 1):
        assert torch.allclose(both[label == c], law.given(c).transport(z[label == c], 1.0), atol=2e-2)


@pytest.mark.parametrize("sigma", [0.0, -1.0, 80.0, float("nan")])
def test_refuses_levels_without_a_way_down(sigma: float) -> None:
    with pytest.raises(ValueError, match="transport: sigma"):
        mixture().transport(latents(2), sigma)


def test_refuses_latents_of_another_shape() -> None:
    with pytest.raises(ValueError, match="transport: x must be"):
        mixture().transport(torch.zeros(2, 4), 1.0)


def test_weights_integrate_cubics_exactly() -> None:
    taus, end = [0.7, 0.5, 0.2, 0.0], 0.9
    for power in range(4):
        got = sum(w * t**power for w, t in zip(adams(taus, end), taus, strict=True))
        assert got == pytest.approx((end ** (power + 1) - taus[0] ** (power + 1)) / (power + 1), rel=1e-9)
