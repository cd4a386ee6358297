"""What rows ask of one network, or of two under guidance: functions, levels, factors, settled before the first call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from headstart.buffer import BUFFERS
from headstart.denoiser import Preconditioned, Preconditioning
from headstart.guidance import Conditions, Guided
from headstart.solver import Row

Scale = tuple[float, torch.dtype]


class Branch(NamedTuple):
    """One network's part of a prediction: `skip x + out F(scale x, level)`.

    Fields:
        network: `F`.
        level: what it is told of the noise, 0-dim.
        skip, out: factors, the branch's share of the prediction included.
        scale: of its input, and the dtype; None: it is given the state itself.
        guide: whether it has the guide's conditions.
    """

    network: Callable[..., Tensor]
    level: Tensor
    skip: float
    out: float
    scale: Scale | None
    guide: bool = False

    def input(self, x: Tensor) -> Tensor:
        """What it is given at the state `x`."""
        if self.scale is None:
            return x
        return torch.mul(x, self.scale[0], out=BUFFERS.take(x, self.scale[1]))

    def times(self, share: float, guide: bool) -> Branch:
        """This branch with a share in the prediction."""
        return self._replace(skip=share * self.skip, out=share * self.out, guide=guide)


def branches_of(
    denoiser: Any, rows: Sequence[Row], dtype: torch.dtype, device: torch.device
) -> list[tuple[Branch, ...]]:
    """The branches that each row calls, none in a row without a call; with levels on the device."""
    if not isinstance(denoiser, Guided):
        return branch_of(denoiser, rows, dtype, device)
    mains = branch_of(denoiser.denoiser, rows, dtype, device)
    guides = branch_of(denoiser.guide, rows, dtype, device)
    found = []
    for row, main, guide in zip(rows, mains, guides, strict=True):
        shares = zip((*main, *guide), denoiser.shares(row.sigma or 0.0), (False, True), strict=False)
        found.append(tuple(one.times(share, late) for one, share, late in shares if share))
    return found


def branch_of(denoiser: Any, rows: Sequence[Row], dtype: torch.dtype, device: torch.device) -> list[tuple[Branch, ...]]:
    """The one branch of a denoiser without guidance, in each row with a call."""
    found: list[tuple[Branch, ...]] = []
    if isinstance(denoiser, Preconditioned):
        none = Preconditioning(0.0, 0.0, 0.0, 0.0)
        at = [denoiser.preconditioning(row.sigma) if row.sigma else none for row in rows]
        levels = torch.tensor([factors.c_noise for factors in at], dtype=dtype, device=device).unbind()
        for row, (c_skip, c_out, c_in, _), level in zip(rows, at, levels, strict=True):
            one = Branch(denoiser.raw, level, c_skip, c_out, (c_in, denoiser.dtype or dtype))
            found.append((one,) if row.sigma else ())
        return found
    sigmas = [row.sigma or 0.0 for row in rows]
    levels = torch.tensor(sigmas, dtype=torch.float64, device=device).unbind()
    for sigma, level in zip(sigmas, levels, strict=True):
        found.append((Branch(denoiser, level, 0.0, 1.0, None),) if sigma else ())
    return found


def evaluations(denoiser: Any, rows: Sequence[Row]) -> int:
    """Network evaluations a sample: one for each branch of each row that calls."""
    sigmas = [row.sigma for row in rows if row.sigma]
    if not isinstance(denoiser, Guided):
        return len(sigmas)
    return sum(share != 0 for sigma in sigmas for share in denoiser.shares(sigma))


def conditions_of(denoiser: Any, cond: dict[str, Any], n: int) -> Conditions:
    """What the branches are told in a batch of `n`."""
    return denoiser.conditions(cond, n) if isinstance(denoiser, Guided) else Conditions(cond, cond, None)


def ask(branches: Sequence[Branch], x: Tensor, scaled: Tensor | None, given: Conditions) -> list[Tensor]:
    """What each branch makes of the state `x`, from one call where one serves both.

    `scaled`: the input of the first branch, where it is made already; of `2 B` rows for one call.
    """
    first = branches[0]
    if scaled is None:
        scaled = first.input(x)
        if len(branches) == 2 and given.joint is not None:
            scaled = twice(scaled)
    if len(branches) == 2 and given.joint is not None:
        raw = first.network(scaled, first.level, **given.joint)
        require(first, raw, scaled)
        return [raw[: x.shape[0]], raw[x.shape[0] :]]
    raws = []
    for branch in branches:
        y = scaled if branch.scale == first.scale else branch.input(x)
        raw = branch.network(y, branch.level, **(given.guide if branch.guide else given.main))
        require(branch, raw, x)
        raws.append(raw)
    return raws


def twice(x: Tensor) -> Tensor:
    """`x` and `x` again, `[2 B, *shape]`."""
    wide = BUFFERS.take(x, x.dtype, copies=2)
    wide[: len(x)].copy_(x)
    wide[len(x) :].copy_(x)
    return wide


def require(branch: Branch, raw: Any, like: Tensor) -> None:
    """Refuses what is no tensor of the input's shape.

    Raises:
        ValueError: as said.
    """
    if not isinstance(raw, Tensor) or raw.shape != like.shape:
        got = list(raw.shape) if isinstance(raw, Tensor) else type(raw).__name__
        name = "guide" if branch.guide else "denoiser"
        raise ValueError(f"sample: the {name} must return a tensor {list(like.shape)}, got {got}")
