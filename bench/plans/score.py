"""Scores of samples: paired distances, and distances of laws beside their floors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import headstart as hs
from bench.plans.case import Case
from headstart import ops
from headstart.fitting.law import change
from headstart.metrics import sliced_wasserstein

FLOORS = 12  # groups of exact samples that show the floor
WIDTH = 3.0  # standard deviations of the floor that pass the gate
BLUR = 0.1  # of the law's scale: noise added before densities are compared; some laws are singular to rounding
LAWS = ("likelihood", "mode_tv", "swd", "minor")


@dataclass(frozen=True)
class Score:
    """Scores against one fine solution and, where the law is known, against exact samples.

    `rmse`, `median`: of the distance to the fine solution, a coordinate. `likelihood`: mean log-density under the law
    minus that of exact samples, nats (above 0: over-contracted), and `mode_tv`: total variation of the mode weights,
    both after noise of 0.1 of the law's scale has been added to samples and law. `swd`:
    sliced Wasserstein distance to exact samples. `minor`: energy in the lower half of the principal components of the
    law (of the start's law where it is not known) that hold 99.9 % of the variance, over the law's own (the fine
    solution's), minus 1.
    """

    case: Case
    fine: Tensor
    seed: int

    def __post_init__(self) -> None:
        truth = self.case.truth
        reference = self.fine if truth is None else truth.at(0.0).sample(4 * self.case.n, 2000 + self.seed)
        reference = reference.flatten(1).double()
        center, moment = moments(truth or self.case.start.mixture)
        value, vector = torch.linalg.eigh(moment)
        kept = int((value.flip(0).cumsum(0) < 0.999 * value.sum()).sum()) + 1
        minor = vector[:, -kept:][:, : max(1, kept // 2)]
        energy = value[-kept:][: max(1, kept // 2)].mean() if truth else ((reference - center) @ minor).square().mean()
        for name, held in (("reference", reference), ("center", center), ("minor", minor), ("energy", float(energy))):
            object.__setattr__(self, f"_{name}", held)
        if truth is not None:
            scale = BLUR * float((reference - center).square().mean().sqrt())
            object.__setattr__(self, "_blur", scale)
            object.__setattr__(self, "_likelihood", float(self.blurred(reference)[0].mean()))

    def __call__(self, x: Tensor) -> dict[str, float]:
        each = (x.double() - self.fine.double()).flatten(1).square().mean(1).sqrt()
        found = {"rmse": float(each.square().mean().sqrt()), "median": float(each.median())}
        return found | self.law(x)

    def law(self, x: Tensor) -> dict[str, float]:
        """The unpaired scores."""
        x = x.flatten(1).double()
        energy = float(((x - self._center) @ self._minor).square().mean())  # type: ignore[attr-defined]
        found = {"minor": energy / self._energy - 1}  # type: ignore[attr-defined]
        truth = self.case.truth
        if truth is None:
            return found
        log_prob, share = self.blurred(x)
        found["likelihood"] = float(log_prob.mean()) - self._likelihood  # type: ignore[attr-defined]
        found["mode_tv"] = float(0.5 * (share.mean(0) - truth.weight).abs().sum())
        found["swd"] = sliced_wasserstein(x, self._reference[: len(x)], 128)  # type: ignore[attr-defined]
        return found

    def blurred(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Log-density `[B]` and posterior mode weights `[B, K]` of samples with fresh noise."""
        truth, sigma = self.case.truth, self._blur  # type: ignore[attr-defined]
        components = change(truth.components, Tensor.double)
        noised = ops.noise(x.contiguous(), sigma, 4000 + self.seed, 0)
        found = ops.mixture_posterior(noised, components, truth.weight.log(), sigma, denoise=False, respond=True)
        assert found.responsibility is not None
        return found.log_prob, found.responsibility

    def floor(self) -> dict[str, tuple[float, float]]:
        """Mean and standard deviation of the unpaired scores of exact samples."""
        truth, n = self.case.truth, self.case.n
        if truth is None:
            return {}
        scores = [self.law(truth.at(0.0).sample(n, 3000 + 100 * self.seed + i)) for i in range(FLOORS)]
        columns = {name: torch.tensor([score[name] for score in scores], dtype=torch.float64) for name in LAWS}
        return {name: (float(values.mean()), float(values.std())) for name, values in columns.items()}


def passes(row: dict[str, float], fine: dict[str, float], floor: dict[str, tuple[float, float]]) -> bool:
    """Whether every score of the law is within `WIDTH` of the floor's deviations of the fine solution's score.

    The fine solution's, not the floor's mean: it comes from the same latents, whose own chance they share.
    """
    near = {name: row[name] - fine[name] for name in LAWS}
    return near["swd"] <= WIDTH * floor["swd"][1] and all(
        abs(gap) <= WIDTH * floor[name][1] for name, gap in near.items() if name != "swd"
    )


def moments(mixture: hs.GaussianMixture) -> tuple[Tensor, Tensor]:
    """Mean `[D]` and covariance `[D, D]` of a mixture's law, float64."""
    mean, variance, axes, spread = (None if part is None else part.double() for part in mixture.components)
    assert mean is not None
    assert variance is not None
    weight = mixture.weight.double()
    center = weight @ mean
    covariance = torch.diag(weight @ variance.expand_as(mean)) + (weight[:, None] * (mean - center)).mT @ (
        mean - center
    )
    if axes is not None and spread is not None:
        flat = ((weight[:, None] * spread).sqrt()[..., None] * axes).flatten(0, 1)
        covariance = covariance + flat.mT @ flat
    return center, covariance
