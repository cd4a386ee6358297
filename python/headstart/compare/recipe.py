"""`headstart recipe`: a published comparison on a network of the user's, and ours beside it.

A protocol is data; a job is a protocol on a network and data. Everything is kept as it is done.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from headstart.compare.case import Case
from headstart.compare.run import Experiment, run
from headstart.compare.store import RECORD, await_file, claim, once, stamped, write_json
from headstart.compare.way import Way, exists, methods_of
from headstart.io import Dataset
from headstart.io.bound import parse_json, read_bytes
from headstart.io.output import tile, write_png
from headstart.metrics import Evaluator, neighbour_sheet
from headstart.start import TarFlow, load

MIDDLE = 1.0  # weight of class guidance at which a TarFlow is sampled with our solver too
RESERVE = 0.5  # of the data: at most so much is held out of the fit
FLOW = "flow.json"  # what the TarFlow of a folder is
GRID = 64  # pictures of a row


@dataclass(frozen=True)
class FlowProtocol:
    """How a TarFlow start is made; the defaults are the published ones for images.

    Attributes:
        patch, channels, blocks, layers, epochs, learning_rate, scale: as in `TarFlow.fit`.
        guidance: weights of class guidance, where there are classes.
    """

    patch: int = 2
    channels: int = 128
    blocks: int = 1
    layers: int = 8
    epochs: int = 700
    learning_rate: float = 3e-4
    scale: float = 14.0
    guidance: tuple[float, ...] = (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Protocol:
    """A published comparison, and ours beside it.

    Attributes:
        name: of the recipe.
        horizon: sigma_T of the short starts.
        classic_steps: levels of Heun's long grid, rho 7, from 80 to 0.002.
        short_steps, short_rho: levels and warp of Heun's short grid, from the horizon to 0.002.
        nfe: calls at which every start is sampled with DPM-Solver++ 2M on a log-uniform grid down to 0.02.
        planned: calls of the plans.
        latents: whether samples are a VAE's latents.
        guidance: weight of autoguidance, where a guide is given.
        flow: the TarFlow start, where one is asked for.
    """

    name: str
    horizon: float
    classic_steps: int
    short_steps: int
    short_rho: float
    nfe: tuple[int, ...] = (5, 7, 9, 13, 19)
    planned: tuple[int, ...] = (5, 7)
    latents: bool = False
    guidance: float | None = None
    flow: FlowProtocol = FlowProtocol()

    def ways(self) -> list[Way]:
        """Every row of the table but a TarFlow's, the zero-NFE control last."""
        rows = [Way("classic", "Heun", "rho 7", 2 * self.classic_steps - 1), *self.multistep("classic")]
        for start in ("uninformed", "learned", "empirical"):
            rows += [self.heun(start), *self.multistep(start)]
        rows += [Way("learned", "plan", "plan", nfe) for nfe in self.planned]
        return [*rows, Way("alone", "none", "none", 0)]

    def flow_ways(self, conditional: bool) -> list[Way]:
        """Rows of the TarFlow: the published one at every weight of guidance, and ours at one of them."""
        weights = self.flow.guidance if conditional else (0.0,)
        named = {w: f"tarflow cfg {w:g}" if conditional else "tarflow" for w in weights}
        ours = min(weights, key=lambda w: abs(w - MIDDLE))
        return [*(self.heun(name) for name in named.values()), *self.multistep(named[ours])]

    def heun(self, start: str) -> Way:
        """Heun on the published short grid."""
        return Way(start, "Heun", f"rho {self.short_rho:g}", 2 * self.short_steps - 1)

    def multistep(self, start: str) -> list[Way]:
        """DPM-Solver++ 2M, and what else has rows in recipes, at every number of calls."""
        return [Way(start, key, "log", nfe) for key in methods_of("recipe") for nfe in self.nfe if exists(key, nfe)]


# "Initialization-Aware Score-Based Diffusion Sampling" (Fassina, Cardoso, Le Corff, Romary, 2026,
# https://arxiv.org/abs/2603.00772): EDM's VE network on FFHQ-64; EDM2-S with autoguidance on subsets of ImageNet-512
FFHQ64 = Protocol("ffhq64", 7.0, 40, 20, 5.0)
IMAGENET512 = Protocol("imagenet512", 7.0, 32, 20, 5.0, latents=True, guidance=1.9)
PROTOCOLS = {protocol.name: protocol for protocol in (FFHQ64, IMAGENET512)}


@dataclass(frozen=True)
class Job:
    """A protocol on a network and data.

    Attributes:
        protocol: what is compared.
        denoiser: the network, guided where it is.
        data: what the start is fitted on, and held-out samples to score against; on the network's device.
        out: folder of everything.
        features: feature maps by name, for the scores.
        decode: pictures uint8 `[N, H, W, C]` of samples.
        n, seeds: samples a row and seed, and how many seeds.
        part, batch: samples a file, and at a time through the network.
        components: of the mixture; None: from the data.
        settings: what else tells this run from another, as JSON values.
        flow: whether a TarFlow is fitted too, its rows beside the others.
        real: features `[M, F]` of real pictures by the name of their map, for maps that are not to take `data`'s.
        reference: what samples are compared with, in words.
    """

    protocol: Protocol
    denoiser: Any
    data: Dataset
    out: Path
    features: Mapping[str, Callable[[Tensor], Tensor] | None]
    decode: Callable[[Tensor], np.ndarray]
    n: int
    seeds: int = 3
    part: int = 500
    batch: int = 64
    components: int | None = None
    settings: Mapping[str, Any] | None = None
    flow: bool = False
    real: Callable[[], Mapping[str, Tensor]] = dict
    reference: str = "held-out data"

    def ways(self) -> list[Way]:
        """Every row of the table."""
        extra = self.protocol.flow_ways(self.data.labels is not None) if self.flow else []
        *ways, control = self.protocol.ways()
        return [*ways, *extra, control]

    def experiment(self, train: Dataset, rank: int = 0) -> Experiment[Case]:
        """Its samples, of starts fitted on `train`."""
        case = Case(
            self.denoiser, train, sigma=self.protocol.horizon, device=train.images.device, folder=self.out, rank=rank,
            components=self.components, batch=self.batch,
        )  # fmt: skip
        return Experiment(case, self.n, self.part, self.out, exact=self.protocol.latents, slug=slug)


def start_name(way: Way) -> str:
    """The start in a recipe's table."""
    return "learned alone" if way.start == "alone" else way.start


def slug(way: Way) -> str:
    """The way's name in a recipe's files."""
    return f"{start_name(way)}-{way.solver_name}-{way.nfe}".replace(" ", "_").lower()


def settings_of(job: Job) -> dict[str, Any]:
    """What must not change between two calls on one folder, as JSON gives it back.

    A TarFlow's rows are kept apart from it (see `flow.json`): they may join a run that was begun without them.
    """
    ways = []
    for way in job.protocol.ways():
        sigma = way.horizon(job.protocol.horizon)
        levels = way.levels(sigma)
        ways.append((slug(way), sigma, None if levels is None else levels.tolist()))
    shape, labels = list(job.data.images.shape), job.data.labels is not None
    own = {"ways": ways, "n": job.n, "seeds": job.seeds, "part": job.part, "data": shape, "labels": labels}
    own |= {"components": job.components, "features": list(job.features), **dict(job.settings or {})}
    return json.loads(json.dumps(own))


def divide(data: Dataset, n: int) -> tuple[Dataset, Tensor]:
    """What the start is fitted on, and held-out samples: the reference and, where enough, a floor's groups."""
    order = torch.randperm(len(data.images), generator=torch.Generator().manual_seed(0)).to(data.images.device)
    count = max(n, min(4 * n, int(RESERVE * len(order))))
    kept = order[count:]
    labels = None if data.labels is None else data.labels[kept]
    return Dataset(data.images[kept], labels, data.classes), data.images[order[:count]]


def run_recipe(job: Job, rank: int = 0, world: int = 1, progress: bool = False) -> dict[str, Any] | None:
    """The table of a recipe, written to `table.json` beside pictures; None of every process but the first.

    A run that was cut goes on where it was.

    Raises:
        ValueError: the folder holds another run, or there are too few data for n.
    """
    if 2 * job.n > len(job.data.images):
        raise ValueError(f"recipe: n must be at most half of the {len(job.data.images)} samples of data, got {job.n}")
    if rank != 0:
        await_file(job.out / RECORD)
    claim(job.out, settings_of(job))
    train, held = divide(job.data, job.n)
    experiment, ways = job.experiment(train, rank), job.ways()
    for nfe in job.protocol.planned:
        experiment.case.plan(nfe)
    if job.flow:
        experiment.case.flow = learn_flow(job, train, rank, progress)
    scorer = RecipeScore(job, experiment, held)
    points = [(way, seed) for way in ways for seed in range(job.seeds)]
    run(experiment, points, scorer, f"recipe {job.protocol.name}", (rank, world), progress=progress)
    if rank != 0:
        return None
    rows = [scorer.row(way) for way in ways]
    own = {"protocol": job.protocol.name, "n": job.n, "seeds": job.seeds, "reference": job.reference}
    table = stamped("recipe", {**own, "rows": rows})
    write_json(job.out / "table.json", table)
    return table


def learn_flow(job: Job, train: Dataset, rank: int, progress: bool) -> TarFlow:
    """The TarFlow at the horizon; its training is kept in `flow.pt` while it lasts, and goes on from there.

    Raises:
        DataError: the folder holds another TarFlow.
    """
    settings = json.loads(json.dumps({**asdict(job.protocol.flow), "sigma": job.protocol.horizon}))
    fitted, training = job.out / "flow.safetensors", job.out / "flow.pt"

    def learn() -> None:
        options: dict[str, Any] = {name: value for name, value in settings.items() if name != "guidance"}
        options |= {"labels": train.labels, "checkpoint": training, "progress": progress}
        TarFlow.fit(train.images, **options).save(fitted)

    if rank == 0:
        claim(job.out, settings, FLOW)
    once(fitted, learn, rank)
    if rank == 0:
        training.unlink(missing_ok=True)
    flow: Any = load(fitted).to(train.images.device)
    return flow


class RecipeScore:
    """Scores and pictures of a recipe; those of a way and seed are kept in `scores` as they are done.

    Args:
        job: what is run.
        experiment: its samples.
        held: held-out samples to compare with.
    """

    def __init__(self, job: Job, experiment: Experiment[Case], held: Tensor) -> None:
        self.job, self.experiment, self.held = job, experiment, held
        self.evaluator: Evaluator | None = None

    def path(self, way: Way, seed: int) -> Path:
        return self.job.out / "scores" / f"{slug(way)}-seed{seed}.json"

    def __call__(self, way: Way, seed: int) -> None:
        """The scores of one way and seed, and after the first seed its pictures."""
        job, path = self.job, self.path(way, seed)
        if not path.exists():
            if self.evaluator is None:
                train = self.experiment.case.train.images
                self.evaluator = Evaluator(self.held, job.n, job.features, train, batch=job.batch, real=job.real())
            write_json(path, self.evaluator(self.samples(way, seed)).to_json())
        if seed == 0:
            self.picture(way)

    def samples(self, way: Way, seed: int) -> Tensor:
        """All samples of a way and seed, as the network makes them, on its device."""
        return self.experiment.images(self.experiment.gather(way, seed)["arr_0"]).to(self.job.data.images.device)

    def row(self, way: Way) -> dict[str, Any]:
        """The way's row of the table."""
        files = [self.path(way, seed) for seed in range(self.job.seeds)]
        seeds = [parse_json(read_bytes(path), path) for path in files]
        sigma = way.horizon(self.job.protocol.horizon)
        return {"start": start_name(way), "solver": way.solver_name, "sigma": sigma, "nfe": way.nfe} | join(seeds)

    def picture(self, way: Way) -> None:
        """The first samples of seed 0, and those nearest to the training set above their neighbours there."""
        grid, near = self.job.out / f"{slug(way)}.png", self.job.out / f"{slug(way)}-nearest.png"
        if grid.exists() and near.exists():
            return
        samples = self.samples(way, 0)
        write_png(grid, tile(self.job.decode(samples[:GRID])))
        write_png(near, neighbour_sheet(samples, self.experiment.case.train.images, pictures=self.job.decode))


def join(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures of several seeds as one: mean, and standard deviation over the seeds."""
    figures = []
    for same in zip(*(seed["figures"] for seed in seeds), strict=True):
        values = torch.tensor([one["value"] for one in same], dtype=torch.float64)
        spread = float(values.std()) if len(values) > 1 else None
        named = {name: same[0][name] for name in ("metric", "features")}
        figures.append(named | {"value": float(values.mean()), "spread": spread, "floor": same[0]["floor"]})
    return {"groups": seeds[0]["groups"], "figures": figures}
