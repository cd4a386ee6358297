"""diffusers' schedulers in the loop of a pipeline, on small networks of its own classes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

import headstart as hs
from bench.agreement.case import Absent, Case, distance, words
from headstart.solver import Solver

BAR, HALF = 1e-4, 2e-2
TRAILING = {"clip_sample": False, "timestep_spacing": "trailing"}
# DDIM's timesteps are even only where the number of steps divides 1,000. Of the multistep scheduler's options, the
# defaults are those of our rows: order 2, the midpoint form, a first-order step to 0; its third-order step starts with
# second-order steps of ours in the form it calls "heun".
VP: list[tuple[str, dict[str, Any], Solver]] = [
    ("DDIMScheduler", {"prediction_type": "epsilon", **TRAILING}, hs.Euler()),
    ("DDIMScheduler", {"prediction_type": "sample", "clip_sample": False}, hs.Euler()),
    ("DDIMScheduler", {"prediction_type": "v_prediction", "clip_sample": False}, hs.Euler()),
    ("DPMSolverMultistepScheduler", {}, hs.DPMpp2M()),
    ("DPMSolverMultistepScheduler", {"solver_order": 3, "solver_type": "heun"}, hs.DPMppSDE3M(0.0)),
    ("DPMSolverMultistepScheduler", {"solver_order": 1, "prediction_type": "v_prediction"}, hs.Euler()),
    ("UniPCMultistepScheduler", {}, hs.UniPC(bh2=True)),
    ("UniPCMultistepScheduler", {"prediction_type": "v_prediction"}, hs.UniPC(bh2=True)),
]
# The EDM schedulers make their own grid of equation 5 of EDM; of the multistep one, again the defaults.
KARRAS: list[tuple[str, dict[str, Any], Solver]] = [
    ("EDMEulerScheduler", {}, hs.Euler()),
    ("EDMEulerScheduler", {"prediction_type": "v_prediction", "sigma_data": 1.0}, hs.Euler()),
    ("EDMDPMSolverMultistepScheduler", {}, hs.DPMpp2M()),
    ("EulerDiscreteScheduler", {}, hs.Euler()),
    ("HeunDiscreteScheduler", {}, hs.Heun()),
]


def networks() -> ModuleType:
    """The networks.

    Raises:
        Absent: diffusers is not installed.
    """
    try:
        from bench.agreement import network
    except ModuleNotFoundError as missing:
        raise Absent(f'{missing}: pip install "headstart[diffusers]"') from None
    return network


def vp_levels(scheduler: Any) -> Tensor:
    """The noise levels of a scheduler's timesteps, then 0, `sigma^2 = 1/abar - 1` in float64."""
    steps = torch.unique(scheduler.timesteps.long()).flip(0)
    kept = scheduler.alphas_cumprod.double()[steps]
    return torch.cat([((1 - kept) / kept).sqrt(), torch.zeros(1)])


def loop(predict: Any, scheduler: Any, x: Tensor) -> Tensor:
    """The loop of a pipeline, with `predict(x, t)` what its network predicts."""
    with torch.no_grad():
        for t in scheduler.timesteps:
            told = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            x = scheduler.step(predict(told, t), t, x).prev_sample
    return x


def plain(network: Any) -> Any:
    """The prediction of a network without conditions, as float32."""
    return lambda x, t: network(x.to(network.dtype), t).sample.to(x.dtype)


def preserving(name: str, options: dict[str, Any], solver: Solver, dtype: torch.dtype = torch.float32) -> float:
    """A variance-preserving scheduler, 20 steps."""
    nets = networks()
    network, scheduler = nets.unet().to(dtype), getattr(nets.diffusers, name)(**options)
    scheduler.set_timesteps(20)
    grid, x = vp_levels(scheduler), nets.normals(2, *nets.SHAPE)
    denoiser = hs.diffusers.denoiser(network, scheduler)
    ours = hs.integrate(denoiser, x * (1 + grid[0] ** 2).sqrt().float(), grid, solver)
    return distance(ours, loop(plain(network), scheduler, x))


def exploding(name: str, options: dict[str, Any], solver: Solver) -> float:
    """A scheduler that keeps the state `x0 + sigma n`, 18 steps."""
    nets = networks()
    network, scheduler = nets.unet(), getattr(nets.diffusers, name)(**options)
    scheduler.set_timesteps(18)
    grid = torch.unique(scheduler.sigmas.double()).flip(0)
    x = grid[0].float() * nets.normals(2, *nets.SHAPE)
    ours = hs.integrate(hs.diffusers.denoiser(network, scheduler), x, grid, solver)
    return distance(ours, loop(plain(network), scheduler, x))


def text(weight: float, dtype: torch.dtype = torch.float32) -> float:
    """A text-conditioned U-Net under DDIM, drawn from an empty prompt to another, 20 steps."""
    nets = networks()
    network = nets.text_unet().to(dtype)
    scheduler = nets.diffusers.DDIMScheduler(clip_sample=False, beta_schedule="scaled_linear")
    scheduler.set_timesteps(20)
    prompt, empty = nets.normals(1, 5, 8, seed=1, dtype=dtype), nets.normals(1, 5, 8, seed=2, dtype=dtype)

    def guided(x: Tensor, t: Tensor) -> Tensor:
        worse, best = (network(x.to(dtype), t, e.expand(2, 5, 8)).sample.float() for e in (empty, prompt))
        return worse + weight * (best - worse)

    denoiser = hs.diffusers.denoiser(network, scheduler)
    ours = hs.guided(denoiser, weight, null={"encoder_hidden_states": empty})
    grid, x = vp_levels(scheduler), nets.normals(2, *nets.shape_of(network))
    cond = {"encoder_hidden_states": prompt}
    found = hs.integrate(ours, x * (1 + grid[0] ** 2).sqrt().float(), grid, hs.Euler(), cond=cond)
    return distance(found, loop(guided, scheduler, x))


def flow(shift: float, dtype: torch.dtype = torch.float32) -> float:
    """A transformer of Stable Diffusion 3 under flow-matching Euler, from below t = 1, where no signal is left."""
    nets = networks()
    network, scheduler = nets.transformer().to(dtype), nets.diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(11)
    cond = {"encoder_hidden_states": (1, 5, 12), "pooled_projections": (1, 16)}
    given = {name: nets.normals(*shape, seed=i, dtype=dtype) for i, (name, shape) in enumerate(cond.items(), 1)}
    wide = {name: value.expand(2, *value.shape[1:]) for name, value in given.items()}
    t, y = scheduler.sigmas.double()[1:], nets.normals(2, 4, 8, 8)
    grid = t / (1 - t)
    found = hs.integrate(
        hs.diffusers.denoiser(network, scheduler), y * (1 + grid[0]).float(), grid, hs.Euler(), cond=given
    )
    scheduler.timesteps = scheduler.timesteps[1:]
    scheduler.set_begin_index(1)

    def velocity(x: Tensor, at: Tensor) -> Tensor:
        return network(x.to(dtype), timestep=at.expand(2), **wide).sample.float()

    return distance(found, loop(velocity, scheduler, y))


def cases() -> Iterator[Case]:
    """Every scheduler with the solver of ours that it is; half precision of the network where that is usual."""
    for name, options, solver in VP:
        yield Case(f"{solver}", f"diffusers {name}", say(options, 20), BAR, partial(preserving, name, options, solver))
    for name, options, solver in KARRAS:
        yield Case(f"{solver}", f"diffusers {name}", say(options, 18), BAR, partial(exploding, name, options, solver))
    for dtype, bar in ((torch.float32, BAR), (torch.float16, HALF), (torch.bfloat16, HALF)):
        kind = str(dtype).removeprefix("torch.")
        for weight in (1.0, 4.0) if bar == BAR else (4.0,):
            run = partial(text, weight, dtype)
            setting = f"UNet2DConditionModel, guidance {weight:g}, 20 steps"
            yield Case("Euler()", "diffusers DDIMScheduler", setting, bar, run, kind)
        for shift in (1.0, 3.0) if bar == BAR else (3.0,):
            setting = f"SD3Transformer2DModel, shift={shift:g}, 10 steps"
            run = partial(flow, shift, dtype)
            yield Case("Euler()", "diffusers FlowMatchEulerDiscreteScheduler", setting, bar, run, kind)


def say(options: dict[str, Any], steps: int) -> str:
    """The setting as text."""
    return ", ".join(filter(None, ["UNet2DModel", words(options), f"{steps} steps"]))
