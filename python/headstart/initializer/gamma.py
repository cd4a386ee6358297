"""The gamma scale of a Student-t variate as a table: addressed draws that are the same bits on every device.

A multivariate t is `x = mu + s e`, `e ~ N(0, S)`, `s = w^(-1/2)`, `w ~ Gamma(df / 2, rate df / 2)`. One uniform u a
sample gives `s` as the inverse of `P(df / 2, w df / 2) = u`, P the regularized incomplete gamma function. The inverse
is made once for each df, on the host, as a Chebyshev series in each octave of u (up to 1/2) and of 1 - u; what is left
for a sample is a sum of products in IEEE float64, whatever the batch or device. `s` is within 1e-13 of the inverse
below 40 degrees of freedom, and within 2e-10 above, the error of the incomplete gamma function itself.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

OCTAVES, TERMS = 53, 20
LEAST_DF, MOST_DF = 0.5, 2000.0  # where a draw is within 2e-10 of the inverse


def radius_table(df: Tensor) -> Tensor:
    """Chebyshev coefficients `[K, 2, OCTAVES, TERMS]` of `s` for degrees of freedom `[K]`, float64 on the host."""
    j = torch.arange(TERMS, dtype=torch.float64)
    middle = j + 0.5
    node = 0.75 + 0.25 * (math.pi / TERMS * middle).cos()
    v = 0.5 * node * 2.0 ** -torch.arange(OCTAVES, dtype=torch.float64)[:, None]
    a = 0.5 * df.double().cpu()[:, None, None]
    radius = torch.stack([(0.5 * (a.log() - invert(a, v, tail))).exp() for tail in (False, True)], dim=1)
    transform = (math.pi / TERMS * j[:, None] * middle).cos() * 2 / TERMS
    transform[0] /= 2
    return radius @ transform.mT


def invert(a: Tensor, v: Tensor, tail: bool) -> Tensor:
    """`log t` with `P(a, t) = v`, or `1 - P(a, t) = v` for the tail, by Newton's method.

    `log P` and `log(1 - P)` are concave in `log t`, so from a start beyond the root on the side of small values the
    iteration is monotone: `P(a, t) <= t^a / Gamma(a + 1)`, and `1 - P(a, t) <= v` at `t = a + sqrt(2 a l) + l`,
    `l = -log v` (Boucheron, Lugosi, Massart, "Concentration Inequalities", 2013, section 2.4).
    """
    log_v, peak = v.log(), torch.lgamma(a)
    log_t = (a + (-2 * a * log_v).sqrt() - log_v).log() if tail else (log_v + torch.lgamma(a + 1)) / a
    function = torch.special.gammaincc if tail else torch.special.gammainc
    for _ in range(12):
        t = log_t.exp()
        p = function(a, t)
        step = (p.log() - log_v) * (p.log() + peak + t - a * log_t).exp()
        log_t = log_t + step if tail else log_t - step
        if float(step.abs().max()) < 1e-12:  # its square is the error left
            break
    return log_t


def radius(table: Tensor, component: Tensor, u: Tensor) -> Tensor:
    """`s` `[n]` (float64) of components `[n]` from uniforms `[n]` in (0, 1]."""
    lower = u <= 0.5
    v = torch.where(lower, u, 1 - u).clamp_min(2.0**-54)  # u = 1 stands for its last half step
    mantissa, exponent = torch.frexp(v)
    edge = exponent == 0  # v = 1/2 ends the first octave
    mantissa = torch.where(edge, 2 * mantissa, mantissa)
    octave = (-1 - exponent).clamp_min(0)
    at = (2 * component + (~lower).long()) * OCTAVES + octave
    series = table.to(u.device).reshape(-1, TERMS)
    y = 4 * mantissa - 3
    last, this = torch.zeros_like(u), torch.zeros_like(u)
    for term in range(TERMS - 1, 0, -1):  # Clenshaw's recurrence
        last, this = this, 2 * y * this - last + series[at, term]
    return y * this - last + series[at, 0]
