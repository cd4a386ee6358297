"""k-diffusion's own samplers on our denoisers, ours on its denoisers: one result."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import headstart as hs
from conftest import GaussianLaw
from headstart.adapters import kdiffusion
from headstart.bench import peers

SEED, OFFSET = 2**63 + 5, 7
# ours: (theirs, its arguments, whether it draws noise)
SAMPLERS: dict[Any, tuple[str, dict[str, Any], bool]] = {
    hs.Euler(): ("sample_euler", {}, False),
    hs.Heun(): ("sample_heun", {}, False),
    hs.DPMpp2M(): ("sample_dpmpp_2m", {}, False),
    hs.DPMppSDE3M(0.0): ("sample_dpmpp_3m_sde", {"eta": 0.0}, False),
    hs.DPMppSDE3M(): ("sample_dpmpp_3m_sde", {}, True),
    hs.DPMppSDE3M(0.4): ("sample_dpmpp_3m_sde", {"eta": 0.4}, True),
    hs.DPMppSDE2M(): ("sample_dpmpp_2m_sde", {"solver_type": "midpoint"}, True),
    hs.Ancestral(0.7): ("sample_euler_ancestral", {"eta": 0.7}, True),
}


def module(name: str) -> ModuleType:
    try:
        return peers.k_diffusion_module(name)
    except ImportError as missing:
        pytest.skip(f'{missing}; and what it imports: pip install "headstart[bench]"')


@pytest.fixture(scope="module")
def sampling() -> ModuleType:
    return module("sampling")


class Small(torch.nn.Module):
    """A class-conditional network of two convolutions with fixed random weights."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.last = torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.Conv2d(16, 1, 3, padding=1)
            self.level, self.classes = torch.nn.Linear(1, 16), torch.nn.Embedding(10, 16)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        told = self.level(c_noise.to(x).reshape(-1, 1)) + (0 if label is None else self.classes(label))
        return self.last(torch.tanh(self.first(x) + told[:, :, None, None]))


@pytest.fixture(scope="module")
def network() -> hs.EDM:
    return hs.EDM(Small().requires_grad_(False), dtype=torch.float32)


def same_draws(x: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """A noise source for k-diffusion with the normals of our rows."""
    steps = iter(range(10_000))

    def draw(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        return hs.ops.normal(x.shape, SEED, next(steps), OFFSET, stream=hs.ops.Stream.SOLVER, dtype=x.dtype)

    return draw


def distance(a: Tensor, b: Tensor) -> float:
    return ((a.double() - b.double()).abs().max() / b.double().abs().max()).item()


@pytest.mark.parametrize("solver", SAMPLERS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_samplers_agree(solver: Any, dtype: torch.dtype, sampling: ModuleType, network: hs.EDM) -> None:
    name, arguments, noisy = SAMPLERS[solver]
    grid = hs.log_uniform(20.0, 0.02, 9)
    x = hs.Classic((1, 12, 10), 20.0, dtype=dtype).sample(2, seed=1)
    cond = {"label": torch.tensor([3, 8])}
    ours = hs.integrate(network, x, grid, solver, SEED, OFFSET, cond)
    extra = {"noise_sampler": same_draws(x)} if noisy else {}
    run = getattr(sampling, name)
    theirs = run(kdiffusion.model(network), x, grid.to(x), cond, disable=True, **arguments, **extra)
    assert distance(ours, theirs) < 1e-5
    if noisy:
        assert distance(hs.integrate(network, x, grid, solver, SEED + 1, OFFSET, cond), theirs) > 0.1


def test_the_published_third_order_step_is_not_the_whole_parabola(sampling: ModuleType, network: hs.EDM) -> None:
    grid, x = hs.log_uniform(20.0, 0.02, 9), hs.Classic((1, 12, 10), 20.0).sample(2, seed=1)
    theirs = sampling.sample_dpmpp_3m_sde(kdiffusion.model(network), x, grid.to(x), {}, disable=True, eta=0.0)
    assert distance(hs.integrate(network, x, grid, hs.DPMpp3M()), theirs) > 1e-3


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("whole", [False, True])
def test_its_denoisers_of_discrete_networks_are_those_of_diffusers(prediction: str, whole: bool) -> None:
    """Levels of the table, between and below: the timesteps and factors that k-diffusion gives the same network."""
    nets = pytest.importorskip("networks_of_diffusers", reason='needs pip install "headstart[diffusers]"')
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
    with pytest.raises(TypeError, match=r"model: denoiser must be a denoiser D\(x, sigma, \*\*cond\), got str"):
        kdiffusion.model("D")  # type: ignore[arg-type]
