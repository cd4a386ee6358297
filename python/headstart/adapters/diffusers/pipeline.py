"""What a pipeline makes of what it is given: its scheduler's first level, the scale of its state, its own levels."""

from __future__ import annotations

import copy
import inspect
import math
from typing import Any

import torch
from torch import Tensor

from headstart.adapters.diffusers.schedule import Karras, Schedule
from headstart.adapters.diffusers.table import Consistency, Diffusion
from headstart.grid import log_uniform
from headstart.initializer.protocol import Start
from headstart.request import SIGMA_MIN, levels_of


def scheduler_of(pipe: Any) -> Any:
    """The scheduler of a pipeline, or the scheduler given as it is."""
    return getattr(pipe, "scheduler", pipe)


def first_level(schedule: Schedule, start: Start) -> float:
    """The noise level where the pipeline begins.

    Raises:
        ValueError: a start above the schedule's highest level, or not at the one level where EDM's schedulers begin.
    """
    if isinstance(schedule, Karras) and abs(start.sigma - schedule.sigma_max) > 1e-6 * start.sigma:
        raise ValueError(
            f"latents: the scheduler begins at its sigma_max {schedule.sigma_max:g}, the start at {start.sigma:g}; "
            f"make it again with from_config(scheduler.config, sigma_max={start.sigma:g})"
        )
    if start.sigma > schedule.sigma_max * (1 + 1e-6):
        raise ValueError(f"latents: the start's sigma must be at most {schedule.sigma_max:g}, got {start.sigma:g}")
    return schedule.at_least(start.sigma)


def levels_down(op: str, schedule: Schedule, start: Start, steps: int | None, grid: Tensor | None) -> list[float]:
    """The noise levels of the pipeline's steps, without the last 0."""
    first = first_level(schedule, start)
    lowest = max(SIGMA_MIN, schedule.sigma_min)
    if grid is None and steps is not None and start.sigma > lowest:
        grid = log_uniform(start.sigma, lowest, steps)
    return [first, *levels_of(op, start, steps, grid)[1:-1]]


def scale_of(scheduler: Any, schedule: Schedule, sigma: float) -> float:
    """What a state `x0 + sigma n` is multiplied by to be what the pipeline is given."""
    keeps_state = isinstance(getattr(type(scheduler), "init_noise_sigma", None), property)
    if not keeps_state and not isinstance(schedule, Consistency):
        return schedule.preconditioning(sigma).c_in
    if isinstance(schedule, Diffusion):  # init_noise_sigma is that of the pipeline's first timestep
        scheduler = copy.deepcopy(scheduler)
        scheduler.sigmas = torch.tensor([sigma, 0.0])
    return 1 / float(scheduler.init_noise_sigma)


def unshifted(scheduler: Any, t: float, mu: float | None) -> float:
    """The time that the scheduler's shift takes to `t`: `t s/(1 + (s - 1) t)`, `s` its shift, is undone."""
    shift = scheduler.config.get("shift", 1.0) if mu is None else mu
    if mu is not None and scheduler.config.get("time_shift_type", "exponential") == "exponential":
        shift = math.exp(mu)
    return t / (shift - (shift - 1) * t)


def require_latents(pipe: Any) -> None:
    """Refuses a pipeline that draws its own latents.

    Raises:
        ValueError: as said.
    """
    if callable(pipe) and "latents" not in inspect.signature(pipe).parameters:
        raise ValueError(
            f"latents: {type(pipe).__name__} takes no latents; give its scheduler here and follow the loop in "
            "help(headstart.diffusers), or sample with headstart.diffusers.denoiser"
        )


def require_argument(scheduler: Any, argument: str, instead: str) -> None:
    """Refuses a scheduler whose `set_timesteps` has no such argument.

    Raises:
        ValueError: as said.
    """
    if argument not in inspect.signature(scheduler.set_timesteps).parameters:
        raise ValueError(f"{argument}: {type(scheduler).__name__} takes no {argument}; use {instead}")


def trial(scheduler: Any, **given: Any) -> Any:
    """A copy of the scheduler, told what the pipeline will tell it."""
    copied = copy.deepcopy(scheduler)
    copied.set_timesteps(**given)
    return copied


def require_kept(op: str, name: str, wanted: list[Any], made: list[Any]) -> None:
    """Refuses a scheduler that made others of the levels it was given.

    Raises:
        ValueError: as said.
    """
    if len(made) != len(wanted) or any(abs(a - b) > 1e-4 * abs(a) for a, b in zip(wanted, made, strict=True)):
        raise ValueError(
            f"{op}: {name} makes other levels of those it is given; see its use_..._sigmas and shift options"
        )
