"""How far a plan's samples are from what it is tuned towards: figures of merit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from headstart.planning.target import Pairing, Whitened

MIN_ERROR = 1e-6  # where float32 leaves nothing to gain
SHARE = 0.25  # of the paired ratio in a merit that is of the data


@dataclass(frozen=True)
class Merit:
    """How far samples are from both targets: mean rms in both sets of coordinates, and moments over their floor.

    Attributes:
        plain, minor: see `Pairing.rms`.
        excess: mean square moment residual over that of as many real samples, for both sets of features; or none.
    """

    plain: float
    minor: float
    excess: tuple[float, ...]

    def value(self, given: Merit) -> float:
        """The figure that is compared, the lower the better; `given` sets the scale of the distances."""
        pair = 0.5 * (self.plain / max(given.plain, MIN_ERROR) + self.minor / max(given.minor, MIN_ERROR))
        if not self.excess:
            return pair
        return sum(math.log(max(1.0, one)) for one in self.excess) / len(self.excess) + SHARE * pair


@dataclass(frozen=True)
class Goal:
    """Both targets.

    Attributes:
        pairing: how errors against fine solutions count.
        sets: features to tune on and to choose by; empty: the target is the network.
        floors: their moments' mean squares for real samples.
    """

    pairing: Pairing
    sets: tuple[Whitened, ...]
    floors: tuple[float, ...]

    def merit(self, x: Tensor, fine: Tensor) -> Merit:
        """Of end states `x` `[n, *shape]`, the first of which have fine solutions."""
        plain, minor = self.pairing.rms(x[: len(fine)] - fine)
        residuals = [float(one.residual(x).square().sum()) for one in self.sets]
        return Merit(plain, minor, tuple(r / floor for r, floor in zip(residuals, self.floors, strict=True)))

    def objective(self, x: Tensor, fine: Tensor) -> float:
        """The loss that the steps go down on: the first set of features, or mean distances."""
        if self.sets:
            return float(self.sets[0].residual(x).square().sum()) / self.floors[0]
        return sum(self.pairing.rms(x - fine))


def paired_rows(pairing: Pairing, x: Tensor, fine: Tensor) -> Tensor:
    """Errors of the samples with fine solutions in both sets of coordinates, `[m, D]`."""
    return torch.cat(pairing.split(x[: len(fine)] - fine), 1)


def figures(merit: Merit, given: Merit) -> dict[str, Any]:
    """A merit as JSON values."""
    return {
        "merit": merit.value(given), "error": merit.plain, "error of minor directions": merit.minor,
        "moments over their floor": list(merit.excess),
    }  # fmt: skip
