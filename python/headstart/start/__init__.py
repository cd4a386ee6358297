"""Initial laws: where the reverse diffusion starts."""

from headstart.fitting.covariance import Covariance, Diagonal, Full, Isotropic, LowRank
from headstart.start.default import fit
from headstart.start.family import MixtureStart
from headstart.start.flow import Flow
from headstart.start.mixture import Gaussian, GaussianMixture
from headstart.start.protocol import Start
from headstart.start.reference import Classic, Empirical, EmpiricalStart
from headstart.start.store import load
from headstart.start.student import StudentTMixture
from headstart.start.tarflow import TarFlow
from headstart.start.transform import Coupling, GaussianBase, Spline, StudentTBase

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
