"""Diagnostics: how good a start is, how short a horizon may be, and where a sampler's error comes from."""

from headstart.diagnostics.budget import ErrorBudget, error_budget
from headstart.diagnostics.dip import DipHorizon, dip_horizon
from headstart.diagnostics.initialization import Horizon, InitializationKL, horizon, initialization_kl
from headstart.diagnostics.tails import TailCheck, tail_check

__all__ = [
    "DipHorizon",
    "ErrorBudget",
    "Horizon",
    "InitializationKL",
    "TailCheck",
    "dip_horizon",
    "error_budget",
    "horizon",
    "initialization_kl",
    "tail_check",
]
