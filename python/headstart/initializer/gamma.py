"""Chi-square draws with an address: one uniform a sample, through the inverse distribution function."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headstart import ops

MOST_DF = 1000.0  # beyond that, where Newton's first point may underflow, a Student-t is a Gaussian to 0.1 %
ROUNDS, CLOSE = 200, 1e-13


def chi_square(
    n: int, df: float, seed: int, step: int = 0, offset: int = 0, device: torch.device | str | None = None
) -> Tensor:
    """Chi-square draws `[n]` with `df` degrees of freedom, float64, one a sample index, addressed as in `ops.Noise`:
    the same in any batch, up to the last bits of torch's `exp` and `log`.

    Raises:
        ValueError: `df` is not in (0, 1000], or an address is out of range.
    """
    check_df("chi_square", df)
    u = ops.uniform(n, seed, step, offset, stream=ops.Stream.SCALE, device=device)
    return 2 * gamma_quantile(u, df / 2)


def gamma_quantile(u: Tensor, shape: float) -> Tensor:
    """`x` with `P(shape, x) = u`, `P` the regularized lower incomplete gamma function, float64; `u` in (0, 1].

    Newton's method for `log P(shape, e^y) = log u`, increasing and concave in `y`: from a point below the root, such
    as that of `P <= e^(shape y) / Gamma(shape + 1)`, it climbs to the root and never passes it.
    """
    u = u.double().clamp(max=1 - 2**-53)
    log_gamma, a = math.lgamma(shape), torch.full_like(u, shape)
    y = (u.log() + math.lgamma(shape + 1)) / shape
    for _ in range(ROUNDS):
        x = y.exp()
        p = torch.special.gammainc(a, x)
        step = (u.log() - p.log()) * p * (x - shape * y + log_gamma).exp()
        far = step.abs() > CLOSE * (1 + y.abs())
        y = torch.where(far, y + step, y)  # a draw that is done stays, however long its batch goes on
        if not bool(far.any()):
            break
    return y.exp()


def check_df(name: str, df: float) -> None:
    """Degrees of freedom in the range that the quantile covers."""
    if not 0 < df <= MOST_DF:
        raise ValueError(f"{name}: df must be in (0, {MOST_DF:g}], got {df}")
