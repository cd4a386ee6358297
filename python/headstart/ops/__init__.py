"""The compiled ops: check, allocate, call. `headstart.ops.reference` has the same functions in plain torch."""

from headstart.ops import library, reference
from headstart.ops.affine import affine
from headstart.ops.check import Noise, Stream
from headstart.ops.component import Components
from headstart.ops.mixture import Posterior, mixture_posterior, mixture_sample
from headstart.ops.noise import noise, normal, uniform

library.share_threads()

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
