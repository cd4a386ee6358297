"""Grids of noise levels: float64, descending, ending in 0. `steps` is the number of solver steps."""

from __future__ import annotations

import math
from numbers import Integral

import torch
from torch import Tensor

from headstart.argument import require_number, shown

MAX_STEPS = 2**24


def karras(sigma_max: float, sigma_min: float, steps: int, rho: float = 7.0) -> Tensor:
    """`sigma_i = (sigma_max^(1/rho) + i/(steps-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho`, then 0.

    Args:
        sigma_max: first level, in units of the data.
        sigma_min: last level before 0; not used when `steps` is 1.
        steps: number of levels above 0.
        rho: warp; 1 is uniform in sigma, larger puts more levels at small sigma.

    Returns:
        `[steps + 1]`, float64.

    Raises:
        ValueError: levels not positive or not descending, `steps` below 1, `rho` not positive, or so small or so large
            that levels overflow or fall together.

    Reference: "Elucidating the Design Space of Diffusion-Based Generative Models" (Karras et al., 2022,
    https://arxiv.org/abs/2206.00364), equation 5.
    """
    sigma_max, sigma_min = _require("karras", sigma_max, sigma_min, steps)
    rho = require_number("karras", "rho", rho)
    if not 0 < rho < math.inf:
        raise ValueError(f"karras: rho must be positive and finite, got {rho}; its limit at infinity is log_uniform")
    try:
        first, last = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    except (OverflowError, ZeroDivisionError):  # of Python's own power, and of 1 / rho
        first, last = math.inf, 0.0
    levels = _finish(torch.linspace(first, last, steps, dtype=torch.float64, device="cpu") ** rho, sigma_max)
    if not bool((levels[:-1] > levels[1:]).all()):
        raise ValueError(
            f"karras: rho must leave {steps} levels that descend, got {rho:g}: use 1 to 100, or log_uniform"
        )
    return levels


def log_uniform(sigma_max: float, sigma_min: float, steps: int) -> Tensor:
    """`ln sigma_i = ln sigma_max + i/(steps-1) (ln sigma_min - ln sigma_max)`, then 0.

    Arguments, result and errors as in `karras`; the limit of its `rho` to infinity.
    """
    sigma_max, sigma_min = _require("log_uniform", sigma_max, sigma_min, steps)
    levels = torch.linspace(math.log(sigma_max), math.log(sigma_min), steps, dtype=torch.float64, device="cpu").exp()
    return _finish(levels, sigma_max)


def _require(op: str, sigma_max: float, sigma_min: float, steps: int) -> tuple[float, float]:
    if not isinstance(steps, Integral) or isinstance(steps, bool) or not 1 <= steps <= MAX_STEPS:
        raise ValueError(f"{op}: steps must be an integer from 1 to {MAX_STEPS}, got {shown(steps)}")
    sigma_max, sigma_min = (
        require_number(op, name, value) for name, value in (("sigma_max", sigma_max), ("sigma_min", sigma_min))
    )
    if not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(f"{op}: levels must satisfy 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
    return sigma_max, sigma_min


def _finish(levels: Tensor, sigma_max: float) -> Tensor:
    levels[0] = sigma_max  # exactly, not up to the rounding of a power
    return torch.cat([levels, levels.new_zeros(1)])
