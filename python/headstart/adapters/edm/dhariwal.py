"""ADM."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.adapters.edm.layer import Block, PositionalEmbedding, Style, group_norm
from headstart.adapters.edm.stage import decoder, encoder

STYLE = Style(1e-5, 1.0, (1, 1), project=False, adaptive=True, head=64)


class DhariwalUNet(nn.Module):
    """The raw network `F(x, c_noise, class_labels)` of ADM, with weights named as in EDM's files.

    Args:
        img_resolution, in_channels, out_channels: side and channels of the images.
        label_dim, augment_dim: length of class and augmentation labels, 0 for none.
        model_channels, channel_mult, num_blocks: width, factor of every level (finest first), blocks a level.
        channel_mult_emb: width of the embedding, in units of `model_channels`.
        attn_resolutions: where blocks attend, in heads of 64 channels.
        dropout, label_dropout: of training, without effect.

    Reference: "Diffusion Models Beat GANs on Image Synthesis" (Dhariwal, Nichol, 2021,
    https://arxiv.org/abs/2105.05233), section 3.
    """

    def __init__(
        self, img_resolution: int, in_channels: int, out_channels: int, label_dim: int = 0, augment_dim: int = 0,
        model_channels: int = 192, channel_mult: Sequence[int] = (1, 2, 3, 4), channel_mult_emb: int = 4,
        num_blocks: int = 3, attn_resolutions: Sequence[int] = (32, 16, 8), dropout: float = 0.1,
        label_dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        width = model_channels * channel_mult_emb
        self.map_noise = PositionalEmbedding(model_channels)
        self.map_augment = nn.Linear(augment_dim, model_channels, bias=False) if augment_dim else None
        self.map_layer0, self.map_layer1 = nn.Linear(model_channels, width), nn.Linear(width, width)
        self.map_label = nn.Linear(label_dim, width, bias=False) if label_dim else None
        widths = [model_channels * factor for factor in channel_mult]
        self.down = encoder(img_resolution, in_channels, widths[0], widths, num_blocks, attn_resolutions)
        skips = [stage.out_channels for stage in self.down]
        self.up = decoder(img_resolution, skips, widths, num_blocks, attn_resolutions)
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        first, *rest = self.down
        self.enc[first.name] = nn.Conv2d(first.channels, first.out_channels, 3, padding=1)
        for stage in rest:
            self.enc[stage.name] = Block(stage, width, STYLE, stage.attends)
        for stage in self.up:
            self.dec[stage.name] = Block(stage, width, STYLE, stage.attends)
        self.out_norm = group_norm(widths[0])
        self.out_conv = nn.Conv2d(widths[0], out_channels, 3, padding=1)

    def embed(self, c_noise: Tensor, class_labels: Tensor | None, augment_labels: Tensor | None) -> Tensor:
        """Embedding `[B, E]` (B = 1: the same for all) of noise level, class and augmentation."""
        h = self.map_noise(c_noise)
        if self.map_augment is not None and augment_labels is not None:
            h = h + self.map_augment(augment_labels)
        h = self.map_layer1(functional.silu(self.map_layer0(h)))
        if self.map_label is not None and class_labels is not None:
            h = h + self.map_label(class_labels)
        return functional.silu(h)

    def forward(
        self, x: Tensor, c_noise: Tensor, class_labels: Tensor | None = None, augment_labels: Tensor | None = None
    ) -> Tensor:
        embedding = self.embed(c_noise, class_labels, augment_labels)
        skips = []
        for stage in self.down:
            x = self.enc[stage.name](x) if stage.part == "conv" else self.enc[stage.name](x, embedding)
            skips.append(x)
        for stage in self.up:
            x = torch.cat([x, skips.pop()], dim=1) if stage.part == "block" else x
            x = self.dec[stage.name](x, embedding)
        return self.out_conv(functional.silu(self.out_norm(x)))
