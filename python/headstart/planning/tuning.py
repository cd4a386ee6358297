"""Tuning: a plan's table fitted to the network it will run, by forward calls alone."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from torch import Tensor

from headstart.guidance import Guided
from headstart.io.progress import track
from headstart.ops.array import tensor_of
from headstart.ops.check import describe, is_integer, require_address
from headstart.planning.planner import MAX_CALLS
from headstart.planning.planner import plan as plan_on_start
from headstart.planning.runner import Runner
from headstart.planning.search import CHOICE, HELD, MIXES, RANKED, RETRIES, TRAIN, Setup, Unknowns, ranking, search
from headstart.planning.target import Features, Goal, Pairing, feature_sets, figures
from headstart.sampling.edge import check_denoiser
from headstart.sampling.request import plan_start
from headstart.solver import DEIS, IPNDM, DPMpp2M, Row
from headstart.solver.grid import karras, log_uniform
from headstart.solver.plan import MAX_PREDICTIONS, SIGMA_MAX, MadeFor, Plan
from headstart.solver.row import Solver
from headstart.start import GaussianMixture, MixtureStart
from headstart.start.protocol import Start

if TYPE_CHECKING:
    from typing_extensions import Unpack

SAMPLES, PAIRED, MIN_SAMPLES = 400, 48, 32  # latents for moments, for distances to fine solutions, at least
FINE, MIN_SIGMA = 30, 0.01  # calls of a fine solution, and its last level
LAST = (0.02, 0.05, 0.1, 0.2)  # last levels of the classic tables
MAX_WEIGHT = 10.0  # of a prediction in a classic table: beyond it errors of the network grow too much
SOLVERS: tuple[Solver, ...] = (DPMpp2M(), IPNDM(3), DEIS(2))
ITERATIONS = {"data": 3, "network": 5}


class TuneOptions(TypedDict, total=False):
    """Keywords of `tune` beyond its arguments; see there."""

    n: int
    budget: int
    iterations: int
    batch: int
    features: Features
    free_history: bool


def tune(
    plan: Plan | int, denoiser: Any, start: Start, target: Literal["network"] | Tensor = "network",
    cond: Mapping[str, Any] | None = None, seed: int = 0, progress: bool = True, **options: Unpack[TuneOptions],
) -> Plan:  # fmt: skip
    """A plan fitted to the network by forward calls alone: compiled, half-precision, guided and remote ones work too.

    Unknowns `u` (`planning/search.py`): log-gaps of the nodes, the call level of every row after the first, and
    weights of the predictions, all of them where the target is the network, a gain and a bend `(1 + g_i) D_i +
    b_i (D_i - D_{i-1})` a row where it is data. Residuals `r(u)` (`planning/target.py`): of the network, `x - x_fine`
    from the same latents, as it is and with minor directions brought up, divided by each sample's rms; of the data,
    `(m, C_ii - 1, 0.7 C_ij)` of whitened features. Levenberg-Marquardt with finite differences
    (`planning/search.py`), the same latents in every evaluation, with a ridge towards the given plan. For data,
    steps of mixtures of both residuals are tried beside the data's own. What is returned was chosen on a second set of
    latents and, for data, with a second set of features; a third set of latents must confirm it. Where nothing wins,
    the given plan comes back as it was.

    For data the merit is `ln(S / S_real)` on the second set of features, `S` the moments' square and `S_real` what nine
    in ten groups of as many real samples stay below; a plan at more than four times the given plan's distance to the
    fine solution, and a tenth of the data's scale, is not taken. Where the given plan's samples are as near as real
    ones on the first or second set of latents, as where network and start are exact, moments have nothing more to
    tell and only the distance counts.

    Args:
        plan: what to begin from, or a number of network calls: then the best of the plan on the start (a Gaussian
            mixture's) and several tables of DPM-Solver++ 2M, iPNDM and DEIS.
        denoiser: as in `sample`.
        start: where the plan begins, any; for a plan from 80 on a start at another level, the classic one.
        target: "network", or clean data `[N, *shape]`, a tensor or numpy array, that the samples should look like.
        cond: keyword arguments of the denoiser; tensors may have any number of rows, taken in turn over the latents.
            For data they should have the data's own mix of classes.
        seed: of the latents; one seed gives one plan on one machine.
        progress: show a progress bar, with the number of network evaluations that it will take at most.
        **options: `n`: latents of each set, 400 for data and 48 for the network, fewer where the budget is short;
            `budget`: network evaluations of one sample in all, 100,000, those of both branches of a guided network
            counted; `iterations`: 3 for data, 5 for the network; `batch`: samples at a time, 64; `features`: a map
            `[B, *shape] -> [B, F]` to tune on, in place of gradient features (images) or the data's own coordinates;
            `free_history`: whether a plan made here may use the start's own predictions, True.

    Returns:
        A `Plan` that `sample` runs from `start`. `expected_error` and `classic_error` are distances to the fine
        solution on the third set of latents, and `provenance["tuned"]` has the merits there, what was spent, and
        `kept`: whether it is the given plan.

    Raises:
        ValueError, TypeError: an argument out of its range or of another kind, or a budget that is too small, before
            any network call.

    References: see `planning/search.py`; "Learning to Discretize Denoising Diffusion ODEs" (Tong et al., 2024,
    https://arxiv.org/abs/2405.15506) fits nodes and call levels by backpropagation.
    """
    began = time.perf_counter()
    settings: dict[str, Any] = {"batch": 64, "budget": 100_000, "free_history": True, **options}
    target = tensor_of(target)
    check(plan, target, start, seed, settings)
    check_denoiser("tune", denoiser)
    if isinstance(plan, Plan):
        start = plan_start(plan, start)
    tables = [plan] if isinstance(plan, Plan) else first_tables(start, plan, seed, settings["free_history"])
    kind = "network" if isinstance(target, str) else "data"
    widest = max((Unknowns.of(one, kind == "network").size, one.nfe) for one in tables)
    size = Effort.of(kind, denoiser, tables, widest[0], settings)
    title = f"tune: at most {size.cost:,} network evaluations"
    with track(title, size.runs, progress) as advance:
        runner = Runner(denoiser, start, cond or {}, seed, settings["budget"], settings["batch"], advance)
        task = prepare(runner, target, size, settings.get("features"), seed)
        given, steps, chosen = search(task, tables, size.iterations, kind)
        about = {"target": kind, "seed": seed, "latents": size.n, "paired": size.paired, "planned": size.cost}
        return finish(task, given, chosen, about | {"steps": steps, "began": began})


@dataclass(frozen=True)
class Effort:
    """How many latents and iterations the budget allows.

    Fields:
        n, paired: latents of a set, and those of them with fine solutions.
        iterations: at most.
        cost: network evaluations of all of it, at most.
        runs: tables run.
    """

    n: int
    paired: int
    iterations: int
    cost: int
    runs: int

    @classmethod
    def of(cls, kind: str, denoiser: Any, tables: Sequence[Plan], unknowns: int, settings: Mapping[str, Any]) -> Effort:
        """As many latents as were asked for, or as the budget allows; fewer iterations before fewer than half of them.

        Raises:
            ValueError: The budget is not enough for 32 latents and one iteration.
        """
        each = 2 if isinstance(denoiser, Guided) else 1
        calls = each * tables[0].nfe
        wanted = settings.get("n") or (SAMPLES if kind == "data" else PAIRED)
        choices = len(MIXES) if kind == "data" else 1
        least, first = 0, len(tables) if len(tables) > 1 else 0
        for iterations in range(settings.get("iterations") or ITERATIONS[kind], 0, -1):
            whole = 4 + iterations * (1 + unknowns + RETRIES + choices)  # runs of all latents
            few = 3 * FINE * each + 2 * len(LAST) * calls  # evaluations of a paired latent
            paired = min(wanted, PAIRED) if kind == "data" else wanted
            near = few + first * calls  # tables are ranked on those, and on one latent in four at least
            n = (settings["budget"] - paired * near) // ((whole + math.ceil(first / RANKED)) * calls)
            if kind == "network":
                n = paired = min(wanted, settings["budget"] // (whole * calls + near))
            n = min(n, wanted)
            least = (whole * calls + near) * MIN_SAMPLES
            if n >= (wanted + 1) // 2 or (iterations == 1 and n >= min(MIN_SAMPLES, wanted)):
                cost = n * whole * calls + min(paired, n) * few + first * calls * ranking(n, min(paired, n))
                return cls(n, min(paired, n), iterations, cost, first + whole + 3 + 2 * len(LAST))
        raise ValueError(f"tune: budget must be at least {least:,} network evaluations, got {settings['budget']:,}")


def check(plan: Any, target: Any, start: Any, seed: int, settings: Mapping[str, Any]) -> None:
    """Refuses what cannot be tuned.

    Raises:
        ValueError, TypeError: an option out of its range, or a plan, target or start of another kind.
    """
    unknown = sorted(set(settings) - set(TuneOptions.__annotations__))
    if unknown:
        raise TypeError(f"tune: options must be among {', '.join(TuneOptions.__annotations__)}, got {unknown[0]}")
    if not isinstance(plan, Plan) and (not is_integer(plan) or not 1 <= plan <= MAX_CALLS):
        raise ValueError(f"tune: plan must be a Plan or a number of calls from 1 to {MAX_CALLS}, got {plan!r}")
    if not isinstance(start, Start):
        raise TypeError(f"tune: start must be at a noise level, such as mixture.at(sigma), got {type(start).__name__}")
    if isinstance(target, Tensor):
        sound = target.is_floating_point() and tuple(target.shape[1:]) == tuple(start.shape)
        if not sound or len(target) < MIN_SAMPLES or not target.isfinite().all():
            wanted = f"finite floating data [N >= {MIN_SAMPLES}, {', '.join(map(str, start.shape))}]"
            raise ValueError(f"tune: target must be {wanted}, got {describe(target)}")
    elif not isinstance(target, str) or target != "network":
        raise ValueError(f'tune: target must be "network" or data [N, *shape], got {target!r:.100}')
    elif "features" in settings:
        raise ValueError("tune: features must go with data as the target, got the network")
    for name in ("n", "budget", "iterations", "batch"):
        if name in settings and (not isinstance(settings[name], int) or settings[name] < (8 if name == "n" else 1)):
            least = 8 if name == "n" else 1
            raise ValueError(f"tune: {name} must be an integer of at least {least}, got {settings[name]!r}")
    require_address("tune", seed, 0, 0, 0, 0, 1)


def first_tables(start: Start, nfe: int, seed: int, free_history: bool) -> list[Plan]:
    """The plan on the start where it is a Gaussian mixture, and classic solvers on several grids."""
    solvers = SOLVERS if nfe <= MAX_PREDICTIONS else SOLVERS[:1]  # rows without earlier states read all predictions
    tables = [classic_table(solver, grid) for grid in classic_grids(start.sigma, nfe) for solver in solvers]
    tables = [one for one in tables if max(abs(w) for row in one.table for w in row.b) < MAX_WEIGHT]
    mixture = start.mixture if isinstance(start, MixtureStart) else None
    if isinstance(mixture, GaussianMixture) and 0 < start.sigma < SIGMA_MAX:
        assert isinstance(start, MixtureStart)
        tables.insert(0, plan_on_start(start, nfe, start.sigma, free_history, seed % 2**63))
    return tables


def classic_grids(sigma: float, nfe: int) -> list[list[float]]:
    """Karras's (rho 7) and log-uniform levels with several last ones."""
    if nfe == 1:
        return [[sigma, 0.0]]
    last = [level for level in LAST if level < 0.5 * sigma] or [0.1 * sigma]
    return [make(sigma, low, nfe).tolist() for low in last for make in (karras, log_uniform)]


def classic_table(solver: Solver, grid: Sequence[float]) -> Plan:
    """A solver on a grid, as a plan whose errors are not known."""
    rows = stateless(solver.rows(grid))
    return Plan(tuple(grid), rows, None, math.nan, math.nan, {"solver": repr(solver)})


def stateless(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The same steps with earlier states written as the state and predictions, which rows of a plan read alone.

    From `x_{i+1} = a x_i + ...` an earlier state is `x_i = (x_{i+1} - ...) / a`; every `a` but the last is not 0.
    """
    states: list[tuple[float, list[float]]] = []  # of x_i, x_{i-1}, ..: their shares of x_i and of D_{i-1}, D_{i-2}, ..
    found = []
    for i, row in enumerate(rows):
        states.insert(0, (1.0, [0.0] * i))
        a, b = row.a, [*row.b, *[0.0] * (i + 1 - len(row.b))]
        for share, (own, past) in zip(row.states, states, strict=False):
            a += share * own
            b = [b[0], *(w + share * one for w, one in zip(b[1:], past, strict=True))]
        if a:  # the states as seen from x_{i+1} = a x_i + sum_j b_j D_{i-j}
            seen = [(own / a, [0.0, *past]) for own, past in states]
            states = [(own, [w - own * one for w, one in zip(past, b, strict=True)]) for own, past in seen]
        while len(b) > 1 and b[-1] == 0:
            b.pop()
        found.append(Row(row.sigma, a, tuple(b)))
    return tuple(found)


def prepare(runner: Runner, target: str | Tensor, size: Effort, features: Features | None, seed: int) -> Setup:
    """Three sets of latents, the fine solutions of each, and what to aim at."""
    states = [runner.latents(which, size.n) for which in (TRAIN, CHOICE, HELD)]
    sigma = runner.start.sigma
    rows = DPMpp2M().rows(karras(sigma, min(MIN_SIGMA, 0.01 * sigma), FINE).tolist())
    fine = [runner.run(rows, None, one, size.paired) for one in states]
    if isinstance(target, str):
        return Setup(runner, Goal(Pairing.of(fine[TRAIN]), (), ()), states, fine)
    data = target.detach().to(states[0].x)
    sets = feature_sets(data, features, seed % 2**63)
    floors = tuple(one.floor(size.n, seed % 2**63) for one in sets)
    return Setup(runner, Goal(Pairing.of(data[:2000]), sets, floors), states, fine)


def finish(task: Setup, given: Plan, chosen: Plan, about: dict[str, Any]) -> Plan:
    """The chosen plan where the third set of latents confirms it, else the given one, with what was found there."""
    was = task.merit(given, HELD)
    now = was if chosen is given else task.merit(chosen, HELD)
    by_distance = task.by_distance
    kept = chosen is given or not now.value(was, by_distance) < was.value(was, by_distance)
    x, fine = task.states[HELD], task.fine[HELD]
    grids = classic_grids(task.runner.start.sigma, given.nfe)
    tables = [DPMpp2M().rows(grid) for grid in grids]
    ends = [task.runner.run(rows, None, x, len(fine)) for rows in tables]
    classic = min(task.goal.pairing.rms(end - fine)[0] for end in ends)
    found = {
        "kept": kept, "decided by": "distance" if by_distance or not was.excess else "moments",
        "given": figures(was, was, by_distance), "held out": figures(was if kept else now, was, by_distance),
        "evaluations": task.runner.spent, "seconds": round(time.perf_counter() - about.pop("began"), 2),
    }  # fmt: skip
    if kept and chosen is not given:
        found["refused"] = figures(now, was, by_distance)
    provenance = {**given.provenance, "tuned": {**about, **found}}
    made_for = given.made_for if kept and given.made_for else partner(task.runner.start) or given.made_for
    if kept and not math.isnan(given.expected_error):
        return replace(given, provenance=provenance, made_for=made_for)
    tuned = given if kept else chosen
    expected = was.plain if kept else now.plain
    return replace(tuned, expected_error=expected, classic_error=classic, provenance=provenance, made_for=made_for)


def partner(start: Start) -> MadeFor | None:
    """What a plan tuned from a start keeps of it, as those of `plan` do; None: the start is no mixture."""
    mixture = start.mixture if isinstance(start, MixtureStart) else None
    if mixture is None:
        return None
    return MadeFor(tuple(mixture.shape), len(mixture.weight), start.sigma, mixture.fingerprint)
