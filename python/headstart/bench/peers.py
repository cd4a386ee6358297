"""The samplers of other projects behind one signature: `run(network, x, grid)`, states `x` at `grid[0]` carried to 0.

`pip install ".[bench]"` brings diffusers and what k-diffusion's samplers import. k-diffusion and azula ask for much
that their samplers never use (training code; a torchvision that may replace torch), so they come without it:
`pip install --no-deps k-diffusion azula`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from itertools import pairwise
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

Network = Callable[..., Tensor]  # D(x, sigma), or of a preconditioned network the raw F(c_in x, c_noise)
Run = Callable[[Network, Tensor, Tensor], Tensor]
SIGMA_DATA = 0.5


@dataclass(frozen=True)
class Peer:
    """A sampler to compare with.

    Attributes:
        load: makes the sampler for a network's `sigma_data`; ImportError where its library is not installed.
        solver: the headstart solver it is set beside.
        raw: it takes the raw network and does the preconditioning itself.
        same: it computes the solver's result; False: another method of the same order.
    """

    load: Callable[[float], Run]
    solver: str
    raw: bool = False
    same: bool = True


def preconditioned(raw: Network, sigma_data: float = SIGMA_DATA) -> Network:
    """`D = c_skip x + c_out F(c_in x, c_noise)` in plain float32 torch, for samplers that leave it to the network.

    Reference: "Elucidating the Design Space of Diffusion-Based Generative Models" (Karras et al., 2022,
    https://arxiv.org/abs/2206.00364), table 1.
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        x = x.to(torch.float32)
        levels = sigma.to(torch.float32).reshape(-1, *[1] * (x.dim() - 1))
        total = levels**2 + sigma_data**2
        output = raw(x / total.sqrt(), levels.log().flatten() / 4)
        return sigma_data**2 / total * x + levels * sigma_data / total.sqrt() * output

    return denoise


def algorithm_2(draws: bool, dtype: torch.dtype) -> Run:
    """EDM's algorithm 2 with S_churn = 0 in plain torch, line by line.

    The code published with the paper keeps the state in float64 and draws a step's noise also where its scale is 0.

    Args:
        draws: draw that noise; without it, algorithm 1.
        dtype: of the state.
    """

    def run(network: Network, x: Tensor, grid: Tensor) -> Tensor:
        state = x.to(dtype)
        for t, s in pairwise(grid.to(x.device)):
            t_hat = t
            if draws:
                state = state + (t_hat**2 - t**2).sqrt() * torch.randn_like(state)
            slope = (state - network(state, t_hat).to(dtype)) / t_hat
            following = state + (s - t_hat) * slope
            if s > 0:
                slope_there = (following - network(following, s).to(dtype)) / s
                following = state + (s - t_hat) * (0.5 * slope + 0.5 * slope_there)
            state = following
        return state

    return run


def require(package: str, command: str) -> None:
    """ImportError with the command that installs a missing package."""
    if importlib.util.find_spec(package) is None:
        raise ImportError(f"{package.replace('_', '-')} is not installed: {command}")


@contextmanager
def standing_in(**modules: ModuleType) -> Iterator[None]:
    """Modules put into `sys.modules` for the time of an import, double underscores for dots."""
    names = {name.replace("__", "."): module for name, module in modules.items()}
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update(names)
    try:
        yield
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


def k_diffusion_module(name: str) -> ModuleType:
    """The module `sampling` or `external` of k-diffusion.

    Its package imports the training code (CLIP, image metrics, kornia), and its utilities image functions of
    torchvision: neither is there nor needed, so the package's own start-up is left out and torchvision's functions are
    an empty module during the import.
    """
    require("k_diffusion", "pip install --no-deps k-diffusion")
    spec = importlib.util.find_spec("k_diffusion")
    assert spec is not None
    transforms = ModuleType("torchvision.transforms")
    transforms.functional = ModuleType("torchvision.transforms.functional")  # type: ignore[attr-defined]
    package = importlib.util.module_from_spec(spec)
    with standing_in(k_diffusion=package, torchvision=ModuleType("torchvision"), torchvision__transforms=transforms):
        return importlib.import_module(f"k_diffusion.{name}")


def k_diffusion(name: str) -> Run:
    """A function of `k_diffusion.sampling`."""
    method = getattr(k_diffusion_module("sampling"), name)
    return lambda network, x, grid: method(network, x, grid.to(x), disable=True)


def diffusers(name: str, sigma_data: float) -> Run:
    """The loop of a pipeline over one of diffusers' EDM schedulers, which make the grid of equation 5 themselves."""
    require("diffusers", 'pip install "headstart[bench]"')
    schedulers = importlib.import_module("diffusers.schedulers")
    scheduler_class = getattr(schedulers, name)

    def run(network: Network, x: Tensor, grid: Tensor) -> Tensor:
        scheduler = scheduler_class(sigma_min=grid[-2].item(), sigma_max=grid[0].item(), sigma_data=sigma_data)
        scheduler.set_timesteps(len(grid) - 1, device=x.device)
        for t in scheduler.timesteps:
            output = network(scheduler.scale_model_input(x, t), t)
            x = scheduler.step(output, t, x, return_dict=False)[0]
        return x

    return run


def azula(name: str) -> Run:
    """One of azula's samplers on the levels of the grid; the step to 0, which most of them divide by, is Euler's."""
    require("azula", "pip install --no-deps azula")
    denoise: Any = importlib.import_module("azula.denoise")
    sample = importlib.import_module("azula.sample")

    class AzulaDenoiser(denoise.Denoiser):
        """A function as azula's denoiser; the time is the noise level."""

        def __init__(self, network: Network) -> None:
            super().__init__()
            self.network = network
            self.schedule = lambda t: (torch.ones_like(t), t)

        def forward(self, x: Tensor, t: Tensor, **_: Any) -> Any:
            return denoise.DiracPosterior(self.network(x, t))

    def on(levels: Tensor, method: str, denoiser: AzulaDenoiser) -> Callable[[Tensor], Tensor]:
        sampler = getattr(sample, method)
        return type(method, (sampler,), {"timesteps": levels})(denoiser, silent=True)

    def run(network: Network, x: Tensor, grid: Tensor) -> Tensor:
        levels, denoiser = grid.to(x), AzulaDenoiser(network)
        return on(levels[-2:], "EulerSampler", denoiser)(on(levels[:-1], name, denoiser)(x))

    return run


PEERS: dict[str, Peer] = {
    "EDM algorithm 2": Peer(lambda _: algorithm_2(True, torch.float64), "Heun"),
    "EDM algorithm 2, no noise drawn": Peer(lambda _: algorithm_2(False, torch.float64), "Heun"),
    "EDM algorithm 2, no noise, float32": Peer(lambda _: algorithm_2(False, torch.float32), "Heun"),
    "k-diffusion sample_heun": Peer(lambda _: k_diffusion("sample_heun"), "Heun"),
    "azula HeunSampler": Peer(lambda _: azula("HeunSampler"), "Heun"),
    "k-diffusion sample_dpmpp_2m": Peer(lambda _: k_diffusion("sample_dpmpp_2m"), "DPMpp2M"),
    "diffusers EDMDPMSolverMultistep": Peer(
        lambda sd: diffusers("EDMDPMSolverMultistepScheduler", sd), "DPMpp2M", raw=True
    ),
    "azula xEABSampler": Peer(lambda _: azula("xEABSampler"), "DPMpp2M", same=False),
    "k-diffusion sample_euler": Peer(lambda _: k_diffusion("sample_euler"), "Euler"),
    "diffusers EDMEuler": Peer(lambda sd: diffusers("EDMEulerScheduler", sd), "Euler", raw=True),
    "azula EulerSampler": Peer(lambda _: azula("EulerSampler"), "Euler"),
}


def absent() -> dict[str, str]:
    """Why each peer that cannot be had cannot be."""
    reasons = {}
    for name, peer in PEERS.items():
        try:
            peer.load(SIGMA_DATA)
        except ImportError as reason:
            reasons[name] = str(reason)
    return reasons


def versions() -> dict[str, str]:
    """Of the peers' libraries that are installed."""
    found = {}
    for name in ("k-diffusion", "diffusers", "azula"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
