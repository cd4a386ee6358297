"""Networks of the zoo: the U-Net that denoises and the classifier that judges.

A U-Net of residual blocks with group normalization, scale-shift conditioning on the noise level and the
class, and self-attention at the coarsest level; after "Denoising Diffusion Probabilistic Models" (Ho, Jain,
Abbeel, 2020, https://arxiv.org/abs/2006.11239) and "Elucidating the Design Space of Diffusion-Based
Generative Models" (Karras et al., 2022, https://arxiv.org/abs/2206.00364).

Three convolutions with group normalization, each followed by a halving of the resolution, a global mean and a linear
map; trained on Fashion-MNIST by `bench/zoo/train_classifier.py`.
"""

from __future__ import annotations

import math

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """Residual block `y = skip(x) + conv(silu(norm(conv(silu(norm(x)))) (1 + s) + b))`, `s, b` from the embedding."""

    def __init__(self, channels: int, out_channels: int, embedding: int) -> None:
        super().__init__()
        self.norm0 = nn.GroupNorm(8, channels)
        self.conv0 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.condition = nn.Linear(embedding, 2 * out_channels)
        self.norm1 = nn.GroupNorm(8, out_channels)
        self.conv1 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(channels, out_channels, 1) if channels != out_channels else nn.Identity()
        nn.init.zeros_(self.conv1.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv0(functional.silu(self.norm0(x)))
        scale, shift = self.condition(embedding)[:, :, None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, self.norm1(h), 1 + scale)
        return self.skip(x) + self.conv1(functional.silu(h))


class Attention(nn.Module):
    """Self-attention over the positions of a feature map `[B, C, H, W]`, with a residual connection."""

    def __init__(self, channels: int, head: int = 32) -> None:
        super().__init__()
        self.heads = channels // head
        self.norm = nn.GroupNorm(8, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, 3, self.heads, channels // self.heads, height * width)
        q, k, v = qkv.transpose(-1, -2).unbind(1)
        h = functional.scaled_dot_product_attention(q, k, v)
        return x + self.out(h.transpose(-1, -2).reshape(batch, channels, height, width))


class UNet(nn.Module):
    """Raw network `F(c_in x, c_noise, label)` for images whose side is divisible by `patch * 2^(levels - 1)`.

    Args:
        channels: image channels C.
        widths: feature channels per level, finest first; every level halves the resolution.
        depth: residual blocks per level, on the way down and on the way up.
        patch: side of the pixel blocks folded into channels before the first level.
        classes: number of classes; label `classes` is the null label of unconditional generation.
    """

    def __init__(
        self,
        channels: int = 1,
        widths: tuple[int, ...] = (64, 128),
        depth: int = 2,
        patch: int = 2,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.config = {
            "channels": channels,
            "widths": tuple(widths),
            "depth": depth,
            "patch": patch,
            "classes": classes,
        }
        embedding = 4 * widths[0]
        self.classes = classes
        self.patch = patch
        self.frequencies = embedding // 2
        self.noise = nn.Sequential(nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.label = nn.Embedding(classes + 1, embedding)
        self.stem = nn.Conv2d(channels * patch**2, widths[0], 3, padding=1)
        self.levels = [level for level in range(len(widths)) for _ in range(depth)]
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        skips = [widths[0]]
        for level in self.levels:
            self.down.append(Block(skips[-1], widths[level], embedding))
            skips.append(widths[level])
        current = widths[-1]
        self.attention = Attention(current)
        self.middle = Block(current, current, embedding)
        for level in reversed(self.levels):
            self.up.append(Block(current + skips.pop(), widths[level], embedding))
            current = widths[level]
        self.norm = nn.GroupNorm(8, current)
        self.head = nn.Conv2d(current, channels * patch**2, 3, padding=1)
        nn.init.zeros_(self.head.weight)

    def embed(self, c_noise: Tensor, label: Tensor | None, batch: int) -> Tensor:
        """Embedding `[B, 4 width]` of `c_noise` (scalar or `[B]`) and `label` `[B]` (None: the null label)."""
        steps = torch.arange(self.frequencies, device=c_noise.device, dtype=torch.float32)
        omega = 2 * math.pi * torch.exp2(steps * (6.0 / self.frequencies) - 2.0)
        phase = c_noise.float().reshape(-1, 1) * omega
        noise = torch.cat([phase.cos(), phase.sin()], dim=1).to(self.label.weight.dtype)
        if label is None:
            label = torch.full((batch,), self.classes, device=c_noise.device, dtype=torch.int64)
        return functional.silu(self.noise(noise) + self.label(label))

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        embedding = self.embed(c_noise, label, x.shape[0])
        h = self.stem(functional.pixel_unshuffle(x, self.patch))
        skips = [h]
        level = 0
        for block, at in zip(self.down, self.levels, strict=True):
            if at > level:
                h, level = functional.avg_pool2d(h, 2), at
            h = block(h, embedding)
            skips.append(h)
        h = self.middle(self.attention(h), embedding)
        for block, at in zip(self.up, reversed(self.levels), strict=True):
            if at < level:
                h, level = functional.interpolate(h, scale_factor=2, mode="nearest"), at
            h = block(torch.cat([h, skips.pop()], dim=1), embedding)
        return functional.pixel_shuffle(self.head(functional.silu(self.norm(h))), self.patch)


FORMAT = "headstart-zoo-classifier"
SIDE = 28  # of the images it was trained on


class Classifier(nn.Module):
    """Logits `[B, classes]` of images `[B, C, H, W]` in [-1, 1].

    Args:
        channels: image channels C.
        widths: feature channels of the three convolutions.
        classes: number of classes.
    """

    def __init__(self, channels: int = 1, widths: tuple[int, ...] = (32, 64, 96), classes: int = 10) -> None:
        super().__init__()
        self.config = {"channels": channels, "widths": list(widths), "classes": classes}
        layers: list[nn.Module] = []
        for before, after in zip((channels, *widths[:-1]), widths, strict=True):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(8, after), nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1] * 9, classes)
        self.pool = nn.AdaptiveAvgPool2d(3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.pool(self.body(images)).flatten(1))


def classifier(name: str = "fashion", device: str | torch.device = "cpu") -> Classifier:
    """The classifier trained on the images of the zoo's `name`.

    Raises:
        ValueError: an unknown name, or a file of another format.
        FileNotFoundError: the weights are not part of this installation.
    """
    from headstart.zoo import locate  # not at the top: that file imports this one

    path = locate(name, "-classifier.safetensors")
    with safe_open(path, framework="pt") as file:
        header = file.metadata() or {}
        if header.get("format") != FORMAT:
            raise ValueError(f"zoo: {path.name} must have format {FORMAT}, got {header.get('format')!r}")
        weights = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):  # its first weights are drawn, and replaced
        network = Classifier().float()
    network.load_state_dict(weights)
    return network.to(device).eval().requires_grad_(False)
