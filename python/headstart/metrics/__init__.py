"""Distances between sets of samples."""

from headstart.metrics.dino import Dinov2Features
from headstart.metrics.evaluation import Evaluation, Evaluator, Figure, evaluate
from headstart.metrics.features import GradientFeatures, Lite0Features
from headstart.metrics.frechet import KernelDistance, Moments, Statistics, frechet_distance, kernel_distance, statistics
from headstart.metrics.inception import InceptionFeatures
from headstart.metrics.neighbour import Memorization, Neighbours, memorization, neighbour_sheet, neighbours
from headstart.metrics.wasserstein import MaxSliced, max_sliced_wasserstein, sliced_wasserstein, tail_ratios

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
