"""Small networks of diffusers with fixed random weights, for comparisons with it and tests of what is made of them."""

from __future__ import annotations

from typing import Any

import diffusers
import torch

SHAPE = (3, 8, 8)


def made(kind: str, **options: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(diffusers, kind)(**options).eval().requires_grad_(False)


def unet(**options: Any) -> Any:
    """An unconditional U-Net, or of `num_class_embeds` classes."""
    return made(
        "UNet2DModel", sample_size=8, in_channels=3, out_channels=3, layers_per_block=1, norm_num_groups=4,
        block_out_channels=(8, 16), down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, **options,
    )  # fmt: skip


def text_unet(**options: Any) -> Any:
    """A U-Net with cross-attention to prompts `[B, L, 8]`."""
    return made(
        "UNet2DConditionModel", sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, norm_num_groups=4,
        block_out_channels=(8, 16), down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), cross_attention_dim=8,
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), attention_head_dim=4, **options,
    )  # fmt: skip


def dit(classes: int = 10) -> Any:
    """A DiT of 10 classes or another number and the null class, which also predicts a variance."""
    return made(
        "DiTTransformer2DModel", num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8,
        num_layers=2, sample_size=8, patch_size=2, num_embeds_ada_norm=classes, norm_num_groups=4,
    )  # fmt: skip


def transformer(**options: Any) -> Any:
    """A transformer of Stable Diffusion 3 with prompts `[B, L, 12]` and pooled ones `[B, 16]`."""
    return made(
        "SD3Transformer2DModel", sample_size=8, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=12, caption_projection_dim=16, pooled_projection_dim=16,
        out_channels=4, pos_embed_max_size=8, **options,
    )  # fmt: skip


def normals(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Unit normals, in half precision those of float32 rounded."""
    drawn = dtype if dtype == torch.float64 else torch.float32
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=drawn).to(dtype)


def shape_of(network: Any) -> tuple[int, int, int]:
    """Of one sample."""
    return (network.config.in_channels, network.config.sample_size, network.config.sample_size)
