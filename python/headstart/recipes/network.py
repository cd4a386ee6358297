"""What a recipe runs on: networks and latents of EDM's files, or small random ones for a trial of the whole path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import headstart as hs
from headstart.adapters import edm
from headstart.io import Dataset
from headstart.io.output import to_bytes
from headstart.recipes.protocol import Flow, Protocol
from headstart.zoo.network import UNet

CLASSES = 10


@dataclass(frozen=True)
class Bench:
    """A denoiser, the data in its units, and how its samples look: uint8 `[N, H, W, C]`."""

    denoiser: Any
    data: Dataset
    decode: Callable[[Tensor], np.ndarray]
    decoded: bool = True


def guided(protocol: Protocol, denoiser: Any, guide: Any) -> Any:
    """The network alone, or with the protocol's autoguidance where a guide is given."""
    if guide is None or protocol.guidance is None:
        return denoiser
    return hs.guided(denoiser, protocol.guidance, guide)


def real_bench(
    protocol: Protocol, checkpoint: Path, guide: Path | None, vae: Path | None, data: Dataset, device: torch.device
) -> Bench:
    """Networks from files, and data as the network takes them.

    Raises:
        ValueError, OSError: as the adapter, or data of another shape than the network's.
    """
    network = edm.load(checkpoint, device=device)
    denoiser = guided(protocol, network, None if guide is None else edm.load(guide, device=device))
    images = data.images.to(device)
    if protocol.latents:
        images = edm.Moments().final(images)
    if tuple(images.shape[1:]) != tuple(network.shape):
        wanted, got = tuple(network.shape), tuple(images.shape[1:])
        raise ValueError(f"recipe: {checkpoint} takes samples of shape {wanted}, the data have {got}")
    labels = None if data.labels is None or network.classes is None else data.labels.to(device)
    dataset = Dataset(images, labels, data.classes)
    if not protocol.latents:
        return Bench(denoiser, dataset, to_bytes)
    if vae is None:
        return Bench(denoiser, dataset, channels, decoded=False)
    decoder = edm.VAE(vae, device=device)
    return Bench(denoiser, dataset, lambda x: decoder.decode(x).permute(0, 2, 3, 1).cpu().numpy())


def trial(protocol: Protocol) -> Protocol:
    """The same rows in fewer steps."""
    flow = Flow(patch=7, channels=16, layers=1, epochs=2, guidance=(0.5, 1.0))
    return replace(protocol, classic_steps=4, short_steps=3, nfe=(3,), planned=(3,), flow=flow)


def trial_bench(protocol: Protocol, device: torch.device) -> Bench:
    """A small random network and shipped images, folded to four channels where the protocol is of latents."""
    images, labels = hs.zoo.images("fashion")
    if protocol.latents:
        images = nn.functional.pixel_unshuffle(images, 2)
    networks = [random_network(images.shape[1], seed).to(device) for seed in (0, 1)]
    main, guide = (hs.EDM(network) for network in networks)
    data = Dataset(images[:600].to(device), labels[:600].to(device) if protocol.latents else None)
    denoiser = guided(protocol, main, guide if protocol.latents else None)
    return Bench(denoiser, data, channels if protocol.latents else to_bytes, decoded=not protocol.latents)


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
