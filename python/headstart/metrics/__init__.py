"""Distances between sets of samples."""

from headstart.metrics.dino import Dinov2Features
from headstart.metrics.evaluation import Evaluation, Evaluator, Figure, evaluate
from headstart.metrics.features import GradientFeatures
from headstart.metrics.frechet import Moments, Statistics, frechet_distance, statistics
from headstart.metrics.inception import InceptionFeatures
from headstart.metrics.kernel import KernelDistance, kernel_distance
from headstart.metrics.lite0 import Lite0Features
from headstart.metrics.neighbour import Memorization, Neighbours, memorization, neighbour_sheet, neighbours
from headstart.metrics.tail import tail_ratios
from headstart.metrics.wasserstein import MaxSliced, max_sliced_wasserstein, sliced_wasserstein

__all__ = [
    "Dinov2Features",
    "Evaluation",
    "Evaluator",
    "Figure",
    "GradientFeatures",
    "InceptionFeatures",
    "KernelDistance",
    "Lite0Features",
    "MaxSliced",
    "Memorization",
    "Moments",
    "Neighbours",
    "Statistics",
    "evaluate",
    "frechet_distance",
    "kernel_distance",
    "max_sliced_wasserstein",
    "memorization",
    "neighbour_sheet",
    "neighbours",
    "sliced_wasserstein",
    "statistics",
    "tail_ratios",
]
