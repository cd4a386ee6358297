"""Fitting initial laws to data."""

from headstart.fitting.em import Fit, fit_mixture
from headstart.fitting.flow import Points, fit_flow
from headstart.fitting.flow_report import FlowReport
from headstart.fitting.noise import Dynamic, Fixed, Noising
from headstart.fitting.report import FitReport
from headstart.fitting.training import Training

__all__ = [
    "Dynamic",
    "Fit",
    "FitReport",
    "Fixed",
    "FlowReport",
    "Noising",
    "Points",
    "Training",
    "fit_flow",
    "fit_mixture",
]
