"""Fitting initial laws to data."""

from headstart.fitting.em import Fit, fit_mixture
from headstart.fitting.report import FitReport

__all__ = ["Fit", "FitReport", "fit_mixture"]
