"""Solvers: each makes a table of affine rows from a grid of noise levels."""

from headstart.solver.adams import DEIS, IPNDM
from headstart.solver.afs import AFS
from headstart.solver.multistep import DPMpp2M, DPMpp3M, DPMppSDE2M, DPMppSDE3M
from headstart.solver.onestep import Churn, Euler, Heun
from headstart.solver.row import Row, Solver, calls
from headstart.solver.stochastic import DDPM, Ancestral, EulerMaruyama
from headstart.solver.unipc import UniPC

__all__ = [
    "AFS",
    "DDPM",
    "DEIS",
    "IPNDM",
    "Ancestral",
    "Churn",
    "DPMpp2M",
    "DPMpp3M",
    "DPMppSDE2M",
    "DPMppSDE3M",
    "Euler",
    "EulerMaruyama",
    "Heun",
    "Row",
    "Solver",
    "UniPC",
    "calls",
]
