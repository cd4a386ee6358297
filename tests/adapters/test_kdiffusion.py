"""k-diffusion's denoisers as ours and ours as its own; its samplers are compared in test_agreement.py."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import headstart as hs
from bench.agreement import k_diffusion
from bench.agreement.case import distance
from conftest import GaussianLaw
from headstart.adapters import kdiffusion
from headstart.bench import peers


def module(name: str) -> ModuleType:
    try:
        return peers.k_diffusion_module(name)
    except ImportError as missing:
        pytest.skip(f'{missing}; and what it imports: pip install "headstart[bench]"')


@pytest.fixture(scope="module")
def sampling() -> ModuleType:
    return module("sampling")


@pytest.fixture(scope="module")
def network() -> hs.EDM:
    return k_diffusion.network()


def test_the_published_third_order_step_is_not_the_whole_parabola(sampling: ModuleType, network: hs.EDM) -> None:
    grid, x = hs.log_uniform(20.0, 0.02, 9), hs.Classic((1, 12, 10), 20.0).sample(2, seed=1)
    theirs = sampling.sample_dpmpp_3m_sde(kdiffusion.model(network), x, grid.to(x), {}, disable=True, eta=0.0)
    assert distance(hs.integrate(network, x, grid, hs.DPMpp3M()), theirs) > 1e-3


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("whole", [False, True])
def test_its_denoisers_of_discrete_networks_are_those_of_diffusers(prediction: str, whole: bool) -> None:
    """Levels of the table, between and below: the timesteps and factors that k-diffusion gives the same network."""
    nets = pytest.importorskip("bench.agreement.network", reason='needs pip install "headstart[diffusers]"')
    external, scheduler = module("external"), nets.diffusers.DDIMScheduler(prediction_type=prediction)
    network = nets.unet()
    ours = hs.diffusers.denoiser(network, scheduler, whole_timesteps=whole)
    kind = external.DiscreteEpsDDPMDenoiser if prediction == "epsilon" else external.DiscreteVDDPMDenoiser

    class Wrapped(kind):
        """Its network's output, as its own wrappers of other projects give it."""

        def get_eps(self, *given: Any) -> Tensor:
            return network(*given).sample

        get_v = get_eps

    theirs = kdiffusion.denoiser(Wrapped(network, scheduler.alphas_cumprod, quantize=whole))
    x = nets.normals(2, *nets.SHAPE)
    for sigma in (0.005, 0.0123, 0.5, 3.03, 120.0):
        assert distance(theirs((1 + sigma) * x, sigma), ours((1 + sigma) * x, sigma)) < 1e-5


def test_a_model_with_a_level_a_sample_is_a_denoiser(gaussian: GaussianLaw) -> None:
    seen = []

    def model(x: Tensor, sigma: Tensor, scale: float) -> Tensor:
        seen.append((tuple(sigma.shape), sigma.dtype, scale))
        return gaussian(x, sigma[:, None])

    x = 4 * torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grid = hs.log_uniform(4.0, 0.05, 6)
    found = hs.integrate(kdiffusion.denoiser(model), x, grid, cond={"scale": 2.0})
    assert torch.allclose(found, hs.integrate(gaussian, x, grid), rtol=1e-12)
    assert seen == [((5,), torch.float64, 2.0)] * 6
    back = kdiffusion.model(kdiffusion.denoiser(model))(x, torch.full((5,), 3.0, dtype=torch.float64), scale=1.0)
    assert torch.equal(back, gaussian(x, torch.tensor(3.0, dtype=torch.float64)))


def test_a_denoiser_as_a_model_takes_levels_that_differ(network: hs.EDM) -> None:
    x, sigma = torch.randn(3, 1, 12, 10, generator=torch.Generator().manual_seed(0)), torch.tensor([2.0, 0.5, 2.0])
    label = torch.tensor([1, 5, 9])

    class Parts:
        """Preconditioned, but with no call of its own."""

        dtype = network.dtype
        preconditioning, raw = network.preconditioning, network.raw

    for denoiser in (network, Parts()):
        found = kdiffusion.model(denoiser)(x, sigma, label=label)
        for i in range(3):
            own = network(x[i : i + 1], sigma[i], label=label[i : i + 1])
            assert torch.allclose(found[i : i + 1], own, atol=1e-5)
    assert kdiffusion.model(network)(x[:0], sigma[:0], label=label[:0]).shape == (0, 1, 12, 10)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(TypeError, match=r"denoiser: model must be a callable .* got int"):
        kdiffusion.denoiser(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"model: denoiser must be a callable D\(x, sigma, \*\*cond\), got str"):
        kdiffusion.model("D")  # type: ignore[arg-type]
