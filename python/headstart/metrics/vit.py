"""DINOv2's network, under the parameter names of its published weights.

A vision transformer of 14-pixel patches: class token and patches, learned positions, layers
`x + g1 attention(norm(x))`, `x + g2 mlp(norm(x))` with learned `g1`, `g2`, and a last norm. Some of the networks have
register tokens between the class token and the patches. References: "DINOv2: Learning Robust Visual Features without
Supervision" (Oquab et al., 2023, https://arxiv.org/abs/2304.07193); "Going Deeper with Image Transformers" (Touvron et
al., 2021, https://arxiv.org/abs/2103.17239), the scales of a layer; "Vision Transformers Need Registers" (Darcet et
al., 2023, https://arxiv.org/abs/2309.16588).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

PATCH, HEAD = 14, 64
OFFSET = 0.1  # added to the wanted side when positions of networks without registers are resized, as published


class Size(NamedTuple):
    """Sizes of a network: `width` channels, `hidden` in an MLP, `depth` layers, positions of `side^2` patches."""

    width: int
    hidden: int
    depth: int
    side: int
    registers: int = 0
    head: int = HEAD


class Attention(nn.Module):
    """Every token sees every other."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.head = size.head
        self.qkv, self.proj = nn.Linear(size.width, 3 * size.width), nn.Linear(size.width, size.width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, -1, self.head)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Scale(nn.Module):
    """A learned factor for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.gamma * x


class MLP(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(size.width, size.hidden), nn.Linear(size.hidden, size.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class Layer(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(size.width, eps=1e-6) for _ in range(2))
        self.ls1, self.ls2 = Scale(size.width), Scale(size.width)
        self.attn, self.mlp = Attention(size), MLP(size)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class Patches(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """The network: normalized images `[N, 3, H, W]` to the normalized class token `[N, width]`; H = W, whole patches.

    Args:
        size: see `Size`.
        offset: see `OFFSET`; 0: positions are resized to the wanted side exactly.
    """

    def __init__(self, size: Size, offset: float = OFFSET) -> None:
        super().__init__()
        self.size, self.offset = size, offset
        self.cls_token = nn.Parameter(torch.zeros(1, 1, size.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + size.side**2, size.width))
        if size.registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, size.registers, size.width))
        self.patch_embed = Patches(size.width)
        self.blocks = nn.ModuleList(Layer(size) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width, eps=1e-6)

    def positions(self, side: int) -> Tensor:
        """Positions of the class token and of `side^2` patches `[1, 1 + side^2, width]`, bicubic in between.

        Networks with registers resize to the side itself, with antialiasing; the others by a factor of
        `(side + offset) / stored side`, without.
        """
        if side == self.size.side:
            return self.pos_embed
        first, grid = self.pos_embed[:, :1], self.pos_embed[:, 1:].unflatten(1, (self.size.side,) * 2)
        grid, registers = grid.permute(0, 3, 1, 2), bool(self.size.registers)
        if registers or self.offset == 0:
            grid = functional.interpolate(grid, (side, side), mode="bicubic", antialias=registers)
        else:
            factor = (side + self.offset) / self.size.side
            grid = functional.interpolate(grid, scale_factor=(factor, factor), mode="bicubic")
        return torch.cat([first, grid.flatten(2).transpose(1, 2)], 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), self.patch_embed(x)], 1)
        tokens = tokens + self.positions(x.shape[-1] // PATCH)
        if self.size.registers:
            registers = self.register_tokens.expand(len(x), -1, -1)
            tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 0])


def size_of(weights: Mapping[str, Any]) -> Size:
    """The sizes that weights are of.

    Raises:
        ValueError: not weights of such a network; the message says what is missing.
    """

    def shape(name: str, rank: int) -> tuple[int, ...]:
        found = getattr(weights.get(name), "shape", ())
        if len(found) != rank:
            raise ValueError(f"no {name} of {rank} axes")
        return tuple(found)

    _, places, width = shape("pos_embed", 3)
    side = math.isqrt(places - 1)
    if shape("patch_embed.proj.weight", 4) != (width, 3, PATCH, PATCH) or side**2 != places - 1 or width % HEAD:
        raise ValueError(f"patches must be of {PATCH} pixels in a square, {HEAD} channels a head")
    if "blocks.0.mlp.w12.weight" in weights:
        raise ValueError("the giant network, which is not read from this form; use its folder of transformers")
    depth = sum(name.startswith("blocks.") and name.endswith(".norm1.weight") for name in weights)
    registers = shape("register_tokens", 3)[1] if "register_tokens" in weights else 0
    return Size(width, shape("blocks.0.mlp.fc1.weight", 2)[0], depth, side, registers)
