"""Images and latents as EDM2 keeps them: normalization, the VAE on both sides, and its rounding to bytes.

Raw latents are the VAE's, final latents are what the network denoises: `final = (raw - mean) std_f / std + mean_f`.

Reference: "Analyzing and Improving the Training Dynamics of Diffusion Models" (Karras et al., 2024,
https://arxiv.org/abs/2312.02696), appendix A; the VAE is of "High-Resolution Image Synthesis with Latent Diffusion
Models" (Rombach et al., 2022, https://arxiv.org/abs/2112.10752).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart import ops
from headstart.argument import require_path
from headstart.ops.array import tensor_of
from headstart.sampling.edge import whole


def floats(op: str, x: Any) -> Tensor:
    """Images as float32, by the rules of `rgb_bytes`."""
    x = tensor_of(x)
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.layout is not torch.strided or x.is_meta:
        raise TypeError(f"{op}: x must be a tensor of floats, got {ops.check.describe(x)}")
    x = x.float()
    if bool(x.isnan().any()):
        raise ValueError(f"{op}: x must be without NaN, which has no byte, got {ops.check.describe(x)}")
    return x


def rgb_bytes(x: Tensor) -> Tensor:
    """uint8 of images in [-1, 1] as EDM and EDM2 write them: `trunc(127.5 x + 128)` in float32, clipped.

    Raises:
        TypeError: no tensor or array of floats.
        ValueError: NaN, which has no byte.
    """
    return (floats("rgb_bytes", x) * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def vae_bytes(x: Tensor) -> Tensor:
    """uint8 of the VAE's images in [0, 1] as EDM2 writes them: `trunc(255 x)` in float32, clipped.

    Raises:
        TypeError, ValueError: as `rgb_bytes`.
    """
    return (floats("vae_bytes", x).clamp(0, 1) * 255).to(torch.uint8)


@dataclass(frozen=True)
class LatentMoments:
    """The affine map between raw and final latents; the defaults are EDM2's for ImageNet.

    Args:
        raw_mean, raw_std: of raw latents, one a channel.
        mean, std: of final latents.

    Raises:
        ValueError: raw_mean and raw_std differ in length, or a standard deviation is not above 0.
    """

    raw_mean: tuple[float, ...] = (5.81, 3.25, 0.12, -2.15)
    raw_std: tuple[float, ...] = (4.17, 4.62, 3.71, 3.28)
    mean: float = 0.0
    std: float = 0.5

    def __post_init__(self) -> None:
        if len(self.raw_mean) != len(self.raw_std):
            raise ValueError(f"Moments: raw_std must have {len(self.raw_mean)} values, got {len(self.raw_std)}")
        if not min(*self.raw_std, self.std) > 0:
            raise ValueError(f"Moments: raw_std and std must be above 0, got {self.raw_std} and {self.std}")

    def factors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`scale` and `bias` of `final = scale raw + bias`, `[C, 1, 1]`.

        Raises:
            ValueError: `x` is not latents `[B, C, H, W]`.
        """
        channels = len(self.raw_std)
        if x.dim() != 4 or x.shape[1] != channels:
            raise ValueError(f"Moments: latents must be ['B', {channels}, 'H', 'W'], got {list(x.shape)}")
        scale = self.std / torch.tensor(self.raw_std, dtype=torch.float32, device=x.device)
        bias = self.mean - torch.tensor(self.raw_mean, dtype=torch.float32, device=x.device) * scale
        return scale[:, None, None], bias[:, None, None]

    def final(self, raw: Tensor) -> Tensor:
        """Final latents of raw ones `[B, C, H, W]`, float32."""
        scale, bias = self.factors(raw)
        return raw.float() * scale + bias

    def raw(self, final: Tensor) -> Tensor:
        """Raw latents of final ones `[B, C, H, W]`, float32."""
        scale, bias = self.factors(final)
        return (final.float() - bias) / scale

    def draw(self, posterior: Tensor, seed: int = 0, offset: int = 0) -> Tensor:
        """Final latents drawn from the VAE's posteriors, `[B, 2 C, H, W]` of means and standard deviations.

        EDM2's data sets hold such posteriors. The noise of posterior i has the address (seed, offset + i).

        Raises:
            ValueError: not posteriors of these latents.
        """
        channels = len(self.raw_std)
        if posterior.dim() != 4 or posterior.shape[1] != 2 * channels:
            raise ValueError(
                f"Moments: posteriors must be ['B', {2 * channels}, 'H', 'W'], got {list(posterior.shape)}"
            )
        mean, std = posterior.float().chunk(2, dim=1)
        z = ops.normal(mean.shape, seed, 0, offset, stream=ops.Stream.START, device=mean.device)
        return self.final(mean + std * z)


class VAE:
    """The image side of latents: diffusers' `AutoencoderKL` from a local folder; nothing is downloaded.

    Args:
        path: folder with `config.json` and the weights, such as a copy of `stabilityai/sd-vae-ft-mse`.
        device: where it runs.
        dtype: its weights and activations; EDM2's is float32.
        moments: between its latents and the network's.
        batch: images at a time.
        tiled: decode and encode in overlapping tiles, blended at their seams: less memory, slightly other pixels.

    Raises:
        ImportError: diffusers is missing.
        OSError: the folder holds no such model.
        ValueError: batch below 1.
        TypeError: a path that is none.
    """

    def __init__(
        self, path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32,
        moments: LatentMoments = LatentMoments(), batch: int = 8, tiled: bool = False,
    ) -> None:  # fmt: skip
        batch = whole("VAE", "batch", batch, 1)
        path = require_path("VAE", path)
        if not path.is_dir():
            raise NotADirectoryError(20, "is not a folder with a VAE", str(path))
        try:
            from diffusers import AutoencoderKL
        except ImportError as error:
            raise ImportError("VAE: diffusers is missing; pip install 'headstart[diffusers]'") from error
        net: Any = AutoencoderKL.from_pretrained(str(path), local_files_only=True, torch_dtype=dtype)
        self.net = net.eval().requires_grad_(False).to(device)
        self.moments, self.batch, self.dtype = moments, batch, dtype
        if tiled:
            self.net.enable_tiling()

    def decode(self, final: Tensor) -> Tensor:
        """Images uint8 `[N, 3, H, W]` of final latents `[N, C, h, w]`, with EDM2's rounding."""
        raw = self.moments.raw(final).to(self.net.device, self.dtype)
        with torch.no_grad():
            parts = [vae_bytes(self.net.decode(part).sample) for part in raw.split(self.batch)]
        return torch.cat(parts).to(final.device)

    def posterior(self, images: Tensor) -> Tensor:
        """Means and standard deviations `[N, 2 C, h, w]`, float32, of uint8 images `[N, 3, H, W]`, as EDM2 stores them.

        Raises:
            ValueError: the images are not uint8.
        """
        if images.dtype != torch.uint8:
            raise ValueError(f"VAE: images must be uint8, got {images.dtype}")
        scaled = (images.float() / 255).to(self.net.device, self.dtype)
        with torch.no_grad():
            laws = [self.net.encode(part).latent_dist for part in scaled.split(self.batch)]
        return torch.cat([torch.cat([law.mean, law.std], dim=1).float() for law in laws]).to(images.device)

    def encode(self, images: Tensor, seed: int = 0, offset: int = 0) -> Tensor:
        """Final latents `[N, C, h, w]` of uint8 images `[N, 3, H, W]`, drawn as `Moments.draw` does."""
        return self.moments.draw(self.posterior(images), seed, offset)
