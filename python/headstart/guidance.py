"""Guidance: a denoiser drawn away from a worse one, `D = D_guide + w (D_main - D_guide)`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from headstart.argument import shown
from headstart.denoiser import Denoiser, Preconditioned, predict

ALWAYS = (0.0, math.inf)


class Conditions(NamedTuple):
    """The conditions of each branch, and those of one call for both: None where two calls must be made."""

    main: dict[str, Any]
    guide: dict[str, Any]
    joint: dict[str, Any] | None


@dataclass(frozen=True)
class Guided:
    """The denoiser that `guided` makes; its fields are that function's arguments."""

    denoiser: Denoiser | Preconditioned
    weight: float
    guide: Denoiser | Preconditioned
    null: Mapping[str, Any] = field(hash=False)
    interval: tuple[float, float]
    batched: bool

    def shares(self, sigma: float) -> tuple[float, float]:
        """Of the denoiser and of the guide in the prediction at `sigma`; they sum to 1."""
        low, high = self.interval
        return (self.weight, 1.0 - self.weight) if low < sigma <= high else (1.0, 0.0)

    def conditions(self, cond: dict[str, Any], n: int) -> Conditions:
        """The conditions of both branches for a batch of `n`.

        Raises:
            ValueError: `null` replaces what `cond` does not have, or has a tensor that does not broadcast to it.
        """
        if self.weight == 1:
            return Conditions(cond, cond, None)
        guide = {**cond, **{name: fill(name, value, cond) for name, value in self.null.items()}}
        one_network = self.batched and self.guide is self.denoiser
        return Conditions(cond, guide, stack(cond, guide, n) if one_network else None)

    def __call__(self, x: Tensor, sigma: Tensor | float, **cond: Any) -> Tensor:
        """`D(x, sigma)` by itself, for levels `sigma` that are scalar or `[B]`, one a sample."""
        within = self._within(sigma)
        if self.weight == 1 or not within.any():
            return predict(self.denoiser, x, sigma, **cond)
        n, given = x.shape[0], self.conditions(cond, x.shape[0])
        if given.joint is None:
            main, guide = predict(self.denoiser, x, sigma, **cond), predict(self.guide, x, sigma, **given.guide)
        else:
            if isinstance(sigma, Tensor) and sigma.dim() > 0:
                sigma = sigma.expand(n).repeat(2)
            both = predict(self.denoiser, torch.cat([x, x]), sigma, **given.joint)
            main, guide = both[:n], both[n:]
        for name, found in (("denoiser", main), ("guide", guide)):
            if not isinstance(found, Tensor):
                raise TypeError(f"guided: {name} must give a tensor, got {shown(found)}")
        mixed = torch.lerp(guide.to(x.dtype), main.to(x.dtype), self.weight)
        if within.all():
            return mixed
        return torch.where(within.to(x.device).reshape(-1, *[1] * (x.dim() - 1)), mixed, main.to(x.dtype))

    def _within(self, sigma: Tensor | float) -> Tensor:
        if self.interval == ALWAYS:
            return torch.ones((), dtype=torch.bool, device="cpu")  # asks nothing of the device
        low, high = self.interval
        levels = torch.as_tensor(sigma, device=getattr(sigma, "device", "cpu"))
        return (levels > low) & (levels <= high)


def guided(
    denoiser: Denoiser | Preconditioned, weight: float, guide: Denoiser | Preconditioned | None = None,
    interval: tuple[float, float] = ALWAYS, null: Mapping[str, Any] | None = None, batched: bool = True,
) -> Guided:  # fmt: skip
    """The denoiser `D = D_guide + w (D_main - D_guide)` for sigma in (low, high], `D_main` elsewhere.

    Classifier-free guidance takes `null`: both branches are one network, the guide's with those conditions instead of
    the sample's. Autoguidance takes `guide`, a worse network on the same conditions; with both, the guide gets `null`.
    `sample`, `integrate` and `Sampler` fold the weights into the solver's rows; each branch that a row calls counts in
    `SampleInfo.nfe`. A start that is conditional on classes gets the sample's own `cond["label"]`.

    Args:
        denoiser: the main branch, `D(x, sigma, **cond)` or a preconditioned network.
        weight: w, at least 0: 1 is the main branch alone (the guide is not called), 0 the guide alone.
        guide: another denoiser, whose preconditioning and dtype may differ; None: `denoiser` itself.
        interval: noise levels (low, high] of guidance, in units of sigma.
        null: conditions of the guide, each in place of one in `cond`: a number fills a tensor of `cond`, as
            `{"label": 10}` does for a network whose class 10 means none; a tensor broadcasts to it; all else, None
            too, goes as it is.
        batched: where both branches are one network, call it once on `2 B` rows: tensors of leading size `B` are
            stacked, other conditions must be the same in both, else two calls are made. A tensor of that size which
            is not of samples needs `batched=False`.

    Raises:
        TypeError: denoiser or guide cannot be called or is guided itself, or null is no mapping.
        ValueError: neither guide nor null is given, a negative weight, or an interval that does not ascend from 0.

    References: "Classifier-Free Diffusion Guidance" (Ho, Salimans, 2022, https://arxiv.org/abs/2207.12598); "Guiding a
    Diffusion Model with a Bad Version of Itself" (Karras et al., 2024, https://arxiv.org/abs/2406.02507); "Applying
    Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion Models" (Kynkäänniemi et al.,
    2024, https://arxiv.org/abs/2404.07724).
    """
    require_denoiser("denoiser", denoiser)
    if not is_real(weight) or not 0 <= weight < math.inf:
        raise ValueError(f"guided: weight must be a finite number of at least 0, got {weight!r}")
    if guide is not None:
        require_denoiser("guide", guide)
    elif null is None:
        raise ValueError("guided: null must be given (the conditions of the branch without class) or a guide, got none")
    if null is not None and not isinstance(null, Mapping):
        raise TypeError(f"guided: null must be a mapping of conditions, got {type(null).__name__}")
    pair = isinstance(interval, (tuple, list)) and len(interval) == 2 and all(map(is_real, interval))
    if not pair or not 0 <= interval[0] < interval[1]:
        raise ValueError(f"guided: interval must be (low, high) with 0 <= low < high, got {interval!r}")
    limits = float(interval[0]), float(interval[1])
    other = denoiser if guide is None else guide
    return Guided(denoiser, float(weight), other, dict(null or {}), limits, bool(batched))


def require_denoiser(name: str, value: object) -> None:
    """Checks that `value` is a denoiser without guidance.

    Raises:
        TypeError: it cannot be called, or is guided already.
    """
    if isinstance(value, Guided) or not (callable(value) or isinstance(value, Preconditioned)):
        got = "a guided one" if isinstance(value, Guided) else type(value).__name__
        raise TypeError(f"guided: {name} must be a denoiser D(x, sigma, **cond), got {got}")


def is_real(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def fill(name: str, null: Any, cond: Mapping[str, Any]) -> Any:
    """`null` in the form of `cond[name]`, which it replaces.

    Raises:
        ValueError: there is no such condition, or a tensor does not broadcast to it.
    """
    if name not in cond:
        raise ValueError(f"guided: cond must have {name!r}, which null replaces, got {sorted(cond)}")
    value = cond[name]
    if not isinstance(value, Tensor):
        return null
    if isinstance(null, (int, float)):
        return torch.full_like(value, null)
    if not isinstance(null, Tensor):
        return null
    try:
        return null.to(value).expand(value.shape).contiguous()
    except RuntimeError:
        wanted, got = list(value.shape), list(null.shape)
        raise ValueError(f"guided: null[{name!r}] must broadcast to {wanted}, got {got}") from None


def has_rows(value: Any, n: int) -> bool:
    """Whether it has a row for each of `n` samples: a tensor, numpy array, list or tuple of that leading size, or a
    mapping with one in it."""
    if isinstance(value, Mapping):
        return any(has_rows(part, n) for part in value.values())
    if type(value) in (list, tuple):
        return len(value) == n
    return isinstance(value, (Tensor, np.ndarray)) and value.ndim > 0 and value.shape[0] == n


def stack(cond: Mapping[str, Any], guide: Mapping[str, Any], n: int) -> dict[str, Any] | None:
    """Both branches' conditions for one call on `2 n` rows; None where they cannot be one."""
    joint = {}
    for name, value in cond.items():
        other = guide[name]
        if all(isinstance(part, Tensor) and part.dim() > 0 and part.shape[0] == n for part in (value, other)):
            joint[name] = torch.cat([value, other])
        elif value is other and not has_rows(value, n):
            joint[name] = value
        else:
            return None
    return joint
