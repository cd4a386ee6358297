"""A learned start for a pipeline of diffusers: its latents, and the timesteps or sigmas that lead down from there.

A pipeline begins at one of its scheduler's own noise levels. Where these are a table (`alphas_cumprod`), that is the
lowest one not below the start's sigma, and the latents have the little noise that is missing added, so that their law
is exact; flow matching begins at the start's sigma itself, and EDM's schedulers at their `sigma_max`, which is made
the start's by `from_config(scheduler.config, sigma_max=start.sigma)`.

What a pipeline makes of what it is given: its scheduler's first level, the scale of its state, its own levels.
"""

from __future__ import annotations

import copy
import inspect
import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from headstart import ops
from headstart.adapters.diffusers.schedule import Consistency, Diffusion, Karras, Schedule, TableSchedule, schedule_of
from headstart.argument import require_number
from headstart.sampling.edge import check_start, whole
from headstart.sampling.request import SIGMA_MIN, initial_state, levels_of, require_state
from headstart.solver.grid import log_uniform
from headstart.start.protocol import Start


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
        scheduler.sigmas = torch.tensor([sigma, 0.0], dtype=torch.float32, device="cpu")
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
        ValueError: the pipeline takes no latents.
    """
    if callable(pipe) and "latents" not in inspect.signature(pipe).parameters:
        raise ValueError(
            f"latents: {type(pipe).__name__} takes no latents; give its scheduler here and follow the loop in "
            "help(headstart.diffusers), or sample with headstart.diffusers.denoiser"
        )


def require_argument(scheduler: Any, argument: str, instead: str) -> None:
    """Refuses a scheduler whose `set_timesteps` has no such argument.

    Raises:
        ValueError: the scheduler takes no such argument.
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
        ValueError: the levels made are not those wanted.
    """
    if len(made) != len(wanted) or any(abs(a - b) > 1e-4 * abs(a) for a, b in zip(wanted, made, strict=True)):
        raise ValueError(
            f"{op}: {name} makes other levels of those it is given; see its use_..._sigmas and shift options"
        )


def latents(
    start: Start, pipe: Any, n: int, seed: int = 0, offset: int = 0, label: Tensor | None = None,
    dtype: torch.dtype | None = None, device: torch.device | str | None = None,
) -> Tensor:  # fmt: skip
    """`[n, *shape]` for `pipe(latents=...)`: the start's samples in the scale of the pipeline's scheduler.

    `x / sqrt(1 + sigma^2)` for a variance-preserving scheduler, `x / (1 + sigma)` for flow matching, and `x` divided
    by the `init_noise_sigma` that the pipeline multiplies by for those that keep the state at `x0 + sigma n`.

    Args:
        start: law at `start.sigma` of what the network denoises: images, or latents after the scaling factor.
        pipe: the pipeline, or its scheduler.
        n: number of samples.
        seed, offset: address of the draw: sample i is a function of (seed, offset + i).
        label: classes `[n]` for a start that is conditional on classes.
        dtype, device: of the result; None: the pipeline's, or float32 where the start is.

    Raises:
        TypeError, ValueError: a scheduler that is not supported, a start above its highest noise level, or a pipeline
            that takes no latents.
    """
    check_start("latents", start)
    n = whole("latents", "n", n, 0)
    scheduler = scheduler_of(pipe)
    schedule = schedule_of(scheduler)
    require_latents(pipe)
    sigma = first_level(schedule, start)
    require_state("latents", torch.float32, seed, offset, n)
    with torch.no_grad():
        x = initial_state(start, n, seed, offset, None, {} if label is None else {"label": label}).to(torch.float32)
        missing = math.sqrt(max(sigma**2 - start.sigma**2, 0.0))
        if missing:
            x = ops.noise(x.contiguous(), missing, seed, 0, offset)  # an address of our solvers, none of which runs
        x = scale_of(scheduler, schedule, sigma) * x
    given = pipe if pipe is not scheduler else None
    return x.to(dtype=dtype or getattr(given, "dtype", x.dtype), device=device or getattr(given, "device", x.device))


def timesteps(start: Start, pipe: Any, steps: int | None = None, grid: Tensor | None = None) -> list[int]:
    """Descending timesteps for `pipe(timesteps=...)`, from the start's noise level down.

    Args:
        start: the start of `latents`.
        pipe: the pipeline, or its scheduler.
        steps: number of timesteps; may be left out when `grid` is given.
        grid: noise levels `[steps + 1]` as in `sample`, each taken to the nearest timestep; when None, log-uniform down
            to 0.02 or the lowest of the scheduler, then 0.

    Raises:
        TypeError: a scheduler that is not supported, or has no table of timesteps (use `sigmas`).
        ValueError: a scheduler that only makes its own, such as `DDIMScheduler`, or more steps than timesteps.
    """
    check_start("timesteps", start)
    scheduler = scheduler_of(pipe)
    schedule, name = schedule_of(scheduler), type(scheduler).__name__
    if not isinstance(schedule, TableSchedule) or getattr(schedule, "continuous", False):
        raise TypeError(f"timesteps: {name} has no table of timesteps; give the pipeline sigmas")
    found = [round(schedule.index(level)) for level in levels_down("timesteps", schedule, start, steps, grid)]
    if any(after >= before for before, after in pairwise(found)):
        raise ValueError(f"timesteps: {len(found)} steps are more than {name} has timesteps there, got {found}")
    require_argument(scheduler, "timesteps", "DPMSolverMultistepScheduler (its solver_order=1 is DDIM's step)")
    if isinstance(schedule, Consistency):  # counts from the highest level down, and is told the last one first
        return [len(schedule.sigmas) - 1 - i for i in reversed(found)]
    made = trial(scheduler, timesteps=found).timesteps
    require_kept("timesteps", name, found, list(dict.fromkeys(made.tolist())))
    return found


def sigmas(
    start: Start, pipe: Any, steps: int | None = None, grid: Tensor | None = None, mu: float | None = None
) -> list[float]:
    """Sigmas for `pipe(sigmas=...)`, in the scheduler's own terms, from the start's noise level down.

    `t = sigma/(1 + sigma)` for flow matching, such that the scheduler's shift leads to it; with the last 0 for those
    that ask for it (`EulerDiscreteScheduler`).

    Args:
        start, pipe, steps, grid: as in `timesteps`.
        mu: the shift that the pipeline gives a scheduler with `use_dynamic_shifting`.

    Raises:
        TypeError: a scheduler that is not supported.
        ValueError: a scheduler that takes no sigmas or makes others of them, or dynamic shifting without `mu`.
    """
    check_start("sigmas", start)
    mu = None if mu is None else require_number("sigmas", "mu", mu)
    scheduler = scheduler_of(pipe)
    schedule, name = schedule_of(scheduler), type(scheduler).__name__
    levels = levels_down("sigmas", schedule, start, steps, grid)
    require_argument(scheduler, "sigmas", "timesteps")
    if isinstance(schedule, Karras):
        raise ValueError(f"sigmas: {name} makes its own between sigma_max, which is the start's, and sigma_min")
    if isinstance(schedule, Diffusion):
        require_kept("sigmas", name, levels, trial(scheduler, sigmas=[*levels, 0.0]).sigmas[:-1].tolist())
        return [*levels, 0.0]
    if scheduler.config.get("use_dynamic_shifting") and mu is None:
        raise ValueError(f"sigmas: mu must be given for {name} with use_dynamic_shifting, got None")
    wanted = [level / (1 + level) for level in levels]
    given = [unshifted(scheduler, t, mu) for t in wanted]
    extra = {} if mu is None else {"mu": mu}
    require_kept("sigmas", name, wanted, trial(scheduler, sigmas=given, **extra).sigmas[:-1].tolist())
    return given
