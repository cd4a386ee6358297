"""headstart: learn where the reverse diffusion should start, and run the short way home.

import headstart as hs

start = hs.fit(images)                                       # the law of the data, once, on clean data
x = hs.sample(denoiser, start.at(sigma=3.0), n=64, steps=6)  # any denoiser D(x, sigma) -> x0
"""

from importlib.metadata import version
from types import ModuleType

from headstart import adapters, initializer, metrics, ops, zoo
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
from headstart.planning import Validation, plan, tune, validate
from headstart.sampling import SampleInfo, Sampler, integrate, sample
from headstart.solver import (
    DDPM,
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

__version__ = version("headstart")


def __getattr__(name: str) -> ModuleType:
    if name == "diffusers":
        return adapters.diffusers
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "DDPM",
    "EDM",
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
    "tail_check",
    "tune",
    "validate",
    "zoo",
]
