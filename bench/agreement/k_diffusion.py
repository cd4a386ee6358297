"""k-diffusion's samplers on a denoiser of ours, noise injected through the same draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

import headstart as hs
from bench.agreement.case import Case, distance, words
from headstart.adapters import kdiffusion
from headstart.bench import peers
from headstart.solver import Solver

BAR = 1e-5
SEED, OFFSET = 2**63 + 5, 7
# ours, theirs, its arguments, whether it draws noise
SAMPLERS: list[tuple[Solver, str, dict[str, Any], bool]] = [
    (hs.Euler(), "sample_euler", {}, False),
    (hs.Heun(), "sample_heun", {}, False),
    (hs.DPMpp2M(), "sample_dpmpp_2m", {}, False),
    (hs.DPMppSDE3M(0.0), "sample_dpmpp_3m_sde", {"eta": 0.0}, False),
    (hs.DPMppSDE3M(), "sample_dpmpp_3m_sde", {}, True),
    (hs.DPMppSDE3M(0.4), "sample_dpmpp_3m_sde", {"eta": 0.4}, True),
    (hs.DPMppSDE2M(), "sample_dpmpp_2m_sde", {"solver_type": "midpoint"}, True),
    (hs.Ancestral(0.7), "sample_euler_ancestral", {"eta": 0.7}, True),
]


class Small(torch.nn.Module):
    """A class-conditional network of two convolutions with fixed random weights."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.last = torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.Conv2d(16, 1, 3, padding=1)
            self.level, self.classes = torch.nn.Linear(1, 16), torch.nn.Embedding(10, 16)

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        told = self.level(c_noise.to(x).reshape(-1, 1)) + (0 if label is None else self.classes(label))
        return self.last(torch.tanh(self.first(x) + told[:, :, None, None]))


def network() -> hs.EDM:
    return hs.EDM(Small().requires_grad_(False), dtype=torch.float32)


def same_draws(x: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """A noise source for k-diffusion with the normals of our rows."""
    steps = iter(range(10_000))

    def draw(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        return hs.ops.normal(x.shape, SEED, next(steps), OFFSET, stream=hs.ops.Stream.SOLVER, dtype=x.dtype)

    return draw


def samples(
    solver: Solver, name: str, options: dict[str, Any], noisy: bool, dtype: torch.dtype = torch.float32,
    seed: int = SEED,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Ours, of `seed`, and theirs, of `SEED`, from the same states in 9 steps.

    Raises:
        ImportError: k-diffusion is not installed.
    """
    run = getattr(peers.k_diffusion_module("sampling"), name)
    grid = hs.log_uniform(20.0, 0.02, 9)
    x = hs.Classic((1, 12, 10), 20.0, dtype=dtype).sample(2, seed=1)
    cond = {"label": torch.tensor([3, 8])}
    extra = {"noise_sampler": same_draws(x)} if noisy else {}
    theirs = run(kdiffusion.model(network()), x, grid.to(x), cond, disable=True, **options, **extra)
    return hs.integrate(network(), x, grid, solver, seed, OFFSET, cond), theirs


def error(*given: Any) -> float:
    """Their distance."""
    return distance(*samples(*given))


def cases() -> Iterator[Case]:
    """Every sampler in either precision."""
    for dtype in (torch.float32, torch.float64):
        for solver, name, options, noisy in SAMPLERS:
            setting = ", ".join(filter(None, [words(options), "same draws" if noisy else "", "9 steps"]))
            run = partial(error, solver, name, options, noisy, dtype)
            yield Case(f"{solver}", f"k-diffusion {name}", setting, BAR, run, str(dtype).removeprefix("torch."))
