"""What a recipe runs on: networks and latents of EDM's files, or small random ones for a trial of the whole path.

Feature maps of pictures for samples that are latents, and real pictures to compare them with, are here too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart import zoo
from headstart.adapters import edm
from headstart.compare.recipe import FlowProtocol, Protocol
from headstart.denoiser import EDM
from headstart.guidance import guided
from headstart.io import Dataset, stream
from headstart.io.output import to_bytes
from headstart.io.progress import track
from headstart.zoo.network import UNet

CLASSES = 10


@dataclass(frozen=True)
class Subject:
    """A denoiser, the data in its units, and how its samples look: uint8 `[N, H, W, C]`."""

    denoiser: Any
    data: Dataset
    decode: Callable[[Tensor], np.ndarray]
    decoded: bool = True


def with_guide(protocol: Protocol, denoiser: Any, guide: Any) -> Any:
    """The network alone, or with the protocol's autoguidance where a guide is given."""
    if guide is None or protocol.guidance is None:
        return denoiser
    return guided(denoiser, protocol.guidance, guide)


def real_subject(
    protocol: Protocol, checkpoint: Path, guide: Path | None, vae: Path | None, data: Dataset, device: torch.device
) -> Subject:
    """Networks from files, and data as the network takes them.

    Raises:
        ValueError, OSError: as the adapter, or data of another shape than the network's.
    """
    network = edm.load(checkpoint, device=device)
    denoiser = with_guide(protocol, network, None if guide is None else edm.load(guide, device=device))
    images = data.images.to(device)
    if protocol.latents:
        images = edm.Moments().final(images)
    if tuple(images.shape[1:]) != tuple(network.shape):
        wanted, got = tuple(network.shape), tuple(images.shape[1:])
        raise ValueError(f"recipe: {checkpoint} takes samples of shape {wanted}, the data have {got}")
    labels = None if data.labels is None or network.classes is None else data.labels.to(device)
    dataset = Dataset(images, labels, data.classes)
    if not protocol.latents:
        return Subject(denoiser, dataset, to_bytes)
    if vae is None:
        return Subject(denoiser, dataset, channels, decoded=False)
    decoder = edm.VAE(vae, device=device)
    return Subject(denoiser, dataset, lambda x: decoder.decode(x).permute(0, 2, 3, 1).cpu().numpy())


def trial(protocol: Protocol) -> Protocol:
    """The same rows in fewer steps."""
    flow = FlowProtocol(patch=7, channels=16, layers=1, epochs=2, guidance=(0.5, 1.0))
    return replace(protocol, classic_steps=4, short_steps=3, nfe=(3,), planned=(3,), flow=flow)


def trial_subject(protocol: Protocol, device: torch.device) -> Subject:
    """A small random network and shipped images, folded to four channels where the protocol is of latents."""
    images, labels = zoo.images("fashion")
    if protocol.latents:
        images = nn.functional.pixel_unshuffle(images, 2)
    networks = [random_network(images.shape[1], seed).to(device) for seed in (0, 1)]
    main, guide = (EDM(network) for network in networks)
    data = Dataset(images[:600].to(device), labels[:600].to(device) if protocol.latents else None)
    denoiser = with_guide(protocol, main, guide if protocol.latents else None)
    return Subject(denoiser, data, channels if protocol.latents else to_bytes, decoded=not protocol.latents)


def random_network(count: int, seed: int) -> nn.Module:
    """The zoo's U-Net, small, with random weights everywhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UNet(count, (32,), depth=1, patch=2, classes=CLASSES)
        for weight in network.parameters():
            if not weight.any():
                nn.init.normal_(weight, std=0.02)
    return network.eval().requires_grad_(False)


def channels(x: Tensor) -> np.ndarray:
    """Channels of latents side by side, as grey pictures."""
    return to_bytes(torch.cat(list(x.split(1, dim=1)), dim=3))


@dataclass(frozen=True)
class OnPictures:
    """A feature map of samples: that of their pictures.

    Attributes:
        function: of images `[N, C, H, W]` in [-1, 1].
        decode: pictures uint8 `[N, H, W, C]` of samples.
    """

    function: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], np.ndarray]

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(torch.from_numpy(self.decode(x)).permute(0, 3, 1, 2).to(x.device).float() / 127.5 - 1)


def features_of(
    source: str, classes: Collection[int] | None, maps: Mapping[str, OnPictures], batch: int, device: torch.device,
    progress: bool,
) -> dict[str, Tensor]:  # fmt: skip
    """Features `[M, F]` of the images at `source`, read a batch at a time, under every map.

    Raises:
        DataError: as `stream`.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in maps}
    with track("features of the images, batches", 0, progress) as advance:
        for part in stream(source, batch, classes=classes):
            images = part.images.to(device)
            for name, one in maps.items():
                found[name].append(one.function(images))
            advance()
    return {name: torch.cat(rows) for name, rows in found.items()}
