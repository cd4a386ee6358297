"""The compiled ops: check, allocate, call. `headstart.ops.reference` has the same functions in plain torch."""

from headstart.ops import openmp, reference
from headstart.ops.affine import Noise, Stream, affine, noise, normal, uniform
from headstart.ops.mixture import Components, Posterior, mixture_posterior, mixture_sample

openmp.share()

__all__ = [
    "Components",
    "Noise",
    "Posterior",
    "Stream",
    "affine",
    "mixture_posterior",
    "mixture_sample",
    "noise",
    "normal",
    "reference",
    "uniform",
]
