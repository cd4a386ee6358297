"""Whole pipelines of diffusers on small networks, from the states of a learned start or of their own draw."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

import headstart as hs
from bench.agreement.case import Case, distance
from bench.agreement.scheduler import BAR, networks, vp_levels
from headstart.adapters.diffusers.schedule import schedule_of
from headstart.adapters.diffusers.start import first_level
from headstart.bench.peers import require
from headstart.solver import Solver

LATENT = (4, 8, 8)
STABLE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
TEXT: list[tuple[str, str, Solver]] = [
    ("DPMSolverMultistepScheduler", "timesteps", hs.DPMpp2M()),
    ("EulerDiscreteScheduler", "timesteps", hs.Euler()),
    ("EulerDiscreteScheduler", "sigmas", hs.Euler()),
    ("HeunDiscreteScheduler", "timesteps", hs.Heun()),
]
SHIFTS: list[dict[str, Any]] = [{}, {"shift": 3.0}, {"use_dynamic_shifting": True}]


class Kept(nn.Module):
    """In place of a VAE: keeps the latents that it is given to decode."""

    def __init__(self) -> None:
        super().__init__()
        self.config, self.device, self.dtype = SimpleNamespace(scaling_factor=1.0), torch.device("cpu"), torch.float32

    def decode(self, latents: Tensor) -> Any:
        self.latents = latents
        return SimpleNamespace(sample=latents)


def law(shape: tuple[int, ...]) -> hs.GaussianMixture:
    """A mixture of two components."""
    data = 0.5 + 0.3 * networks().normals(60, *shape, seed=5) * torch.linspace(0.2, 1, shape[-1])
    return hs.fit(data, components=2, covariance=hs.LowRank(2), max_iter=3)


def levels_of(scheduler: Any, timesteps: list[int]) -> Tensor:
    """The noise levels of timesteps, and 0."""
    kept = scheduler.alphas_cumprod.double()[timesteps]
    return torch.cat([((1 - kept) / kept).sqrt(), torch.zeros(1)])


def first_state(start: Any, scheduler: Any, n: int, seed: int) -> Tensor:
    """The start's samples at the lowest level of the scheduler that is not below the start's."""
    first = first_level(schedule_of(scheduler), start)
    return hs.ops.noise(start.sample(n, seed=seed), math.sqrt(max(first**2 - start.sigma**2, 0.0)), seed, 0)


def text_pipeline(name: str, scheduler: Any, dtype: torch.dtype = torch.float32) -> Any:
    """A text-to-image pipeline on latents, without what makes latents of texts and images of latents.

    Raises:
        ImportError: diffusers or transformers is not installed.
    """
    nets = networks()
    require("transformers", "pip install transformers, which text-to-image pipelines of diffusers need")
    absent: dict[str, Any] = {"text_encoder": None, "tokenizer": None}
    if name == "StableDiffusion3Pipeline":
        absent |= {f"{part}_{i}": None for part in ("text_encoder", "tokenizer") for i in (2, 3)}
        network = {"transformer": nets.transformer()}
    else:
        absent |= {"safety_checker": None, "feature_extractor": None}
        network = {"unet": nets.text_unet()}
    vae = nets.made("AutoencoderKL", block_out_channels=(4,), norm_num_groups=2, latent_channels=4)
    options = {} if name == "StableDiffusion3Pipeline" else {"requires_safety_checker": False}
    pipe = getattr(nets.diffusers, name)(vae=vae, scheduler=scheduler, **network, **absent, **options).to(dtype)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def stable_diffusion(name: str, way: str, solver: Solver, weight: float = 1.0) -> float:
    """`StableDiffusionPipeline` in two lines, and ours from the same state at the same levels."""
    nets = networks()
    pipe = text_pipeline("StableDiffusionPipeline", getattr(nets.diffusers, name)(**STABLE))
    start, prompt, empty = law(LATENT).at(3.0), nets.normals(1, 5, 8, seed=1), nets.normals(1, 5, 8, seed=2)
    call = {"prompt_embeds": prompt.expand(2, 5, 8), "guidance_scale": weight, "output_type": "latent"}
    call |= {"negative_prompt_embeds": empty.expand(2, 5, 8)} if weight > 1 else {}
    z = hs.diffusers.latents(start, pipe, 2, seed=4)
    made = pipe(latents=z, **{way: getattr(hs.diffusers, way)(start, pipe, 6)}, height=8, width=8, **call).images
    if way == "sigmas":
        grid = torch.tensor(hs.diffusers.sigmas(start, pipe, 6), dtype=torch.float64)
    else:
        grid = levels_of(pipe.scheduler, hs.diffusers.timesteps(start, pipe, 6))
    assert len(grid) == 7
    denoiser = hs.guided(
        hs.diffusers.denoiser(pipe.unet, pipe.scheduler), weight, null={"encoder_hidden_states": empty}
    )
    x = first_state(start, pipe.scheduler, 2, 4)
    return distance(hs.integrate(denoiser, x, grid, solver, cond={"encoder_hidden_states": prompt}), made)


def stable_diffusion_3(options: dict[str, Any], weight: float = 1.0) -> float:
    """`StableDiffusion3Pipeline`, flow matching."""
    nets = networks()
    scheduler = nets.diffusers.FlowMatchEulerDiscreteScheduler(**options)
    pipe, start = text_pipeline("StableDiffusion3Pipeline", scheduler), law(LATENT).at(3.0)
    cond, null = (
        {"encoder_hidden_states": nets.normals(2, 5, 12, seed=i), "pooled_projections": nets.normals(2, 16, seed=i + 1)}
        for i in (1, 6)
    )
    mu = 0.8 if options.get("use_dynamic_shifting") else None
    made = pipe(
        latents=hs.diffusers.latents(start, pipe, 2, seed=4), sigmas=hs.diffusers.sigmas(start, pipe, 6, mu=mu), mu=mu,
        prompt_embeds=cond["encoder_hidden_states"], pooled_prompt_embeds=cond["pooled_projections"],
        negative_prompt_embeds=null["encoder_hidden_states"], negative_pooled_prompt_embeds=null["pooled_projections"],
        guidance_scale=weight, output_type="latent", height=8, width=8,
    ).images  # fmt: skip
    denoiser = hs.guided(hs.diffusers.denoiser(pipe.transformer, pipe.scheduler), weight, null=null)
    grid = hs.log_uniform(3.0, 0.02, 6)
    return distance(hs.sample(denoiser, start, 2, grid=grid, solver=hs.Euler(), seed=4, cond=cond), made)


def dit(weight: float) -> float:
    """`DiTPipeline`, which draws its own latents: ours from the same ones, by generator."""
    nets = networks()
    network, scheduler = nets.dit(1000), nets.diffusers.DDIMScheduler(clip_sample=False)
    network.proj_out_2.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    pipe = nets.diffusers.DiTPipeline(network, Kept(), scheduler)
    pipe.set_progress_bar_config(disable=True)
    generator, label = torch.Generator().manual_seed(3), torch.tensor([3, 7])
    pipe(label.tolist(), weight, generator, 20, output_type="pt")
    denoiser = hs.diffusers.denoiser(network, scheduler)
    guided = hs.guided(denoiser, weight, null={"label": denoiser.null_label})
    grid, x = vp_levels(scheduler), nets.normals(2, *LATENT, seed=3)
    found = hs.integrate(guided, x * (1 + grid[0] ** 2).sqrt().float(), grid, hs.Euler(), cond={"label": label})
    return distance(found, pipe.vae.latents)


def cases() -> Iterator[Case]:
    """Pipelines with and without guidance."""
    steps = "6 steps from sigma 3"
    for name, way, solver in TEXT:
        for weight in (1.0, 5.0) if name == "DPMSolverMultistepScheduler" else (1.0,):
            ours, setting = f"diffusers.latents, {way}; {solver}", f"{name}, guidance {weight:g}, {steps}"
            run = partial(stable_diffusion, name, way, solver, weight)
            yield Case(ours, "diffusers StableDiffusionPipeline", setting, BAR, run)
    for options in SHIFTS:
        for weight in (1.0, 5.0) if not options else (1.0,):
            said = "".join(f"{name}={value}, " for name, value in options.items())
            run = partial(stable_diffusion_3, options, weight)
            setting = f"{said}guidance {weight:g}, {steps}"
            yield Case("diffusers.latents, sigmas; Euler()", "diffusers StableDiffusion3Pipeline", setting, BAR, run)
    for weight in (1.0, 4.0):
        setting = f"DDIMScheduler, its own draw, guidance {weight:g}, 20 steps"
        yield Case("diffusers.denoiser; Euler()", "diffusers DiTPipeline", setting, BAR, partial(dit, weight))
