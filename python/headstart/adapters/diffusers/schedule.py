"""How a scheduler's noise levels, timesteps and states read in variance-exploding terms, `x = x0 + sigma n`."""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import pairwise
from typing import Any, Protocol

import torch

from headstart.denoiser import Preconditioning, edm_preconditioning

PREDICTIONS = ("epsilon", "v_prediction", "sample")


class Schedule(Protocol):
    """What a scheduler says of its network.

    Fields:
        sigma_min, sigma_max: lowest and highest noise level that the network knows apart.
    """

    sigma_min: float
    sigma_max: float

    def timestep(self, sigma: float) -> float:
        """What the network is told at a noise level."""
        ...

    def preconditioning(self, sigma: float) -> Preconditioning:
        """Coefficients of `D = c_skip x + c_out F(c_in x, timestep)`; `c_in x` is the state in the process's scale."""
        ...

    def at_least(self, sigma: float) -> float:
        """The lowest noise level of the schedule that is not below `sigma`."""
        ...


class Diffusion:
    """A variance-preserving process `x_t = a_t x0 + sqrt(1 - a_t^2) n` on a table of `a_t^2`: `sigma^2 = 1/a_t^2 - 1`.

    Between two levels of the table the timestep is interpolated in log sigma; below the lowest it is 0.

    Args:
        alphas_cumprod: the table, `[T]`, descending; a last entry of 0 (no signal left) is left out.
        prediction: "epsilon", "v_prediction" or "sample": what the network predicts.
        continuous: the network is told `ln(sigma)/4` instead of a timestep.

    Raises:
        ValueError: another prediction, or a table that does not descend.

    Reference: "Progressive Distillation for Fast Sampling of Diffusion Models" (Salimans, Ho, 2022,
    https://arxiv.org/abs/2202.00512), appendix D, for v.
    """

    def __init__(self, alphas_cumprod: torch.Tensor, prediction: str, continuous: bool = False) -> None:
        if prediction not in PREDICTIONS:
            raise ValueError(f"denoiser: prediction_type must be one of {', '.join(PREDICTIONS)}, got {prediction!r}")
        table = [a for a in alphas_cumprod.double().tolist() if a > 0]
        if len(table) < 2 or table[0] >= 1 or any(a <= b for a, b in pairwise(table)):
            raise ValueError("denoiser: alphas_cumprod must descend from below 1, two or more of them above 0")
        self.sigmas = [math.sqrt((1 - a) / a) for a in table]
        self.logs = [math.log(sigma) for sigma in self.sigmas]
        self.prediction, self.continuous = prediction, continuous
        self.sigma_min, self.sigma_max = self.sigmas[0], self.sigmas[-1]

    def timestep(self, sigma: float) -> float:
        """Timestep of a noise level, a real number in [0, T - 1]."""
        if self.continuous:
            return math.log(sigma) / 4
        above = bisect_left(self.sigmas, sigma)
        if above in (0, len(self.sigmas)):
            return float(min(above, len(self.sigmas) - 1))
        low, high = self.logs[above - 1], self.logs[above]
        return above - (high - math.log(sigma)) / (high - low)

    def preconditioning(self, sigma: float) -> Preconditioning:
        total = 1 + sigma**2
        c_skip, c_out = {
            "epsilon": (1.0, -sigma),
            "v_prediction": (1 / total, -sigma / math.sqrt(total)),
            "sample": (0.0, 1.0),
        }[self.prediction]
        return Preconditioning(c_skip, c_out, 1 / math.sqrt(total), self.timestep(sigma))

    def at_least(self, sigma: float) -> float:
        """The table's level, for which there is a whole timestep."""
        return self.sigmas[min(bisect_left(self.sigmas, sigma * (1 - 1e-6)), len(self.sigmas) - 1)]


class Flow:
    """Flow matching, `x_t = (1 - t) x0 + t n` with `n - x0` predicted: `sigma = t / (1 - t)`, timestep `T t`.

    Args:
        train_timesteps: T.

    Reference: "Flow Matching for Generative Modeling" (Lipman et al., 2022, https://arxiv.org/abs/2210.02747).
    """

    sigma_min, sigma_max = 0.0, math.inf

    def __init__(self, train_timesteps: int) -> None:
        self.train_timesteps = train_timesteps

    def timestep(self, sigma: float) -> float:
        return self.train_timesteps * sigma / (1 + sigma)

    def preconditioning(self, sigma: float) -> Preconditioning:
        kept = 1 / (1 + sigma)
        return Preconditioning(kept, -sigma * kept, kept, self.timestep(sigma))

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
        if prediction not in PREDICTIONS[:2]:
            raise ValueError(f"denoiser: prediction_type must be epsilon or v_prediction, got {prediction!r}")
        self.sigma_max, self.sigma_data = sigma_max, sigma_data
        self.sign = 1 if prediction == "epsilon" else -1

    def timestep(self, sigma: float) -> float:
        return math.log(sigma) / 4

    def preconditioning(self, sigma: float) -> Preconditioning:
        c_skip, c_out, c_in, c_noise = edm_preconditioning(sigma, self.sigma_data)
        return Preconditioning(c_skip, self.sign * c_out, c_in, c_noise)

    def at_least(self, sigma: float) -> float:
        return sigma


def schedule_of(scheduler: Any) -> Schedule:
    """The schedule that a scheduler of diffusers follows.

    Raises:
        TypeError: a scheduler of another kind.
        ValueError: as the schedules; dynamic thresholding, which is no property of a denoiser.
    """
    name, config = type(scheduler).__name__, getattr(scheduler, "config", {})
    prediction = config.get("prediction_type", "epsilon")
    if config.get("thresholding"):
        raise ValueError(
            f"denoiser: {name} thresholds predictions by quantiles of the sample, which no noise level explains; "
            "give one made with thresholding=False"
        )
    if name.startswith("FlowMatch") or prediction == "flow_prediction":
        return Flow(config["num_train_timesteps"])
    if name.startswith("EDM"):
        return Karras(config["sigma_max"], config["sigma_data"], prediction)
    if not isinstance(getattr(scheduler, "alphas_cumprod", None), torch.Tensor):
        raise TypeError(f"denoiser: scheduler must have alphas_cumprod, or be a FlowMatch or EDM one, got {name}")
    continuous = config.get("timestep_type") == "continuous" and prediction == "v_prediction"
    return Diffusion(scheduler.alphas_cumprod, prediction, continuous)
