"""Distances between sets of samples."""

from headstart.metrics.features import GradientFeatures
from headstart.metrics.frechet import Statistics, frechet_distance, statistics
from headstart.metrics.lite0 import Lite0Features
from headstart.metrics.neighbour import Memorization, memorization
from headstart.metrics.tail import tail_ratios
from headstart.metrics.wasserstein import MaxSliced, max_sliced_wasserstein, sliced_wasserstein

__all__ = [
    "GradientFeatures",
    "Lite0Features",
    "MaxSliced",
    "Memorization",
    "Statistics",
    "frechet_distance",
    "max_sliced_wasserstein",
    "memorization",
    "sliced_wasserstein",
    "statistics",
    "tail_ratios",
]
