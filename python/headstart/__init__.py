"""headstart: learn where the reverse diffusion should start, and run the short way home.

import headstart as hs

start = hs.fit(images)                                       # the law of the data, once, on clean data
x = hs.sample(denoiser, start.at(sigma=3.0), n=64, steps=6)  # any denoiser D(x, sigma) -> x0
"""

from importlib.metadata import version

from headstart import metrics, ops, zoo
from headstart.denoiser import EDM, Denoiser, Preconditioned, Preconditioning
from headstart.grid import karras, log_uniform
from headstart.initializer import (
    Classic,
    Diagonal,
    Empirical,
    Full,
    GaussianMixture,
    Isotropic,
    LowRank,
    fit,
    load,
)
from headstart.sample import SampleInfo, integrate, sample
from headstart.solver import (
    DDPM,
    Ancestral,
    Churn,
    DPMpp2M,
    DPMpp3M,
    DPMppSDE2M,
    Euler,
    EulerMaruyama,
    Heun,
)

__version__ = version("headstart")

__all__ = [
    "DDPM",
    "EDM",
    "Ancestral",
    "Churn",
    "Classic",
    "DPMpp2M",
    "DPMpp3M",
    "DPMppSDE2M",
    "Denoiser",
    "Diagonal",
    "Empirical",
    "Euler",
    "EulerMaruyama",
    "Full",
    "GaussianMixture",
    "Heun",
    "Isotropic",
    "LowRank",
    "Preconditioned",
    "Preconditioning",
    "SampleInfo",
    "fit",
    "integrate",
    "karras",
    "load",
    "log_uniform",
    "metrics",
    "ops",
    "sample",
    "zoo",
]
