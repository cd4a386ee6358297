"""The raw network of EDM2, of layers that preserve magnitude.

Equation numbers are those of "Analyzing and Improving the Training Dynamics of Diffusion Models" (Karras et al., 2024,
https://arxiv.org/abs/2312.02696).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.adapters.edm.layer import Stage, decoder, encoder
from headstart.io.keyword import gather

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
        self.register_buffer("freqs", torch.empty(width, dtype=torch.float32))
        self.register_buffer("phases", torch.empty(width, dtype=torch.float32))

    def forward(self, t: Tensor) -> Tensor:
        return math.sqrt(2) * (t[:, None] * self.get_buffer("freqs") + self.get_buffer("phases")).cos()


class MPConv(nn.Module):
    """A convolution (or, without `size`, a linear map) by `gain w / (|w| fan^(1/2))`, rows of `w` being normalized.

    `fold` puts normalization and gain into the weight, once: for a trained network they are constants.
    """

    def __init__(self, channels: int, out_channels: int, size: int | None = None) -> None:
        super().__init__()
        kernel = () if size is None else (size, size)
        self.weight = nn.Parameter(torch.empty(out_channels, channels, *kernel, dtype=torch.float32))

    def fold(self, gain: Tensor | float = 1.0) -> None:
        """Replaces the weight by what multiplies the input (equations 47 and 66)."""
        w = self.weight.detach()
        unit = normalize(w, tuple(range(1, w.dim())))
        self.weight = nn.Parameter(unit * (gain / math.sqrt(w[0].numel())), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dim() == 2:
            return functional.linear(x, self.weight)
        return functional.conv2d(x, self.weight, padding=self.weight.shape[-1] // 2)


@dataclass(frozen=True)
class BlockConfig:
    """Options of every block.

    Attributes:
        resample_filter: of up- and downsampling.
        channels_per_head: of attention.
        res_balance, attn_balance: share of the residual branch and of attention.
        clip_act: bound of the output, or None.
        dropout: of training, without effect.
    """

    resample_filter: Sequence[float] = (1, 1)
    channels_per_head: int = 64
    res_balance: float = 0.3
    attn_balance: float = 0.3
    clip_act: float | None = 256.0
    dropout: float = 0.0


@dataclass(frozen=True)
class MagnitudeConfig(BlockConfig):
    """Architecture of a `MagnitudeUNet`, with the options of its blocks.

    Attributes:
        model_channels, channel_mult, num_blocks: width, factor of every level (finest first), blocks a level.
        channel_mult_noise, channel_mult_emb: widths of the two embeddings; None: the first and the widest level's.
        attn_resolutions: where blocks attend.
        label_balance, concat_balance: share of the class in the embedding, and of skips where they are joined.
    """

    model_channels: int = 192
    channel_mult: Sequence[int] = (1, 2, 3, 4)
    channel_mult_noise: int | None = None
    channel_mult_emb: int | None = None
    num_blocks: int = 3
    attn_resolutions: Sequence[int] = (16, 8)
    label_balance: float = 0.5
    concat_balance: float = 0.5


class MagnitudeBlock(nn.Module):
    """A residual block of the encoder or decoder (figure 21), with cosine attention where the stage attends.

    Args:
        stage: place in the network.
        embedding: width of the embedding that modulates.
        decodes: the block belongs to the decoder.
        config: options of every block.
    """

    def __init__(self, stage: Stage, embedding: int, decodes: bool, config: BlockConfig) -> None:
        super().__init__()
        channels, out = stage.channels, stage.out_channels
        self.decodes, self.part, self.taps = decodes, stage.part, config.resample_filter
        self.res_balance, self.attn_balance, self.clip = config.res_balance, config.attn_balance, config.clip_act
        self.heads = out // config.channels_per_head if stage.attends else 0
        self.register_buffer("kernel", None, persistent=False)
        self.emb_gain = nn.Parameter(torch.empty([], dtype=torch.float32))
        self.conv_res0 = MPConv(channels if decodes else out, out, 3)
        self.emb_linear = MPConv(embedding, out)
        self.conv_res1 = MPConv(out, out, 3)
        self.conv_skip = MPConv(channels, out, 1) if channels != out else None
        self.attn_qkv = MPConv(out, 3 * out, 1) if self.heads else None
        self.attn_proj = MPConv(out, out, 1) if self.heads else None

    def fold(self) -> None:
        """Makes the filter, once."""
        self.kernel = outer(self.taps) if self.part in ("up", "down") else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        x = x if self.kernel is None else resample(x, self.part, self.kernel)
        skipped = x if self.conv_skip is None else self.conv_skip(x)
        if not self.decodes:
            x = skipped = normalize(skipped, 1)
        scale = 1 + self.emb_linear(embedding)[:, :, None, None].to(x.dtype)
        y = self.conv_res1(silu(self.conv_res0(silu(x)) * scale))
        x = blend(skipped, y, self.res_balance)
        if self.attn_qkv is not None and self.attn_proj is not None:
            x = blend(x, self.attn_proj(self.attend(self.attn_qkv(x))), self.attn_balance)
        return x if self.clip is None else x.clamp(-self.clip, self.clip)

    def attend(self, mixed: Tensor) -> Tensor:
        """Attention of normalized queries, keys and values, interleaved in `[B, 3 C, H, W]`."""
        batch, channels, height, width = mixed.shape
        split = mixed.reshape(batch, self.heads, channels // (3 * self.heads), 3, height * width)
        q, k, v = normalize(split, 2).permute(3, 0, 1, 4, 2).unbind(0)
        h = functional.scaled_dot_product_attention(q, k, v)
        return h.transpose(-1, -2).reshape(batch, channels // 3, height, width)


class MagnitudeUNet(nn.Module):
    """The raw network `F(x, c_noise, class_labels)` of EDM2, with weights named as in its files.

    Args:
        img_resolution, img_channels: side and channels of the images or latents.
        label_dim: length of class labels, 0 for none.
        config: fields of `MagnitudeConfig`.

    Raises:
        TypeError: an unknown field.

    Reference: "Analyzing and Improving the Training Dynamics of Diffusion Models" (Karras et al., 2024,
    https://arxiv.org/abs/2312.02696), figure 21 and appendix B.
    """

    def __init__(self, img_resolution: int, img_channels: int, label_dim: int, **config: Any) -> None:
        super().__init__()
        asked = gather("MagnitudeUNet", MagnitudeConfig, config)
        on_noise, on_all = asked.channel_mult_noise, asked.channel_mult_emb
        widths = [asked.model_channels * factor for factor in asked.channel_mult]
        noise = widths[0] if on_noise is None else asked.model_channels * on_noise
        embedding = max(widths) if on_all is None else asked.model_channels * on_all
        self.label_dim, self.label_balance, self.concat_balance = label_dim, asked.label_balance, asked.concat_balance
        num_blocks, attn_resolutions = asked.num_blocks, asked.attn_resolutions
        self.out_gain = nn.Parameter(torch.empty([], dtype=torch.float32))
        self.emb_fourier = MPFourier(noise)
        self.emb_noise = MPConv(noise, embedding)
        self.emb_label = MPConv(label_dim, embedding) if label_dim else None
        self.down = encoder(img_resolution, img_channels + 1, widths[0], widths, num_blocks, attn_resolutions)
        skips = [stage.out_channels for stage in self.down]
        self.up = decoder(img_resolution, skips, widths, num_blocks, attn_resolutions)
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        first, *rest = self.down
        self.enc[first.name] = MPConv(first.channels, first.out_channels, 3)
        for stage in rest:
            self.enc[stage.name] = MagnitudeBlock(stage, embedding, False, asked)
        for stage in self.up:
            self.dec[stage.name] = MagnitudeBlock(stage, embedding, True, asked)
        self.out_conv = MPConv(widths[0], img_channels, 3)

    def fold(self) -> None:
        """Puts normalizations and gains into the weights, and makes the filters."""
        gains: dict[str, Tensor] = {"out_conv": self.out_gain}
        blocks = [(name, module) for name, module in self.named_modules() if isinstance(module, MagnitudeBlock)]
        gains |= {f"{name}.emb_linear": block.emb_gain for name, block in blocks}
        for _, block in blocks:
            block.fold()
        for name, module in self.named_modules():
            if isinstance(module, MPConv):
                module.fold(gains.get(name, 1.0))

    def forward(self, x: Tensor, c_noise: Tensor, class_labels: Tensor | None = None) -> Tensor:
        embedding = self.emb_noise(self.emb_fourier(c_noise))
        if self.emb_label is not None and class_labels is not None:
            embedding = blend(embedding, self.emb_label(class_labels * math.sqrt(self.label_dim)), self.label_balance)
        embedding = silu(embedding)
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        skips = []
        for stage in self.down:
            x = self.enc[stage.name](x) if stage.part == "conv" else self.enc[stage.name](x, embedding)
            skips.append(x)
        for stage in self.up:
            x = join(x, skips.pop(), self.concat_balance) if stage.part == "block" else x
            x = self.dec[stage.name](x, embedding)
        return self.out_conv(x)
