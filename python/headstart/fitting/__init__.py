"""Fitting initial laws to data."""

from headstart.fitting.em import Fit, Recipe, fit_mixture
from headstart.fitting.flow import Points, fit_flow
from headstart.fitting.report import FitReport, FlowReport
from headstart.fitting.training import Dynamic, Fixed, Noising, Training

__all__ = [
    "Dynamic",
    "Fit",
    "FitReport",
    "Fixed",
    "FlowReport",
    "Noising",
    "Points",
    "Recipe",
    "Training",
    "fit_flow",
    "fit_mixture",
]
