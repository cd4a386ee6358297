"""The raw networks of EDM: DDPM++, NCSN++ and ADM."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.adapters.edm.layer import (
    FourierEmbedding,
    PositionalEmbedding,
    ResampledConv,
    ResidualBlock,
    Stage,
    Style,
    decoder,
    encoder,
    group_norm,
)
from headstart.io.keyword import gather

EPS = 1e-6


@dataclass(frozen=True)
class SongConfig:
    """Architecture of a `SongUNet`.

    Attributes:
        augment_dim: length of augmentation labels, 0 for none.
        model_channels, channel_mult, num_blocks: width, factor of every level (finest first), blocks a level.
        channel_mult_emb, channel_mult_noise: widths of the two embeddings, in units of `model_channels`.
        attn_resolutions: where blocks attend.
        embedding_type: "positional" (DDPM++) or "fourier" (NCSN++).
        encoder_type: how the downsampled image enters every level: "standard" (not), "skip" or "residual".
        decoder_type: "standard", or "skip": every level adds to an image that is upsampled.
        resample_filter: [1, 1] (DDPM++) or [1, 3, 3, 1] (NCSN++).
        dropout, label_dropout: of training, without effect.
    """

    augment_dim: int = 0
    model_channels: int = 128
    channel_mult: Sequence[int] = (1, 2, 2, 2)
    channel_mult_emb: int = 4
    num_blocks: int = 4
    attn_resolutions: Sequence[int] = (16,)
    dropout: float = 0.1
    label_dropout: float = 0.0
    embedding_type: str = "positional"
    channel_mult_noise: int = 1
    encoder_type: str = "standard"
    decoder_type: str = "standard"
    resample_filter: Sequence[float] = (1, 1)


class SongUNet(nn.Module):
    """The raw network `F(x, c_noise, class_labels)` of DDPM++ and NCSN++, with weights named as in EDM's files.

    Args:
        img_resolution, in_channels, out_channels: side and channels of the images.
        label_dim: length of class labels, 0 for none.
        config: fields of `SongConfig`.

    Raises:
        ValueError: an unknown type.
        TypeError: an unknown field.

    Reference: "Score-Based Generative Modeling through Stochastic Differential Equations" (Song et al., 2021,
    https://arxiv.org/abs/2011.13456), appendix H.
    """

    def __init__(
        self, img_resolution: int, in_channels: int, out_channels: int, label_dim: int = 0, **config: Any
    ) -> None:
        super().__init__()
        asked = gather("SongUNet", SongConfig, config)
        for name, known in (
            ("embedding_type", ("positional", "fourier")),
            ("encoder_type", ("standard", "skip", "residual")),
            ("decoder_type", ("standard", "skip")),
        ):
            if getattr(asked, name) not in known:
                raise ValueError(f"SongUNet: {name} must be one of {', '.join(known)}, got {getattr(asked, name)!r}")
        self.encoder_type, self.decoder_type, self.label_dim = asked.encoder_type, asked.decoder_type, label_dim
        model_channels, num_blocks, attn_resolutions = asked.model_channels, asked.num_blocks, asked.attn_resolutions
        noise, self.width = model_channels * asked.channel_mult_noise, model_channels * asked.channel_mult_emb
        self.style = Style(EPS, math.sqrt(0.5), asked.resample_filter, project=True, adaptive=False, head=None)
        positional = asked.embedding_type == "positional"
        self.map_noise = PositionalEmbedding(noise, True) if positional else FourierEmbedding(noise)
        self.map_label = nn.Linear(label_dim, noise) if label_dim else None
        self.map_augment = nn.Linear(asked.augment_dim, noise, bias=False) if asked.augment_dim else None
        self.map_layer0, self.map_layer1 = nn.Linear(noise, self.width), nn.Linear(self.width, self.width)
        widths = [model_channels * factor for factor in asked.channel_mult]
        self.down = encoder(img_resolution, in_channels, model_channels, widths, num_blocks, attn_resolutions)
        skips = [stage.out_channels for stage in self.down]
        self.up = decoder(img_resolution, skips, widths, num_blocks, attn_resolutions)
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        aux = in_channels
        for stage in self.down:
            aux = self.add_encoder(stage, aux)
        for stage in self.up:
            self.add_decoder(stage, out_channels)

    def add_encoder(self, stage: Stage, aux: int) -> int:
        """Makes a stage's modules; takes and returns the channels of the downsampled image."""
        taps = self.style.taps
        if stage.part == "conv":
            self.enc[stage.name] = nn.Conv2d(stage.channels, stage.out_channels, 3, padding=1)
            return aux
        self.enc[stage.name] = ResidualBlock(stage, self.width, self.style, stage.attends)
        side = stage.name.partition("_")[0]
        if stage.part == "down" and self.encoder_type == "skip":
            self.enc[f"{side}_aux_down"] = ResampledConv(aux, aux, 0, False, taps)
            self.enc[f"{side}_aux_skip"] = nn.Conv2d(aux, stage.out_channels, 1)
        if stage.part == "down" and self.encoder_type == "residual":
            self.enc[f"{side}_aux_residual"] = ResampledConv(aux, stage.out_channels, 3, False, taps, filter_last=True)
            return stage.out_channels
        return aux

    def add_decoder(self, stage: Stage, out_channels: int) -> None:
        """Makes a stage's modules; of a level's blocks only the last attends, and after it the image is read out."""
        attends = stage.attends and (stage.last or stage.part == "in")
        self.dec[stage.name] = ResidualBlock(stage, self.width, self.style, attends)
        if stage.last and (self.decoder_type == "skip" or stage.level == 0):
            side = stage.name.partition("_")[0]
            if self.decoder_type == "skip" and stage.level < self.up[0].level:
                self.dec[f"{side}_aux_up"] = ResampledConv(out_channels, out_channels, 0, True, self.style.taps)
            self.dec[f"{side}_aux_norm"] = group_norm(stage.out_channels, EPS)
            self.dec[f"{side}_aux_conv"] = nn.Conv2d(stage.out_channels, out_channels, 3, padding=1)

    def embed(self, c_noise: Tensor, class_labels: Tensor | None, augment_labels: Tensor | None) -> Tensor:
        """Embedding `[B, E]` (B = 1: the same for all) of noise level, class and augmentation."""
        cosine, sine = self.map_noise(c_noise).chunk(2, dim=1)
        h = torch.cat([sine, cosine], dim=1)
        if self.map_label is not None and class_labels is not None:
            h = h + self.map_label(class_labels * math.sqrt(self.label_dim))
        if self.map_augment is not None and augment_labels is not None:
            h = h + self.map_augment(augment_labels)
        return functional.silu(self.map_layer1(functional.silu(self.map_layer0(h))))

    def forward(
        self, x: Tensor, c_noise: Tensor, class_labels: Tensor | None = None, augment_labels: Tensor | None = None
    ) -> Tensor:
        embedding = self.embed(c_noise, class_labels, augment_labels)
        skips, aux = [], x
        for stage in self.down:
            x = self.enc[stage.name](x) if stage.part == "conv" else self.enc[stage.name](x, embedding)
            side = stage.name.partition("_")[0]
            if stage.part == "down" and self.encoder_type == "skip":
                aux = self.enc[f"{side}_aux_down"](aux)
                x = x + self.enc[f"{side}_aux_skip"](aux)
            elif stage.part == "down" and self.encoder_type == "residual":
                x = aux = (x + self.enc[f"{side}_aux_residual"](aux)) * math.sqrt(0.5)
            skips.append(x)
        image: Tensor | None = None
        for stage in self.up:
            x = torch.cat([x, skips.pop()], dim=1) if stage.part == "block" else x
            x = self.dec[stage.name](x, embedding)
            side = stage.name.partition("_")[0]
            if f"{side}_aux_conv" in self.dec and stage.last:
                read = self.dec[f"{side}_aux_conv"](functional.silu(self.dec[f"{side}_aux_norm"](x)))
                image = read if image is None else self.dec[f"{side}_aux_up"](image) + read
        assert image is not None  # level 0 is always read out
        return image


STYLE = Style(1e-5, 1.0, (1, 1), project=False, adaptive=True, head=64)


@dataclass(frozen=True)
class AttentionConfig:
    """Architecture of a `DhariwalUNet`.

    Attributes:
        augment_dim: length of augmentation labels, 0 for none.
        model_channels, channel_mult, num_blocks: width, factor of every level (finest first), blocks a level.
        channel_mult_emb: width of the embedding, in units of `model_channels`.
        attn_resolutions: where blocks attend, in heads of 64 channels.
        dropout, label_dropout: of training, without effect.
    """

    augment_dim: int = 0
    model_channels: int = 192
    channel_mult: Sequence[int] = (1, 2, 3, 4)
    channel_mult_emb: int = 4
    num_blocks: int = 3
    attn_resolutions: Sequence[int] = (32, 16, 8)
    dropout: float = 0.1
    label_dropout: float = 0.0


class DhariwalUNet(nn.Module):
    """The raw network `F(x, c_noise, class_labels)` of ADM, with weights named as in EDM's files.

    Args:
        img_resolution, in_channels, out_channels: side and channels of the images.
        label_dim: length of class labels, 0 for none.
        config: fields of `AttentionConfig`.

    Raises:
        TypeError: an unknown field.

    Reference: "Diffusion Models Beat GANs on Image Synthesis" (Dhariwal, Nichol, 2021,
    https://arxiv.org/abs/2105.05233), section 3.
    """

    def __init__(
        self, img_resolution: int, in_channels: int, out_channels: int, label_dim: int = 0, **config: Any
    ) -> None:
        super().__init__()
        asked = gather("DhariwalUNet", AttentionConfig, config)
        model_channels, num_blocks, attn_resolutions = asked.model_channels, asked.num_blocks, asked.attn_resolutions
        width = model_channels * asked.channel_mult_emb
        self.map_noise = PositionalEmbedding(model_channels)
        self.map_augment = nn.Linear(asked.augment_dim, model_channels, bias=False) if asked.augment_dim else None
        self.map_layer0, self.map_layer1 = nn.Linear(model_channels, width), nn.Linear(width, width)
        self.map_label = nn.Linear(label_dim, width, bias=False) if label_dim else None
        widths = [model_channels * factor for factor in asked.channel_mult]
        self.down = encoder(img_resolution, in_channels, widths[0], widths, num_blocks, attn_resolutions)
        skips = [stage.out_channels for stage in self.down]
        self.up = decoder(img_resolution, skips, widths, num_blocks, attn_resolutions)
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        first, *rest = self.down
        self.enc[first.name] = nn.Conv2d(first.channels, first.out_channels, 3, padding=1)
        for stage in rest:
            self.enc[stage.name] = ResidualBlock(stage, width, STYLE, stage.attends)
        for stage in self.up:
            self.dec[stage.name] = ResidualBlock(stage, width, STYLE, stage.attends)
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
