"""headstart: learn where the reverse diffusion should start, and run the short way home.

import headstart as hs

start = hs.fit(images)                                       # the law of the data, once, on clean data
x = hs.sample(denoiser, start.at(sigma=3.0), n=64, steps=6)  # any denoiser D(x, sigma) -> x0

A name is imported when it is first asked for, so that `headstart --help` need not wait for torch.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headstart import adapters, initializer, metrics, ops, zoo
    from headstart.adapters import diffusers as diffusers
    from headstart.denoiser import EDM, Denoiser, Preconditioned, Preconditioning
    from headstart.diagnostics import (
        DipHorizon,
        ErrorBudget,
        Horizon,
        InitializationKL,
        TailCheck,
        dip_horizon,
        error_budget,
        horizon,
        initialization_kl,
        tail_check,
    )
    from headstart.fitting import Dynamic, Fixed
    from headstart.guidance import Guided, guided
    from headstart.planning import Validation, gits, plan, tune, validate
    from headstart.sampling import SampleInfo, Sampler, integrate, sample, sample_info
    from headstart.solver import (
        AFS,
        DDPM,
        DEIS,
        IPNDM,
        Ancestral,
        Churn,
        DPMpp2M,
        DPMpp3M,
        DPMppSDE2M,
        DPMppSDE3M,
        Euler,
        EulerMaruyama,
        Heun,
        UniPC,
    )
    from headstart.solver.grid import karras, log_uniform
    from headstart.solver.plan import Plan, load_plan
    from headstart.start import (
        Classic,
        Coupling,
        Diagonal,
        Empirical,
        Flow,
        Full,
        Gaussian,
        GaussianBase,
        GaussianMixture,
        Isotropic,
        LowRank,
        Spline,
        StudentTBase,
        StudentTMixture,
        TarFlow,
        fit,
        load,
    )

# where each name comes from; the imports above say the same to type checkers
PLACES = {
    "headstart.denoiser": ("EDM", "Denoiser", "Preconditioned", "Preconditioning"),
    "headstart.diagnostics": (
        "DipHorizon", "ErrorBudget", "Horizon", "InitializationKL", "TailCheck", "dip_horizon", "error_budget",
        "horizon", "initialization_kl", "tail_check",
    ),
    "headstart.fitting": ("Dynamic", "Fixed"),
    "headstart.guidance": ("Guided", "guided"),
    "headstart.planning": ("Validation", "gits", "plan", "tune", "validate"),
    "headstart.sampling": ("SampleInfo", "Sampler", "integrate", "sample", "sample_info"),
    "headstart.solver": (
        "AFS", "DDPM", "DEIS", "IPNDM", "Ancestral", "Churn", "DPMpp2M", "DPMpp3M", "DPMppSDE2M", "DPMppSDE3M",
        "Euler", "EulerMaruyama", "Heun", "UniPC",
    ),
    "headstart.solver.grid": ("karras", "log_uniform"),
    "headstart.solver.plan": ("Plan", "load_plan"),
    "headstart.start": (
        "Classic", "Coupling", "Diagonal", "Empirical", "Flow", "Full", "Gaussian", "GaussianBase", "GaussianMixture",
        "Isotropic", "LowRank", "Spline", "StudentTBase", "StudentTMixture", "TarFlow", "fit", "load",
    ),
}  # fmt: skip
ROOMS = (
    "adapters", "denoiser", "diagnostics", "fitting", "guidance", "initializer", "io", "metrics", "ops", "planning",
    "sampling", "solver", "start", "zoo",
)  # fmt: skip

__version__ = version("headstart")


def __getattr__(name: str) -> object:
    if name == "diffusers":
        return importlib.import_module("headstart.adapters.diffusers")
    if name in ROOMS:
        return importlib.import_module(f"headstart.{name}")
    for place, names in PLACES.items():
        if name in names:
            found = getattr(importlib.import_module(place), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *ROOMS, "__version__"})


__all__ = [
    "AFS",
    "DDPM",
    "DEIS",
    "EDM",
    "IPNDM",
    "Ancestral",
    "Churn",
    "Classic",
    "Coupling",
    "DPMpp2M",
    "DPMpp3M",
    "DPMppSDE2M",
    "DPMppSDE3M",
    "Denoiser",
    "Diagonal",
    "DipHorizon",
    "Dynamic",
    "Empirical",
    "ErrorBudget",
    "Euler",
    "EulerMaruyama",
    "Fixed",
    "Flow",
    "Full",
    "Gaussian",
    "GaussianBase",
    "GaussianMixture",
    "Guided",
    "Heun",
    "Horizon",
    "InitializationKL",
    "Isotropic",
    "LowRank",
    "Plan",
    "Preconditioned",
    "Preconditioning",
    "SampleInfo",
    "Sampler",
    "Spline",
    "StudentTBase",
    "StudentTMixture",
    "TailCheck",
    "TarFlow",
    "UniPC",
    "Validation",
    "adapters",
    "dip_horizon",
    "error_budget",
    "fit",
    "gits",
    "guided",
    "horizon",
    "initialization_kl",
    "initializer",
    "integrate",
    "karras",
    "load",
    "load_plan",
    "log_uniform",
    "metrics",
    "ops",
    "plan",
    "sample",
    "sample_info",
    "tail_check",
    "tune",
    "validate",
    "zoo",
]
