"""Initial laws: where the reverse diffusion starts."""

from headstart.initializer.base import GaussianBase, StudentTBase
from headstart.initializer.classic import Classic
from headstart.initializer.covariance import Covariance, Diagonal, Full, Isotropic, LowRank
from headstart.initializer.default import fit
from headstart.initializer.empirical import Empirical, EmpiricalStart
from headstart.initializer.file import load
from headstart.initializer.flow import Flow
from headstart.initializer.gaussian import Gaussian
from headstart.initializer.mixture import GaussianMixture
from headstart.initializer.mixture_start import MixtureStart
from headstart.initializer.protocol import Start
from headstart.initializer.student import StudentTMixture
from headstart.initializer.tarflow import TarFlow
from headstart.initializer.transform import Coupling, Spline

__all__ = [
    "Classic",
    "Coupling",
    "Covariance",
    "Diagonal",
    "Empirical",
    "EmpiricalStart",
    "Flow",
    "Full",
    "Gaussian",
    "GaussianBase",
    "GaussianMixture",
    "Isotropic",
    "LowRank",
    "MixtureStart",
    "Spline",
    "Start",
    "StudentTBase",
    "StudentTMixture",
    "TarFlow",
    "fit",
    "load",
]
