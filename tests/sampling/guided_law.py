"""A law of three classes with exact denoisers, its guidance in every form, and the plain composition of two."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import headstart as hs
from headstart.solver import Solver

DEFAULT = hs.DPMpp2M()
SOLVERS = [
    hs.Euler(), hs.Ancestral(0.5), hs.DDPM(), hs.EulerMaruyama(), hs.Heun(), hs.Heun(churn=hs.Churn(5.0)),
    hs.DPMpp2M(), hs.DPMpp3M(), hs.DPMppSDE2M(),
]  # fmt: skip
START, STEPS, N, CLASSES = hs.Classic((2,), 10.0), 7, 6, 3
LABEL = torch.arange(N) % CLASSES
NULL = {"label": CLASSES}


class Law:
    """A Gaussian a class: the exact denoiser of each, and of their mixture for label `CLASSES` or None.

    `spread` above 1 makes a worse model of it. It counts its calls and the rows of each.
    """

    def __init__(self, spread: float = 1.0) -> None:
        self.mean = torch.tensor([[-2.0, 0.0], [1.0, 1.5], [0.5, -1.0]], dtype=torch.float64)
        self.variance = spread * torch.tensor([0.1, 0.4, 0.9], dtype=torch.float64)
        self.rows: list[int] = []

    def __call__(self, x: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        self.rows.append(len(x))
        total = self.variance + sigma**2
        away = x[:, None].double() - self.mean
        share = (-0.5 * (away**2).sum(2) / total - total.log()).softmax(1)
        if label is not None:
            one = torch.nn.functional.one_hot(label, CLASSES + 1).double()
            share = one[:, :CLASSES] + one[:, CLASSES:] * share
        each = self.mean + (self.variance / total)[:, None] * away
        return (share[..., None] * each).sum(1).to(x.dtype)


def edm(law: Law, sigma_data: float = 0.5, dtype: torch.dtype | None = None) -> hs.EDM:
    """The law's denoiser as a raw network with EDM's factors around it."""

    def raw(scaled: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        sigma = (4 * c_noise.double()).exp()
        c_skip, c_out, c_in, _ = hs.EDM(raw, sigma_data).preconditioning(float(sigma))
        x = scaled.double() / c_in
        return ((law(x, sigma, label) - c_skip * x) / c_out).to(scaled.dtype)

    return hs.EDM(raw, sigma_data, dtype)


def composed(main: Any, guide: Any, weight: float, null: Any = None, low: float = 0, high: float = math.inf) -> Any:
    """The reference, as one opaque denoiser."""

    def denoiser(x: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
        best = main(x, sigma, label=label)
        worse = guide(x, sigma, label=label if null is None else torch.full_like(label, null))
        return worse + weight * (best - worse) if low < float(sigma) <= high else best

    return denoiser


def run(denoiser: Any, solver: Solver = DEFAULT, **named: Any) -> Tensor:
    named = {"seed": 3, "dtype": torch.float64, "cond": {"label": LABEL}, **named}
    return hs.sample(denoiser, START, N, STEPS, solver, **named)


GUIDANCE: dict[str, Callable[..., tuple[Any, Any]]] = {
    "opaque": lambda law, bad, **o: (hs.guided(law, 2.5, null=NULL, **o), composed(law, law, 2.5, 3)),
    "edm": lambda law, bad, **o: (hs.guided(edm(law), 2.5, null=NULL, **o), composed(law, law, 2.5, 3)),
    "auto": lambda law, bad, **o: (hs.guided(edm(law), 1.9, edm(bad), **o), composed(law, bad, 1.9)),
    "factors": lambda law, bad, **o: (hs.guided(edm(law), 1.9, edm(bad, 1.3), **o), composed(law, bad, 1.9)),
    "raw main": lambda law, bad, **o: (hs.guided(edm(law), 1.9, bad, **o), composed(law, bad, 1.9)),
    "raw guide": lambda law, bad, **o: (hs.guided(law, 1.9, edm(bad, 1.3), **o), composed(law, bad, 1.9)),
    "null guide": lambda law, bad, **o: (hs.guided(edm(law), 1.4, edm(bad), null=NULL), composed(law, bad, 1.4, 3)),
}
