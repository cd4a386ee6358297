"""One-step solvers: Euler, and Heun's two calls a step with or without fresh noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from headstart.argument import require_number
from headstart.solver.row import Row, pairs


@dataclass(frozen=True)
class Euler:
    """`x' = r x + (1 - r) D`, `r = sigma_next / sigma`. The same step as DDIM with eta = 0.

    Reference: "Denoising Diffusion Implicit Models" (Song, Meng, Ermon, 2020, https://arxiv.org/abs/2010.02502).
    """

    order = 1

    def rows(self, grid: Sequence[float]) -> list[Row]:
        """One row a step, one network call a row."""
        return [Row(t, s / t, (1 - s / t,)) for t, s in pairs(grid)]


@dataclass(frozen=True)
class Churn:
    """Fresh noise before a step: `x^ = x + noise sqrt(t^2_hat - t^2) z`, `t_hat = t (1 + min(amount / steps, sqrt(2) - 1))`.

    Args:
        amount: EDM's S_churn, at least 0.
        sigma_min, sigma_max: range of noise levels where it acts (S_tmin, S_tmax).
        noise: standard deviation of the fresh noise (S_noise).

    Raises:
        TypeError: one of them is no number.
        ValueError: amount negative, noise negative or infinite, or a range of levels that is none.
    """  # noqa: E501

    amount: float
    sigma_min: float = 0.0
    sigma_max: float = math.inf
    noise: float = 1.0

    def __post_init__(self) -> None:
        for name in ("amount", "sigma_min", "sigma_max", "noise"):
            object.__setattr__(self, name, require_number("Churn", name, getattr(self, name)))
        if not (self.amount >= 0 and 0 <= self.noise < math.inf):
            got = f"{self.amount} and {self.noise}"
            raise ValueError(f"Churn: amount and noise must be at least 0, and noise finite, got {got}")
        if not self.sigma_min <= self.sigma_max:  # a NaN would switch it off without a word
            got = f"{self.sigma_min} and {self.sigma_max}"
            raise ValueError(f"Churn: sigma_min must be at most sigma_max, got {got}")

    def raised(self, sigma: float, steps: int) -> float:
        """The level `t_hat` that the state is raised to."""
        if not self.sigma_min <= sigma <= self.sigma_max:
            return sigma
        return sigma * (1 + min(self.amount / steps, math.sqrt(2) - 1))


@dataclass(frozen=True)
class Heun:
    """A trial Euler step `x~ = r x + (1 - r) D(x, t)`, then the trapezoidal rule with `D(x~, s)`; the last step is Euler.

    `x' = r x + ((1-r)/2 - (1-r)^2/(2r)) D(x, t) + (1-r)/(2r) D(x~, s)`, `r = s/t`. A step costs two network calls, the
    one to 0 costs one: n steps ending at 0 cost 2n - 1.

    Args:
        churn: fresh noise before each step, or None.

    Reference: "Elucidating the Design Space of Diffusion-Based Generative Models" (Karras et al., 2022,
    https://arxiv.org/abs/2206.00364), algorithms 1 and 2.
    """  # noqa: E501

    churn: Churn | None = None
    order = 2

    def rows(self, grid: Sequence[float]) -> list[Row]:
        """One or two rows a step, and one more without a network call where churn acts."""
        steps = pairs(grid)
        rows = []
        for t, s in steps:
            if self.churn is not None and (raised := self.churn.raised(t, len(steps))) > t:
                rows.append(Row(None, 1.0, (), self.churn.noise * math.sqrt(raised**2 - t**2)))
                t = raised
            r = s / t
            rows.append(Row(t, r, (1 - r,), commit=s == 0))
            if s > 0:
                new = (1 - r) / (2 * r)
                rows.append(Row(s, r, (new, (1 - r) / 2 - (1 - r) * new)))
        return rows
