"""How a scheduler's noise levels, timesteps and states read in variance-exploding terms, `x = x0 + sigma n`.

Schedules that are a table of noise levels, one a timestep.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

import torch

from headstart.denoiser import Preconditioning, edm_preconditioning

PREDICTIONS = ("epsilon", "v_prediction", "sample")


class TableSchedule:
    """Noise levels of the timesteps `0 .. T - 1`, ascending.

    Raises:
        ValueError: fewer than two levels, not positive or not ascending.
    """

    def __init__(self, sigmas: Sequence[float]) -> None:
        self.sigmas = list(sigmas)
        if len(self.sigmas) < 2 or self.sigmas[0] <= 0 or any(low >= high for low, high in pairwise(self.sigmas)):
            raise ValueError("diffusers: the scheduler's noise must grow with the timestep, two levels or more above 0")
        self.sigma_min, self.sigma_max = self.sigmas[0], self.sigmas[-1]

    def index(self, sigma: float) -> float:
        """Timestep of a noise level, interpolated in log sigma, in [0, T - 1]."""
        above = bisect_left(self.sigmas, sigma)
        if above in (0, len(self.sigmas)):
            return float(min(above, len(self.sigmas) - 1))
        low, high = self.sigmas[above - 1], self.sigmas[above]
        return above - math.log(high / sigma) / math.log(high / low)

    def at_least(self, sigma: float) -> float:
        """The lowest level that is not below `sigma`."""
        return self.sigmas[min(bisect_left(self.sigmas, sigma * (1 - 1e-6)), len(self.sigmas) - 1)]


class Diffusion(TableSchedule):
    """A variance-preserving process `x_t = a_t x0 + sqrt(1 - a_t^2) n` on a table of `a_t^2`: `sigma^2 = 1/a_t^2 - 1`.

    Args:
        alphas_cumprod: the table, `[T]`, descending; entries of 0 (no signal left) are left out.
        prediction: "epsilon", "v_prediction" or "sample": what the network predicts.
        continuous: the network is told `ln(sigma)/4` instead of a timestep.

    Raises:
        ValueError: another prediction, or a table that does not descend.

    Reference: "Progressive Distillation for Fast Sampling of Diffusion Models" (Salimans, Ho, 2022,
    https://arxiv.org/abs/2202.00512), appendix D, for v.
    """

    def __init__(self, alphas_cumprod: torch.Tensor, prediction: str, continuous: bool = False) -> None:
        if prediction not in PREDICTIONS:
            raise ValueError(f"diffusers: prediction_type must be one of {', '.join(PREDICTIONS)}, got {prediction!r}")
        super().__init__([math.sqrt((1 - a) / a) for a in alphas_cumprod.double().tolist() if a > 0])
        self.prediction, self.continuous = prediction, continuous

    def preconditioning(self, sigma: float) -> Preconditioning:
        total = 1 + sigma**2
        c_skip, c_out = {
            "epsilon": (1.0, -sigma),
            "v_prediction": (1 / total, -sigma / math.sqrt(total)),
            "sample": (0.0, 1.0),
        }[self.prediction]
        c_noise = math.log(sigma) / 4 if self.continuous else self.index(sigma)
        return Preconditioning(c_skip, c_out, 1 / math.sqrt(total), c_noise)


class Consistency(TableSchedule):
    """The levels of a consistency model: `c_skip = d^2/((sigma - m)^2 + d^2)`, `c_out = (sigma - m) d/sqrt(sigma^2 + d^2)`.

    `m` is the lowest level. What such a network returns is a point of the data, not a posterior mean.

    Args:
        sigmas: the levels, ascending.
        sigma_data: d, root-mean-square of the data.

    Reference: "Consistency Models" (Song, Dhariwal, Chen, Sutskever, 2023, https://arxiv.org/abs/2303.01469).
    """  # noqa: E501

    def __init__(self, sigmas: Sequence[float], sigma_data: float) -> None:
        super().__init__(sigmas)
        self.sigma_data = sigma_data

    def preconditioning(self, sigma: float) -> Preconditioning:
        root, beyond = math.hypot(sigma, self.sigma_data), sigma - self.sigma_min
        c_skip = self.sigma_data**2 / (beyond**2 + self.sigma_data**2)
        return Preconditioning(c_skip, beyond * self.sigma_data / root, 1 / root, 250 * math.log(sigma))


class Schedule(Protocol):
    """What a scheduler says of its network.

    Attributes:
        sigma_min, sigma_max: lowest and highest noise level that the network knows apart.
    """

    sigma_min: float
    sigma_max: float

    def preconditioning(self, sigma: float) -> Preconditioning:
        """Coefficients of `D = c_skip x + c_out F(c_in x, timestep)`; `c_in x` is the state in the process's scale."""
        ...

    def at_least(self, sigma: float) -> float:
        """The lowest noise level of the schedule that is not below `sigma`."""
        ...


class FlowSchedule:
    """Flow matching, `x_t = (1 - t) x0 + t n` with `n - x0` predicted: `sigma = t / (1 - t)`, timestep `T t`.

    Args:
        train_timesteps: T.

    Reference: "Flow Matching for Generative Modeling" (Lipman et al., 2022, https://arxiv.org/abs/2210.02747).
    """

    sigma_min, sigma_max = 0.0, math.inf

    def __init__(self, train_timesteps: int) -> None:
        self.train_timesteps = train_timesteps

    def preconditioning(self, sigma: float) -> Preconditioning:
        kept = 1 / (1 + sigma)
        return Preconditioning(kept, -sigma * kept, kept, self.train_timesteps * sigma * kept)

    def at_least(self, sigma: float) -> float:
        return sigma


class Karras:
    """EDM's preconditioning, with the network told `ln(sigma)/4`.

    Args:
        sigma_max: highest noise level.
        sigma_data: root-mean-square of the data.
        prediction: "epsilon" (EDM's own) or "v_prediction", which has the other sign.

    Raises:
        ValueError: another prediction.
    """

    sigma_min = 0.0

    def __init__(self, sigma_max: float, sigma_data: float, prediction: str) -> None:
        if prediction not in ("epsilon", "v_prediction"):
            raise ValueError(f"diffusers: prediction_type must be epsilon or v_prediction, got {prediction!r}")
        self.sigma_max, self.sigma_data = sigma_max, sigma_data
        self.sign = 1 if prediction == "epsilon" else -1

    def preconditioning(self, sigma: float) -> Preconditioning:
        c_skip, c_out, c_in, c_noise = edm_preconditioning(sigma, self.sigma_data)
        return Preconditioning(c_skip, self.sign * c_out, c_in, c_noise)

    def at_least(self, sigma: float) -> float:
        return sigma


def schedule_of(scheduler: Any) -> Schedule:
    """The schedule that a scheduler of diffusers follows.

    Raises:
        TypeError: a scheduler of another kind.
        ValueError: as the schedules.
    """
    name, config = type(scheduler).__name__, getattr(scheduler, "config", {})
    prediction = config.get("prediction_type", "epsilon")
    if name.startswith("FlowMatch") or prediction == "flow_prediction":
        return FlowSchedule(config["num_train_timesteps"])
    if name.startswith("CM"):
        levels = type(scheduler).from_config(config).sigmas.tolist()
        return Consistency(levels[::-1], config["sigma_data"])
    if name.startswith("EDM"):
        return Karras(config["sigma_max"], config["sigma_data"], prediction)
    if not isinstance(getattr(scheduler, "alphas_cumprod", None), torch.Tensor):
        raise TypeError(f"diffusers: scheduler must have alphas_cumprod, or be a FlowMatch, EDM or CM one, got {name}")
    continuous = config.get("timestep_type") == "continuous" and prediction == "v_prediction"
    table = scheduler.alphas_cumprod
    if config.get("rescale_betas_zero_snr"):  # its last has no signal left; some schedulers write 2^-24 in place of 0
        table = table[:-1]
    return Diffusion(table, prediction, continuous)
