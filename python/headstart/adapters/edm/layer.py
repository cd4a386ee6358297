"""Layers of the 2022 networks: resampled convolution, the residual block of DDPM++, NCSN++ and ADM, embeddings.

The stages of a U-Net in the order they run, under the names that EDM and EDM2 give them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Stage(NamedTuple):
    """One stage.

    Attributes:
        name: `{r}x{r}_{part}`, with r the side of its output.
        part: "conv", "down", "block", "in" or "up".
        level: of resolution, 0 the finest.
        channels, out_channels: of its input and output; a decoder's "block" also takes the encoder's newest output.
        attends: r is one of the attending resolutions.
        last: the last stage of its level.
    """

    name: str
    part: str
    level: int
    channels: int
    out_channels: int
    attends: bool
    last: bool


def encoder(
    resolution: int, channels: int, stem: int, widths: Sequence[int], depth: int, attending: Sequence[int]
) -> list[Stage]:
    """From `channels` at `resolution`: a convolution to `stem`, then `depth` blocks a level, halving between levels.

    Args:
        resolution: side of the input.
        channels: of the input.
        stem: channels after the first convolution.
        widths: channels of every level, finest first.
        depth: blocks a level.
        attending: resolutions whose blocks attend.
    """
    stages, current = [], channels
    for level, width in enumerate(widths):
        side = resolution >> level
        part, out = ("down", current) if level else ("conv", stem)
        stages.append(Stage(f"{side}x{side}_{part}", part, level, current, out, False, depth == 0))
        current = out
        for i in range(depth):
            attends, last = side in attending, i == depth - 1
            stages.append(Stage(f"{side}x{side}_block{i}", "block", level, current, width, attends, last))
            current = width
    return stages


def decoder(
    resolution: int, skips: Sequence[int], widths: Sequence[int], depth: int, attending: Sequence[int]
) -> list[Stage]:
    """Back up: two stages at the coarsest level, an "up" at the others, then `depth + 1` blocks that take a skip each.

    `skips`: output channels of the encoder's stages; the others as in `encoder`.
    """
    stages, waiting = [], list(skips)
    current = waiting[-1]
    for level in reversed(range(len(widths))):
        side = resolution >> level
        parts = [("up", "up")] if level < len(widths) - 1 else [("in0", "in"), ("in1", "in")]
        for suffix, part in parts:
            stages.append(Stage(f"{side}x{side}_{suffix}", part, level, current, current, suffix == "in0", False))
        for i in range(depth + 1):
            taken, attends, last = current + waiting.pop(), side in attending, i == depth
            stages.append(Stage(f"{side}x{side}_block{i}", "block", level, taken, widths[level], attends, last))
            current = widths[level]
    return stages


def group_norm(channels: int, eps: float = 1e-5) -> nn.GroupNorm:
    """Group normalization with at most 32 groups of at least 4 channels."""
    return nn.GroupNorm(min(32, channels // 4), channels, eps=eps)


class ResampledConv(nn.Module):
    """A convolution after up- or downsampling by two with a separable filter; `size` 0: resampling alone.

    Args:
        channels, out_channels: of input and output.
        size: side of the kernel, 0, 1 or 3.
        up: double the resolution; otherwise halve it.
        taps: filter on one axis, of even length; normalized to unit sum.
        filter_last: downsample after the convolution, on one padding for both.

    Reference: "Analyzing and Improving the Image Quality of StyleGAN" (Karras et al., 2020,
    https://arxiv.org/abs/1912.04958), whose resampling NCSN++ takes.
    """

    def __init__(
        self, channels: int, out_channels: int, size: int, up: bool, taps: Sequence[float], filter_last: bool = False
    ) -> None:
        super().__init__()
        self.up, self.filter_last = up, filter_last
        self.weight = (
            nn.Parameter(torch.empty(out_channels, channels, size, size, dtype=torch.float32)) if size else None
        )
        self.bias = nn.Parameter(torch.empty(out_channels, dtype=torch.float32)) if size else None
        self.register_buffer("resample_filter", torch.empty(1, 1, len(taps), len(taps), dtype=torch.float32))

    def resample(self, x: Tensor, pad: int) -> Tensor:
        taps = self.get_buffer("resample_filter").expand(x.shape[1], 1, -1, -1)
        if self.up:
            return functional.conv_transpose2d(x, 4 * taps, stride=2, padding=pad, groups=x.shape[1])
        return functional.conv2d(x, taps, stride=2, padding=pad, groups=x.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        pad = (self.get_buffer("resample_filter").shape[-1] - 1) // 2
        if self.weight is None:
            return self.resample(x, pad)
        own = self.weight.shape[-1] // 2
        if self.filter_last:
            shifted = self.resample(functional.conv2d(x, self.weight, padding=own + pad), 0)
            return shifted if self.bias is None else shifted + self.bias[:, None, None]
        return functional.conv2d(self.resample(x, pad), self.weight, self.bias, padding=own)


class Style(NamedTuple):
    """What the blocks of one architecture have in common.

    Attributes:
        eps: of group normalization.
        scale: factor of every residual sum.
        taps: filter of up- and downsampling.
        project: up- and downsampling skips have a 1x1 convolution too.
        adaptive: the embedding scales and shifts; otherwise it only shifts.
        head: channels of an attention head; None: one head.
    """

    eps: float
    scale: float
    taps: Sequence[float]
    project: bool
    adaptive: bool
    head: int | None


class ResidualBlock(nn.Module):
    """`x' = s (skip(x) + conv(silu(mod(norm(conv(silu(norm(x))))))))`, then `s (x' + attention(norm(x')))` if asked.

    Args:
        stage: place in the network; "up" and "down" resample.
        embedding: width of the embedding that modulates.
        style: what the architecture's blocks share.
        attention: attend over positions.

    References: "Score-Based Generative Modeling through Stochastic Differential Equations" (Song et al., 2021,
    https://arxiv.org/abs/2011.13456); "Diffusion Models Beat GANs on Image Synthesis" (Dhariwal, Nichol, 2021,
    https://arxiv.org/abs/2105.05233).
    """

    def __init__(self, stage: Stage, embedding: int, style: Style, attention: bool) -> None:
        super().__init__()
        channels, out_channels = stage.channels, stage.out_channels
        self.style, up, resample = style, stage.part == "up", stage.part in ("up", "down")
        self.norm0 = group_norm(channels, style.eps)
        self.conv0: nn.Module = (
            ResampledConv(channels, out_channels, 3, up, style.taps)
            if resample
            else nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.affine = nn.Linear(embedding, out_channels * (2 if style.adaptive else 1))
        self.norm1 = group_norm(out_channels, style.eps)
        self.conv1 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        widened = channels != out_channels
        self.skip: nn.Module | None = nn.Conv2d(channels, out_channels, 1) if widened else None
        if resample:
            self.skip = ResampledConv(channels, out_channels, int(style.project or widened), up, style.taps)
        self.heads = 0 if not attention else 1 if style.head is None else out_channels // style.head
        if self.heads:
            self.norm2 = group_norm(out_channels, style.eps)
            self.qkv = nn.Conv2d(out_channels, 3 * out_channels, 1)
            self.proj = nn.Conv2d(out_channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv0(functional.silu(self.norm0(x)))
        modulation = self.affine(embedding)[:, :, None, None].to(h.dtype)
        if self.style.adaptive:
            scale, shift = modulation.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm1(h), 1 + scale)
        else:
            h = self.norm1(h + modulation)
        h = self.conv1(functional.silu(h))
        x = (h + (x if self.skip is None else self.skip(x))) * self.style.scale
        return (x + self.attend(x)) * self.style.scale if self.heads else x

    def attend(self, x: Tensor) -> Tensor:
        """Self-attention over the positions of `[B, C, H, W]`; query, key and value are interleaved in each head."""
        batch, channels, height, width = x.shape
        mixed = self.qkv(self.norm2(x)).reshape(batch, self.heads, channels // self.heads, 3, height * width)
        q, k, v = mixed.permute(3, 0, 1, 4, 2).unbind(0)
        h = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(h.transpose(-1, -2).reshape(x.shape))


class PositionalEmbedding(nn.Module):
    """`[cos(w_i t), sin(w_i t)]`, `w_i = 10000^(-i / n)`; with `endpoint`, the last frequency is 1/10000 itself."""

    def __init__(self, width: int, endpoint: bool = False) -> None:
        super().__init__()
        self.count, self.endpoint = width // 2, endpoint

    def forward(self, t: Tensor) -> Tensor:
        steps = torch.arange(self.count, dtype=torch.float32, device=t.device) / (self.count - int(self.endpoint))
        phase = t[:, None] * torch.pow(1e-4, steps)
        return torch.cat([phase.cos(), phase.sin()], dim=1)


class FourierEmbedding(nn.Module):
    """`[cos(2 pi f_i t), sin(2 pi f_i t)]` with the random frequencies `f` of the file."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.empty(width // 2, dtype=torch.float32))

    def forward(self, t: Tensor) -> Tensor:
        phase = t[:, None] * (2 * math.pi * self.get_buffer("freqs"))
        return torch.cat([phase.cos(), phase.sin()], dim=1)
