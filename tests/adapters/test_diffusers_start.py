"""Learned starts for pipelines of diffusers: the state that the pipeline makes of them, and its result against ours."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import headstart as hs
from bench.agreement.case import distance
from bench.agreement.pipeline import LATENT, first_state, law, levels_of
from headstart.adapters.diffusers.schedule import schedule_of
from headstart.adapters.diffusers.start import first_level

nets = pytest.importorskip("bench.agreement.network", reason='needs pip install "headstart[diffusers]"')
diffusers = nets.diffusers

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of the schedulers


@pytest.mark.parametrize("sigma", [0.5, 3.0, 7.0])
def test_latents_have_the_law_of_the_first_timestep(sigma: float) -> None:
    """`alpha (x0 + sigma_0 n)` at the level `sigma_0` of the table: mean and variance, to Monte-Carlo error."""
    scheduler = diffusers.DPMSolverMultistepScheduler()
    start = hs.Classic((1,), sigma)
    first = levels_of(scheduler, hs.diffusers.timesteps(start, scheduler, 5))[0].item()
    assert first_level(schedule_of(scheduler), start) == pytest.approx(first, rel=1e-12)
    assert sigma <= first < 1.02 * sigma
    z = hs.diffusers.latents(start, scheduler, 100_000, seed=3).double()
    wanted = first / math.sqrt(1 + first**2)
    assert abs(z.std().item() / wanted - 1) < 5 / math.sqrt(2 * 100_000)
    assert abs(z.mean().item()) < 5 * wanted / math.sqrt(100_000)
    x = start.sample(100_000, seed=3).double()
    lifted = z * math.sqrt(1 + first**2) - x  # the noise that was missing, independent of the start's own draw
    assert lifted.std().item() == pytest.approx(math.sqrt(first**2 - sigma**2), rel=0.02)
    assert abs((lifted * x).mean().item()) < 5 * lifted.std().item() * sigma / math.sqrt(100_000)


def test_a_latent_is_a_function_of_its_address() -> None:
    scheduler, start = diffusers.DPMSolverMultistepScheduler(), law(LATENT).at(3.0)
    whole = hs.diffusers.latents(start, scheduler, 5, seed=9)
    assert torch.equal(hs.diffusers.latents(start, scheduler, 2, seed=9, offset=3), whole[3:])
    assert not torch.equal(hs.diffusers.latents(start, scheduler, 5, seed=10), whole)
    assert hs.diffusers.latents(start, scheduler, 2, dtype=torch.float16).dtype == torch.float16


def test_a_consistency_model_starts_from_a_learned_law() -> None:
    """One step of its pipeline is its network at the start; of several, the levels are those asked for."""
    scheduler = diffusers.CMStochasticIterativeScheduler(clip_denoised=False)
    pipe = diffusers.ConsistencyModelPipeline(nets.unet(num_class_embeds=4), scheduler)
    pipe.set_progress_bar_config(disable=True)
    start, label = law(nets.SHAPE).at(3.0), torch.tensor([2, 0])
    z = hs.diffusers.latents(start, pipe, 2, seed=4)
    steps = hs.diffusers.timesteps(start, pipe, 1)
    made = pipe(2, label.tolist(), None, steps, latents=z, output_type="pt").images

    first = first_level(schedule_of(pipe.scheduler), start)
    x = first_state(start, pipe.scheduler, 2, 4)
    denoised = hs.diffusers.denoiser(pipe.unet, scheduler)(x, first, label=label)
    assert distance((denoised / 2 + 0.5).clamp(0, 1), made) < 1e-4
    pipe(2, label.tolist(), None, hs.diffusers.timesteps(start, pipe, 4), latents=z, output_type="pt")
    assert pipe.scheduler.sigmas[:-1].tolist() == pytest.approx(hs.log_uniform(3.0, 0.02, 4)[:-1].tolist(), rel=0.25)
    assert pipe.scheduler.sigmas[0].item() == pytest.approx(first)


def test_the_loop_of_a_pipeline_that_takes_no_latents() -> None:
    """DDPM, DDIM and DiT pipelines draw their own latents; the loop in the module's docstring, against ours."""
    pipe = diffusers.DiTPipeline(nets.dit(), None, diffusers.DPMSolverMultistepScheduler())
    start, label = law(LATENT).at(3.0), torch.tensor([3, 7])
    pipe.scheduler.set_timesteps(timesteps=hs.diffusers.timesteps(start, pipe, steps=6))
    x = hs.diffusers.latents(start, pipe.scheduler, n=2, seed=0)
    first = levels_of(pipe.scheduler, pipe.scheduler.timesteps.tolist())
    ours = hs.integrate(
        hs.diffusers.denoiser(pipe.transformer, pipe.scheduler), x * (1 + first[0] ** 2).sqrt().float(), first,
        cond={"label": label},
    )  # fmt: skip
    for t in pipe.scheduler.timesteps:
        noise = pipe.transformer(x, t.expand(2), class_labels=label).sample[:, :4]
        x = pipe.scheduler.step(noise, t, x).prev_sample
    assert distance(ours, x) < 1e-4


def test_edm_schedulers_begin_at_their_own_highest_level() -> None:
    start, network = law(nets.SHAPE).at(3.0), nets.unet()
    scheduler = diffusers.EDMEulerScheduler()
    with pytest.raises(ValueError, match=r"begins at its sigma_max 80, the start at 3; .* sigma_max=3"):
        hs.diffusers.latents(start, scheduler, 2)
    scheduler = diffusers.EDMEulerScheduler.from_config(scheduler.config, sigma_max=start.sigma)
    scheduler.set_timesteps(6)
    x = hs.diffusers.latents(start, scheduler, 2, seed=4) * scheduler.init_noise_sigma  # as pipelines do
    assert distance(x, start.sample(2, seed=4)) < 1e-6
    ours = hs.integrate(hs.diffusers.denoiser(network, scheduler), x, scheduler.sigmas.double(), hs.Euler())
    for t in scheduler.timesteps:
        x = scheduler.step(network(scheduler.scale_model_input(x, t), t).sample, t, x).prev_sample
    assert distance(ours, x) < 1e-4


def test_pipelines_that_draw_their_own_latents_are_named() -> None:
    for pipe in (
        diffusers.DDPMPipeline(nets.unet(), diffusers.DDPMScheduler()),
        diffusers.DiTPipeline(nets.dit(), None, diffusers.DDIMScheduler()),
    ):
        with pytest.raises(ValueError, match=f"latents: {type(pipe).__name__} takes no latents; give its scheduler"):
            hs.diffusers.latents(hs.Classic(LATENT, 3.0), pipe, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_latents_have_the_dtype_of_the_pipeline(dtype: torch.dtype) -> None:
    scheduler = diffusers.CMStochasticIterativeScheduler(clip_denoised=False)
    pipe = diffusers.ConsistencyModelPipeline(nets.unet(num_class_embeds=4).to(dtype), scheduler)
    pipe.set_progress_bar_config(disable=True)
    start = hs.Classic(nets.SHAPE, 3.0)
    z, exact = (hs.diffusers.latents(start, given, 2) for given in (pipe, scheduler))
    assert (z.dtype, exact.dtype) == (dtype, torch.float32)
    assert torch.equal(z, exact.to(dtype))
    made = pipe(2, [1, 2], None, hs.diffusers.timesteps(start, pipe, 1), latents=z, output_type="pt").images
    assert made.isfinite().all()


KARRAS = {"use_karras_sigmas": True}


@pytest.mark.parametrize(
    ("name", "options", "sigma", "way", "message"),
    [
        ("DDIMScheduler", {}, 3.0, "timesteps", "DDIMScheduler takes no timesteps; use DPMSolverMultistepScheduler"),
        ("DDPMScheduler", {}, 3.0, "sigmas", "DDPMScheduler takes no sigmas; use timesteps"),
        ("DDPMScheduler", {}, 300.0, "timesteps", "the start's sigma must be at most 157"),
        ("DDPMScheduler", {}, 0.03, "timesteps", "6 steps are more than DDPMScheduler has timesteps there"),
        (
            "FlowMatchEulerDiscreteScheduler",
            {},
            3.0,
            "timesteps",
            "has no table of timesteps; give the pipeline sigmas",
        ),
        ("FlowMatchEulerDiscreteScheduler", KARRAS, 3.0, "sigmas", "makes other levels of those it is given"),
        ("FlowMatchEulerDiscreteScheduler", {"use_dynamic_shifting": True}, 3.0, "sigmas", "mu must be given"),
        ("DPMSolverMultistepScheduler", KARRAS, 3.0, "timesteps", "use_karras_sigmas"),
        ("EDMEulerScheduler", {"sigma_max": 3.0}, 3.0, "sigmas", "makes its own between sigma_max"),
    ],
)
def test_schedulers_that_cannot_follow(name: str, options: Any, sigma: float, way: str, message: str) -> None:
    scheduler = getattr(diffusers, name)(**options)
    with pytest.raises((ValueError, TypeError), match=message):
        getattr(hs.diffusers, way)(hs.Classic((1,), sigma), scheduler, 6)
