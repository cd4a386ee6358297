"""Magnitude-preserving operations and layers of EDM2.

Equation numbers are those of "Analyzing and Improving the Training Dynamics of Diffusion Models" (Karras et al., 2024,
https://arxiv.org/abs/2312.02696).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

EPS = 1e-4


def normalize(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """`x / (EPS + rms(x))`, the root mean square over `dim` taken in float32."""
    count = math.prod(x.shape[d] for d in ((dim,) if isinstance(dim, int) else dim))
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=torch.float32)
    return x / (EPS + norm / math.sqrt(count)).to(x.dtype)


def silu(x: Tensor) -> Tensor:
    """`silu(x) / 0.596`, of unit magnitude for normal input (equation 81)."""
    return functional.silu(x) / 0.596


def blend(a: Tensor, b: Tensor, t: float) -> Tensor:
    """`((1 - t) a + t b) / sqrt((1 - t)^2 + t^2)` (equation 88)."""
    return a.lerp(b, t) / math.hypot(1 - t, t)


def join(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Channels of `a` and `b`, weighted so that each part and the whole keep their magnitude (equation 103)."""
    m, n = a.shape[1], b.shape[1]
    scale = math.sqrt(m + n) / math.hypot(1 - t, t)
    return torch.cat([a * (scale * (1 - t) / math.sqrt(m)), b * (scale * t / math.sqrt(n))], dim=1)


def outer(taps: Sequence[float]) -> Tensor:
    """The separable filter `[1, 1, n, n]` of unit sum, from its taps on one axis."""
    axis = torch.tensor(taps, dtype=torch.float32) / sum(taps)
    return axis.outer(axis)[None, None]


def resample(x: Tensor, part: str, kernel: Tensor) -> Tensor:
    """`x` at twice ("up") or half ("down") its resolution, through a filter `[1, 1, n, n]`."""
    kernel, pad = kernel.to(x.dtype).expand(x.shape[1], 1, -1, -1), (kernel.shape[-1] - 1) // 2
    if part == "up":
        return functional.conv_transpose2d(x, 4 * kernel, stride=2, padding=pad, groups=x.shape[1])
    return functional.conv2d(x, kernel, stride=2, padding=pad, groups=x.shape[1])


class MPFourier(nn.Module):
    """`sqrt(2) cos(f_i t + p_i)` with the random `f`, `p` of the file (equation 75)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.empty(width))
        self.register_buffer("phases", torch.empty(width))

    def forward(self, t: Tensor) -> Tensor:
        return math.sqrt(2) * (t[:, None] * self.get_buffer("freqs") + self.get_buffer("phases")).cos()


class MPConv(nn.Module):
    """A convolution (or, without `size`, a linear map) by `gain w / (|w| fan^(1/2))`, rows of `w` being normalized.

    `fold` puts normalization and gain into the weight, once: for a trained network they are constants.
    """

    def __init__(self, channels: int, out_channels: int, size: int | None = None) -> None:
        super().__init__()
        kernel = () if size is None else (size, size)
        self.weight = nn.Parameter(torch.empty(out_channels, channels, *kernel))

    def fold(self, gain: Tensor | float = 1.0) -> None:
        """Replaces the weight by what multiplies the input (equations 47 and 66)."""
        w = self.weight.detach()
        unit = normalize(w, tuple(range(1, w.dim())))
        self.weight = nn.Parameter(unit * (gain / math.sqrt(w[0].numel())), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dim() == 2:
            return functional.linear(x, self.weight)
        return functional.conv2d(x, self.weight, padding=self.weight.shape[-1] // 2)
