"""Sampling: a start, a table of rows and a denoiser, run from the first state to the last."""

from headstart.sampling._sample import SampleInfo, integrate, sample, sample_info
from headstart.sampling.sampler import Sampler

__all__ = ["SampleInfo", "Sampler", "integrate", "sample", "sample_info"]
