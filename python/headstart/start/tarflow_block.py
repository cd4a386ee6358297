"""A block of a `TarFlow`: causal transformer layers that make an affine autoregressive map of patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

HEAD = 64  # channels of an attention head


class Architecture(NamedTuple):
    """Sizes of the network: samples `shape` [C, H, W] in square patches, `blocks` blocks of `layers` layers."""

    shape: tuple[int, int, int]
    patch: int
    channels: int
    blocks: int
    layers: int
    classes: int

    @property
    def tokens(self) -> int:
        return self.shape[1] * self.shape[2] // self.patch**2

    @property
    def width(self) -> int:
        """Values in a patch."""
        return self.shape[0] * self.patch**2


class TarFlowLayer(nn.Module):
    """`h + attention(norm(h))`, then `h + mlp(norm(h))`, every token seeing itself and those before it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // HEAD)
        self.norm0, self.norm1 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def project(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each `[B, heads, T, channels / heads]`."""
        q, k, v = self.qkv(self.norm0(h)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def finish(self, h: Tensor, attended: Tensor) -> Tensor:
        h = h + self.out(attended.transpose(1, 2).flatten(2))
        return h + self.mlp(self.norm1(h))

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self.project(h)
        return self.finish(h, functional.scaled_dot_product_attention(q, k, v, is_causal=True))


class TarFlowBlock(nn.Module):
    """`z_t = (x_t - mu_t) exp(-alpha_t)`, `(mu_t, alpha_t)` read from `x_1 .. x_{t-1}` and the class.

    A learned start token stands before the first patch, so that it is transformed as well.
    """

    def __init__(self, size: Architecture, reverse: bool) -> None:
        super().__init__()
        self.reverse, self.classes = reverse, size.classes
        self.patch = nn.Linear(size.width, size.channels)
        self.position = nn.Parameter(0.02 * torch.randn(size.tokens, size.channels, dtype=torch.float32, device="cpu"))
        self.label = nn.Embedding(size.classes + 1, size.channels)
        made = nn.ModuleList(TarFlowLayer(size.channels) for _ in range(size.layers))
        self.layers: Sequence[TarFlowLayer] = made  # type: ignore[assignment]
        self.norm = nn.LayerNorm(size.channels)
        self.head = nn.Linear(size.channels, 2 * size.width)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def turn(self, x: Tensor) -> Tensor:
        """Patches in this block's order, and back."""
        return x.flip(1) if self.reverse else x

    def affine(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """`mu` and `alpha` `[B, T, width]`, at the weights' precision even under autocast: exponents need it."""
        with torch.autocast(h.device.type, enabled=False):
            mu, alpha = self.head(self.norm(h.to(self.head.weight.dtype))).chunk(2, dim=2)
        return mu, alpha

    def parameters_of(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """`mu` and `alpha` of every patch of `x` `[B, T, width]`, patches in this block's order."""
        entry = functional.pad(self.patch(x[:, :-1]), (0, 0, 1, 0))
        h = entry + self.position + self.label(label)[:, None]
        for layer in self.layers:
            h = layer(h)
        return self.affine(h)

    def forward(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """`z` and `log |det dz/dx|` `[B]`."""
        x = self.turn(x)
        mu, alpha = self.parameters_of(x, label)
        return self.turn((x - mu) * (-alpha).exp()), -alpha.sum((1, 2))


def check_architecture(size: Architecture) -> None:
    """Images in whole patches, whole heads, and numbers above 0."""
    for name in ("patch", "channels", "blocks", "layers"):
        value = getattr(size, name)
        if not isinstance(value, int) or not 1 <= value <= 2**16:
            raise ValueError(f"TarFlow: {name} must be an integer of at least 1, got {value!r}")
    shape = size.shape
    if len(shape) != 3 or shape[1] % size.patch or shape[2] % size.patch:
        raise ValueError(f"TarFlow: samples must be [C, H, W] with sides divisible by {size.patch}, got {list(shape)}")
    if size.channels > HEAD and size.channels % HEAD:
        raise ValueError(f"TarFlow: channels must be a multiple of {HEAD} above it, got {size.channels}")
