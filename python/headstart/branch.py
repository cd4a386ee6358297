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
        return [() if one is None else (one,) for one in branch_of(denoiser, rows, dtype, device)]
    mains = branch_of(denoiser.denoiser, rows, dtype, device)
    guides = branch_of(denoiser.guide, rows, dtype, device)
    found = []
    for row, main, guide in zip(rows, mains, guides, strict=True):
        shares = denoiser.shares(row.sigma) if row.sigma else ()
        pairs = zip(shares, (main, guide), (False, True), strict=False)
        found.append(tuple(one.times(share, late) for share, one, late in pairs if share and one is not None))
    return found


def branch_of(denoiser: Any, rows: Sequence[Row], dtype: torch.dtype, device: torch.device) -> list[Branch | None]:
    """The one branch of a denoiser without guidance, for each row."""
    sigmas = [row.sigma or 0.0 for row in rows]
    if not isinstance(denoiser, Preconditioned):
        levels = torch.tensor(sigmas, dtype=torch.float64, device=device).unbind()
        return [Branch(denoiser, t, 0.0, 1.0, None) if s else None for s, t in zip(sigmas, levels, strict=True)]
    at = [denoiser.preconditioning(sigma) if sigma else Preconditioning(0.0, 0.0, 0.0, 0.0) for sigma in sigmas]
    levels = torch.tensor([factors.c_noise for factors in at], dtype=dtype, device=device).unbind()
    return [
        Branch(denoiser.raw, level, factors.c_skip, factors.c_out, (factors.c_in, denoiser.dtype or dtype))
        if sigma else None
        for sigma, factors, level in zip(sigmas, at, levels, strict=True)
    ]  # fmt: skip


def evaluations(denoiser: Any, rows: Sequence[Row]) -> int:
    """Network evaluations a sample: one for each branch of each row that calls."""
    sigmas = [row.sigma for row in rows if row.sigma]
    if not isinstance(denoiser, Guided):
        return len(sigmas)
    return sum(share != 0 for sigma in sigmas for share in denoiser.shares(sigma))


def conditions_of(denoiser: Any, cond: dict[str, Any], n: int) -> Conditions:
    """What the branches are told in a batch of `n`."""
    return denoiser.conditions(cond, n) if isinstance(denoiser, Guided) else Conditions(cond, cond, None)


def ask(
    branches: Sequence[Branch], x: Tensor, scale: Scale | None, scaled: Tensor | None, given: Conditions
) -> list[Tensor]:
    """What each branch makes of the state `x`, from one call where one serves both.

    `scaled`: the input already made for those whose scale is `scale`, of `2 B` rows for one call.
    """
    if len(branches) == 2 and given.joint is not None:
        n, first = x.shape[0], branches[0]
        wide = twice(first.input(x)) if scaled is None else scaled
        raw = first.network(wide, first.level, **given.joint)
        if not alike(raw, wide):
            raise unlike(first, raw, wide)
        return [raw[:n], raw[n:]]
    raws = []
    for branch in branches:
        y = scaled if scaled is not None and branch.scale == scale else branch.input(x)
        raw = branch.network(y, branch.level, **(given.guide if branch.guide else given.main))
        if not alike(raw, x):
            raise unlike(branch, raw, x)
        raws.append(raw)
        if scaled is None and branch.scale is not None:
            scale, scaled = branch.scale, y
    return raws


def twice(x: Tensor) -> Tensor:
    """`x` and `x` again, `[2 B, *shape]`."""
    wide = BUFFERS.take(x, x.dtype, copies=2)
    wide[: len(x)].copy_(x)
    wide[len(x) :].copy_(x)
    return wide


def alike(raw: Any, like: Tensor) -> bool:
    return isinstance(raw, Tensor) and raw.shape == like.shape


def unlike(branch: Branch, raw: Any, like: Tensor) -> ValueError:
    """The error of a network that returns no tensor of its input's shape."""
    got = list(raw.shape) if isinstance(raw, Tensor) else type(raw).__name__
    name = "guide" if branch.guide else "denoiser"
    return ValueError(f"sample: the {name} must return a tensor {list(like.shape)}, got {got}")
