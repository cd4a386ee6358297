"""Initial laws: where the reverse diffusion starts."""

from headstart.initializer.classic import Classic
from headstart.initializer.covariance import Covariance, Diagonal, Full, Isotropic, LowRank
from headstart.initializer.default import fit
from headstart.initializer.empirical import Empirical, EmpiricalStart
from headstart.initializer.file import load
from headstart.initializer.mixture import GaussianMixture
from headstart.initializer.mixture_start import MixtureStart
from headstart.initializer.protocol import Start

__all__ = [
    "Classic",
    "Covariance",
    "Diagonal",
    "Empirical",
    "EmpiricalStart",
    "Full",
    "GaussianMixture",
    "Isotropic",
    "LowRank",
    "MixtureStart",
    "Start",
    "fit",
    "load",
]
