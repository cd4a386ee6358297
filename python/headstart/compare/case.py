"""What ways are compared on: a denoiser, images, and the starts and plans fitted to them; images in a frame."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from math import nan
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from headstart.compare.store import once
from headstart.compare.way import METHODS, Way
from headstart.diagnostics import horizon
from headstart.io import Dataset
from headstart.planning import plan
from headstart.sampling import sample
from headstart.solver.plan import Plan, load_plan
from headstart.start import Classic, Empirical, GaussianMixture, TarFlow, fit, load

RANGE = (0.5, 8.0)  # where a horizon is looked for
LEVELS, PROBES = 24, 400  # noise levels and validation images of that search
CALIBRATION = 64  # validation images that a plan is calibrated on
BLACK = -1.0
SAME = ("transport", "planned")  # starts whose samples come from the same latents as the classic start's
Judge = Callable[[Tensor], Tensor]


@dataclass
class Case:
    """A denoiser and the images it is measured on.

    Attributes:
        denoiser: `D(x, sigma)`, called with `label` as well where the training images have labels.
        train: what starts are fitted to.
        validation: real images by which whatever is picked is picked; plans are calibrated on them where there are any.
        test: real images that only give the figures.
        sigma: sigma_T, where short starts begin.
        device: where samples are drawn.
        seed: of the fit and the plans.
        components: of the mixture; None: from the data.
        batch: samples at a time through the network.
        folder: where the fitted start and plans are kept; None: in memory.
        rank: of this process; the first one fits, others read.
        flow: a TarFlow, where one is compared.
    """

    denoiser: Any
    train: Dataset
    validation: Dataset | None = None
    test: Dataset | None = None
    sigma: float = nan
    device: torch.device | str = "cpu"
    seed: int = 0
    components: int | None = None
    batch: int | None = None
    folder: Path | None = None
    rank: int = 0
    flow: TarFlow | None = None
    plans: dict[int, Plan] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.train.images.shape[1:])

    @cached_property
    def mixture(self) -> Any:
        """The learned start, fitted or read back."""
        if self.folder is None:
            return self.learn()
        path = self.folder / "start.safetensors"
        once(path, lambda: self.learn().save(path), self.rank)
        return load(path).to(self.device)

    def learn(self) -> GaussianMixture:
        images, labels = self.train.images.to(self.device), self.train.labels
        return fit(images, components=self.components, labels=labels, seed=self.seed, progress=self.rank == 0)

    @cached_property
    def empirical(self) -> Empirical:
        labels = self.train.labels
        return Empirical(self.train.images.to(self.device), None if labels is None else labels.to(self.device))

    def labels(self, first: int, count: int) -> Tensor | None:
        """Classes in turn, or None: every seed and way has the same of each."""
        if self.train.labels is None:
            return None
        known = self.train.labels.unique()
        return known[torch.arange(first, first + count, device=known.device) % len(known)].to(self.device)

    def find_horizon(self, threshold: float) -> dict[str, Any]:
        """sigma_T by the rule of `headstart.horizon`, on validation images alone, and what speaks against it."""
        assert self.validation is not None
        images = self.validation.images[:PROBES].to(self.device)
        labels = None if self.train.labels is None else self.validation.labels
        cond = {} if labels is None else {"label": labels[:PROBES].to(self.device)}
        law = self.mixture
        found = horizon(law, self.denoiser, images, *RANGE, threshold=threshold, levels=LEVELS, cond=cond)
        curve = [[float(a), float(b)] for a, b in zip(found.levels, found.kl, strict=True)]
        return {"sigma": found.sigma, "warning": found.warning, "kl": curve}

    def plan(self, nfe: int) -> Plan:
        """Rows for `nfe` calls from sigma_T, made once."""
        if nfe not in self.plans:
            if self.folder is None:
                self.plans[nfe] = self.make_plan(nfe)
            else:
                path = self.folder / f"plan-{nfe}.json"
                once(path, lambda: self.make_plan(nfe).save(path), self.rank)
                self.plans[nfe] = load_plan(path)
        return self.plans[nfe]

    def make_plan(self, nfe: int) -> Plan:
        given: dict[str, Any] = {"seed": self.seed, "progress": self.rank == 0}
        if self.validation is not None:
            heldout = self.validation.images[:CALIBRATION].to(self.device)
            given |= {"denoiser": self.denoiser, "heldout": heldout}
        return plan(self.mixture.at(self.sigma), nfe, **given)

    def start(self, way: Way) -> Any:
        """The law that the way begins with."""
        sigma = way.horizon(self.sigma)
        if way.start in ("classic", "uninformed"):
            return Classic(self.shape, sigma, device=self.device)
        if way.start.startswith("tarflow"):
            assert self.flow is not None
            weight = float(way.start.partition("cfg ")[2] or 0)
            return self.flow.guided(weight) if weight else self.flow
        return (self.empirical if way.start == "empirical" else self.mixture).at(sigma)

    def prepare(self, way: Way) -> None:
        """Fits what the way needs, in every process in the same order."""
        self.start(way)
        if way.solver == "plan":
            self.plan(way.nfe)

    def draw(self, way: Way, count: int, seed: int, first: int) -> tuple[Tensor, float]:
        """Samples `first .. first + count - 1` of `seed`, and the seconds in the sampler; those of transport and of
        plans from a start of their own name come from the same latents as the classic start's."""
        start, batch = self.start(way), self.batch or (100 if torch.device(self.device).type == "cpu" else 500)
        made, seconds = [], 0.0
        for offset in range(first, first + count, batch):
            size = min(batch, first + count - offset)
            labels = self.labels(offset, size)
            if way.solver == "none":
                own = {"labels": labels} if labels is not None and getattr(start, "conditional", False) else {}
                began = time.perf_counter()
                made.append(start.sample(size, seed, offset, **own))
                seconds += time.perf_counter() - began
                continue
            given: dict[str, Any] = {"cond": {} if labels is None else {"label": labels}}
            if way.start in SAME:
                given["latents"] = Classic(self.shape, 1.0, device=self.device).sample(size, seed, offset)
            if way.solver == "plan":
                given["plan"] = self.plan(way.nfe)
            else:
                given |= {"grid": way.levels(start.sigma), "solver": METHODS[way.solver].solver}
            x, info = sample(self.denoiser, start, size, seed=seed, offset=offset, return_info=True, **given)
            made.append(x)
            seconds += info.seconds
        return torch.cat(made), seconds


def split(data: Dataset, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Two disjoint halves, validation and test, by a random order.

    Raises:
        ValueError: fewer than 200 images.
    """
    if len(data.images) < 200:
        raise ValueError(f"bench: needs at least 200 held-out images, got {len(data.images)}")
    order = torch.randperm(len(data.images), generator=torch.Generator().manual_seed(seed))
    first, second = (Dataset(data.images[i], None if data.labels is None else data.labels[i]) for i in order.chunk(2))
    return first, second


def frame(data: Dataset, side: int) -> Dataset:
    """The images `[N, C, H, W]` in the middle of black ones `[N, C, side, side]`; their pixels stay as they are.

    Raises:
        ValueError: samples that are not square images, a side below theirs, or one that leaves an odd margin.
    """
    shape = list(data.images.shape[1:])
    if len(shape) != 3 or shape[1] != shape[2]:
        raise ValueError(f"--side: needs square images [C, H, H], got {shape}")
    margin = side - shape[-1]
    if margin < 0 or margin % 2:
        raise ValueError(f"--side: must be the images' {shape[-1]} and an even margin, got {side}; nothing is resized")
    return data._replace(images=functional.pad(data.images, [margin // 2] * 4, value=BLACK))


def crop(images: Tensor, side: int) -> Tensor:
    """The inner `[N, C, side, side]`."""
    edge = (images.shape[-1] - side) // 2
    return images[..., edge : edge + side, edge : edge + side]


def cropped(judge: Judge, side: int) -> Judge:
    """A classifier of images `side` wide, for images in a frame."""
    return lambda images: judge(crop(images, side))


def side_of(denoiser: Any) -> int | None:
    """The side of the images a denoiser was trained on; None where it does not tell."""
    shape = getattr(denoiser, "shape", None)
    if shape is not None:
        return int(shape[-1])
    net = getattr(denoiser, "net", denoiser)
    told = getattr(net, "img_resolution", None) or getattr(getattr(net, "config", None), "sample_size", None)
    return told if isinstance(told, int) else None


def require_side(name: str, denoiser: Any, images: Tensor, device: torch.device | str = "cpu") -> None:
    """Fails before any work where images `[N, *shape]` are none of the denoiser's.

    Raises:
        ValueError: another side than the network was trained on, or it cannot take them, or answers in another shape.
    """
    shape, side = list(images.shape[1:]), side_of(denoiser)
    if side is not None and shape[-1] != side:
        hint = f"; --side {side} frames them in black" if side > shape[-1] else ""
        raise ValueError(f"--train: {name} was trained on images {side} wide, got {shape}{hint}")
    try:
        with torch.no_grad():
            answer = list(denoiser(images[:2].to(device), torch.tensor(1.0, device=device)).shape[1:])
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"--train: {name} cannot take images {shape}: {str(error).splitlines()[0]}") from None
    if answer != shape:
        raise ValueError(f"--train: {name} answers images {shape} in the shape {answer}")
