"""How a scheduler's noise levels, timesteps and states read in variance-exploding terms, `x = x0 + sigma n`."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch

from headstart.adapters.diffusers.table import Consistency, Diffusion
from headstart.denoiser import Preconditioning, edm_preconditioning


class Schedule(Protocol):
    """What a scheduler says of its network.

    Fields:
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


class Flow:
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
        return Flow(config["num_train_timesteps"])
    if name.startswith("CM"):
        levels = type(scheduler).from_config(config).sigmas.tolist()
        return Consistency(levels[::-1], config["sigma_data"])
    if name.startswith("EDM"):
        return Karras(config["sigma_max"], config["sigma_data"], prediction)
    if not isinstance(getattr(scheduler, "alphas_cumprod", None), torch.Tensor):
        raise TypeError(f"diffusers: scheduler must have alphas_cumprod, or be a FlowMatch, EDM or CM one, got {name}")
    continuous = config.get("timestep_type") == "continuous" and prediction == "v_prediction"
    return Diffusion(scheduler.alphas_cumprod, prediction, continuous)
