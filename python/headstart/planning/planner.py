"""Making a plan: the start's law stands in for the network, so that no network call is needed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor

from headstart.argument import require_flag
from headstart.denoiser import Denoiser, Preconditioned
from headstart.io.keyword import gather
from headstart.io.progress import track
from headstart.ops.check import describe, is_integer, require_address
from headstart.ops.library import exact
from headstart.planning.flow import ReducedFlow, reduce_flow
from headstart.planning.measure import (
    FINE,
    MIN_NOISE,
    allow_noise,
    calibrate,
    generator,
    measure_on_network,
    measure_on_start,
)
from headstart.planning.table import (
    GHOST,
    TRIAL_STEPS,
    TRIALS,
    PlanTable,
    TableFit,
    draw_trajectories,
    rank_grids,
)
from headstart.sampling.edge import check_denoiser, check_start, part_of, settle
from headstart.solver.plan import SIGMA_MAX, MadeFor, Plan
from headstart.start import GaussianMixture, MixtureStart

if TYPE_CHECKING:
    from typing_extensions import Unpack

TRAINING, VALIDATION, BATCH = 512, 256, 128
STEPS = 180
TRIED = 16  # latents that plans are tried with on the network
MAX_CALLS = 64


class PlanKeywords(TypedDict, total=False):
    """Keyword arguments of `PlanOptions`."""

    denoiser: Denoiser | Preconditioned | None
    heldout: Tensor | None
    cond: Mapping[str, Any] | None
    progress: bool


@dataclass(frozen=True)
class PlanOptions:
    """A network and data to calibrate a plan with, as `plan` describes them."""

    denoiser: Denoiser | Preconditioned | None = None
    heldout: Tensor | None = None
    cond: Mapping[str, Any] | None = None
    progress: bool = False


@torch.inference_mode(False)  # the fit takes gradients
def plan(
    start: MixtureStart | GaussianMixture, nfe: int = 5, sigma_start: float | None = None, free_history: bool = True,
    seed: int = 0, **options: Unpack[PlanKeywords],
) -> Plan:  # fmt: skip
    """Noise levels and multistep coefficients for `nfe` network calls, fitted on the start's own flow.

    The rows are those of `planning/table.py`; the loss is the mean over samples of the root-mean-square distance to the
    fine solution, plus the variance that noisy predictions would add. Fitted by Adam from the best of several
    DPM-Solver++ 2M grids; the best on validation trajectories is kept.

    Args:
        start: a mixture at the horizon `sigma_T` (`mixture.at(sigma)`, of one class by `mixture.given(label)`), or a
            mixture, whose plans begin at 80.
        nfe: network calls a sample.
        sigma_start: where the plan begins; None: at 80 or at `sigma_T`, whichever is better on validation.
        free_history: at `sigma_T`, let the first rows use the start's own predictions, which cost no network call.
        seed: of the trajectories; the same seed gives the same plan on one machine.
        denoiser, heldout: a network and data `[N, *shape]` that it and the start were not fitted on, given together:
            their denoising errors set how much noise in the predictions is allowed for, unless a plan that allows for
            none does better on the network itself, on 16 latents; and where network and start disagree above `sigma_T`
            by more than is gained there, the plan begins at 80.
        cond: the denoiser's keyword arguments for `heldout`.
        progress: show a progress bar (False).

    Raises:
        TypeError: a start that is no Gaussian mixture, or an unknown keyword.
        ValueError: a number out of its range, a network without held-out data, or data of another shape.
    """
    began, asked = time.perf_counter(), gather("plan", PlanOptions, options)
    denoiser, heldout = asked.denoiser, asked.heldout
    free_history = require_flag("plan", "free_history", free_history)
    mixture, horizon = _require(start, nfe, sigma_start, seed, asked)
    nfe, seed = int(nfe), int(seed)
    of = start if isinstance(start, MixtureStart) else None
    cond = settle("plan", asked.cond, 0 if heldout is None else len(heldout), of)
    found, shares = None, [MIN_NOISE]
    if denoiser is not None and heldout is not None:
        found = calibrate(mixture, denoiser, heldout, horizon or SIGMA_MAX / 2, cond, seed)
        shares = sorted({MIN_NOISE, found.noise()})
    flow = reduce_flow(mixture)
    begins = [sigma_start] if sigma_start is not None else [level for level in (SIGMA_MAX, horizon) if level]
    task = PlanTask(flow, horizon, nfe, free_history, found.displacement if found else 0.0, seed)
    iterations = len(shares) * (len(begins) * TRIALS * TRIAL_STEPS + STEPS - TRIAL_STEPS)
    with track("plan", iterations, asked.progress) as advance:
        made = [fit_plan(task, begins, share, advance) for share in shares]
    best = made[0]
    provenance: dict[str, Any] = {"seed": seed}
    if found is not None:
        provenance["calibration"] = asdict(found) | {"noise": found.noise()}
    if len(made) > 1 and denoiser is not None and heldout is not None:
        n = min(TRIED, len(heldout))
        given = {name: part_of(value, len(heldout), 0, n) for name, value in cond.items()}
        errors = [measure_on_network(one, denoiser, mixture, n, given, seed) for one in made]
        best = made[errors.index(min(errors))]
        provenance["on the network"] = dict(zip(map(str, shares), errors, strict=True))
    provenance |= {**best.provenance, "components": len(mixture.weight), "shape": list(mixture.shape)}
    far = draw_trajectories(flow, SIGMA_MAX, VALIDATION, False, FINE, generator(seed, 2))
    best = replace(
        best,
        expected_error=measure_on_start(best, mixture, seed),
        classic_error=rank_grids(flow, far, SIGMA_MAX, nfe)[0],
    )
    made_for = MadeFor(mixture.shape, len(mixture.weight), horizon, mixture.fingerprint)
    seconds = round(time.perf_counter() - began, 2)
    return replace(best, provenance=provenance | {"seconds": seconds}, made_for=made_for)


@dataclass(frozen=True)
class PlanTask:
    """A plan that is asked for.

    Attributes:
        flow: the start's own flow.
        horizon: sigma_T, or None.
        nfe: network calls a sample.
        free_history: at the horizon, let the first rows use the start's own predictions.
        displacement: how far network and start are apart at the horizon, as `Calibration` has it.
        seed: of the trajectories.
    """

    flow: ReducedFlow
    horizon: float | None
    nfe: int
    free_history: bool
    displacement: float
    seed: int


@exact
def fit_plan(task: PlanTask, begins: Sequence[float], share: float, advance: Callable[..., None]) -> Plan:
    """The plan from one of the levels `begins`; its errors are not known yet.

    Args:
        task: the plan asked for.
        begins: where it may begin.
        share: noise that is allowed for in a prediction, of the start's own denoising error.
        advance: called after each iteration.
    """
    noise, steps = allow_noise(task.flow, share, task.seed), STEPS - TRIAL_STEPS
    fits = [fit_trial(task, level, noise, advance) for level in begins]
    apart = [task.displacement if fit.table.sigma == task.horizon else 0.0 for fit in fits]
    errors = [math.hypot(fit.error, gap) for fit, gap in zip(fits, apart, strict=True)]
    fit = fits[errors.index(min(errors))]
    fit.run(steps, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)), advance)
    nodes = (*fit.best.levels().tolist(), 0.0)
    ghost = GHOST * fit.table.sigma if fit.table.free_history else None
    provenance = {"noise": share, "after trials": dict(zip(map(str, begins), errors, strict=True))}
    return Plan(nodes, tuple(fit.best.rows()), ghost, 0.0, 0.0, provenance)


@exact
def fit_trial(
    task: PlanTask, sigma: float, noise: Callable[[Tensor], Tensor], advance: Callable[..., None]
) -> TableFit:
    """The best of the first grids from `sigma`, each fitted for a few iterations."""
    flow, seed, free_history = task.flow, task.seed, task.free_history and sigma == task.horizon
    train = draw_trajectories(flow, sigma, TRAINING, free_history, FINE, generator(seed, 0))
    check = draw_trajectories(flow, sigma, VALIDATION, free_history, FINE, generator(seed, 1))
    fits = []
    for grid in rank_grids(flow, check, sigma, task.nfe)[1][:TRIALS]:
        fit = TableFit(flow, PlanTable.of_grid(grid, free_history), train, check, noise, generator(seed, 3), BATCH)
        fit.run(TRIAL_STEPS, lambda step: 1.0, advance)
        fits.append(fit)
    return min(fits, key=lambda fit: fit.error)


def _require(
    start: object, nfe: int, sigma_start: float | None, seed: int, options: PlanOptions
) -> tuple[GaussianMixture, float | None]:
    if isinstance(start, type) or callable(start):
        check_start("plan", start)
    mixture, horizon = (start.mixture, start.sigma) if isinstance(start, MixtureStart) else (start, None)
    if not isinstance(mixture, GaussianMixture):
        raise TypeError(f"plan: start must be a GaussianMixture, or one .at(sigma), got {type(mixture).__name__}")
    if horizon is not None and not 0 < horizon < SIGMA_MAX:
        raise ValueError(f"plan: the start's sigma must be above 0 and below {SIGMA_MAX:g}, got {horizon}")
    if not is_integer(nfe) or not 1 <= nfe <= MAX_CALLS:
        raise ValueError(f"plan: nfe must be an integer from 1 to {MAX_CALLS}, got {nfe!r}")
    if sigma_start is not None and sigma_start not in (SIGMA_MAX, horizon):
        wanted = f"None, {SIGMA_MAX:g} or the start's sigma {horizon}"
        raise ValueError(f"plan: sigma_start must be {wanted}, got {sigma_start}")
    require_address("plan", seed, 0, 0, 0, 0, 1)
    if (options.denoiser is None) != (options.heldout is None):
        raise ValueError("plan: denoiser and heldout must be given together")
    if options.denoiser is not None:
        check_denoiser("plan", options.denoiser)
        if not isinstance(options.heldout, Tensor):
            got = describe(options.heldout)
            raise TypeError(f"plan: heldout must be a tensor [N, *{list(mixture.shape)}], got {got}")
    return mixture, horizon
